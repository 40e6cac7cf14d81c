//! gRPC: every call is a POST, and what a server says of it is in its status.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use hyper::body::Frame;
use outrider::model::retries::RetryReason;

use super::{Pair, answering, plenty};
use crate::harness::{Client, HttpApp, TestMesh, body, client::request};

/// A call that ends without a message.
fn trailers_only(status: &'static str, pushback: Option<&'static str>) -> Response<body::Body> {
    let mut answer = Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", status)
        .header("grpc-message", "as said");
    if let Some(pushback) = pushback {
        answer = answer.header("grpc-retry-pushback-ms", pushback);
    }
    answer.body(body::empty()).unwrap()
}

/// A call that ends with this status after a message.
fn after_a_message(status: &'static str) -> Response<body::Body> {
    let (down, sent) = body::channel();
    tokio::spawn(async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(status));
        down.send(Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\x01m")))).await.unwrap();
        down.send(Ok(Frame::trailers(trailers))).await.unwrap();
    });
    Response::builder().header("content-type", "application/grpc").body(sent).unwrap()
}

async fn ok() -> HttpApp {
    answering(|| after_a_message("0")).await
}

/// The status of a call, from its head or from its trailers.
async fn status_of(address: std::net::SocketAddr) -> String {
    let mut call: Request<_> = request(Method::POST, "/shop.Orders/Get", body::full(&b"\0\0\0\0\x01q"[..]));
    call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    call.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    let response = Client::connect(address, Version::HTTP_2).await.send(call).await.unwrap();
    let (head, body) = response.into_parts();
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    if let Some(status) = head.headers.get("grpc-status") {
        return text(status);
    }
    let trailers = http_body_util::BodyExt::collect(body).await.unwrap().trailers().cloned();
    text(&trailers.unwrap()["grpc-status"])
}

#[tokio::test]
async fn an_unavailable_call_is_made_elsewhere_where_any_method_may_be() {
    for (keys, is_repeated) in
        [("methods: any", true), ("", false), ("methods: any, grpc_statuses: []", false)]
    {
        let odd = answering(|| trailers_only("14", None)).await;
        let pair = Pair::of(odd, ok().await, &plenty(keys)).await;
        let mut failed = 0;
        for _ in 0..8 {
            match status_of(pair.web.address()).await.as_str() {
                "0" => {}
                "14" => failed += 1,
                other => panic!("status {other}"),
            }
        }
        assert!(pair.odd.count() > 0, "it was never asked");
        assert_eq!(failed, if is_repeated { 0 } else { pair.odd.count() }, "{keys}");
        let expected = if is_repeated { pair.odd.count() as u64 } else { 0 };
        assert_eq!(pair.retries_for(RetryReason::GrpcStatus), expected, "{keys}");
    }
}

#[tokio::test]
async fn a_call_that_said_something_is_not_repeated_whatever_its_end() {
    let pair = Pair::of(answering(|| after_a_message("14")).await, ok().await, &plenty("methods: any")).await;
    for _ in 0..6 {
        status_of(pair.web.address()).await;
    }
    assert!(pair.odd.count() > 0);
    assert_eq!((pair.odd.count() + pair.good.count(), pair.web.retries()), (6, 0));
}

#[tokio::test]
async fn another_status_is_passed_on() {
    let pair =
        Pair::of(answering(|| trailers_only("5", None)).await, ok().await, &plenty("methods: any")).await;
    let mut failed = 0;
    for _ in 0..6 {
        failed += usize::from(status_of(pair.web.address()).await == "5");
    }
    assert!(failed > 0);
    assert_eq!((pair.odd.count(), pair.web.retries()), (failed, 0));
}

#[tokio::test]
async fn a_push_back_is_waited_for_to_the_millisecond() {
    const PUSHBACK: Duration = Duration::from_millis(400);
    let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let note = Arc::clone(&asked);
    let app = answering(move || {
        let mut asked = note.lock().unwrap();
        asked.push(Instant::now());
        if asked.len() == 1 { trailers_only("14", Some("400")) } else { after_a_message("0") }
    })
    .await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "app_protocol: http2").await;
    let web = mesh.caller(&[orders.address()], &plenty("methods: any")).await;
    assert_eq!(status_of(web.address()).await, "0");
    let asked = asked.lock().unwrap();
    let waited = asked[1] - asked[0];
    assert!(waited >= PUSHBACK && waited < PUSHBACK * 3, "{waited:?}");
}

#[tokio::test]
async fn a_server_that_wants_no_retry_gets_none() {
    for pushback in ["-1", "soon"] {
        let odd = answering(move || trailers_only("14", Some(pushback))).await;
        let pair = Pair::of(odd, ok().await, &plenty("methods: any")).await;
        let mut failed = 0;
        for _ in 0..6 {
            failed += usize::from(status_of(pair.web.address()).await == "14");
        }
        assert!(failed > 0);
        assert_eq!((pair.odd.count(), pair.web.retries()), (failed, 0), "{pushback}");
    }
}

#[tokio::test]
async fn a_push_back_beyond_the_calls_time_leaves_the_servers_own_answer() {
    let app = answering(|| trailers_only("14", Some("60000"))).await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "app_protocol: http2").await;
    let keys = format!("request_timeout: 5s, {}", plenty("methods: any"));
    let web = mesh.caller(&[orders.address()], &keys).await;
    let started = Instant::now();
    assert_eq!(status_of(web.address()).await, "14");
    assert!(started.elapsed() < Duration::from_secs(4));
    assert_eq!((app.count(), web.retries()), (1, 0));
}
