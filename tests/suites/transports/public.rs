//! TLS to servers outside the mesh.

use std::{fs, os::unix::fs::PermissionsExt, sync::atomic::Ordering};

use http::{Method, StatusCode, Version};
use outrider::model::mirror::Dropped;
use outrider_certs::rustls_verify::provider;
use rustls::{ServerConfig, server::WebPkiClientVerifier, version::TLS13};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::harness::{
    Client, TcpApp,
    app::nobody,
    ca::Wrong,
    client::{field, request},
    eventually, soon,
};

const H2: &[u8] = b"h2";
const H1: &[u8] = b"http/1.1";

#[tokio::test]
async fn what_is_spoken_is_what_the_server_chooses_or_the_configuration_says() {
    for (protocol, alpn, spoken) in [
        ("auto", &[H2, H1][..], "HTTP/2.0"),
        ("auto", &[H1], "HTTP/1.1"),
        ("auto", &[], "HTTP/1.1"),
        ("http1", &[H2, H1], "HTTP/1.1"),
        ("http1", &[], "HTTP/1.1"),
        ("http2", &[H2, H1], "HTTP/2.0"),
    ] {
        let mesh = TestMesh::new();
        let server = Web::new(&mesh).server(alpn).await;
        let web = caller(&mesh, &[server.address()], &public(&format!("protocol: {protocol}"))).await;
        for version in VERSIONS {
            let mut client = Client::connect(web.address(), version).await;
            for _ in 0..2 {
                let mut asked = request(Method::POST, "/v1?q=1", body::full("hello"));
                asked.headers_mut().insert("host", NAME.parse().unwrap());
                asked.headers_mut().append("cookie", "a=1".parse().unwrap());
                let response = client.send(asked).await.unwrap();
                assert_eq!(response.status(), StatusCode::OK, "{protocol} {alpn:?}: {}", failure(&web));
                assert_eq!(field(&response, "seen-version"), Some(spoken), "{protocol} {alpn:?}");
                assert_eq!(field(&response, "seen-authority"), Some(NAME));
                assert_eq!(field(&response, "seen-sni"), Some(NAME));
                assert_eq!(field(&response, "x-outrider-processed"), None, "a claim of the server's");
                assert_eq!(body::text(response.into_body()).await, "hello");
            }
        }
        assert_eq!(server.connections(), 1, "{protocol} {alpn:?}: one connection serves all");
        assert_eq!(web.retries(), 0);
    }
}

