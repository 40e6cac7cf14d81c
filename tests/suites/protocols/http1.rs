//! The ways of HTTP/1 that libraries seldom go, by hand.

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Pair;
use crate::harness::{
    Client, HttpApp, TcpApp, TestMesh, body,
    client::{exchange, field, read_head},
    soon,
};

/// An app whose answer is the path it was asked for.
async fn telling_its_path() -> HttpApp {
    HttpApp::start(async |request: Request<Incoming>| {
        let path = request.uri().path().to_owned();
        body::drain(request.into_body()).await?;
        Ok(Response::new(body::full(path)))
    })
    .await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn expect_100_continue_is_answered_before_the_body_is_sent() {
    let pair = Pair::of(HttpApp::echo().await).await;
    let mut stream = TcpStream::connect(pair.web.address()).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let (go_on, _) = soon("we are told to go on", read_head(&mut stream)).await;
    assert!(go_on.starts_with("HTTP/1.1 100 "), "{go_on}");
    stream.write_all(b"hello").await.unwrap();
    let (answer, _) = soon("the answer", read_head(&mut stream)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut echoed = [0; 5];
    soon("the echo", stream.read_exact(&mut echoed)).await.unwrap();
    assert_eq!(&echoed, b"hello");
    // Answered hop by hop: the app is not asked again.
    assert_eq!(pair.app.only().header("expect"), None);
}

#[tokio::test]
async fn an_http10_client_gets_its_answer_unchunked_and_the_close_it_waits_for() {
    let app = HttpApp::start(async |_request| Ok(Response::new(body::streamed(100_000, None)))).await;
    let pair = Pair::of(app).await;
    let answer = text(&exchange(pair.web.address(), b"GET /old HTTP/1.0\r\nHost: orders\r\n\r\n").await);
    let (head, content) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 OK"), "{head}");
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!(content.len(), String::from_utf8_lossy(&body::pattern(100_000)).len());
    assert_eq!(pair.app.only().uri.path(), "/old");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let app = HttpApp::start(move |request: Request<Incoming>| {
        let mut gate = gate.clone();
        async move {
            let path = request.uri().path().to_owned();
            if path == "/1" {
                gate.wait_for(|is_open| *is_open).await?;
            }
            Ok(Response::new(body::full(path)))
        }
    })
    .await;
    let pair = Pair::of(app).await;
    let mut stream = TcpStream::connect(pair.web.address()).await.unwrap();
    for path in ["/1", "/2", "/3"] {
        let close = if path == "/3" { "Connection: close\r\n" } else { "" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: orders\r\n{close}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
    }
    crate::harness::eventually("the first is at the app", || pair.app.count() >= 1).await;
    go.send(true).unwrap();
    let mut answers = String::new();
    soon("all answers", stream.read_to_string(&mut answers)).await.unwrap();
    let order: Vec<_> = answers.match_indices("\r\n\r\n").map(|(at, _)| &answers[at + 4..at + 6]).collect();
    assert_eq!(order, ["/1", "/2", "/3"], "{answers}");
}

#[tokio::test]
async fn connection_close_is_honoured_on_either_side() {
    let app = HttpApp::start(async |_request| {
        Ok(Response::builder().header("connection", "close").body(body::full("bye"))?)
    })
    .await;
    let pair = Pair::of(app).await;
    // The app's wish ends the app's connection, not that of the client.
    let mut client = Client::http1(pair.web.address()).await;
    for _ in 0..3 {
        let response = client.get("/").await.unwrap();
        assert_eq!((response.status(), field(&response, "connection")), (StatusCode::OK, None));
        assert_eq!(body::text(response.into_body()).await, "bye");
    }
    assert_eq!(pair.app.connections(), 3);
    // And the client's ends its own.
    let close = b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n";
    let answer = text(&exchange(pair.web.address(), close).await);
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
}

#[tokio::test]
async fn as_a_proxy_the_targets_authority_wins_over_host() {
    // RFC 9112 §3.2.2: "the origin server MUST ignore the received Host header field".
    let pair = Pair::of(telling_its_path().await).await;
    let proxied = b"GET http://orders/by/proxy?q=1 HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n";
    let answer = text(&exchange(pair.web.address(), proxied).await);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("/by/proxy"), "{answer}");
    let seen = pair.app.only();
    assert_eq!((seen.authority(), seen.uri.to_string().as_str()), ("orders", "/by/proxy?q=1"));
}

#[tokio::test]
async fn requests_one_after_the_other_share_one_connection_to_the_app() {
    let pair = Pair::of(telling_its_path().await).await;
    let mut client = Client::http1(pair.web.address()).await;
    for i in 0..20 {
        let path = format!("/{i}");
        let response = client.post(&path, "body").await.unwrap();
        assert_eq!(body::text(response.into_body()).await, path);
    }
    assert_eq!(pair.app.connections(), 1);
}

/// An app that answers the bytes of `answer` to each request and then closes.
async fn scripted(answer: &'static str) -> TcpApp {
    TcpApp::start(move |mut stream| async move {
        if read_head(&mut stream).await.1 {
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            drop(stream.read(&mut [0]).await);
        }
    })
    .await
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_whole() {
    for answer in ["HTTP/1.0 200 OK\r\n\r\nold ways", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nold ways"]
    {
        let (mesh, app) = (TestMesh::new(), scripted(answer).await);
        let orders = mesh.callee("orders", app.address(), "app_protocol: http1").await;
        let web = mesh.caller(&[orders.address()], "").await;
        for mut client in [Client::http1(web.address()).await, Client::http2(web.address()).await] {
            let response = client.get("/").await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(soon("the body ends", body::text(response.into_body())).await, "old ways");
        }
    }
}

#[tokio::test]
async fn informational_answers_before_the_final_one_are_skipped() {
    let answer =
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";
    let (mesh, app) = (TestMesh::new(), scripted(answer).await);
    let orders = mesh.callee("orders", app.address(), "app_protocol: http1").await;
    let web = mesh.caller(&[orders.address()], "").await;
    let response = Client::http1(web.address()).await.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(body::text(response.into_body()).await, "done");
}

#[tokio::test]
async fn an_answer_cut_short_is_seen_as_cut_short() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n",
    ] {
        let (mesh, app) = (TestMesh::new(), scripted(answer).await);
        let orders = mesh.callee("orders", app.address(), "app_protocol: http1").await;
        let web = mesh.caller(&[orders.address()], "").await;
        for mut client in [Client::http1(web.address()).await, Client::http2(web.address()).await] {
            let ended = match client.get("/").await {
                Ok(response) => soon("the body ends", body::drain(response.into_body())).await,
                Err(before_its_head) => Err(before_its_head),
            };
            assert!(ended.is_err(), "{answer}");
        }
    }
}

#[tokio::test]
async fn an_app_that_closes_after_each_answer_costs_no_request() {
    let (mesh, app) = (TestMesh::new(), scripted("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await);
    let orders = mesh.callee("orders", app.address(), "app_protocol: http1").await;
    let web = mesh.caller(&[orders.address()], "").await;
    let mut client = Client::http1(web.address()).await;
    for i in 0..50 {
        let response = client.get("/").await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "request {i}");
        assert_eq!(body::text(response.into_body()).await, "ok");
    }
}
