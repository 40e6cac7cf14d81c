//! A switch that is not made is an answer as any other; and what came behind the request is nobody's.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{StatusCode, Version};
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Line, Side, call, call_http1, call_http2, extended, handshake, read_request, told_http1};
use crate::harness::{
    HttpApp, TcpApp, TestMesh,
    app::nobody,
    body,
    client::{exchange, read_head},
    eventually, soon,
};

/// An app that answers every handshake with that and reads on.
async fn answering(answer: &'static str) -> (TcpApp, Arc<Mutex<Vec<u8>>>) {
    let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
    let log = Arc::clone(&heard);
    let app = TcpApp::start(move |mut stream| {
        let log = Arc::clone(&log);
        async move {
            if read_request(&mut stream).await.is_none() {
                return;
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            drop(stream.read_to_end(&mut rest).await);
            log.lock().unwrap().extend_from_slice(&rest);
        }
    })
    .await;
    (app, heard)
}

#[tokio::test]
async fn a_refusal_of_the_app_is_passed_on_whole() {
    for (answer, status, text) in [
        ("HTTP/1.1 403 Forbidden\r\nX-App: 1\r\nContent-Length: 4\r\n\r\nnope", 403, "nope"),
        ("HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n", 426, ""),
        ("HTTP/1.1 302 Found\r\nLocation: /in\r\nContent-Length: 0\r\n\r\n", 302, ""),
    ] {
        let line = Line::to(answering(answer).await.0, Version::HTTP_11).await;
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let (told, mut side) = call(line.web.address(), version).await;
            assert_eq!(told.status.as_u16(), status);
            assert_eq!(told.header("x-outrider-reason"), None);
            if version == Version::HTTP_11 {
                assert_eq!(told.header("connection"), Some("close"));
            }
            let rest = soon("the body", side.read_to_end()).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&rest), text);
        }
        eventually("nothing is under way", || line.in_flight() == (0, 0) && line.active() == (0, 0)).await;
    }
}

#[tokio::test]
async fn a_refusal_with_a_success_is_one_to_an_http1_caller_and_an_error_to_others() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage";
    let line = Line::to(answering(answer).await.0, Version::HTTP_11).await;
    let (told, mut side) = call(line.web.address(), Version::HTTP_11).await;
    assert_eq!(told.status, StatusCode::OK);
    assert_eq!(told.header("x-outrider-declined"), None);
    assert_eq!(soon("the body", side.read_to_end()).await.unwrap(), b"page");
    // For an extended CONNECT a success is the switch (RFC 8441 §5): CVE-2024-23326 was a 200 taken for it.
    let (told, _side) = call(line.web.address(), Version::HTTP_2).await;
    assert_eq!(told.status, StatusCode::BAD_GATEWAY);
    assert_eq!(told.header("x-outrider-reason"), Some("bad_response"));
    assert_eq!(line.app.connections(), 2, "and nothing is asked twice");
}

#[tokio::test]
async fn a_refusal_streams() {
    let (send, body) = body::channel();
    let body = Arc::new(Mutex::new(Some(body)));
    let app = HttpApp::start(move |_request| {
        let body = body.lock().unwrap().take().unwrap();
        async move { Ok(http::Response::builder().status(401).body(body)?) }
    })
    .await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[orders.address()], "").await;
    let (told, mut side) = call_http1(web.address(), &handshake("")).await;
    assert_eq!(told.status, StatusCode::UNAUTHORIZED);
    for piece in ["one", "two"] {
        send.send(Ok(Frame::data(piece.into()))).await.unwrap();
        let chunk = soon("a piece", side.read()).await.unwrap();
        assert!(String::from_utf8_lossy(&chunk).contains(piece), "while the body goes on");
    }
}

