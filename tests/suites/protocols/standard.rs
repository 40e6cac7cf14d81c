//! Standard mTLS peers, which know nothing of sidecars: ALPN `h2`, `http/1.1` or none.

use http::{Request, Response, StatusCode, Version};
use hyper::{
    client::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use outrider::model::runtime::Refusal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::harness::{
    Client, HttpApp, Sidecar, TcpApp, TestMesh,
    app::nobody,
    body,
    ca::{Wrong, id},
    client::field,
    eventually,
    peer::{self, ALPN_H2, TlsPeer, server_config},
    soon,
};

/// `orders` for standard peers.
struct Target {
    mesh: TestMesh,
    app: HttpApp,
    orders: Sidecar,
}

impl Target {
    async fn new() -> Self {
        let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
        let orders = mesh.callee("orders", app.address(), "peer: standard").await;
        Self { mesh, app, orders }
    }

    async fn connect(&self, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
        let config = peer::client_config(&self.mesh.ca, Some(&self.mesh.ca.leaf("web")), alpn);
        peer::connect(self.orders.address(), config).await.unwrap()
    }
}

/// A request that claims to come from a sidecar.
fn claiming(uri: &str) -> Request<body::Body> {
    Request::post(uri)
        .header("host", "orders")
        .header("x-outrider-app-version", "2")
        .header("x-outrider-attempt", "9")
        .body(body::full("hello"))
        .unwrap()
}

#[tokio::test]
async fn a_peer_that_speaks_http2_is_served_and_its_claims_are_not_believed() {
    let target = Target::new().await;
    let io = TokioIo::new(target.connect(&[b"h2"]).await);
    let (mut sender, driver) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(driver);
    let mut request = claiming("https://orders/");
    request.headers_mut().remove("host");
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(body::text(response.into_body()).await, "hello");
    let seen = target.app.only();
    assert_eq!((seen.version, seen.header("x-outrider-attempt")), (Version::HTTP_2, None));
    let cert = format!("By={};URI={}", id("orders"), id("web"));
    assert_eq!(seen.header("x-forwarded-client-cert"), Some(&*cert));
}

#[tokio::test]
async fn a_peer_that_speaks_http1_is_served_with_and_without_alpn() {
    for alpn in [&[&b"http/1.1"[..]][..], &[]] {
        let target = Target::new().await;
        let (mut sender, driver) = http1::handshake(TokioIo::new(target.connect(alpn).await)).await.unwrap();
        tokio::spawn(driver);
        let response = sender.send_request(claiming("/")).await.unwrap();
        assert_eq!(body::text(response.into_body()).await, "hello");
        let seen = target.app.only();
        assert_eq!((seen.version, seen.header("x-outrider-app-version")), (Version::HTTP_11, None));
    }
}

#[tokio::test]
async fn a_standard_peer_is_told_no_more_than_the_reason() {
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", nobody(), "peer: standard").await;
    let config = peer::client_config(&mesh.ca, Some(&mesh.ca.leaf("web")), &[b"http/1.1"]);
    let stream = peer::connect(orders.address(), config).await.unwrap();
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver);
    let response = sender.send_request(claiming("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&response, "x-outrider-processed"), None);
    assert_eq!(body::text(response.into_body()).await, "outrider: connect_failed\n");
}

#[tokio::test]
async fn a_standard_peer_must_be_somebody_too() {
    for wrong in Wrong::ALL {
        let target = Target::new().await;
        let leaf = target.mesh.ca.wrong(wrong, "web");
        let config = peer::client_config(&target.mesh.ca, Some(&leaf), &[b"http/1.1"]);
        if let Ok(mut stream) = peer::connect(target.orders.address(), config).await {
            drop(stream.write_all(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n").await);
            let mut heard = Vec::new();
            drop(soon("the close", stream.read_to_end(&mut heard)).await);
            assert!(heard.is_empty(), "{wrong:?}");
        }
        eventually("it is refused", || target.orders.refused(Refusal::BadCertificate) == 1).await;
        assert_eq!(target.app.connections(), 0, "{wrong:?}");
    }
}

#[tokio::test]
async fn a_head_of_a_standard_peer_that_never_ends_is_cut_off_in_time() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let yaml = format!(
        "limits: {{header_read_timeout: 1s}}\n\
         inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}', peer: standard}}]",
        app.address(),
    );
    let orders = mesh.start("orders", &yaml).await;
    let config = peer::client_config(&mesh.ca, Some(&mesh.ca.leaf("web")), &[b"http/1.1"]);
    let mut stream = peer::connect(orders.address(), config).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: ord").await.unwrap();
    let mut answer = Vec::new();
    drop(soon("the close", stream.read_to_end(&mut answer)).await);
    let text = String::from_utf8_lossy(&answer);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{text}");
    assert_eq!(app.count(), 0);
}

/// A standard server that echoes and tells nobody what it thinks of `x-outrider-` fields.
async fn standard_server(mesh: &TestMesh, alpn: &'static [u8]) -> TlsPeer {
    TlsPeer::start(server_config(&mesh.ca, &mesh.ca.leaf("orders"), &[alpn]), |stream| async move {
        let service = service_fn(async |request: Request<hyper::body::Incoming>| {
            let count =
                request.headers().keys().filter(|name| name.as_str().starts_with("x-outrider")).count();
            let response = Response::builder()
                .header("x-reserved", count)
                .header("x-version", format!("{:?}", request.version()))
                .header("x-outrider-processed", "no")
                .status(if request.uri().path() == "/fail" { 503 } else { 200 });
            response.body(body::forward(request.into_body()))
        });
        drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
    })
    .await
}

#[tokio::test]
async fn a_standard_server_is_called_in_its_own_protocol_and_not_as_a_sidecar() {
    for (protocol, alpn, spoken) in [("http2", &b"h2"[..], "HTTP/2.0"), ("http1", b"http/1.1", "HTTP/1.1")] {
        let mesh = TestMesh::new();
        let server = standard_server(&mesh, alpn).await;
        let web =
            mesh.caller(&[server.address()], &format!("peer: standard, peer_protocol: {protocol}")).await;
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let mut client = Client::connect(web.address(), version).await;
            let response = client.post("/", "hello").await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{protocol}");
            assert_eq!(
                (field(&response, "x-version"), field(&response, "x-reserved")),
                (Some(spoken), Some("0"))
            );
            assert_eq!(body::text(response.into_body()).await, "hello");
            // A standard server cannot say as a sidecar that it has not seen a request.
            let response = client.post("/fail", "once").await.unwrap();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(field(&response, "x-outrider-processed"), None);
        }
        assert_eq!(web.retries(), 0);
    }
}

#[tokio::test]
async fn a_sidecar_and_a_standard_peer_do_not_take_each_other_for_their_like() {
    let mesh = TestMesh::new();
    let server = standard_server(&mesh, ALPN_H2).await;
    let web = mesh.caller(&[server.address()], "peer: standard, retry: {max_retries: 0}").await;
    let response = Client::http1(web.address()).await.get("/").await.unwrap();
    assert_eq!(field(&response, "x-outrider-reason"), Some("connect_failed"));
}

#[tokio::test]
async fn bare_bytes_pass_between_standard_peers() {
    let mesh = TestMesh::new();
    let app = TcpApp::echo().await;
    let orders = mesh.callee("orders", app.address(), "protocol: tcp, peer: standard").await;
    let web = mesh.tcp_caller(&[orders.address()], "peer: standard").await;
    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    stream.write_all(&body::pattern(300_000)).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    soon("the echo", stream.read_to_end(&mut back)).await.unwrap();
    assert!(back == body::pattern(300_000), "{} bytes", back.len());
}
