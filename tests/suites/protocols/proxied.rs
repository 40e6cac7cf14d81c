//! Requests as an app sends them to a proxy (`http_proxy`): the target is a whole URL.

use http::{Method, StatusCode};

use super::Pair;
use crate::harness::{HttpApp, TestMesh, client::exchange};

/// What is answered to a request with this first line and these fields.
async fn ask(pair: &Pair, line: &str, fields: &str) -> String {
    let text = format!("{line} HTTP/1.1\r\nConnection: close\r\n{fields}\r\n");
    String::from_utf8_lossy(&exchange(pair.web.address(), text.as_bytes()).await).into_owned()
}

#[tokio::test]
async fn the_targets_host_wins_and_the_app_sees_a_path() {
    let pair = Pair::of(HttpApp::echo().await).await;
    for (line, authority, target) in [
        ("GET http://orders/a/b?c=d", "orders", "/a/b?c=d"),
        ("GET http://orders:8080/", "orders:8080", "/"),
        ("GET http://ORDERS", "orders", "/"),
        ("GET HTTP://orders/", "orders", "/"),
        ("GET http://orders?q", "orders", "/?q"),
    ] {
        // RFC 9112 §3.2.2: the proxy "MUST ignore the received Host header field (if any)".
        for host in ["Host: orders\r\n", "Host: elsewhere.example\r\n", "Host:\r\n"] {
            let answer = ask(&pair, line, host).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{line} {host}: {answer}");
            let seen = pair.app.seen().pop().unwrap();
            assert_eq!(
                (seen.uri.to_string().as_str(), seen.header("host")),
                (target, Some(authority)),
                "{line}"
            );
            assert_eq!(seen.method, Method::GET);
        }
    }
}

#[tokio::test]
async fn what_is_for_the_proxy_ends_there() {
    let pair = Pair::of(HttpApp::echo().await).await;
    let fields = "Host: orders\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic c2VjcmV0\r\n\
                  Authorization: Bearer kept\r\n";
    let answer = ask(&pair, "GET http://orders/", fields).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = pair.app.only();
    for name in ["proxy-connection", "proxy-authorization", "connection"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("authorization"), Some("Bearer kept"));
}

#[tokio::test]
async fn a_url_without_a_cluster_or_that_is_none_is_refused() {
    let pair = Pair::of(HttpApp::echo().await).await;
    for (line, fields, code) in [
        ("GET http://elsewhere.example/", "Host: orders\r\n", "404"),
        ("GET http://user@orders/", "Host: orders\r\n", "400"),
        ("GET http://orders/", "", "400"),
        ("GET http://orders/", "Host: orders\r\nHost: orders\r\n", "400"),
        ("GET http:///path", "Host: orders\r\n", "400"),
    ] {
        let answer = ask(&pair, line, fields).await;
        assert_eq!(answer.split(' ').nth(1), Some(code), "{line}: {answer}");
    }
    assert_eq!(pair.app.count(), 0);
}

#[tokio::test]
async fn an_https_url_is_no_request_for_the_mesh() {
    let pair = Pair::of(HttpApp::echo().await).await;
    for line in ["GET https://orders/", "GET ftp://orders/file", "GET ws://orders/"] {
        let answer = ask(&pair, line, "Host: orders\r\n").await;
        assert_eq!(answer.split(' ').nth(1), Some(StatusCode::NOT_IMPLEMENTED.as_str()), "{line}: {answer}");
        assert!(answer.contains("x-outrider-reason: unsupported"), "{answer}");
    }
    assert_eq!(pair.app.count(), 0);

    let mesh = TestMesh::new();
    let app = HttpApp::echo().await;
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, tls: none, endpoints: [{{address: '{}'}}]}}]",
        app.address()
    );
    let web = mesh.start("web", &yaml).await;
    let request = b"GET https://orders/ HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n";
    let answer = String::from_utf8_lossy(&exchange(web.address(), request).await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    assert!(answer.contains("https://"), "the app is told why: {answer}");
    assert_eq!(app.count(), 0);
}
