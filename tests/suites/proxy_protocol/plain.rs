//! What a header says is trusted in nothing: exceptions from mutual TLS hold for no address that only a proxy has said.

use http::{StatusCode, Version};
use outrider::model::{listener::Exception, proxy_protocol::Version as Header, runtime::Refusal};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{Kind, ToldApp, VERSIONS, is_closed, link, refused, speaks_for};
use crate::harness::{Client, HttpApp, Sidecar, TcpApp, TestMesh, client::exchange_over, told::ToldNet};

const LISTENER: &str = "intercept-inbound";
const PERMISSIVE: &str =
    "plaintext: permissive, plaintext_until: 2999-01-01, proxy_protocol: {from: [127.0.0.1]}";

/// A pod with a port that lets anybody in.
struct Pod {
    net: ToldNet,
    orders: Sidecar,
    app: std::net::SocketAddr,
    _mesh: TestMesh,
}

impl Pod {
    async fn new(app: std::net::SocketAddr, keys: &str, top: &str) -> Self {
        let (mesh, net) = (TestMesh::new(), ToldNet::default());
        let yaml = format!(
            "{top}\nintercept: {{inbound: {{ports: [{{port: {}, {PERMISSIVE}, {keys}}}]}}}}",
            app.port()
        );
        let orders = mesh.start_in(net.clone(), outrider::clock::Clock::system(), "orders", &yaml).await;
        Self { net, orders, app, _mesh: mesh }
    }

    /// A connection to the app, through a proxy that speaks for that client.
    async fn dial(&self, client: &str, version: Header) -> TcpStream {
        let mut stream = self.net.dial(self.orders.address_of(LISTENER), self.app).await.unwrap();
        stream.write_all(&speaks_for(version, client)).await.unwrap();
        stream
    }

    async fn client(&self, client: &str) -> Client {
        Client::over(self.dial(client, Header::V1).await, Version::HTTP_11).await
    }

    fn came_by(&self, exception: Exception) -> u64 {
        let counts = self.orders.listener(LISTENER);
        counts.exceptions[exception as usize].connections.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_client_in_plaintext_is_told_of_by_the_address_that_the_proxy_says() {
    let app = HttpApp::named("orders").await;
    let pod = Pod::new(app.address(), "", "").await;
    assert_eq!(pod.client("203.0.113.9:1").await.get("/").await.unwrap().status(), StatusCode::OK);
    assert_eq!(app.only().header("x-forwarded-for"), Some("203.0.113.9"));
    assert_eq!(app.only().header("x-forwarded-client-cert"), None);
    assert_eq!(pod.came_by(Exception::Plaintext), 1);
}

#[tokio::test]
async fn an_exception_for_some_addresses_holds_for_proxy_and_client_both() {
    let app = HttpApp::named("orders").await;
    for (from, is_in) in [
        // The proxy is listed and its client is not, and the other way round.
        ("127.0.0.1", false),
        ("203.0.113.0/24", false),
        ("127.0.0.1, 203.0.113.0/24", true),
    ] {
        let pod = Pod::new(app.address(), &format!("plaintext_from: [{from}]"), "").await;
        let stream = pod.dial("203.0.113.9:1", Header::V2).await;
        let answer =
            exchange_over(stream, b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n").await;
        assert_eq!(answer.starts_with(b"HTTP/1.1 200 "), is_in, "{from}: {}", answer.escape_ascii());
        if !is_in {
            refused(&pod.orders, LISTENER, 1, Refusal::Plaintext).await;
        }
    }
    assert_eq!(app.count(), 1);
}

#[tokio::test]
async fn bounds_of_an_address_are_the_clients() {
    let app = TcpApp::echo().await;
    let pod = Pod::new(app.address(), "protocol: tcp", "limits: {max_connections_per_peer: 1}").await;
    let talk = async |stream: &mut TcpStream| {
        use tokio::io::AsyncReadExt as _;
        // No request begins so: nothing more is waited for.
        stream.write_all(b"\0").await.unwrap();
        crate::harness::soon("the echo", stream.read_u8()).await
    };
    let mut first = pod.dial("203.0.113.9:1", Header::V1).await;
    talk(&mut first).await.unwrap();
    let mut other = pod.dial("203.0.113.10:1", Header::V1).await;
    talk(&mut other).await.unwrap();
    is_closed(pod.dial("203.0.113.9:2", Header::V1).await).await;
    talk(&mut first).await.unwrap();
}

#[tokio::test]
async fn what_a_proxy_said_is_said_on_and_nobody_is_named_who_proved_nothing() {
    let app = ToldApp::start(Kind::Bytes).await;
    for (asked, version) in [("v1", Header::V1), ("v2", Header::V2)] {
        let before = app.heard().len();
        let pod = Pod::new(app.address, &format!("protocol: tcp, app_proxy_protocol: {asked}"), "").await;
        for said in VERSIONS {
            let stream = pod.dial("203.0.113.9:4711", said).await;
            // Whoever says so itself says it to the app, as bytes.
            let forged = speaks_for(Header::V2, "192.0.2.1:1");
            let (mut read, mut write) = stream.into_split();
            write.write_all(&forged).await.unwrap();
            let mut echo = vec![0; forged.len()];
            use tokio::io::AsyncReadExt as _;
            crate::harness::soon("the echo", read.read_exact(&mut echo)).await.unwrap();
            assert_eq!(echo, forged);
        }
        for heard in &app.heard()[before..] {
            assert_eq!((heard.link, heard.is_v1), (link("203.0.113.9:4711"), version == Header::V1));
            assert_eq!(heard.tlvs, []);
        }
    }
    assert_eq!(app.heard().len(), 4);
}
