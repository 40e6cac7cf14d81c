//! CONNECT: an app that takes the sidecar for its proxy gets streams through it, whatever they carry.

mod ends;
mod refusals;
mod tls;

use std::{net::SocketAddr, sync::atomic::Ordering};

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::upgrades::{Side, Told, call_http1, call_http2};
use crate::harness::{
    Sidecar, TcpApp, TestCa, TestMesh,
    app::nobody,
    body, eventually,
    peer::{TlsPeer, server_config},
    soon,
};

/// What the own app may ask with.
const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// Asks for a tunnel to that destination.
async fn ask(address: SocketAddr, version: Version, destination: &str) -> (Told, Side) {
    if version == Version::HTTP_2 {
        call_http2(address, Request::connect(destination).version(version)).await
    } else {
        call_http1(address, &format!("CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n\r\n")).await
    }
}

/// Asks for a tunnel to `orders` and gets it.
async fn open(web: &Sidecar, version: Version) -> Side {
    let (told, side) = ask(web.address(), version, "orders:5432").await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    side
}

/// `web` → sidecar → sidecar → `orders`, for bytes, with a listener that takes requests.
struct Line {
    mesh: TestMesh,
    app: TcpApp,
    orders: Sidecar,
    web: Sidecar,
}

impl Line {
    async fn to(app: TcpApp) -> Self {
        Self::with(app, "").await
    }

    /// With further keys of the cluster.
    async fn with(app: TcpApp, cluster: &str) -> Self {
        let mesh = TestMesh::new();
        let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
        let web = mesh.caller(&[orders.address()], cluster).await;
        Self { mesh, app, orders, web }
    }

    /// Tunnels under way, and requests that hold a place under the cap.
    fn under_way(&self) -> (u32, u32) {
        let cluster = self.web.cluster("orders");
        let active = cluster.runtime.upgrades.active.load(Ordering::Relaxed);
        (active, cluster.runtime.in_flight.load(Ordering::Relaxed))
    }
}

#[tokio::test]
async fn bytes_come_back_through_a_tunnel_and_are_counted() {
    for version in VERSIONS {
        let line = Line::to(TcpApp::echo().await).await;
        let (told, mut side) = ask(line.web.address(), version, "orders:5432").await;
        assert_eq!(told.status, StatusCode::OK);
        // RFC 9110 §9.3.6: "A server MUST NOT send any Transfer-Encoding or Content-Length header fields in a 2xx
        // (Successful) response to CONNECT."
        for name in ["content-length", "transfer-encoding", "connection"] {
            assert_eq!(told.header(name), None, "{version:?}");
        }
        for i in 0..100 {
            side.says_back(format!("message {i}").as_bytes()).await;
        }
        side.says_back(&body::pattern(50_000)).await;
        assert_eq!(line.under_way(), (1, 1));
        side.finish().await;
        assert_eq!(soon("the end", side.read_to_end()).await.unwrap(), b"");
        eventually("nothing is left of it", || line.under_way() == (0, 0)).await;
        let cluster = line.web.cluster("orders");
        let counts = &cluster.runtime.upgrades;
        assert_eq!(counts.total.load(Ordering::Relaxed), 1);
        let bytes = [&counts.sent_bytes, &counts.received_bytes].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(bytes, [50_990, 50_990]);
        assert_eq!(line.app.connections(), 1);
    }
}

#[tokio::test]
async fn bytes_right_behind_the_head_are_the_tunnels() {
    let line = Line::to(TcpApp::echo().await).await;
    // What looks like a request is none.
    let behind = b"GET /inside HTTP/1.1\r\nHost: orders\r\n\r\n";
    for head in ["CONNECT orders:80 HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT orders:80 HTTP/1.0\r\n\r\n"] {
        let request = [head.as_bytes(), behind].concat();
        let (told, mut side) = call_http1(line.web.address(), std::str::from_utf8(&request).unwrap()).await;
        assert_eq!(told.status, StatusCode::OK);
        assert_eq!(soon("the echo", side.read_exact(behind.len())).await.unwrap(), behind);
        side.says_back(b"and more").await;
        side.finish().await;
        assert_eq!(soon("the end", side.read_to_end()).await.unwrap(), b"");
    }

    let stream = TcpStream::connect(line.web.address()).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let request = Request::connect("orders:80").version(Version::HTTP_2).body(()).unwrap();
    let (response, mut send) = sender.send_request(request, false).unwrap();
    // Before there is an answer.
    send.send_data(Bytes::from_static(behind), true).unwrap();
    let (head, receive) = soon("the answer", response).await.unwrap().into_parts();
    assert_eq!(head.status, StatusCode::OK);
    let mut side = Side::Http2 { send, receive, read: Bytes::new() };
    assert_eq!(soon("the echo", side.read_to_end()).await.unwrap(), behind);
}

#[tokio::test]
async fn an_app_that_speaks_first_is_heard() {
    for version in VERSIONS {
        let app = TcpApp::start(async |mut stream| {
            stream.write_all(b"220 ready\r\n").await.unwrap();
            drop(stream.read(&mut [0; 16]).await);
        })
        .await;
        let line = Line::to(app).await;
        let mut side = open(&line.web, version).await;
        assert_eq!(soon("the greeting", side.read_exact(11)).await.unwrap(), b"220 ready\r\n");
    }
}

