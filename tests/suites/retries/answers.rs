//! Answers of the app that the policy repeats, and those that it does not.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use outrider::model::retries::RetryReason;

use super::{PLENTY, Pair, answering, failing, plenty};
use crate::harness::{
    Client, HttpApp, TestMesh, body,
    client::{call, field, request},
    eventually,
};

#[tokio::test]
async fn an_answer_by_which_a_server_says_that_it_cannot_is_asked_for_elsewhere() {
    for status in [502, 503, 504] {
        let pair = Pair::with(answering(move || failing(status)).await, PLENTY).await;
        for _ in 0..10 {
            assert_eq!(call(pair.web.address(), Method::GET).await, (StatusCode::OK, "good".to_owned()));
        }
        assert!(pair.odd.count() > 0, "{status}: it was never asked");
        assert_eq!(pair.retries_for(RetryReason::Status), pair.odd.count() as u64, "{status}");
        assert_eq!(pair.good.count(), 10, "{status}");
        eventually("nothing is under way", || pair.is_idle()).await;
    }
}

#[tokio::test]
async fn an_answer_that_the_policy_does_not_name_is_passed_on() {
    for (status, keys) in [(500, ""), (404, ""), (429, ""), (503, "statuses: []"), (503, "statuses: [500]")] {
        let pair = Pair::with(answering(move || failing(status)).await, &plenty(keys)).await;
        let mut failed = 0;
        for _ in 0..6 {
            let (found, text) = call(pair.web.address(), Method::GET).await;
            if found.as_u16() == status {
                assert_eq!(text, "the app's own words");
                failed += 1;
            }
        }
        assert!(failed > 0, "{status}: it was never asked");
        assert_eq!((pair.odd.count(), pair.web.retries()), (failed, 0), "{status} {keys}");
    }
}

#[tokio::test]
async fn a_policy_may_name_other_answers() {
    for (status, keys) in [(500, "statuses: [5xx]"), (429, "statuses: [429]"), (404, "statuses: [404, 5xx]")]
    {
        let pair = Pair::with(answering(move || failing(status)).await, &plenty(keys)).await;
        for _ in 0..6 {
            assert_eq!(call(pair.web.address(), Method::GET).await.0, StatusCode::OK, "{status} {keys}");
        }
        assert!(pair.odd.count() > 0 && pair.web.retries() > 0, "{status} {keys}");
    }
}

#[tokio::test]
async fn a_post_is_repeated_for_its_answer_only_where_any_method_may_be() {
    for (keys, is_repeated) in [("", false), ("methods: any", true)] {
        let pair = Pair::with(answering(|| failing(503)).await, &plenty(keys)).await;
        let mut failed = 0;
        for _ in 0..10 {
            let (status, text) = call(pair.web.address(), Method::POST).await;
            if status != StatusCode::OK {
                assert_eq!(text, "the app's own words");
                failed += 1;
            }
        }
        assert!(pair.odd.count() > 0, "it was never asked");
        assert_eq!(failed > 0, !is_repeated, "{keys}");
        assert_eq!(pair.good.count(), 10 - failed, "{keys}");
        assert_eq!(pair.web.retries(), (pair.odd.count() - failed) as u64, "{keys}");
    }
}

/// 503 with a field, a body of the pattern, and trailers.
fn full_answer() -> Response<body::Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    let answer = Response::builder().status(503).header("x-own", "word").header("trailer", "x-sum");
    answer.body(body::streamed(100_000, Some(trailers))).unwrap()
}

#[tokio::test]
async fn the_last_answer_is_the_apps_own_as_it_was() {
    let mesh = TestMesh::new();
    let apps = [answering(full_answer).await, answering(full_answer).await, answering(full_answer).await];
    let mut sidecars = Vec::new();
    for app in &apps {
        sidecars.push(mesh.callee("orders", app.address(), "app_protocol: http2").await);
    }
    let addresses: Vec<_> = sidecars.iter().map(|sidecar| sidecar.address()).collect();
    let web = mesh.caller(&addresses, PLENTY).await;
    let response = Client::http2(web.address()).await.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&response, "x-own"), Some("word"));
    assert_eq!(field(&response, "x-outrider-reason"), None);
    let (size, trailers) = body::check(response.into_body()).await.unwrap();
    assert_eq!((size, trailers.unwrap()["x-sum"].as_bytes()), (100_000, &b"7"[..]));
    assert_eq!(apps.each_ref().map(HttpApp::count), [1, 1, 1]);
    assert_eq!(web.retries(), 2);
}

