//! Tunnels that are not opened: the caller is told why, and what it sent behind is nobody's request.

use http::Method;

use super::*;
use crate::harness::{
    Client, HttpApp,
    client::{exchange, request},
    peer::{self, ALPN_H2},
};

/// The status line's code and the reason of what was answered.
fn answered(answer: &[u8]) -> (String, Option<String>) {
    let text = String::from_utf8_lossy(answer).into_owned();
    let mut codes = text.split(' ').skip(1);
    let reason = text.lines().find_map(|line| line.strip_prefix("x-outrider-reason: "));
    (codes.next().unwrap_or_default().to_owned(), reason.map(str::to_owned))
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_503_with_its_reason() {
    let mesh = TestMesh::new();
    let dead_app = mesh.callee("orders", nobody(), "protocol: tcp").await;
    let only_http = mesh.callee("orders", nobody(), "").await;
    for (endpoint, reason) in [
        (nobody(), "connect_failed"),
        (dead_app.address(), "not_processed"),
        // Its listener takes requests only.
        (only_http.address(), "not_processed"),
    ] {
        let web = mesh.caller(&[endpoint], "").await;
        for version in VERSIONS {
            let (told, _side) = ask(web.address(), version, "orders:80").await;
            assert_eq!(told.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(told.header("x-outrider-reason"), Some(reason));
        }
    }
}

#[tokio::test]
async fn a_wrong_peer_gets_no_tunnel() {
    let mesh = TestMesh::new();
    let stranger = mesh.callee("users", nobody(), "protocol: tcp").await;
    let web = mesh.caller(&[stranger.address()], "").await;
    for version in VERSIONS {
        let (told, _side) = ask(web.address(), version, "orders:80").await;
        assert_eq!(told.header("x-outrider-reason"), Some("identity_mismatch"), "{told:?}");
    }
}

#[tokio::test]
async fn opening_takes_no_longer_than_a_request_may() {
    let mesh = TestMesh::new();
    // Accepts, and says nothing.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let keys = "connect_timeout: 60s, request_timeout: 200ms";
    let web = mesh.caller(&[mute.local_addr().unwrap()], keys).await;
    for version in VERSIONS {
        let (told, _side) = ask(web.address(), version, "orders:80").await;
        assert_eq!(told.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(told.header("x-outrider-reason"), Some("request_timeout"));
    }
}

#[tokio::test]
async fn what_was_sent_behind_a_refused_connect_is_never_a_request() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[orders.address()], "").await;
    for target in ["nobody:80", "orders", "orders:0"] {
        let text = format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: orders\r\n\r\n"
        );
        let answer = exchange(web.address(), text.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
        assert!(text.contains("connection: close"), "{text}");
    }
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn a_refused_tunnel_of_http2_leaves_its_connection_as_it_was() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[orders.address()], "").await;
    let mut client = Client::http2(web.address()).await;
    let Client::Http2(sender) = &mut client else { unreachable!() };
    // Whose answer has a status, whatever it says of its content.
    let asked = Request::connect("nobody:80").header("content-type", "application/grpc");
    let asked = asked.body(body::empty()).unwrap();
    let told = sender.send_request(asked).await.unwrap();
    assert_eq!(told.status(), StatusCode::NOT_FOUND);
    let response = client.send(request(Method::GET, "/", body::empty())).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(app.count(), 1);
}

#[tokio::test]
async fn a_target_that_is_not_a_host_and_a_port_is_refused() {
    let line = Line::to(TcpApp::echo().await).await;
    for target in [
        "orders",
        "orders:",
        "orders:0",
        "orders:00080",
        "orders:65536",
        "orders:http",
        "user@orders:80",
        "[orders]:80",
        ":80",
        "/",
        "/orders:80",
        "*",
        "http://orders:80",
        "http://orders:80/",
        "orders:80/",
    ] {
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: orders:80\r\n\r\n");
        let (code, _reason) = answered(&exchange(line.web.address(), head.as_bytes()).await);
        assert_eq!(code, "400", "{target}");
    }
    for target in ["orders", "orders:0", "orders:00080"] {
        let (told, _side) = ask(line.web.address(), Version::HTTP_2, target).await;
        assert_eq!(
            (told.status, told.header("x-outrider-reason")),
            (StatusCode::BAD_REQUEST, Some("bad_request"))
        );
    }
    assert_eq!(line.app.connections(), 0);
}

#[tokio::test]
async fn a_connect_with_content_or_without_a_host_is_refused() {
    let line = Line::to(TcpApp::echo().await).await;
    for (fields, code) in [
        ("Host: orders:80\r\nContent-Length: 5\r\n", "400"),
        ("Host: orders:80\r\nTransfer-Encoding: chunked\r\n", "400"),
        ("Host: orders:80\r\nHost: orders:80\r\n", "400"),
        ("", "400"),
        ("Host: orders:80\r\nContent-Length: 0\r\n", "200"),
        ("Host: elsewhere\r\nProxy-Authorization: Basic eA==\r\nProxy-Connection: keep-alive\r\n", "200"),
    ] {
        let head = format!("CONNECT orders:80 HTTP/1.1\r\n{fields}\r\n");
        let mut stream = TcpStream::connect(line.web.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let (head, _is_whole) = soon("the answer", crate::harness::client::read_head(&mut stream)).await;
        assert_eq!(answered(head.as_bytes()).0, code, "{fields}");
    }
}

#[tokio::test]
async fn peers_get_no_tunnels() {
    let mesh = TestMesh::new();
    let app = HttpApp::echo().await;
    for (keys, alpn) in [("", ALPN_H2), ("peer: standard", b"h2"), ("peer: standard", b"http/1.1")] {
        let orders = mesh.callee("orders", app.address(), keys).await;
        let config = peer::client_config(&mesh.ca, Some(&mesh.ca.leaf("web")), &[alpn]);
        let mut stream = peer::connect(orders.address(), config).await.unwrap();
        let told = if alpn == b"http/1.1" {
            stream.write_all(b"CONNECT orders:80 HTTP/1.1\r\nHost: orders:80\r\n\r\n").await.unwrap();
            crate::protocols::upgrades::told_http1(&mut stream).await
        } else {
            let asked = Request::connect("orders:80").version(Version::HTTP_2);
            crate::protocols::upgrades::call_http2_over(stream, asked).await.0
        };
        assert_eq!(told.status, StatusCode::NOT_IMPLEMENTED, "{keys}");
        assert_eq!(told.header("x-outrider-reason"), Some("unsupported"));
    }
    assert_eq!(app.count(), 0);
}