#[tokio::test]
async fn bytes_behind_the_request_wait_for_the_switch() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let app = TcpApp::start(move |mut stream| {
        let mut gate = gate.clone();
        async move {
            let Some(asked) = read_request(&mut stream).await else { return };
            let early = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut [0; 100])).await;
            assert!(early.is_err(), "nothing before the switch: {early:?}");
            gate.wait_for(|is_open| *is_open).await.unwrap();
            let accept = outrider::headers::websocket::accept(&asked.headers["sec-websocket-key"]);
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                accept.to_str().unwrap(),
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            Side::Http1(stream).echo().await;
        }
    })
    .await;
    let line = Line::to(app, Version::HTTP_11).await;
    let mut stream = TcpStream::connect(line.web.address()).await.unwrap();
    let early = "GET /admin HTTP/1.1\r\nHost: orders\r\n\r\n";
    stream.write_all(format!("{}{early}", handshake("")).as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    go.send(true).unwrap();
    let told = told_http1(&mut stream).await;
    assert_eq!(told.status, StatusCode::SWITCHING_PROTOCOLS);
    let mut back = vec![0; early.len()];
    soon("what was sent early", stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(String::from_utf8(back).unwrap(), early);
    assert_eq!(line.app.connections(), 1);
}

#[tokio::test]
async fn bytes_behind_a_refused_request_are_nobodys() {
    // A 200, as CVE-2024-23326 has it, and a 403; in the forms that go over HTTP/2 and over HTTP/1.1.
    for (answer, status) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200"),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "HTTP/1.1 403"),
    ] {
        let (app, heard) = answering(answer).await;
        let line = Line::to(app, Version::HTTP_11).await;
        let other =
            "GET / HTTP/1.1\r\nHost: orders\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n".to_owned();
        for request in [handshake(""), other] {
            let early = "GET /admin HTTP/1.1\r\nHost: orders\r\n\r\n";
            let answers = exchange(line.web.address(), format!("{request}{early}").as_bytes()).await;
            let answers = String::from_utf8_lossy(&answers);
            assert!(answers.starts_with(status), "{answers}");
            assert_eq!(answers.matches("HTTP/1.1").count(), 1, "one answer, and the end: {answers}");
        }
        drop(line);
        eventually("the app's connections end", || heard.lock().unwrap().is_empty()).await;
        assert_eq!(String::from_utf8_lossy(&heard.lock().unwrap()), "", "the app has seen nothing of it");
    }
}

#[tokio::test]
async fn bytes_behind_a_request_that_we_refuse_are_nobodys() {
    let mesh = TestMesh::new();
    let web = mesh.caller(&[nobody()], "").await;
    for request in [
        handshake(""),
        "CONNECT orders:80 HTTP/1.1\r\nHost: orders:80\r\n\r\n".to_owned(),
        "CONNECT orders:80 HTTP/1.1\r\nHost: orders:80\r\nContent-Type: application/grpc\r\n\r\n".to_owned(),
    ] {
        let early = "GET / HTTP/1.1\r\nHost: nobody\r\n\r\n";
        let answers = exchange(web.address(), format!("{request}{early}").as_bytes()).await;
        let answers = String::from_utf8_lossy(&answers);
        assert!(answers.starts_with("HTTP/1.1 50"), "{answers}");
        assert_eq!(answers.matches("HTTP/1.1").count(), 1, "{answers}");
    }
}

#[tokio::test]
async fn what_was_sent_is_not_sent_again_and_what_was_not_is() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let app = TcpApp::start(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            if read_head(&mut stream).await.1 {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[nobody(), nobody(), orders.address()], "retry: {max_retries: 5}").await;
    let other = "GET / HTTP/1.1\r\nHost: orders\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n";
    for (i, request) in [handshake(""), other.to_owned()].iter().enumerate() {
        let (told, _side) = call_http1(web.address(), request).await;
        assert_eq!(told.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(told.header("x-outrider-reason"), Some("reset_before_answer"));
        assert_eq!(asked.load(Ordering::Relaxed), i + 1, "the app was reached, once");
    }
}

#[tokio::test]
async fn unknown_protocols_are_refused_in_clear_words() {
    let mesh = TestMesh::new();
    let web = mesh.caller(&[nobody()], "").await;
    for protocol in ["connect-udp", "webtransport"] {
        let request = extended(protocol).header("content-type", "application/grpc");
        let (told, _side) = call_http2(web.address(), request).await;
        assert_eq!(told.status, StatusCode::NOT_IMPLEMENTED);
        assert_eq!(told.header("x-outrider-reason"), Some("unsupported"));
    }
    assert_eq!(web.retries(), 0);
}

#[tokio::test]
async fn an_http2_app_that_has_not_announced_it_is_not_asked() {
    let app = HttpApp::echo().await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "app_protocol: http2").await;
    let web = mesh.caller(&[orders.address()], "").await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let (told, mut side) = call(web.address(), version).await;
        assert_eq!(told.status, StatusCode::NOT_IMPLEMENTED);
        assert_eq!(told.header("x-outrider-reason"), Some("unsupported"));
        let text = soon("the words", side.read()).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&text), "outrider: unsupported\n");
    }
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn a_handshake_that_is_none_goes_to_the_app_as_it_is() {
    let answer = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let (app, _heard) = answering(answer).await;
    let line = Line::to(app, Version::HTTP_11).await;
    for request in [
        handshake("").replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        handshake("").replace("dGhlIHNhbXBsZSBub25jZQ==", "short"),
        handshake("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        handshake("").replace("GET", "POST"),
    ] {
        let (told, _side) = call_http1(line.web.address(), &request).await;
        assert_eq!(
            (told.status, told.header("x-outrider-reason")),
            (StatusCode::BAD_REQUEST, None),
            "{request}"
        );
    }
}
