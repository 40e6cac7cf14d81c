//! What goes over the wire between two sidecars.

use std::sync::{Arc, Mutex};

use http::{Method, StatusCode};
use outrider::model::runtime::TlsFacts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    Client, HttpApp, Sidecar, TcpApp, TestMesh, body,
    ca::{DOMAIN, id},
    client::{field, request},
    peer::{ALPN_H2, Tap, TlsPeer, server_config},
    soon,
};

fn contains(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

#[tokio::test]
async fn what_passes_between_sidecars_cannot_be_read() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let orders = mesh.callee("orders", app.address(), "").await;
    let tap = Tap::start(orders.address()).await;
    let web = mesh.caller(&[tap.address()], "").await;
    let mut secret = request(Method::POST, "/secret-path", body::full("secret-body"));
    secret.headers_mut().insert("x-secret", "secret-value".parse().unwrap());
    let response = Client::http1(web.address()).await.send(secret).await.unwrap();
    assert_eq!(body::text(response.into_body()).await, "secret-body");
    let bytes = tap.bytes();
    assert!(bytes.len() > 2000, "the tap heard {} bytes", bytes.len());
    // In TLS 1.3 the certificates are encrypted too; of ours, only the ALPN name is open.
    assert!(contains(&bytes, "outrider-h2/1"), "the tap hears nothing");
    for word in ["secret-path", "secret-body", "secret-value", "x-secret", "PRI * HTTP", DOMAIN, "spiffe"] {
        assert!(!contains(&bytes, word), "{word} can be read");
    }
}

#[tokio::test]
async fn an_opaque_stream_between_sidecars_cannot_be_read() {
    let mesh = TestMesh::new();
    let app = TcpApp::start(async |mut stream| {
        let mut bytes = [0; 11];
        stream.read_exact(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    })
    .await;
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let tap = Tap::start(orders.address()).await;
    let web = mesh.tcp_caller(&[tap.address()], "").await;
    let mut stream = tokio::net::TcpStream::connect(web.address()).await.unwrap();
    stream.write_all(b"secret-body").await.unwrap();
    soon("the echo", stream.read_exact(&mut [0; 11])).await.unwrap();
    assert!(contains(&tap.bytes(), "outrider-tcp/1"), "the tap hears nothing");
    assert!(!contains(&tap.bytes(), "secret-body") && !contains(&tap.bytes(), "kind=opaque"));
}

/// Makes one call; what each side says of the handshake.
async fn facts(orders: &Sidecar, web: &Sidecar) -> (TlsFacts, TlsFacts) {
    let response = Client::http1(web.address()).await.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let at_web = web.cluster("orders").endpoints[0].runtime.tls().unwrap();
    let (peers, _others) = orders.listener("in").peers.read();
    assert_eq!(peers.len(), 1);
    let at_orders = peers[0].1.tls().unwrap();
    assert_eq!((&*at_web.peer, &*at_orders.peer), (id("orders").as_str(), id("web").as_str()));
    assert_eq!(peers[0].0, id("web"));
    (at_web, at_orders)
}

#[tokio::test]
async fn by_default_it_is_tls13_with_the_hybrid_key_exchange() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[orders.address()], "").await;
    let (at_web, at_orders) = facts(&orders, &web).await;
    for facts in [at_web, at_orders] {
        assert_eq!(facts.version, "TLSv1_3");
        assert_eq!(facts.key_exchange, "X25519MLKEM768");
        assert_eq!(facts.alpn, "outrider-h2/1");
    }
}

/// A pair whose sides may use these algorithms.
async fn pair_with(mesh: &TestMesh, app: &HttpApp, orders: &str, web: &str) -> (Sidecar, Sidecar) {
    let yaml = format!(
        "tls: {{{orders}}}\ninbound: [{{name: in, listen: '127.0.0.1:0', app: '{}'}}]",
        app.address()
    );
    let orders = mesh.start("orders", &yaml).await;
    let yaml = format!(
        "tls: {{{web}}}\noutbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, spiffe_ids: ['{}'], endpoints: [{{address: '{}'}}], retry: {{max_retries: 0}}}}]",
        id("orders"),
        orders.address(),
    );
    (orders, mesh.start("web", &yaml).await)
}

#[tokio::test]
async fn configured_algorithms_are_used_and_no_others() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    for (group, found) in [("X25519", "X25519"), ("P-256", "secp256r1"), ("X25519MLKEM768", "X25519MLKEM768")]
    {
        for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
            let only = format!("key_exchange: ['{group}'], cipher_suites: [{suite}]");
            let (orders, web) = pair_with(&mesh, &app, &only, "").await;
            let (at_web, at_orders) = facts(&orders, &web).await;
            for facts in [at_web, at_orders] {
                assert_eq!(facts.key_exchange, found);
                assert_eq!(facts.cipher_suite, suite.replace("TLS_", "TLS13_"));
            }
        }
    }
}

#[tokio::test]
async fn sides_without_a_common_algorithm_do_not_talk() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    for (orders, web) in [
        ("key_exchange: ['X25519']", "key_exchange: ['P-256']"),
        ("cipher_suites: [TLS_AES_128_GCM_SHA256]", "cipher_suites: [TLS_AES_256_GCM_SHA384]"),
    ] {
        let (_orders, web) = pair_with(&mesh, &app, orders, web).await;
        let response = Client::http1(web.address()).await.get("/").await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(field(&response, "x-outrider-reason"), Some("connect_failed"));
    }
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn the_network_is_not_told_whom_we_call_and_the_callee_is_told_who_calls() {
    let mesh = TestMesh::new();
    let told: Arc<Mutex<Vec<(Option<String>, bool)>>> = Arc::default();
    let log = Arc::clone(&told);
    let peer = TlsPeer::start(server_config(&mesh.ca, &mesh.ca.leaf("orders"), &[ALPN_H2]), move |stream| {
        let tls = stream.get_ref().1;
        let caller = tls.peer_certificates().map(|chain| contains(chain[0].as_ref(), id("web").as_str()));
        log.lock().unwrap().push((tls.server_name().map(str::to_owned), caller.unwrap_or(false)));
        async {}
    })
    .await;
    let web = mesh.caller(&[peer.address()], "retry: {max_retries: 0}").await;
    drop(soon("an answer", async { Client::http1(web.address()).await.get("/").await }).await);
    let told = told.lock().unwrap();
    assert!(!told.is_empty() && told.iter().all(|told| *told == (None, true)), "{told:?}");
}
