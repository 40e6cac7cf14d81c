//! What is kept of a cancelled stream: the app's connection, where its port finds out what it carries.

use std::net::SocketAddr;

use http::{Method, StatusCode, Version};
use outrider::clock::Clock;
use tokio::net::TcpStream;
use tokio_rustls::client;

use super::{Frame, UNDECIDED, expect, send};
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
    async fn start(app: &HttpApp) -> Self {
        let (mesh, net, app) = (TestMesh::new(), ToldNet::default(), app.address());
        let yaml = format!("intercept: {{inbound: {{ports: [{{port: {}, protocol: detect}}]}}}}", app.port());
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

#[tokio::test]
async fn the_apps_connection_of_a_cancelled_stream_serves_the_next_request() {
    let app = HttpApp::named("orders").await;
    let orders = Orders::start(&app).await;
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
