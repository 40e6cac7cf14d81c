//! Opaque streams to ports that have rules for HTTP, or find out what they carry.

use std::net::SocketAddr;

use http::{Method, StatusCode, Version};
use outrider::clock::Clock;
use tokio::net::TcpStream;
use tokio_rustls::client;

use super::{Frame, OPAQUE, UNDECIDED, expect, next, send};
use crate::harness::{
    Client, HttpApp, Sidecar, TestMesh, body,
    client::request,
    eventually,
    peer::{self, ALPN_H2, ALPN_TCP},
    told::ToldNet,
};

/// The sidecar of `orders`, to which the connections of others are brought.
struct Orders {
    mesh: TestMesh,
    net: ToldNet,
    sidecar: Sidecar,
    app: SocketAddr,
}

impl Orders {
    async fn start(app: &HttpApp, protocol: &str) -> Self {
        let (mesh, net, app) = (TestMesh::new(), ToldNet::default(), app.address());
        let yaml =
            format!("intercept: {{inbound: {{ports: [{{port: {}, protocol: {protocol}}}]}}}}", app.port());
        let sidecar = mesh.start_in(net.clone(), Clock::system(), "orders", &yaml).await;
        Self { mesh, net, sidecar, app }
    }

    /// A connection of `web`'s sidecar, played by the test.
    async fn dial(&self, alpn: &[u8]) -> client::TlsStream<TcpStream> {
        let address = self.sidecar.address_of("intercept-inbound");
        let stream = self.net.dial(address, self.app).await.unwrap();
        let config = peer::client_config(&self.mesh.ca, Some(&self.mesh.ca.leaf("web")), &[alpn]);
        peer::secure(stream, config).await.unwrap()
    }
}

/// The answer on the stream that is under way, and its end.
async fn answer(stream: &mut client::TlsStream<TcpStream>) -> String {
    let mut all = Vec::new();
    loop {
        match next(stream).await {
            Some(Frame::Data(bytes)) => all.extend_from_slice(&bytes),
            Some(Frame::Fin) => return String::from_utf8(all).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn http_in_opaque_streams_is_served_as_the_apps_own_word_and_not_its_sidecars() {
    let app = HttpApp::named("orders").await;
    let orders = Orders::start(&app, "http").await;
    let mut web = orders.dial(ALPN_TCP).await;
    for (turn, kind) in [OPAQUE, UNDECIDED, OPAQUE].into_iter().enumerate() {
        let request = "GET / HTTP/1.1\r\nhost: orders\r\nx-outrider-attempt: 7\r\n\
                       x-outrider-app-version: 2\r\nconnection: close\r\n\r\n";
        send(&mut web, &[Frame::open(kind)]).await;
        expect(&mut web, &[Frame::Accepted]).await;
        assert_eq!(app.connections(), usize::from(turn > 0), "nobody is connected to before a request");
        send(&mut web, &[Frame::data(&request.as_bytes()[..20]), Frame::data(&request.as_bytes()[20..])])
            .await;
        let answer = answer(&mut web).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("orders"), "{answer}");
        // The caller's end; and the connection goes on.
        send(&mut web, &[Frame::Fin]).await;
    }
    for seen in app.seen() {
        assert_eq!((seen.version, seen.header("x-outrider-attempt")), (Version::HTTP_11, None));
        assert_eq!(seen.header("x-forwarded-client-cert").map(|value| value.contains("/web")), Some(true));
    }
}

#[tokio::test]
async fn a_port_for_http_takes_part_in_what_is_not_decided() {
    let app = HttpApp::named("orders").await;
    let orders = Orders::start(&app, "http").await;
    let mut web = orders.dial(ALPN_TCP).await;
    for _ in 0..3 {
        send(&mut web, &[Frame::open(UNDECIDED)]).await;
        expect(&mut web, &[Frame::Accepted]).await;
        send(&mut web, &[Frame::Cancel]).await;
        expect(&mut web, &[Frame::Fin]).await;
    }
    send(&mut web, &[Frame::open(OPAQUE), Frame::Fin]).await;
    expect(&mut web, &[Frame::Accepted, Frame::Fin]).await;
    send(&mut web, &[Frame::open(OPAQUE), Frame::Cancel]).await;
    expect(&mut web, &[Frame::Accepted]).await;
    assert_eq!(next(&mut web).await, None, "only what is undecided can be cancelled");
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn the_apps_connection_of_a_cancelled_stream_serves_the_next_request() {
    let app = HttpApp::named("orders").await;
    let orders = Orders::start(&app, "detect").await;
    let mut web = orders.dial(ALPN_TCP).await;
    send(&mut web, &[Frame::open(UNDECIDED)]).await;
    expect(&mut web, &[Frame::Accepted]).await;
    eventually("the app is connected to", || app.connections() == 1).await;
    send(&mut web, &[Frame::Cancel]).await;
    expect(&mut web, &[Frame::Fin]).await;
    let mut client = Client::over(orders.dial(ALPN_H2).await, Version::HTTP_2).await;
    let mut get = request(Method::GET, "/", body::full(""));
    get.headers_mut().insert("x-outrider-app-version", "1.1".parse().unwrap());
    assert_eq!(client.send(get).await.unwrap().status(), StatusCode::OK);
    assert_eq!((app.count(), app.connections()), (1, 1));
}
