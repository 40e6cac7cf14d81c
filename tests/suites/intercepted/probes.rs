//! Health probes of a host that has no certificate.

use http::{Method, Request, StatusCode, Version};
use outrider::model::runtime::Refusal;
use tokio::io::AsyncWriteExt;

use super::{Pod, is_reset};
use crate::harness::{
    HttpApp, body,
    client::{exchange_over, field, request},
};

const PROBES: &str = "probes: [/healthz, /ready/now]";

#[tokio::test]
async fn a_probe_of_exactly_a_listed_path_reaches_the_app() {
    let app = HttpApp::named("orders").await;
    let pod = Pod::new(app.address(), PROBES).await;
    let mut client = pod.client(app.address(), Version::HTTP_11).await;
    for (method, path) in [
        (Method::GET, "/healthz"),
        (Method::HEAD, "/healthz"),
        (Method::GET, "/ready/now"),
        (Method::GET, "/healthz?verbose=1"),
    ] {
        let response = client.send(request(method, path, body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        drop(body::text(response.into_body()).await);
    }
    let seen: Vec<_> = app.seen().iter().map(|seen| seen.uri.path().to_owned()).collect();
    assert_eq!(seen, ["/healthz", "/healthz", "/ready/now", "/healthz"]);
    assert_eq!(app.seen()[0].header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(pod.exceptions(), [0, 1, 0]);
}

#[tokio::test]
async fn everything_else_is_answered_with_403_and_a_close() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), PROBES).await;
    let plain = |line: &str| format!("{line} HTTP/1.1\r\nHost: orders\r\n\r\n");
    for request in [
        plain("GET /"),
        plain("GET /healthz/"),
        plain("GET /Healthz"),
        plain("GET /%68ealthz"),
        plain("GET //healthz"),
        plain("GET /x/../healthz"),
        plain("GET /healthz;a=b"),
        plain("get /healthz"),
        plain("POST /healthz"),
        plain("OPTIONS /healthz"),
        plain("BREW /healthz"),
        "GET /healthz HTTP/1.1\r\nHost: orders\r\nContent-Length: 4\r\n\r\nbody".to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            .to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n".to_owned(),
        "CONNECT orders:80 HTTP/1.1\r\nHost: orders\r\n\r\n".to_owned(),
    ] {
        let answer = exchange_over(pod.dial(app.address()).await, request.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 403 "), "{request:?}: {answer:?}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{request:?}: {answer:?}");
        assert!(answer.contains("\r\nx-outrider-reason: not_allowed\r\n"), "{request:?}: {answer:?}");
    }
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn each_request_of_a_connection_is_judged() {
    let app = HttpApp::named("orders").await;
    let pod = Pod::new(app.address(), PROBES).await;
    let mut client = pod.client(app.address(), Version::HTTP_11).await;
    let response = client.get("/healthz").await.unwrap();
    assert_eq!(body::text(response.into_body()).await, "orders");
    let response = client.get("/orders").await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(field(&response, "x-outrider-reason"), Some("not_allowed"));
    drop(body::text(response.into_body()).await);
    assert!(client.get("/healthz").await.is_err(), "the connection is closed");
    assert_eq!(app.only().uri.path(), "/healthz");
    assert_eq!(pod.exceptions(), [0, 1, 0]);
}

#[tokio::test]
async fn what_is_no_probe_by_its_first_bytes_is_reset() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), PROBES).await;
    let preface = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..];
    for (count, bytes) in [preface, b"\0hello", b"EHLO x\r\n", b"GET /healthz\r\n"].into_iter().enumerate() {
        let mut stream = pod.dial(app.address()).await;
        stream.write_all(bytes).await.unwrap();
        is_reset(stream).await;
        pod.refused(count as u64 + 1, Refusal::Plaintext).await;
    }
    assert_eq!((app.connections(), pod.exceptions()), (0, [0; 3]));
}

#[tokio::test]
async fn peers_may_ask_for_whatever_they_like() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), PROBES).await;
    let mut web = pod.peer(app.address(), "web").await.unwrap();
    let request = Request::post("/orders").body(body::full("two")).unwrap();
    assert_eq!(web.send(request).await.unwrap().status(), StatusCode::OK);
    assert_eq!(pod.exceptions(), [0; 3]);
}
