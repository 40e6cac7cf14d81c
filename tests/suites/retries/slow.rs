//! Attempts with a time of their own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use hyper::body::Frame;
use outrider::model::{flag::ResponseFlag, retries::RetryReason};

use super::{Pair, plenty};
use crate::harness::{
    Client, HttpApp, body,
    client::{call, field, request},
    eventually, soon,
};

/// An app that never answers, and how many requests were taken back from it.
pub(super) async fn hanging() -> (HttpApp, Arc<AtomicUsize>) {
    /// Counts when the app is told that nobody waits any more.
    struct Told(Arc<AtomicUsize>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let taken_back: Arc<AtomicUsize> = Arc::default();
    let count = Arc::clone(&taken_back);
    let app = HttpApp::start(move |_request| {
        let told = Told(Arc::clone(&count));
        async move {
            std::future::pending::<()>().await;
            drop(told);
            Err("never".into())
        }
    })
    .await;
    (app, taken_back)
}

#[tokio::test]
async fn an_endpoint_that_hangs_costs_an_attempt_and_no_request() {
    let (odd, taken_back) = hanging().await;
    let pair = Pair::with(odd, &plenty("per_try_timeout: 200ms")).await;
    for _ in 0..4 {
        let called = soon("an answer", call(pair.web.address(), Method::GET)).await;
        assert_eq!(called, (StatusCode::OK, "good".to_owned()));
    }
    let asked = pair.odd.count();
    assert!(asked > 0, "it was never asked");
    assert_eq!(pair.retries_for(RetryReason::PerTryTimeout), asked as u64);
    eventually("the app is told", || taken_back.load(Ordering::Relaxed) == asked).await;
    eventually("nothing is under way", || pair.is_idle()).await;
    assert!(pair.web.cluster("orders").endpoints[0].runtime.failures.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn a_post_that_hangs_is_answered_by_us_and_not_repeated() {
    let (odd, _taken_back) = hanging().await;
    let pair = Pair::with(odd, &plenty("per_try_timeout: 200ms")).await;
    let mut failed = 0;
    for _ in 0..4 {
        let mut client = Client::http1(pair.web.address()).await;
        let response = soon("an answer", client.post("/", "once")).await.unwrap();
        if response.status() != StatusCode::OK {
            assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
            assert_eq!(field(&response, "x-outrider-reason"), Some("per_try_timeout"));
            failed += 1;
        }
    }
    assert!(failed > 0);
    assert_eq!((pair.odd.count(), pair.good.count(), pair.web.retries()), (failed, 4 - failed, 0));
    assert_eq!(pair.web.flagged(ResponseFlag::UT), failed as u64);
}

#[tokio::test]
async fn the_request_timeout_bounds_all_attempts_together() {
    let (first, _) = hanging().await;
    let (second, _) = hanging().await;
    let keys = format!("request_timeout: 3s, {}", plenty("per_try_timeout: 2s, max_retries: 10"));
    let pair = Pair::of(first, second, &keys).await;
    let response = soon("an answer", Client::http1(pair.web.address()).await.get("/")).await.unwrap();
    assert_eq!(field(&response, "x-outrider-reason"), Some("request_timeout"));
    assert_eq!(pair.odd.count() + pair.good.count(), 2);
}

#[tokio::test]
async fn an_upload_that_takes_longer_than_an_attempt_is_not_the_endpoints_fault() {
    // Both answer when the whole body is there.
    let late = Pair::with(HttpApp::named("late").await, &plenty("per_try_timeout: 150ms")).await;
    let (up, sent) = body::channel();
    let mut client = Client::http2(late.web.address()).await;
    let upload = tokio::spawn(async move {
        for _ in 0..8 {
            up.send(Ok(Frame::data(Bytes::from_static(b"a piece")))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let response = soon("an answer", client.send(request(Method::PUT, "/", sent))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(late.web.retries(), 0);
    upload.await.unwrap();
}
