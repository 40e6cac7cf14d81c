//! Whom we do not talk to: an endpoint that is not who it must be hears nothing of the request.

use std::sync::{Arc, Mutex};

use http::{Method, StatusCode};
use tokio::io::AsyncReadExt;

use crate::harness::{
    Client, HttpApp, TestLeaf, TestMesh, body,
    ca::{self, Wrong},
    client::{field, request},
    peer::{ALPN_H2, ALPN_TCP, TlsPeer, server_config},
    soon,
};

const METHODS: [Method; 2] = [Method::GET, Method::POST];

/// A peer that can be talked to but should not be.
struct Impostor {
    peer: TlsPeer,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Impostor {
    async fn start(mesh: &TestMesh, leaf: &TestLeaf, alpn: &[&[u8]]) -> Self {
        let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
        let peer = TlsPeer::listening(server_config(&mesh.ca, leaf, alpn), Arc::clone(&heard)).await;
        Self { peer, heard }
    }

    fn heard(&self) -> Vec<u8> {
        self.heard.lock().unwrap().clone()
    }
}

/// Alone, the impostor costs the request; beside a good endpoint it costs nothing. It hears nothing either way.
async fn is_shunned(mesh: &TestMesh, impostor: &Impostor, reason: &str, what: &str) {
    let alone = mesh.caller(&[impostor.peer.address()], "retry: {max_retries: 0}").await;
    let mut client = Client::http1(alone.address()).await;
    for method in METHODS {
        let sent = client.send(request(method.clone(), "/secret", body::full("secret")));
        let response = soon(what, sent).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{what}");
        assert_eq!(field(&response, "x-outrider-reason"), Some(reason), "{what}");
        body::drain(response.into_body()).await.unwrap();
    }

    let app = HttpApp::named("the right one").await;
    let orders = mesh.callee("orders", app.address(), "").await;
    let endpoints = [impostor.peer.address(), orders.address()];
    let both = mesh.caller(&endpoints, "balance: round_robin, retry: {budget_min_per_second: 100}").await;
    let mut client = Client::http1(both.address()).await;
    for method in METHODS.iter().cycle().take(10) {
        let sent = client.send(request(method.clone(), "/secret", body::full("secret")));
        let response = soon(what, sent).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{what}");
        assert_eq!(body::text(response.into_body()).await, "the right one");
    }
    assert_eq!(app.count(), 10, "{what}");
    assert!(both.retries() > 0, "{what}: the impostor was never tried");
    assert!(impostor.peer.connections() >= 3, "{what}: the impostor was never tried");
    assert_eq!(impostor.heard(), b"", "{what} heard something");
}

#[tokio::test]
async fn an_endpoint_with_a_wrong_certificate_hears_nothing() {
    for wrong in Wrong::ALL {
        let mesh = TestMesh::new();
        let impostor = Impostor::start(&mesh, &mesh.ca.wrong(wrong, "orders"), &[ALPN_H2]).await;
        is_shunned(&mesh, &impostor, "identity_mismatch", &format!("{wrong:?}")).await;
    }
}

#[tokio::test]
async fn another_service_of_the_mesh_hears_nothing() {
    let mesh = TestMesh::new();
    let impostor = Impostor::start(&mesh, &mesh.ca.leaf("inventory"), &[ALPN_H2]).await;
    is_shunned(&mesh, &impostor, "identity_mismatch", "another service").await;
}

#[tokio::test]
async fn an_endpoint_of_another_protocol_hears_nothing() {
    for alpn in [&[][..], &[&b"h2"[..]], &[b"http/1.1"], &[b"outrider-h2/2"], &[ALPN_TCP]] {
        let mesh = TestMesh::new();
        let impostor = Impostor::start(&mesh, &mesh.ca.leaf("orders"), alpn).await;
        is_shunned(&mesh, &impostor, "connect_failed", &format!("{alpn:?}")).await;
    }
}

#[tokio::test]
async fn an_endpoint_without_tls_hears_nothing_readable() {
    let (mesh, plain) = (TestMesh::new(), HttpApp::echo().await);
    let web = mesh.caller(&[plain.address()], "retry: {max_retries: 0}").await;
    let response = Client::http1(web.address()).await.post("/secret", "secret").await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&response, "x-outrider-reason"), Some("connect_failed"));
    assert_eq!(plain.count(), 0);
}

#[tokio::test]
async fn an_endpoint_that_never_answers_the_handshake_is_given_up_in_time() {
    let mesh = TestMesh::new();
    let mute = crate::harness::TcpApp::start(async |mut stream| {
        drop(stream.read_to_end(&mut Vec::new()).await);
    })
    .await;
    let app = HttpApp::named("the right one").await;
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh
        .caller(&[mute.address(), orders.address()], "connect_timeout: 300ms, balance: round_robin")
        .await;
    let mut client = Client::http1(web.address()).await;
    for _ in 0..4 {
        let response = soon("an answer", client.post("/", "once")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        body::drain(response.into_body()).await.unwrap();
    }
    assert_eq!(app.count(), 4);
}

#[tokio::test]
async fn an_impostor_hears_nothing_of_an_opaque_stream() {
    use tokio::{io::AsyncWriteExt, net::TcpStream};
    for wrong in Wrong::ALL {
        let mesh = TestMesh::new();
        let impostor = Impostor::start(&mesh, &mesh.ca.wrong(wrong, "orders"), &[ALPN_TCP]).await;
        let web = mesh.tcp_caller(&[impostor.peer.address()], "retry: {max_retries: 0}").await;
        // A quick reset is already seen as the outcome of connecting.
        let ended = soon("the stream ends", async {
            let mut stream = TcpStream::connect(web.address()).await?;
            drop(stream.write_all(b"secret").await);
            stream.read_to_end(&mut Vec::new()).await
        });
        assert!(ended.await.is_err(), "{wrong:?}: a refused stream looks like an orderly end");
        assert_eq!(impostor.heard(), b"", "{wrong:?}");
    }
}

#[tokio::test]
async fn an_endpoint_may_be_one_of_several_services_and_no_other() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let orders = mesh.callee("orders-v2", app.address(), "").await;
    let impostor = Impostor::start(&mesh, &mesh.ca.leaf("inventory"), &[ALPN_H2]).await;
    let caller = async |endpoint: std::net::SocketAddr| {
        let (one, two) = (ca::id("orders"), ca::id("orders-v2"));
        let yaml = format!(
            "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
             clusters: [{{name: orders, spiffe_ids: ['{one}', '{two}'], endpoints: [{{address: '{endpoint}'}}]}}]",
        );
        mesh.start("web", &yaml).await
    };
    let web = caller(orders.address()).await;
    assert_eq!(Client::http1(web.address()).await.get("/").await.unwrap().status(), StatusCode::OK);
    let web = caller(impostor.peer.address()).await;
    let response = Client::http1(web.address()).await.get("/").await.unwrap();
    assert_eq!(field(&response, "x-outrider-reason"), Some("identity_mismatch"));
    assert_eq!(impostor.heard(), b"");
}
