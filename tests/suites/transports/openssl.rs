//! OpenSSL at the other end: the versions, groups and suites that are agreed on or not, standard peers of every kind, and
//! the system's roots.

use std::{fs, net::SocketAddr, process::Stdio};

use http::StatusCode;
use outrider::model::runtime::Refusal;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
};

use super::*;
use crate::harness::{
    Client, HttpApp, TcpApp, ca,
    client::field,
    eventually,
    openssl::{Side, call, command, serve},
    soon,
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n";

/// `orders` with these TLS settings, and an inbound listener with these keys.
async fn callee(mesh: &TestMesh, app: SocketAddr, tls: &str, keys: &str) -> Sidecar {
    let yaml =
        format!("tls: {{{tls}}}\ninbound: [{{name: in, listen: '127.0.0.1:0', app: '{app}', {keys}}}]");
    mesh.start("orders", &yaml).await
}

#[tokio::test]
async fn what_comes_in_has_a_configured_group_and_suite_or_is_refused_and_counted() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let web = mesh.ca.leaf("web");
    let tls = "key_exchange: [X25519], cipher_suites: [TLS_AES_256_GCM_SHA384]";
    let orders = callee(&mesh, app.address(), tls, "peer: standard").await;
    for (arguments, is_taken) in [
        (["-groups", "X25519", "-ciphersuites", "TLS_AES_256_GCM_SHA384"], true),
        (["-groups", "P-256:X25519", "-ciphersuites", "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"], true),
        (["-groups", "P-256", "-ciphersuites", "TLS_AES_256_GCM_SHA384"], false),
        (["-groups", "X25519", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], false),
    ] {
        let before = orders.refused(Refusal::NoAlgorithm);
        let Some(openssl) = command(&mesh, Side::Client, &web, &mesh.ca).await else { return };
        let text = call(openssl, orders.address(), &arguments, GET).await;
        if is_taken {
            assert!(text.contains("HTTP/1.1 200"), "{arguments:?}: {text}");
            assert!(text.contains("Cipher is TLS_AES_256_GCM_SHA384"), "{arguments:?}: {text}");
        } else {
            assert!(!text.contains("HTTP/1.1"), "{arguments:?}: {text}");
            eventually("it is counted", || orders.refused(Refusal::NoAlgorithm) == before + 1).await;
        }
    }
}

#[tokio::test]
async fn what_goes_out_has_a_configured_group_and_suite_or_fails_and_is_counted() {
    let mesh = TestMesh::new();
    let web_of = Web::new(&mesh);
    let leaf = web_of.ca.web_leaf(NAME);
    for (arguments, is_taken) in [
        (["-groups", "P-256", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], true),
        (["-groups", "X25519", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], false),
        (["-groups", "P-256", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], false),
    ] {
        let Some(openssl) = command(&mesh, Side::Server, &leaf, &web_of.ca).await else { return };
        let (_child, address) = serve(openssl, &[&["-www"], &arguments[..]].concat()).await;
        let yaml = format!(
            "tls: {{key_exchange: [P-256], cipher_suites: [TLS_CHACHA20_POLY1305_SHA256]}}\n\
             outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
             clusters: [{{name: orders, endpoints: [{{address: '{address}'}}], retry: {{max_retries: 0}}, {}}}]",
            public("protocol: http1"),
        );
        let web = mesh.start("web", &yaml).await;
        let response = Client::http1(web.address()).await.get("/").await.unwrap();
        if is_taken {
            assert_eq!(response.status(), StatusCode::OK, "{arguments:?}: {}", failure(&web));
            let facts = web.cluster("orders").endpoints[0].runtime.tls().unwrap();
            assert_eq!((&*facts.key_exchange, &*facts.peer), ("secp256r1", NAME));
        } else {
            assert_eq!(field(&response, "x-outrider-reason"), Some("connect_failed"), "{arguments:?}");
            assert_eq!(failed(&web, TlsFailure::NoAlgorithm), 1, "{}", failure(&web));
            assert!(failure(&web).contains("tls.key_exchange"), "{}", failure(&web));
        }
    }
}

#[tokio::test]
async fn a_public_server_without_tls13_is_named_as_such() {
    let mesh = TestMesh::new();
    let web_of = Web::new(&mesh);
    for (version, is_taken) in [("-tls1_3", true), ("-tls1_2", false)] {
        let leaf = web_of.ca.web_leaf(NAME);
        let Some(openssl) = command(&mesh, Side::Server, &leaf, &web_of.ca).await else { return };
        let (_child, address) = serve(openssl, &["-www", version]).await;
        let keys = format!("{}, retry: {{max_retries: 0}}", public(""));
        let web = caller(&mesh, &[address], &keys).await;
        let response = Client::http1(web.address()).await.get("/").await.unwrap();
        assert_eq!(response.status() == StatusCode::OK, is_taken, "{}", failure(&web));
        assert_eq!(failed(&web, TlsFailure::OldTls) == 0, is_taken);
        assert!(is_taken || failure(&web).contains("sidecars speak TLS 1.3 only"), "{}", failure(&web));
    }
}

#[tokio::test]
async fn a_standard_client_is_served_with_and_without_alpn() {
    let (mesh, app) = (TestMesh::new(), HttpApp::named("the app").await);
    let web = mesh.ca.leaf("web");
    let orders = mesh.callee("orders", app.address(), "peer: standard").await;
    for arguments in [&["-alpn", "http/1.1"][..], &["-alpn", "h3,http/1.1"], &[]] {
        let Some(openssl) = command(&mesh, Side::Client, &web, &mesh.ca).await else { return };
        let text = call(openssl, orders.address(), arguments, GET).await;
        assert!(text.contains("HTTP/1.1 200") && text.contains("the app"), "{arguments:?}: {text}");
    }
    let Some(openssl) = command(&mesh, Side::Client, &web, &mesh.ca).await else { return };
    call(openssl, orders.address(), &["-alpn", "ftp"], GET).await;
    eventually("it is counted", || orders.refused(Refusal::NoProtocol) == 1).await;
}

