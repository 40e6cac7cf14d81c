//! What one reader could take for the end of a request and another not: nothing that follows is ever a request of its
//! own, and a connection in doubt is closed.

use std::sync::atomic::Ordering;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use outrider::model::closed::Misuse;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Pair;
use crate::harness::{
    Client, HttpApp, TcpApp, TestMesh, body,
    client::{exchange, read_head},
    eventually, soon,
};

/// What must never be a request.
const EVIL: &str = "GET /evil HTTP/1.1\r\nHost: orders\r\n\r\n";

fn answers(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("HTTP/1.")).collect()
}

/// An app that reads everything before it answers, and its sidecars.
async fn reading() -> Pair {
    Pair::of(HttpApp::named("read").await).await
}

fn assert_not_smuggled(pair: &Pair, what: &str) {
    for seen in pair.app.seen() {
        assert_ne!(seen.uri.path(), "/evil", "{what}");
    }
}

#[tokio::test]
async fn heads_that_could_be_read_in_two_ways_are_answered_with_400_and_closed() {
    let cases: &[(&str, &[u8])] = &[
        ("a lone CR in a value", b"GET / HTTP/1.1\r\nHost: orders\r\nX-A: 1\r2\r\n\r\n"),
        ("a lone CR at the end of a line", b"GET / HTTP/1.1\r\nHost: orders\rX-A: 1\r\n\r\n"),
        ("a lone CR in the target", b"GET /\r HTTP/1.1\r\nHost: orders\r\n\r\n"),
        ("a bell in a value", b"GET / HTTP/1.1\r\nHost: orders\r\nX-A: \x07\r\n\r\n"),
        ("a delete in a value", b"GET / HTTP/1.1\r\nHost: orders\r\nX-A: \x7f\r\n\r\n"),
        ("no name", b"GET / HTTP/1.1\r\nHost: orders\r\n: x\r\n\r\n"),
        ("a name of a space", b"GET / HTTP/1.1\r\nHost: orders\r\n : x\r\n\r\n"),
        ("a tab before the colon", b"GET / HTTP/1.1\r\nHost: orders\r\nContent-Length\t: 3\r\n\r\nabc"),
        ("a space before the first name", b"GET / HTTP/1.1\r\n Host: orders\r\n\r\n"),
        ("two spaces in the request line", b"GET  / HTTP/1.1\r\nHost: orders\r\n\r\n"),
        ("a fourth word in the request line", b"GET / HTTP/1.1 x\r\nHost: orders\r\n\r\n"),
        ("no version", b"GET /\r\nHost: orders\r\n\r\n"),
        ("a small version", b"GET / http/1.1\r\nHost: orders\r\n\r\n"),
        ("an empty length", b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length:\r\n\r\n"),
        ("a negative length", b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: -1\r\n\r\n"),
        ("a length in hexadecimal", b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 0x3\r\n\r\nabc"),
        ("a length beyond 64 bits", b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 18446744073709551616\r\n\r\n"),
        ("chunked twice", b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        ("chunked in two fields", b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("chunked before another", b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        ("chunked with a parameter", b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
        ("chunked in quotes", b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
        ("a vertical tab before chunked", b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
        ("an empty coding", b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n"),
        ("chunked in HTTP/1.0 that stays", b"POST / HTTP/1.0\r\nHost: orders\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("a list of hosts", b"GET / HTTP/1.1\r\nHost: orders, evil\r\n\r\n"),
        ("a target without a host", b"GET http:///x HTTP/1.1\r\nHost: orders\r\n\r\n"),
        ("a target with a user", b"GET http://me@orders/ HTTP/1.1\r\nHost: orders\r\n\r\n"),
        ("a star that is no OPTIONS", b"GET * HTTP/1.1\r\nHost: orders\r\n\r\n"),
    ];
    let pair = reading().await;
    let mut good = Client::http1(pair.web.address()).await;
    let mut wrong = Vec::new();
    for (what, bytes) in cases {
        let answer = exchange(pair.web.address(), &[bytes, EVIL.as_bytes()].concat()).await;
        let text = String::from_utf8_lossy(&answer);
        match answers(&text).as_slice() {
            ["HTTP/1.1 400 Bad Request"] => {}
            other => wrong.push(format!("{what}: {other:?}")),
        }
        assert_eq!(soon(what, good.get("/good")).await.unwrap().status(), StatusCode::OK);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(pair.app.seen().iter().all(|seen| seen.uri.path() == "/good"));
}

#[tokio::test]
async fn a_line_that_ends_without_cr_is_a_line_and_goes_on_with_one() {
    // RFC 9112 §2.2: "a recipient MAY recognize a single LF as a line terminator". Everybody who takes such a line at all
    // takes it so; what goes on is written anew.
    let pair = reading().await;
    let bytes = b"POST / HTTP/1.1\nHost: orders\nX-A: 1\nContent-Length: 3\nConnection: close\n\nabc";
    let text = String::from_utf8(exchange(pair.web.address(), bytes).await).unwrap();
    assert_eq!(answers(&text), ["HTTP/1.1 200 OK"]);
    assert_eq!(
        (pair.app.only().header("x-a"), pair.app.only().header("content-length")),
        (Some("1"), Some("3"))
    );
}

#[tokio::test]
async fn a_length_beside_chunked_is_not_the_length_whatever_follows() {
    // RFC 9112 §6.3: the length is overridden and not forwarded, and the connection is closed after the answer, so that
    // what one could take for the rest of the body and another for a request is neither.
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n",
    ] {
        for body in ["0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"] {
            let pair = reading().await;
            let bytes = format!("POST / HTTP/1.1\r\nHost: orders\r\n{fields}\r\n{body}{EVIL}");
            let text = String::from_utf8(exchange(pair.web.address(), bytes.as_bytes()).await).unwrap();
            assert_eq!(answers(&text), ["HTTP/1.1 200 OK"], "{fields}");
            assert!(text.to_lowercase().contains("connection: close"), "{text}");
            assert_eq!(pair.app.only().header("content-length"), None, "{fields}");
        }
    }
}

#[tokio::test]
async fn chunks_that_could_be_read_in_two_ways_end_the_connection() {
    let long_extension = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(20_000));
    let long_trailers = format!("0\r\nX-A: {}\r\n\r\n", "x".repeat(70_000));
    let cases = [
        ("a size in C", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("a negative size", "-3\r\nabc\r\n0\r\n\r\n"),
        ("a signed size", "+3\r\nabc\r\n0\r\n\r\n"),
        ("no size", "\r\nabc\r\n0\r\n\r\n"),
        ("a space before the size", " 3\r\nabc\r\n0\r\n\r\n"),
        ("a digit after a space", "3 3\r\nabc\r\n0\r\n\r\n"),
        ("an underscore", "1_0\r\n0123456789abcdef\r\n0\r\n\r\n"),
        ("a size beyond 64 bits", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
        ("a size of which only the end counts", "fffffffffffffffff3\r\nabc\r\n0\r\n\r\n"),
        ("a size line without CR", "3\nabc\r\n0\r\n\r\n"),
        ("an extension with a lone LF", "3;a\nabc\r\n0\r\n\r\n"),
        ("an extension with a lone CR", "3;a\rbc\r\nabc\r\n0\r\n\r\n"),
        ("a chunk without its CRLF", "3\r\nabc0\r\n\r\n"),
        ("a chunk with a lone LF", "3\r\nabc\n0\r\n\r\n"),
        ("a chunk longer than it says", "3\r\nabcd\r\n0\r\n\r\n"),
        ("a last chunk without its CRLF", "0\r\nX"),
        ("a trailer with a lone CR", "0\r\nX-A: 1\r2\r\n\r\n"),
        ("a trailer without a colon", "0\r\nnonsense\r\n\r\n"),
        ("extensions without end", &long_extension),
        ("trailers without end", &long_trailers),
    ];
    let pair = reading().await;
    let mut good = Client::http1(pair.web.address()).await;
    for (what, body) in cases {
        let bytes =
            format!("POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n{body}{EVIL}");
        let text = String::from_utf8(exchange(pair.web.address(), bytes.as_bytes()).await).unwrap();
        let answers = answers(&text);
        assert!(answers.is_empty() || answers == ["HTTP/1.1 400 Bad Request"], "{what}: {answers:?}");
        assert_eq!(soon(what, good.get("/good")).await.unwrap().status(), StatusCode::OK);
    }
    assert_not_smuggled(&pair, "a chunk");
}

#[tokio::test]
async fn a_body_that_ends_early_or_late_is_not_the_next_request() {
    let pair = reading().await;
    // Longer than it says: the rest is no request.
    let late = "POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 3\r\n\r\nabcdefgh\r\n\r\n";
    let text = String::from_utf8(exchange(pair.web.address(), late.as_bytes()).await).unwrap();
    let answers = answers(&text);
    assert!(
        matches!(answers[..], ["HTTP/1.1 200 OK"] | ["HTTP/1.1 200 OK", "HTTP/1.1 400 Bad Request"]),
        "{text}"
    );
    assert_eq!(pair.app.count(), 1);
    // Shorter: the app never has a whole request, and its connection is not used for another.
    let mut stream = TcpStream::connect(pair.web.address()).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 300\r\n\r\nabc").await.unwrap();
    eventually("it is at the app", || pair.app.count() == 2).await;
    drop(stream);
    let response = Client::http1(pair.web.address()).await.get("/good").await.unwrap();
    assert_eq!(body::text(response.into_body()).await, "read");
    assert_eq!(pair.app.seen().last().unwrap().uri.path(), "/good");
    eventually("it is counted", || {
        pair.web.listener("out").closed.misused[Misuse::Malformed as usize].load(Ordering::Relaxed) == 1
    })
    .await;
}

#[tokio::test]
async fn bodies_where_none_is_usual_are_bodies() {
    let pair = reading().await;
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        let before = pair.app.count();
        let bytes = format!(
            "{method} / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{EVIL}",
            EVIL.len()
        );
        let text = String::from_utf8(exchange(pair.web.address(), bytes.as_bytes()).await).unwrap();
        assert_eq!(answers(&text), ["HTTP/1.1 200 OK"], "{method}");
        assert_eq!(pair.app.count(), before + 1, "{method}");
    }
    assert_not_smuggled(&pair, "a body");
}

#[tokio::test]
async fn the_rest_of_a_request_that_was_answered_early_is_not_the_next_one() {
    let app = HttpApp::start(async |request: Request<Incoming>| {
        // Kept, not read: the answer comes first.
        let status = if request.uri().path() == "/early" { 413 } else { 200 };
        Ok(Response::builder().status(status).body(body::empty())?)
    })
    .await;
    let pair = Pair::of(app).await;
    let rest = format!("{EVIL}{}", "x".repeat(10_000));
    let mut stream = TcpStream::connect(pair.web.address()).await.unwrap();
    let head =
        format!("POST /early HTTP/1.1\r\nHost: orders\r\nContent-Length: {}\r\n\r\nabc", 3 + rest.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    let (answer, _) = soon("the early answer", read_head(&mut stream)).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    drop(stream.write_all(rest.as_bytes()).await);
    drop(stream.write_all(b"GET /next HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n").await);
    let mut text = String::new();
    drop(soon("the end", stream.read_to_string(&mut text)).await);
    assert!(text.is_empty() || answers(&text) == ["HTTP/1.1 200 OK"], "{text}");
    assert_not_smuggled(&pair, "the rest of a body");
    let response = Client::http1(pair.web.address()).await.get("/good").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_app_that_answered_early_gets_no_other_request_on_that_connection() {
    let (mesh, heard) = (TestMesh::new(), std::sync::Arc::new(std::sync::Mutex::new(Vec::new())));
    let log = std::sync::Arc::clone(&heard);
    let app = TcpApp::start(move |mut stream| {
        let log = std::sync::Arc::clone(&log);
        async move {
            let (head, _) = read_head(&mut stream).await;
            let line = head.lines().next().unwrap_or_default().to_owned();
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await);
            let mut rest = Vec::new();
            drop(stream.read_to_end(&mut rest).await);
            log.lock().unwrap().push((line, String::from_utf8_lossy(&rest).into_owned()));
        }
    })
    .await;
    let orders = mesh.callee("orders", app.address(), "app_protocol: http1").await;
    let web = mesh.caller(&[orders.address()], "").await;
    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    stream
        .write_all(b"POST /early HTTP/1.1\r\nHost: orders\r\nContent-Length: 100\r\n\r\nabc")
        .await
        .unwrap();
    let (answer, _) = soon("the early answer", read_head(&mut stream)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let response = Client::http1(web.address()).await.get("/second").await.unwrap();
    assert_eq!(body::text(response.into_body()).await, "ok");
    assert_eq!(app.connections(), 2);
    drop(stream);
    eventually("the first connection has ended", || !heard.lock().unwrap().is_empty()).await;
    let heard = heard.lock().unwrap();
    let (_, rest) = heard.iter().find(|(line, _)| line.contains("/early")).unwrap();
    assert!(!rest.contains("HTTP/1.1"), "{rest:?}");
}

#[tokio::test]
async fn an_http10_client_that_asks_for_it_keeps_its_connection() {
    let pair = reading().await;
    let mut stream = TcpStream::connect(pair.web.address()).await.unwrap();
    for path in ["/1", "/2"] {
        let request = format!("GET {path} HTTP/1.0\r\nHost: orders\r\nConnection: keep-alive\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let (head, is_whole) = soon("an answer", read_head(&mut stream)).await;
        assert!(is_whole && head.contains(" 200 "), "{head}");
        let head = head.to_lowercase();
        assert!(head.contains("connection: keep-alive") && head.contains("content-length: 4"), "{head}");
        stream.read_exact(&mut [0; 4]).await.unwrap();
    }
    assert_eq!(pair.app.count(), 2);
}
