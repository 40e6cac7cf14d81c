//! Between sidecars: which protocol, and an app's own TLS inside.

use std::sync::atomic::Ordering;

use http::{HeaderValue, Method, StatusCode, Version};
use http_body_util::BodyExt;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::harness::{
    Client, HttpApp,
    app::nobody,
    client::{field, request},
    eventually, soon,
};

/// What the newest handshake with `orders` agreed on.
fn alpn(web: &Sidecar) -> String {
    web.cluster("orders").endpoints[0].runtime.tls().unwrap().alpn
}

#[tokio::test]
async fn http1_between_sidecars_carries_what_http2_does() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[orders.address()], "mesh_protocol: http1").await;
    let mut client = Client::http1(web.address()).await;
    for _ in 0..3 {
        let mut told = request(Method::POST, "/", body::sized(300_000));
        told.headers_mut().insert("x-outrider-attempt", HeaderValue::from_static("9"));
        let response = client.send(told).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body::pattern(300_000));
    }
    assert_eq!(alpn(&web), "outrider-h1/1");
    assert!(app.seen().iter().all(|seen| seen.version == Version::HTTP_11));
    assert!(app.seen().iter().all(|seen| seen.header("x-outrider-attempt").is_none()));
    assert_eq!(orders.listener("in").accepted.load(Ordering::Relaxed), 1, "it is kept");
}

#[tokio::test]
async fn http2_apps_keep_their_version_and_their_trailers_with_any_protocol_between() {
    for protocol in ["http1", "http2"] {
        let mesh = TestMesh::new();
        let app = HttpApp::start(async |request: Request<Incoming>| {
            drop(request.into_body().collect().await?);
            let trailers = HeaderMap::from_iter([("grpc-status".parse()?, HeaderValue::from_static("0"))]);
            Ok(Response::new(body::streamed(10, Some(trailers))))
        })
        .await;
        let orders = mesh.callee("orders", app.address(), "").await;
        let web = mesh.caller(&[orders.address()], &format!("mesh_protocol: {protocol}")).await;
        let mut client = Client::http2(web.address()).await;
        let response = client.post("/shop.Orders/Get", "x").await.unwrap();
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().and_then(|all| all.get("grpc-status")).unwrap(), "0", "{protocol}");
        assert_eq!(app.only().version, Version::HTTP_2);
    }
}

#[tokio::test]
async fn the_far_sidecars_word_counts_over_http1_too() {
    let mesh = TestMesh::new();
    let (dead, app) = (mesh.callee("orders", nobody(), "").await, HttpApp::named("alive").await);
    let alive = mesh.callee("orders", app.address(), "").await;
    let keys = "mesh_protocol: http1, balance: round_robin";
    let web = mesh.caller(&[dead.address(), alive.address()], keys).await;
    for _ in 0..4 {
        // A POST is repeated only because the far sidecar says that its app has not seen it.
        let response = Client::http1(web.address()).await.post("/", "once").await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(body::text(response.into_body()).await, "alive");
    }
    assert!(web.retries() > 0);
    assert_eq!(app.count(), 4);

    let web = mesh.caller(&[dead.address()], "mesh_protocol: http1, retry: {max_retries: 0}").await;
    let response = Client::http1(web.address()).await.post("/", "once").await.unwrap();
    assert_eq!(field(&response, "x-outrider-reason"), Some("connect_failed"), "and so does its reason");
    assert_eq!(field(&response, "x-outrider-processed"), None);
}

#[tokio::test]
async fn an_apps_own_tls_passes_untouched_inside_the_mesh() {
    let mesh = TestMesh::new();
    let own = TestCa::new();
    let server = TlsPeer::start(Web::config(&own.web_leaf(NAME), &[b"h2", b"http/1.1"]), tell).await;
    let orders = mesh.callee("orders", server.address(), "protocol: tcp").await;
    let web = mesh.tcp_caller(&[orders.address()], "").await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(own.root()).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(outrider_certs::rustls_verify::provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    for _ in 0..3 {
        let stream = TcpStream::connect(web.address()).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let mut stream = soon("the handshake, end to end", connector.connect(name, stream)).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: api.web.example\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("seen-sni: api.web.example"),
            "{answer}"
        );
        drop(stream);
        let in_flight = &web.cluster("orders").runtime.in_flight;
        eventually("the stream is over", || in_flight.load(Ordering::Relaxed) == 0).await;
    }
    assert_eq!(alpn(&web), "outrider-tcp/1");
    assert_eq!(orders.listener("in").accepted.load(Ordering::Relaxed), 1, "and it is pooled");
}
