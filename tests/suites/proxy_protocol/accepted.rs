//! A proxy in front of a sidecar says whose connection it is.

use http::{StatusCode, Version};
use outrider::model::{proxy_protocol::Version as Header, runtime::Refusal};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{CLIENT, VERSIONS, begin, is_closed, peer_behind, refused, speaks_for};
use crate::harness::{Client, HttpApp, Sidecar, TcpApp, TestMesh, ca, client::exchange, soon};

const FROM_HERE: &str = "proxy_protocol: {from: [127.0.0.1]}";
const OPTIONAL: &str = "proxy_protocol: {from: [127.0.0.0/8], required: false}";
const FROM_ELSEWHERE: &str = "proxy_protocol: {from: [10.0.0.0/8, '::1'], required: false}";

/// `orders`, behind a proxy.
struct Behind {
    mesh: TestMesh,
    app: HttpApp,
    orders: Sidecar,
}

impl Behind {
    async fn new(keys: &str) -> Self {
        let (mesh, app) = (TestMesh::new(), HttpApp::named("orders").await);
        let orders = mesh.callee("orders", app.address(), keys).await;
        Self { mesh, app, orders }
    }

    /// A request of `web` on a connection that begins so, and the address that the app hears.
    async fn heard(&self, stream: TcpStream) -> String {
        let mut web = peer_behind(&self.mesh, stream, "web").await.unwrap();
        assert_eq!(web.get("/").await.unwrap().status(), StatusCode::OK);
        let seen = self.app.seen().pop().unwrap();
        let certificate = format!("By={};URI={}", ca::id("orders"), ca::id("web"));
        assert_eq!(seen.header("x-forwarded-client-cert"), Some(&*certificate));
        seen.header("x-forwarded-for").unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_listed_proxy_says_for_whom_it_speaks_and_mutual_tls_says_who_that_is() {
    let behind = Behind::new(FROM_HERE).await;
    for version in VERSIONS {
        for (client, address) in [(CLIENT, "203.0.113.9"), ("[2001:db8::7]:1", "2001:db8::7")] {
            let stream = begin(behind.orders.address(), &speaks_for(version, client)).await;
            assert_eq!(behind.heard(stream).await, address, "{version:?}");
        }
    }
}

#[tokio::test]
async fn however_the_header_comes_the_bytes_behind_it_are_the_handshake() {
    let behind = Behind::new(FROM_HERE).await;
    for version in VERSIONS {
        let header = speaks_for(version, CLIENT);
        let mut stream = begin(behind.orders.address(), &header[..1]).await;
        for byte in &header[1..] {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(behind.heard(stream).await, "203.0.113.9");
    }
}

#[tokio::test]
async fn a_proxys_own_connection_speaks_for_itself() {
    let behind = Behind::new(FROM_HERE).await;
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\x00";
    for header in [&b"PROXY UNKNOWN\r\n"[..], local] {
        let stream = begin(behind.orders.address(), header).await;
        assert_eq!(behind.heard(stream).await, "127.0.0.1");
    }
}

#[tokio::test]
async fn a_header_that_is_missing_or_malformed_ends_the_connection_and_is_counted() {
    for (sent, reason) in [
        (&b"\x16\x03\x01\x02\x00\x01"[..], Refusal::NoProxyHeader),
        (b"GET / HTTP/1.1\r\n\r\n", Refusal::NoProxyHeader),
        (b"PROXY TCP4 203.0.113.9 1.1.1.1 1 65536\r\n", Refusal::BadProxyHeader),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\xf1", Refusal::BadProxyHeader),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0d\x01\x01\x01\x01\x01\x01\x01\x01\0\x01\0\x01\x04",
            Refusal::BadProxyHeader,
        ),
    ] {
        let behind = Behind::new(FROM_HERE).await;
        is_closed(begin(behind.orders.address(), sent).await).await;
        refused(&behind.orders, "in", 1, reason).await;
        assert_eq!(behind.app.connections(), 0);
    }
}

#[tokio::test]
async fn a_proxy_that_says_nothing_is_not_waited_for_longer_than_a_handshake() {
    let (mesh, app) = (TestMesh::new(), HttpApp::named("orders").await);
    let yaml = format!(
        "limits: {{handshake_timeout: 200ms}}\n\
         inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}', {FROM_HERE}}}]",
        app.address()
    );
    let orders = mesh.start("orders", &yaml).await;
    is_closed(begin(orders.address(), b"").await).await;
    is_closed(begin(orders.address(), b"PROXY TCP4 ").await).await;
    refused(&orders, "in", 2, Refusal::Timeout).await;
}

#[tokio::test]
async fn where_a_header_may_be_missing_a_connection_without_one_is_its_own() {
    let behind = Behind::new(OPTIONAL).await;
    let stream = begin(behind.orders.address(), b"").await;
    assert_eq!(behind.heard(stream).await, "127.0.0.1");
    let stream = begin(behind.orders.address(), &speaks_for(Header::V2, CLIENT)).await;
    assert_eq!(behind.heard(stream).await, "203.0.113.9");
    is_closed(begin(behind.orders.address(), b"PROXY nonsense\r\n").await).await;
    refused(&behind.orders, "in", 1, Refusal::BadProxyHeader).await;
}

#[tokio::test]
async fn nobody_else_speaks_for_anybody() {
    for keys in ["", FROM_ELSEWHERE] {
        let behind = Behind::new(keys).await;
        let stream = begin(behind.orders.address(), b"").await;
        assert_eq!(behind.heard(stream).await, "127.0.0.1");
        for (count, version) in (1..).zip(VERSIONS) {
            let stream = begin(behind.orders.address(), &speaks_for(version, CLIENT)).await;
            assert!(peer_behind(&behind.mesh, stream, "web").await.is_err());
            refused(&behind.orders, "in", count, Refusal::Plaintext).await;
        }
    }
}

#[tokio::test]
async fn whose_word_is_taken_no_more_is_not_believed_any_longer() {
    let (mesh, app) = (TestMesh::new(), HttpApp::named("orders").await);
    let yaml = |keys: &str| {
        format!("inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}', {keys}}}]", app.address())
    };
    let mut orders = mesh.start("orders", &yaml(FROM_HERE)).await;
    let stream = begin(orders.address(), &speaks_for(Header::V1, CLIENT)).await;
    let mut before = peer_behind(&mesh, stream, "web").await.unwrap();
    assert_eq!(before.get("/").await.unwrap().status(), StatusCode::OK);
    mesh.reload(&mut orders, "orders", &yaml("")).await.unwrap();
    // The connection came in under rules that hold no more: it ends, as one of a listener that has changed.
    soon("the connection ends", async {
        while before.get("/").await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let stream = begin(orders.address(), &speaks_for(Header::V1, CLIENT)).await;
    assert!(peer_behind(&mesh, stream, "web").await.is_err());
}

/// `web` with a listener behind a proxy, in front of `orders`.
async fn outbound(keys: &str, orders: &Sidecar, mesh: &TestMesh) -> Sidecar {
    let cluster = TestMesh::cluster("orders", &[orders.address()], "");
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0', {keys}, {FROM_HERE}}}]\nclusters: [{cluster}]"
    );
    mesh.start("web", &yaml).await
}

#[tokio::test]
async fn a_client_before_an_outbound_listener_is_told_of() {
    let behind = Behind::new("").await;
    let web = outbound("cluster: orders", &behind.orders, &behind.mesh).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let stream = begin(web.address(), &speaks_for(Header::V1, CLIENT)).await;
        let mut client = Client::over(stream, version).await;
        assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK);
        let seen = behind.app.seen().pop().unwrap();
        assert_eq!(seen.header("x-forwarded-for"), Some("203.0.113.9, 127.0.0.1"));
    }
    // A request behind a header in one piece, and one without a header.
    let request = b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n";
    let answer = exchange(web.address(), &[&speaks_for(Header::V2, CLIENT), &request[..]].concat()).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
    assert_eq!(exchange(web.address(), request).await, b"");
    refused(&web, "out", 1, Refusal::NoProxyHeader).await;
    assert_eq!(behind.app.count(), 3);
}

#[tokio::test]
async fn of_a_stream_only_what_is_behind_the_header_is_carried() {
    let (mesh, app) = (TestMesh::new(), TcpApp::echo().await);
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let web = outbound("protocol: tcp, cluster: orders", &orders, &mesh).await;
    for version in VERSIONS {
        let mut stream = begin(web.address(), &[&speaks_for(version, CLIENT), &b"early "[..]].concat()).await;
        stream.write_all(b"and late").await.unwrap();
        let mut heard = [0; 14];
        soon("the echo", stream.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, b"early and late");
    }
    is_closed(begin(web.address(), b"no header").await).await;
    assert_eq!(app.connections(), 2);
}