#[tokio::test]
async fn a_standard_client_of_bytes_is_served() {
    let mesh = TestMesh::new();
    let app = TcpApp::start(async |mut stream| {
        let mut hello = [0; 5];
        drop(stream.read_exact(&mut hello).await);
        drop(stream.write_all(b"server: ").await);
        drop(stream.write_all(&hello).await);
    })
    .await;
    let orders = mesh.callee("orders", app.address(), "peer: standard, protocol: tcp").await;
    let leaf = mesh.ca.leaf("web");
    let Some(openssl) = command(&mesh, Side::Client, &leaf, &mesh.ca).await else { return };
    let text = call(openssl, orders.address(), &["-quiet"], b"hello").await;
    assert!(text.ends_with("server: hello"), "{text}");
}

#[tokio::test]
async fn a_standard_server_is_called_with_requests_and_with_bytes() {
    let mesh = TestMesh::new();
    let leaf = mesh.ca.leaf("orders");
    let verify = ["-Verify", "2", "-verify_return_error"];
    let Some(openssl) = command(&mesh, Side::Server, &leaf, &mesh.ca).await else { return };
    let (_www, address) = serve(openssl, &[&["-www", "-alpn", "http/1.1"], &verify[..]].concat()).await;
    let web = mesh.caller(&[address], "peer: standard, peer_protocol: http1").await;
    let response = Client::http1(web.address()).await.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{}", failure(&web));
    assert!(body::text(response.into_body()).await.contains("TLSv1.3"));

    let Some(openssl) = command(&mesh, Side::Server, &leaf, &mesh.ca).await else { return };
    let (_reverse, address) = serve(openssl, &[&["-rev"], &verify[..]].concat()).await;
    let web = mesh.tcp_caller(&[address], "peer: standard").await;
    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    stream.write_all(b"olleh\n").await.unwrap();
    let mut back = [0; 6];
    soon("the answer", stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"hello\n");
}

#[tokio::test]
async fn curl_with_a_certificate_is_served_in_both_versions() {
    let (mesh, app) = (TestMesh::new(), HttpApp::named("the app").await);
    let orders = mesh.callee("orders", app.address(), "peer: standard").await;
    let leaf = mesh.ca.leaf("web");
    let path = |name: &str| mesh.dir().join(name);
    fs::write(path("curl.crt"), leaf.pem()).unwrap();
    fs::write(path("curl.key"), leaf.key_pem()).unwrap();
    for (version, told) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let mut curl = Command::new("curl");
        curl.args(["-sk", version, "-w", " %{http_version}", "--max-time", "20"]);
        curl.arg("--cert").arg(path("curl.crt")).arg("--key").arg(path("curl.key"));
        let Ok(output) = curl.arg(format!("https://{}/", orders.address())).output().await else {
            eprintln!("SKIPPED: curl is not installed");
            return;
        };
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("the app {told}"));
    }
}

/// The program itself, because whose roots the system has is told by its environment.
#[tokio::test]
async fn the_systems_roots_are_used_if_no_others_are_named() {
    let mesh = TestMesh::new();
    let web_of = Web::new(&mesh);
    let server = web_of.server(&[b"http/1.1"]).await;
    for (roots, status) in [("web.pem", StatusCode::OK), ("none.pem", StatusCode::SERVICE_UNAVAILABLE)] {
        let leaf = mesh.ca.leaf("web");
        let file = |name: &str, text: &str| fs::write(mesh.dir().join(name), text).unwrap();
        file("web.crt", &leaf.pem());
        file("web.key", &leaf.key_pem());
        file("web.bundle", &mesh.ca.bundle().to_pem());
        file(
            "web.yaml",
            &format!(
                "service: web\ntrust_domain: {}\nstate_dir: state\n\
                 identity: {{file: {{certificate: web.crt, key: web.key, bundle: web.bundle}}}}\n\
                 admin: {{socket: admin.sock, listen: none}}\n\
                 outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
                 clusters:\n- {{name: orders, tls: public, public: {{server_name: {NAME}}}, \
                 endpoints: [{{address: '{}'}}]}}\n- {{name: legacy, tls: none, endpoints: [{{address: '{}'}}]}}\n",
                ca::DOMAIN,
                server.address(),
                crate::harness::app::nobody(),
            ),
        );
        let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("outrider");
        let mut child = Command::new(program)
            .args(["run", "--config", "web.yaml"])
            .current_dir(mesh.dir())
            .env("NO_COLOR", "1")
            .env("SSL_CERT_FILE", mesh.dir().join(roots))
            .env_remove("SSL_CERT_DIR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = soon("a line of the log", lines.next_line()).await.unwrap().unwrap();
            log.push_str(&line);
            log.push('\n');
            if let Some((_, rest)) = line.split_once("address=") {
                break rest.split_whitespace().next().unwrap().parse::<SocketAddr>().unwrap();
            }
        };
        let response = Client::http1(address).await.get("/").await.unwrap();
        assert_eq!(response.status(), status, "{roots}\n{log}");
        assert!(log.contains("leave unencrypted") && log.contains("legacy"), "it is named: {log}");
        assert_eq!(log.contains("has no roots"), roots == "none.pem", "{log}");
    }
}