#[tokio::test]
async fn requests_that_come_at_once_ask_the_server_once() {
    let mesh = TestMesh::new();
    let server = Web::new(&mesh).server(&[H2, H1]).await;
    let web = caller(&mesh, &[server.address()], &public("")).await;
    let calls = (0..20).map(|_| async {
        let response = Client::http1(web.address()).await.post("/", "once").await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(field(&response, "seen-version"), Some("HTTP/2.0"));
    });
    futures_util::future::join_all(calls).await;
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_server_that_speaks_another_protocol_than_before_is_asked_again() {
    let mesh = TestMesh::new();
    let web_of = Web::new(&mesh);
    let (h2, h1) = (web_of.server(&[H2]).await, web_of.server(&[H1]).await);
    // A relay whose target changes: the same address, another server.
    let target = Arc::new(std::sync::Mutex::new(h2.address()));
    let now = Arc::clone(&target);
    let relay = TcpApp::start(move |mut near| {
        let address = *now.lock().unwrap();
        async move {
            let mut far = TcpStream::connect(address).await.unwrap();
            drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
        }
    })
    .await;
    let keys = format!("{}, pool_idle_timeout: 100ms", public(""));
    let web = caller(&mesh, &[relay.address()], &keys).await;
    let version = async || {
        let response = Client::http1(web.address()).await.post("/", "x").await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{}", failure(&web));
        field(&response, "seen-version").unwrap().to_owned()
    };
    assert_eq!(version().await, "HTTP/2.0");
    *target.lock().unwrap() = h1.address();
    let idle = || web.cluster("orders").endpoints[0].runtime.connections.load(Ordering::Relaxed) == 0;
    eventually("the connection to the old server is closed", idle).await;
    assert_eq!(version().await, "HTTP/1.1");
    assert_eq!((failed(&web, TlsFailure::NoProtocol), web.retries()), (1, 1));
}

#[tokio::test]
async fn a_url_with_https_is_asked_for_over_tls() {
    let mesh = TestMesh::new();
    let web_of = Web::new(&mesh);
    let server = web_of.server(&[H2, H1]).await;
    let web = caller(&mesh, &[server.address()], &public("")).await;
    for scheme in ["https", "http"] {
        let request = format!("GET {scheme}://{NAME}/ HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
        let answer = crate::harness::client::exchange(web.address_of("out"), request.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(&format!("seen-sni: {NAME}")), "{answer}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_prove_its_name_gets_nothing() {
    let mesh = TestMesh::new();
    let web_of = Web::new(&mesh);
    let strange = TestCa::new();
    let leaves = [
        ("another name", web_of.ca.web_leaf("api.web.example.org")),
        ("a part of the name", web_of.ca.web_leaf("web.example")),
        ("a wildcard above", web_of.ca.web_leaf("*.example")),
        ("an unknown root", strange.web_leaf(NAME)),
        ("a SPIFFE ID of ours", mesh.ca.leaf("orders")),
        ("expired", web_of.ca.wrong_web(Wrong::Expired, NAME)),
        ("not yet valid", web_of.ca.wrong_web(Wrong::NotYetValid, NAME)),
    ];
    for (what, leaf) in leaves {
        let heard: Arc<std::sync::Mutex<Vec<u8>>> = Arc::default();
        let log = Arc::clone(&heard);
        let server = TlsPeer::start(Web::config(&leaf, &[H1]), move |mut stream| {
            let log = Arc::clone(&log);
            async move {
                let mut all = Vec::new();
                drop(stream.read_to_end(&mut all).await);
                log.lock().unwrap().extend(all);
            }
        })
        .await;
        let keys = format!("{}, retry: {{max_retries: 0}}", public(""));
        let web = caller(&mesh, &[server.address()], &keys).await;
        let response = Client::http1(web.address()).await.post("/", "secret").await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{what}");
        assert_eq!(field(&response, "x-outrider-reason"), Some("identity_mismatch"), "{what}");
        assert_eq!(failed(&web, TlsFailure::BadCertificate), 1, "{what}");
        let mut stream = TcpStream::connect(web.address_of("tcp")).await.unwrap();
        drop(stream.write_all(b"secret").await);
        assert!(soon("the stream ends", stream.read_to_end(&mut Vec::new())).await.is_err(), "{what}");
        assert!(heard.lock().unwrap().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn a_wildcard_for_the_name_will_do_and_so_will_an_address() {
    let mesh = TestMesh::new();
    let web_of = Web::new(&mesh);
    let server = TlsPeer::start(Web::config(&web_of.ca.web_leaf("*.web.example"), &[H1]), tell).await;
    let web = caller(&mesh, &[server.address()], &public("")).await;
    assert_eq!(Client::http1(web.address()).await.get("/").await.unwrap().status(), StatusCode::OK);

    let server = TlsPeer::start(Web::config(&web_of.ca.web_leaf("127.0.0.1"), &[H1]), tell).await;
    let keys = "tls: public, public: {server_name: 127.0.0.1, roots: web.pem}";
    let web = caller(&mesh, &[server.address()], keys).await;
    let response = Client::http1(web.address()).await.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{}", failure(&web));
    assert_eq!(field(&response, "seen-sni"), Some(""), "an address is no SNI");
}

#[tokio::test]
async fn there_is_no_way_back_to_plaintext() {
    let mesh = TestMesh::new();
    let _web = Web::new(&mesh);
    let app = crate::harness::HttpApp::echo().await;
    let keys = format!("{}, retry: {{max_retries: 0}}", public(""));
    let web = caller(&mesh, &[app.address()], &keys).await;
    let response = Client::http1(web.address()).await.post("/", "secret").await.unwrap();
    assert_eq!(field(&response, "x-outrider-reason"), Some("connect_failed"));
    assert_eq!((app.count(), failed(&web, TlsFailure::Plaintext)), (0, 1), "{}", failure(&web));
}

#[tokio::test]
async fn what_is_asked_by_https_is_not_copied_in_plaintext() {
    let mesh = TestMesh::new();
    let server = Web::new(&mesh).server(&[H1]).await;
    let shadow = crate::harness::HttpApp::echo().await;
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters:\n- {{name: api, endpoints: [{{address: '{}'}}], {}}}\n\
         - {{name: shadow, tls: none, endpoints: [{{address: '{}'}}]}}\n\
         routes: [{{name: all, hosts: ['{NAME}'], rules: [{{clusters: [{{name: api}}], mirror: [{{cluster: shadow}}]}}]}}]",
        server.address(),
        public(""),
        shadow.address(),
    );
    let web = mesh.start("web", &yaml).await;
    let counts = &web.cluster("shadow").runtime.mirrors;
    for (scheme, copies, dropped) in [("https", 0, 1), ("http", 1, 1)] {
        let asked = format!("GET {scheme}://{NAME}/ HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
        let answer = crate::harness::client::exchange(web.address(), asked.as_bytes()).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{scheme}: {}", String::from_utf8_lossy(&answer));
        let why = &counts.dropped[Dropped::BadRequest as usize];
        eventually("the copy is made or is not", || {
            (shadow.count(), why.load(Ordering::Relaxed)) == (copies, dropped)
        })
        .await;
    }
}

#[tokio::test]
async fn a_request_goes_to_another_server_if_one_is_gone() {
    let mesh = TestMesh::new();
    let server = Web::new(&mesh).server(&[H2, H1]).await;
    let keys = format!("{}, balance: round_robin", public(""));
    let web = caller(&mesh, &[nobody(), server.address()], &keys).await;
    for _ in 0..4 {
        let response = Client::http1(web.address()).await.post("/", "once").await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert!(web.retries() > 0);
}

#[tokio::test]
async fn a_server_outside_learns_nothing_of_the_mesh() {
    let mesh = TestMesh::new();
    let server = Web::new(&mesh).server(&[H2, H1]).await;
    let web = caller(&mesh, &[server.address()], &public("")).await;
    for version in VERSIONS {
        let mut client = Client::connect(web.address(), version).await;
        let response = client.get("/").await.unwrap();
        let host = if field(&response, "seen-version") == Some("HTTP/1.1") { "host" } else { "" };
        assert_eq!(field(&response, "seen-fields"), Some(host), "nothing is added");
        let mut told = request(Method::GET, "/", body::empty());
        for name in [
            "x-outrider-attempt",
            "x-outrider-anything",
            "x-forwarded-client-cert",
            "x-request-id",
            "x-forwarded-for",
            "traceparent",
        ] {
            told.headers_mut().insert(name, "as-the-app-says".parse().unwrap());
        }
        let response = client.send(told).await.unwrap();
        assert_eq!(
            field(&response, "seen-fields").map(str::trim),
            Some("traceparent x-forwarded-for x-request-id"),
            "what the app says itself passes, what is the mesh's does not"
        );
    }
}

/// A server that takes clients of the web's CA only.
async fn demanding(web: &Web) -> TlsPeer {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(web.ca.root()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    let leaf = web.ca.web_leaf(NAME);
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![leaf.der.clone()], leaf.key_der())
        .unwrap();
    TlsPeer::start(config, tell).await
}

#[tokio::test]
async fn a_client_certificate_is_shown_if_there_is_one_and_ours_of_the_mesh_never_is() {
    let mesh = TestMesh::new();
    let web_of = Web::new(&mesh);
    let server = demanding(&web_of).await;
    let none = format!("{}, retry: {{max_retries: 0}}", public(""));
    let web = caller(&mesh, &[server.address()], &none).await;
    let response = Client::http1(web.address()).await.post("/", "x").await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "without one");

    let client = web_of.ca.web_leaf("client.example");
    fs::write(mesh.dir().join("client.pem"), client.pem()).unwrap();
    fs::write(mesh.dir().join("client.key"), client.key_pem()).unwrap();
    fs::set_permissions(mesh.dir().join("client.key"), fs::Permissions::from_mode(0o640)).unwrap();
    let web = caller(&mesh, &[server.address()], &public("certificate: client.pem, key: client.key")).await;
    for _ in 0..2 {
        let response = Client::http1(web.address()).await.post("/", "x").await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "with one");
    }
}

#[tokio::test]
async fn a_key_that_everybody_may_read_is_not_used_until_it_is_closed() {
    let mesh = TestMesh::new();
    let web_of = Web::new(&mesh);
    let server = demanding(&web_of).await;
    let client = web_of.ca.web_leaf("client.example");
    let key = mesh.dir().join("client.key");
    fs::write(mesh.dir().join("client.pem"), client.pem()).unwrap();
    fs::write(&key, client.key_pem()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let keys = public("certificate: client.pem, key: client.key");
    let web = caller(&mesh, &[server.address()], &keys).await;
    let response = Client::http1(web.address()).await.post("/", "x").await.unwrap();
    assert_eq!(field(&response, "x-outrider-reason"), Some("connect_failed"));
    assert_eq!(server.connections(), 0);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    works(&web).await;
}

/// Asks until the answer is 200.
async fn works(web: &Sidecar) {
    soon("it works", async {
        loop {
            let response = Client::http1(web.address()).await.get("/").await.unwrap();
            if response.status() == StatusCode::OK {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn roots_that_come_late_or_change_are_taken_up_and_faulty_ones_are_not() {
    let mesh = TestMesh::new();
    let (first, second) = (TestCa::new(), TestCa::new());
    let roots = mesh.dir().join("web.pem");
    let serve = async |ca: &TestCa| TlsPeer::start(Web::config(&ca.web_leaf(NAME), &[H1]), tell).await;
    let (old, new) = (serve(&first).await, serve(&second).await);
    let keys = format!("{}, retry: {{max_retries: 3, backoff_base: 1ms}}", public(""));
    let web = caller(&mesh, &[old.address()], &keys).await;
    let response = Client::http1(web.address()).await.get("/").await.unwrap();
    assert_eq!(field(&response, "x-outrider-reason"), Some("connect_failed"), "there are none yet");
    assert_eq!(old.connections(), 0);
    fs::write(&roots, first.bundle().to_pem()).unwrap();
    works(&web).await;

    let later = caller(&mesh, &[new.address()], &keys).await;
    let response = Client::http1(later.address()).await.get("/").await.unwrap();
    assert_eq!(field(&response, "x-outrider-reason"), Some("identity_mismatch"));
    let before = later.app().snapshots.load().version;
    fs::write(&roots, "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n").unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert_eq!(later.app().snapshots.load().version, before, "the last good stays");
    fs::write(&roots, second.bundle().to_pem()).unwrap();
    works(&later).await;
}

#[tokio::test]
async fn bytes_pass_through_tls_to_the_outside_both_ways_with_their_ends() {
    let mesh = TestMesh::new();
    let web_of = Web::new(&mesh);
    let server = TlsPeer::start(Web::config(&web_of.ca.web_leaf(NAME), &[H2]), |mut stream| async move {
        assert_eq!(stream.get_ref().1.alpn_protocol(), None);
        let mut all = Vec::new();
        // Our end of the stream is TLS' close_notify: anything less would be an error here.
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let web = caller(&mesh, &[server.address()], &public("")).await;
    for size in [0, 1, 300_000] {
        let mut stream = TcpStream::connect(web.address_of("tcp")).await.unwrap();
        stream.write_all(&body::pattern(size)).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = Vec::new();
        soon("the echo", stream.read_to_end(&mut back)).await.unwrap();
        assert!(back == body::pattern(size), "{} of {size} bytes", back.len());
    }
    assert_eq!(server.connections(), 3, "a bare stream has a connection of its own");
}

#[tokio::test]
async fn the_caps_of_a_cluster_hold_outside_the_mesh_too() {
    let mesh = TestMesh::new();
    let server = Web::new(&mesh).server(&[H1]).await;
    let keys = format!("{}, max_connections: 1, retry: {{max_retries: 0}}", public(""));
    let web = caller(&mesh, &[server.address()], &keys).await;
    let (up, slow) = body::channel();
    let mut first = Client::http1(web.address()).await;
    let under_way = first.send(request(Method::POST, "/", slow)).await.unwrap();
    assert_eq!(under_way.status(), StatusCode::OK);
    let response = Client::http1(web.address()).await.get("/").await.unwrap();
    assert_eq!(field(&response, "x-outrider-reason"), Some("max_connections"));
    drop(up);
    let mut other = Client::connect(web.address(), Version::HTTP_2).await;
    drop(under_way);
    soon("there is room again", async { while other.get("/").await.unwrap().status() != StatusCode::OK {} })
        .await;
}