#[tokio::test]
async fn a_last_answer_that_comes_before_the_end_of_the_request_is_whole_too() {
    // It answers at once and reads all the same.
    let app = HttpApp::start(async |request| {
        tokio::spawn(body::drain(request.into_body()));
        Ok(full_answer())
    })
    .await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "app_protocol: http2").await;
    let web = mesh.caller(&[orders.address()], "retry: {max_retries: 0}").await;
    let (up, sent) = body::channel();
    let mut client = Client::http2(web.address()).await;
    let response = client.send(request(Method::PUT, "/", sent)).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body::check(response.into_body()).await.unwrap().0, 100_000);
    drop(up);
}

#[tokio::test]
async fn a_body_and_its_trailers_are_repeated_with_the_request() {
    let pair = Pair::of(answering(|| failing(503)).await, HttpApp::echo().await, PLENTY).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    for _ in 0..6 {
        let put = request(Method::PUT, "/", body::streamed(20_000, Some(trailers.clone())));
        let response = Client::http2(pair.web.address()).await.send(put).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let (size, found) = body::check(response.into_body()).await.unwrap();
        assert_eq!((size, found.as_ref()), (20_000, Some(&trailers)));
    }
    assert!(pair.odd.count() > 0, "the failing one was never asked");
}

#[tokio::test]
async fn a_body_beyond_what_is_kept_streams_on_and_gets_the_answer_that_it_got() {
    let pair = Pair::with(answering(|| failing(503)).await, &plenty("replay_bytes: 16KiB")).await;
    let mut failed = 0;
    for _ in 0..6 {
        let put = request(Method::PUT, "/", body::streamed(500_000, None));
        let response = Client::http2(pair.web.address()).await.send(put).await.unwrap();
        if response.status() != StatusCode::OK {
            assert_eq!(body::text(response.into_body()).await, "the app's own words");
            failed += 1;
        }
    }
    assert!(failed > 0);
    assert_eq!((pair.odd.count(), pair.good.count(), pair.web.retries()), (failed, 6 - failed, 0));
}

#[tokio::test]
async fn nothing_is_repeated_beyond_the_cap_of_those_under_way() {
    let pair = Pair::with(answering(|| failing(503)).await, &plenty("max_active: 0")).await;
    let mut failed = 0;
    for _ in 0..6 {
        failed += usize::from(call(pair.web.address(), Method::GET).await.0 != StatusCode::OK);
    }
    let cluster = pair.web.cluster("orders");
    let over = cluster.runtime.repeats.over_active.load(std::sync::atomic::Ordering::Relaxed);
    assert!(failed > 0);
    assert_eq!((pair.odd.count(), over, pair.web.retries()), (failed, failed as u64, 0));
}

#[tokio::test]
async fn a_retry_elsewhere_does_not_wait_for_a_server_that_will_be_back() {
    let answer = || Response::builder().status(503).header("retry-after", "20").body(body::empty()).unwrap();
    let pair = Pair::with(answering(answer).await, PLENTY).await;
    let started = Instant::now();
    for _ in 0..6 {
        assert_eq!(call(pair.web.address(), Method::GET).await.0, StatusCode::OK);
    }
    assert!(pair.odd.count() > 0);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn where_there_is_no_other_a_server_is_waited_for_as_long_as_it_says_or_its_answer_stands() {
    for (said, calls) in [("1", 3), ("2", 1)] {
        let answer =
            move || Response::builder().status(503).header("retry-after", said).body(body::empty()).unwrap();
        let (mesh, app) = (TestMesh::new(), answering(answer).await);
        let orders = mesh.callee("orders", app.address(), "").await;
        let web = mesh.caller(&[orders.address()], PLENTY).await;
        let started = Instant::now();
        let response = Client::http1(web.address()).await.get("/").await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(field(&response, "retry-after"), Some(said));
        assert_eq!(app.count(), calls, "Retry-After: {said}");
        assert_eq!(started.elapsed().as_secs(), calls as u64 - 1, "Retry-After: {said}");
    }
}
