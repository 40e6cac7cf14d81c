//! gRPC: a call's own deadline bounds all of it, its answer's messages included.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use outrider::model::flag::ResponseFlag;
use tokio::sync::mpsc;

use super::{LATE, Pair, Work, assert_at, never, set, timed, with};
use crate::harness::{
    BoxError, HttpApp, TestMesh,
    app::nobody,
    body::{self, Body},
    client::{field, request},
    eventually, soon,
};

/// Apps of gRPC speak HTTP/2.
const HTTP2: &str = "app_protocol: http2";

fn rpc(body: Body, fields: &[(&'static str, &str)]) -> Request<Body> {
    let mut request = request(Method::POST, "/shop.Orders/Watch", body);
    set(request.headers_mut(), &[("content-type", "application/grpc"), ("te", "trailers")]);
    set(request.headers_mut(), fields);
    request
}

/// `grpc-timeout` as time: `None` if it is not there.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().unwrap();
    let (value, unit) = text.split_at(text.len() - 1);
    assert!((1..=8).contains(&value.len()), "{text}");
    let nanos = match unit {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "S" => 1_000_000_000,
        other => panic!("{other}"),
    };
    Some(Duration::from_nanos(value.parse::<u64>().unwrap() * nanos))
}

/// A service that answers every call with a head at once, and then with a message every 20 ms for as long as anybody wants
/// them.
async fn ticking(work: &Work) -> HttpApp {
    let work = work.clone();
    HttpApp::start(move |_request: Request<Incoming>| {
        let working = work.begin();
        let (down, out) = body::channel();
        tokio::spawn(async move {
            let _working = working;
            tick(down).await;
        });
        async move { Ok(Response::builder().header("content-type", "application/grpc").body(out)?) }
    })
    .await
}

async fn tick(down: mpsc::Sender<Result<Frame<Bytes>, BoxError>>) {
    while down.send(Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\x01.")))).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_streaming_call_is_cut_at_its_deadline_with_status_4_and_the_app_stops_working() {
    let work = Work::default();
    let app = ticking(&work).await;
    let pair = Pair::new(app.address(), (HTTP2, "")).await;
    for (call, deadline, body) in [(1, "400m", body::empty()), (2, "300000u", body::channel().1)] {
        let mut client = pair.client(Version::HTTP_2).await;
        let began = Instant::now();
        let response = soon("the head", client.send(rpc(body, &[("grpc-timeout", deadline)]))).await.unwrap();
        assert_eq!((response.status(), field(&response, "grpc-status")), (StatusCode::OK, None));
        let answer = soon("the end", response.into_body().collect()).await.unwrap();
        let took = began.elapsed();
        let trailers = answer.trailers().cloned().unwrap();
        assert_eq!(
            (&trailers["grpc-status"], &trailers["grpc-message"]),
            (&"4".parse().unwrap(), &"deadline_exceeded".parse().unwrap())
        );
        assert!((Duration::from_millis(298)..LATE).contains(&took), "{took:?}");
        assert!(!answer.to_bytes().is_empty(), "what came before stands");
        eventually("the app stops", || work.dropped() == call).await;
    }
    assert_eq!(pair.web.flagged(ResponseFlag::DE), 2);
}

/// The upload goes on, the downstream takes nothing, and the app says nothing: who must end it is the clock.
#[tokio::test]
async fn a_call_whose_caller_takes_nothing_is_over_upstream_in_time() {
    let work = Work::default();
    let app = HttpApp::start({
        let work = work.clone();
        move |_request: Request<Incoming>| {
            let working = work.begin();
            let (down, out) = body::channel();
            tokio::spawn(async move {
                let _working = working;
                let chunk = Bytes::from(vec![0; 32 * 1024]);
                while down.send(Ok(Frame::data(chunk.clone()))).await.is_ok() {}
            });
            async move { Ok(Response::builder().header("content-type", "application/grpc").body(out)?) }
        }
    })
    .await;
    let pair = Pair::new(app.address(), (HTTP2, "")).await;
    let mut client = pair.client(Version::HTTP_2).await;
    let unread = client.send(rpc(body::empty(), &[("grpc-timeout", "300m")])).await.unwrap();
    eventually("the app stops", || work.dropped() == 1).await;
    drop(unread);
}

#[tokio::test]
async fn a_call_without_an_answer_is_ended_by_trailers_only() {
    let work = Work::default();
    let app = never(&work).await;
    let pair = Pair::new(app.address(), (HTTP2, "request_timeout: 20s")).await;
    let mut client = pair.client(Version::HTTP_2).await;
    let began = Instant::now();
    let call = client.send(rpc(body::empty(), &[("grpc-timeout", "250m")]));
    let response = soon("the answer", call).await.unwrap();
    assert_at(began.elapsed(), 250);
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(field(&response, "grpc-status"), Some("4"));
    assert_eq!(field(&response, "x-outrider-reason"), Some("deadline_exceeded"));
    assert!(hyper::body::Body::is_end_stream(response.body()));
    assert_eq!(work.begun(), 1);
    eventually("the app's work is cancelled", || work.dropped() == 1).await;
    // The app may call on for as long as it is itself waited for, whichever way it says that.
    let seen = app.only();
    let told: u64 = seen.header("x-outrider-timeout-ms").unwrap().parse().unwrap();
    let left = timeout(&seen.headers).unwrap();
    assert!(left < Duration::from_millis(250) && told <= 250, "{left:?} {told}");
    assert!(Duration::from_millis(told) >= left, "{left:?} {told}");
}

#[tokio::test]
async fn what_is_no_timeout_bounds_nothing_and_is_left_to_the_app() {
    let app = HttpApp::named("orders").await;
    let pair = Pair::new(app.address(), (HTTP2, "")).await;
    let mut client = pair.client(Version::HTTP_2).await;
    for odd in ["1", "S", "1s", "123456789n", "-1S", "1.5S"] {
        let response = soon("the answer", client.send(rpc(body::empty(), &[("grpc-timeout", odd)]))).await;
        assert_eq!(field(&response.unwrap(), "grpc-status"), None, "{odd}");
        assert_eq!(app.seen().last().unwrap().header("grpc-timeout"), Some(odd));
    }
    // Nor does it bind what is no gRPC.
    let request = with(Method::GET, "/", &[("grpc-timeout", "0n")]);
    assert_eq!(timed(&mut client, request).await.0, 200);
    assert_eq!(app.seen().last().unwrap().header("grpc-timeout"), Some("0n"));
}

#[tokio::test]
async fn a_call_waits_no_longer_for_an_endpoint_or_its_turn_than_it_may() {
    let mesh = TestMesh::new();
    let keys =
        "retry: {max_retries: 10, backoff_base: 10s, budget_percent: 100, budget_min_per_second: 1000}";
    let web = mesh.caller(&[nobody()], keys).await;
    let mut client = crate::harness::Client::http2(web.address()).await;
    let began = Instant::now();
    let call = client.send(rpc(body::empty(), &[("grpc-timeout", "200m")]));
    let response = soon("the answer", call).await.unwrap();
    // What is left may be too little to wait for another attempt: then it is over at once. Ten backoffs take far longer.
    assert!(matches!(field(&response, "grpc-status"), Some("4" | "14")), "{response:?}");
    assert!(began.elapsed() < Duration::from_millis(200) + LATE);
}

/// It is gRPC's own, so everybody may give it; to nobody is more told than what is left.
#[tokio::test]
async fn it_holds_for_calls_that_leave_the_mesh_too() {
    let app = HttpApp::named("legacy").await;
    let mesh = TestMesh::new();
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{{name: orders, tls: none, \
         endpoints: [{{address: '{}'}}]}}]",
        app.address(),
    );
    let web = mesh.start("web", &yaml).await;
    let mut client = crate::harness::Client::http2(web.address()).await;
    let mut call = rpc(body::empty(), &[]);
    call.headers_mut().insert("grpc-timeout", HeaderValue::from_static("9S"));
    assert_eq!(client.send(call).await.unwrap().status(), StatusCode::OK);
    let seen = app.only();
    assert!(timeout(&seen.headers).unwrap() < Duration::from_secs(9));
    assert_eq!(seen.header("x-outrider-timeout-ms"), None);
}
