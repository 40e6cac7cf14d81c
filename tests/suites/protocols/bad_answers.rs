//! Answers that could be read in two ways, that end elsewhere than they say, or never: the caller is answered for, and
//! what follows on the app's connection is never another request's answer.

use std::time::Duration;

use http::{Method, StatusCode, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    Client, Sidecar, TcpApp, TestMesh, body,
    client::{field, read_head, request},
    soon,
};

/// What follows an answer on the same connection, and must be nobody's answer.
const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

/// An app that answers the first request of each connection with these bytes, all others with `good`, and keeps its
/// connections open.
async fn answering(answer: String) -> TcpApp {
    TcpApp::start(move |mut stream| {
        let answer = answer.clone();
        async move {
            loop {
                let (head, is_whole) = read_head(&mut stream).await;
                if !is_whole {
                    return;
                }
                let good = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
                let bytes = if head.contains("/bad") { &answer } else { good };
                drop(stream.write_all(bytes.as_bytes()).await);
            }
        }
    })
    .await
}

async fn in_front_of(app: &TcpApp, mesh: &TestMesh, keys: &str) -> (Sidecar, Sidecar) {
    let orders = mesh.callee("orders", app.address(), "app_protocol: http1").await;
    let web = mesh.caller(&[orders.address()], keys).await;
    (orders, web)
}

/// The next requests get their own answers.
async fn next_are_good(web: &Sidecar, what: &str) {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = Client::connect(web.address(), version).await;
        for _ in 0..2 {
            let response = soon(what, client.get("/good")).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{what}");
            assert_eq!(body::text(response.into_body()).await, "good", "{what}");
        }
    }
}

#[tokio::test]
async fn answers_that_could_be_read_in_two_ways_become_502_and_their_connection_ends() {
    let cases = [
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
        ("the same length twice", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
        ("a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc"),
        ("a signed length", "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc"),
        ("a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nabc"),
        (
            "a length beside chunked",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked beside a length",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        ),
        ("another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("an unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        (
            "chunked in two fields",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("a folded field", "HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n"),
        ("a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"),
        ("no name", "HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 0\r\n\r\n"),
        ("a null", "HTTP/1.1 200 OK\r\nX-A: \0\r\nContent-Length: 0\r\n\r\n"),
        ("a lone CR", "HTTP/1.1 200 OK\r\nX-A: 1\r2\r\nContent-Length: 0\r\n\r\n"),
        ("a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
        ("a version of the future", "HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("a switch that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
    ];
    for (what, answer) in cases {
        let (mesh, app) = (TestMesh::new(), answering(format!("{answer}{EVIL}")).await);
        let (_orders, web) = in_front_of(&app, &mesh, "").await;
        let mut client = Client::http1(web.address()).await;
        let bad = client.send(request(Method::POST, "/bad", body::full("x")));
        let response = soon(what, bad).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "{what}");
        let reason = field(&response, "x-outrider-reason").unwrap_or_default();
        assert!(["bad_response", "protocol_error"].contains(&reason), "{what}: {reason}");
        next_are_good(&web, what).await;
        assert_eq!(app.connections(), 2, "{what}: the connection was used again");
    }
}

#[tokio::test]
async fn what_follows_an_answer_is_nobodys() {
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{EVIL}");
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{EVIL}");
    let no_content = format!("HTTP/1.1 204 No Content\r\nContent-Length: {}\r\n\r\n{EVIL}", EVIL.len());
    let not_modified = format!("HTTP/1.1 304 Not Modified\r\nContent-Length: {}\r\n\r\n{EVIL}", EVIL.len());
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{EVIL}", EVIL.len());
    let cases = [
        ("after a length", Method::GET, 200, "ok", long),
        ("after chunks", Method::GET, 200, "ok", chunked),
        ("after a 204", Method::GET, 204, "", no_content),
        ("after a 304", Method::GET, 304, "", not_modified),
        ("after the answer to HEAD", Method::HEAD, 200, "", head),
    ];
    for (what, method, status, text, answer) in cases {
        let (mesh, app) = (TestMesh::new(), answering(answer).await);
        let (_orders, web) = in_front_of(&app, &mesh, "").await;
        let mut client = Client::http1(web.address()).await;
        let response = soon(what, client.send(request(method, "/bad", body::empty()))).await.unwrap();
        assert_eq!(response.status(), status, "{what}");
        assert_eq!(soon(what, body::text(response.into_body())).await, text, "{what}");
        next_are_good(&web, what).await;
    }
}

#[tokio::test]
async fn chunks_of_an_answer_that_are_none_break_it_off() {
    for chunk in
        ["0x2\r\nok\r\n0\r\n\r\n", "2\nok\r\n0\r\n\r\n", "2\r\nokay\r\n0\r\n\r\n", "-2\r\nok\r\n0\r\n\r\n"]
    {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{EVIL}");
        let (mesh, app) = (TestMesh::new(), answering(answer).await);
        let (_orders, web) = in_front_of(&app, &mesh, "").await;
        let mut client = Client::http1(web.address()).await;
        // Before the head went out, it is answered for instead.
        let bad = soon(chunk, client.send(request(Method::POST, "/bad", body::empty()))).await;
        if let Ok(response) = bad
            && response.status() == StatusCode::OK
        {
            let ended = soon(chunk, body::drain(response.into_body())).await;
            assert!(ended.is_err(), "{chunk:?}");
        }
        next_are_good(&web, chunk).await;
    }
}

#[tokio::test]
async fn informational_answers_without_end_are_no_answer() {
    let app = TcpApp::start(async |mut stream| {
        let (_head, _) = read_head(&mut stream).await;
        while stream.write_all(&b"HTTP/1.1 102 Processing\r\nX-A: 1\r\n\r\n".repeat(100)).await.is_ok() {}
    })
    .await;
    let mesh = TestMesh::new();
    let (_orders, web) = in_front_of(&app, &mesh, "request_timeout: 500ms").await;
    let mut client = Client::http1(web.address()).await;
    let response = soon("an answer", client.get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn an_answer_before_any_request_is_nobodys() {
    let app = TcpApp::start(async |mut stream| {
        drop(stream.write_all(EVIL.as_bytes()).await);
        // Open for as long as the sidecar likes.
        drop(tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new())).await);
    })
    .await;
    let mesh = TestMesh::new();
    let (_orders, web) = in_front_of(&app, &mesh, "").await;
    let mut client = Client::http1(web.address()).await;
    let response = soon("an answer", client.send(request(Method::POST, "/", body::full("x")))).await.unwrap();
    let status = response.status();
    // Whether it was there before the request was written is the app's luck; on a connection of its own it can fool only
    // the request that opened it.
    assert!(status == StatusCode::OK || status.is_server_error(), "{status}");
    assert!(app.connections() >= 1);
}