#[tokio::test]
async fn a_cluster_is_found_by_host_and_port_before_the_host() {
    let (by_port, by_host) = (TcpApp::echo().await, TcpApp::echo().await);
    let mesh = TestMesh::new();
    let callees = [
        mesh.callee("orders", by_port.address(), "protocol: tcp").await,
        mesh.callee("orders", by_host.address(), "protocol: tcp").await,
    ];
    let id = crate::harness::ca::id("orders");
    let cluster = |name: &str, authority: &str, endpoint: &Sidecar| {
        let address = endpoint.address();
        format!(
            "{{name: {name}, authorities: ['{authority}'], spiffe_ids: ['{id}'], endpoints: [{{address: '{address}'}}]}}"
        )
    };
    let yaml = format!(
        "outbound:\n- {{name: out, listen: '127.0.0.1:0'}}\n- {{name: all, listen: '127.0.0.1:0', cluster: b}}\n\
         clusters: [{}, {}]",
        cluster("a", "orders.example:5432", &callees[0]),
        cluster("b", "orders.example", &callees[1]),
    );
    let web = mesh.start("web", &yaml).await;
    for version in VERSIONS {
        for (listener, destination, expected) in [
            ("out", "Orders.EXAMPLE:5432", Some("a")),
            ("out", "orders.example:5433", Some("b")),
            ("out", "orders.example.:5432", Some("a")),
            ("out", "elsewhere.example:5432", None),
            ("all", "elsewhere.example:5432", Some("b")),
        ] {
            let count = |name: &str| web.cluster(name).runtime.upgrades.total.load(Ordering::Relaxed);
            let before = [count("a"), count("b")];
            let (told, mut side) = ask(web.address_of(listener), version, destination).await;
            let Some(expected) = expected else {
                assert_eq!(told.status, StatusCode::NOT_FOUND, "{destination}");
                assert_eq!(told.header("x-outrider-reason"), Some("no_route"));
                continue;
            };
            assert_eq!(told.status, StatusCode::OK, "{destination}");
            side.says_back(b"hello").await;
            let after = [before[0] + u64::from(expected == "a"), before[1] + u64::from(expected == "b")];
            assert_eq!([count("a"), count("b")], after, "{destination}");
        }
    }
}

#[tokio::test]
async fn tunnels_share_connections_between_the_sidecars_one_after_the_other() {
    let line = Line::to(TcpApp::echo().await).await;
    for _ in 0..20 {
        for version in VERSIONS {
            let mut side = open(&line.web, version).await;
            side.says_back(b"hello").await;
            side.finish().await;
            assert_eq!(soon("the end", side.read_to_end()).await.unwrap(), b"");
            eventually("it is over", || line.under_way() == (0, 0)).await;
        }
    }
    assert_eq!(line.orders.listener("in").accepted.load(Ordering::Relaxed), 1);
    assert_eq!(line.app.connections(), 40);
}

#[tokio::test]
async fn a_tunnel_goes_to_another_endpoint_where_the_first_has_no_app() {
    let line = Line::to(TcpApp::echo().await).await;
    let dead_app = line.mesh.callee("orders", nobody(), "protocol: tcp").await;
    let endpoints = [nobody(), dead_app.address(), line.orders.address()];
    let keys = "balance: round_robin, retry: {budget_min_per_second: 100}";
    let web = line.mesh.caller(&endpoints, keys).await;
    for _ in 0..6 {
        for version in VERSIONS {
            open(&web, version).await.says_back(b"hello").await;
        }
    }
    assert!(web.retries() >= 6, "{} retries", web.retries());
}

/// A server of the mesh that is no sidecar, and echoes.
async fn standard_echo(ca: &TestCa) -> TlsPeer {
    TlsPeer::start(server_config(ca, &ca.leaf("orders"), &[]), async |stream| {
        let (mut read, mut write) = tokio::io::split(stream);
        drop(tokio::io::copy(&mut read, &mut write).await);
        drop(write.shutdown().await);
    })
    .await
}

#[tokio::test]
async fn tunnels_lead_to_standard_peers_and_out_of_the_mesh() {
    let mesh = TestMesh::new();
    let (peer, outside) = (standard_echo(&mesh.ca).await, TcpApp::echo().await);
    let standard = mesh.caller(&[peer.address()], "peer: standard").await;
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, tls: none, endpoints: [{{address: '{}'}}]}}]",
        outside.address()
    );
    let plain = mesh.start("web", &yaml).await;
    for version in VERSIONS {
        for web in [&standard, &plain] {
            let mut side = open(web, version).await;
            side.says_back(&body::pattern(100_000)).await;
            side.finish().await;
            assert_eq!(soon("the end", side.read_to_end()).await.unwrap(), b"");
        }
    }
    let counts = &plain.cluster("orders").runtime.unencrypted;
    assert_eq!(counts.connections.load(Ordering::Relaxed), 2);
    assert_eq!(counts.sent_bytes.load(Ordering::Relaxed), 200_000);
}
