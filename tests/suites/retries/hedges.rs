//! A second attempt beside a slow one: the first answer wins, and whoever loses is told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Response, StatusCode};
use outrider::model::{health::Standing, retries::RetryReason};

use super::{Pair, answering, failing, plenty, slow::hanging};
use crate::harness::{
    Client, HttpApp, TestMesh, body,
    client::{call, field, request},
    eventually, soon,
};

/// An app that answers after a while.
async fn late(millis: u64) -> HttpApp {
    HttpApp::start(move |request| async move {
        body::drain(request.into_body()).await?;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Ok(Response::new(body::full("late")))
    })
    .await
}

#[tokio::test]
async fn where_one_endpoint_is_slow_another_answers_and_the_slow_one_is_told() {
    let (odd, taken_back) = hanging().await;
    let pair = Pair::with(odd, &plenty("hedge: 50ms")).await;
    for _ in 0..6 {
        let called = soon("an answer", call(pair.web.address(), Method::GET)).await;
        assert_eq!(called, (StatusCode::OK, "good".to_owned()));
    }
    let asked = pair.odd.count();
    assert!(asked > 0, "it was never asked");
    assert_eq!(pair.hedges(), (asked as u64, asked as u64));
    assert_eq!((pair.good.count(), pair.web.retries()), (6, 0));
    eventually("the app is told", || taken_back.load(Ordering::Relaxed) == asked).await;
    eventually("nothing is under way", || pair.is_idle()).await;
    let slow = &pair.web.cluster("orders").endpoints[0].runtime;
    assert_eq!(slow.failures.load(Ordering::Relaxed), 0, "who loses has not failed");
}

#[tokio::test]
async fn a_hedge_that_is_slower_still_loses() {
    let (slower, taken_back) = hanging().await;
    let pair = Pair::of(late(300).await, slower, &plenty("hedge: 100ms")).await;
    for _ in 0..4 {
        let called = soon("an answer", call(pair.web.address(), Method::GET)).await;
        assert_eq!(called, (StatusCode::OK, "late".to_owned()));
    }
    // Who comes to the slower one first is won by its hedge.
    assert_eq!(pair.hedges().0, 4);
    assert!(pair.good.count() > 0, "the slower one was never asked");
    eventually("the loser is told", || taken_back.load(Ordering::Relaxed) == pair.good.count()).await;
    eventually("nothing is under way", || pair.is_idle()).await;
}

#[tokio::test]
async fn a_fast_endpoint_is_not_hedged() {
    let pair = Pair::with(HttpApp::named("good").await, &plenty("hedge: 10s")).await;
    for _ in 0..10 {
        assert_eq!(call(pair.web.address(), Method::GET).await.0, StatusCode::OK);
    }
    assert_eq!(pair.hedges(), (0, 0));
    assert_eq!(pair.odd.count() + pair.good.count(), 10);
}

#[tokio::test]
async fn a_post_is_never_hedged_unless_any_method_may_be() {
    for (keys, is_hedged) in [("hedge: 30ms", false), ("hedge: 30ms, methods: any", true)] {
        let pair = Pair::with(late(200).await, &plenty(keys)).await;
        for _ in 0..4 {
            let (status, text) = call(pair.web.address(), Method::POST).await;
            assert_eq!(status, StatusCode::OK);
            assert!(!is_hedged || text == "good", "{keys}: {text}");
        }
        assert!(pair.odd.count() > 0, "the slow one was never asked");
        assert_eq!(pair.hedges().0 > 0, is_hedged, "{keys}");
        assert_eq!(pair.odd.count() + pair.good.count(), 4 + pair.hedges().0 as usize, "{keys}");
    }
}

#[tokio::test]
async fn a_hedge_has_the_whole_body() {
    let (odd, _taken_back) = hanging().await;
    let pair = Pair::of(odd, HttpApp::echo().await, &plenty("hedge: 100ms")).await;
    for _ in 0..4 {
        let put = request(Method::PUT, "/", body::streamed(40_000, None));
        let response = soon("an answer", Client::http2(pair.web.address()).await.send(put)).await;
        // An echo is answered at once; the app that hangs does not read, but the body is at its sidecar.
        assert_eq!(body::check(response.unwrap().into_body()).await.unwrap().0, 40_000);
    }
    assert!(pair.hedges().1 > 0);
}

#[tokio::test]
async fn a_body_that_is_still_coming_is_not_hedged() {
    let (odd, _taken_back) = hanging().await;
    let pair = Pair::with(odd, &format!("request_timeout: 1s, {}", plenty("hedge: 30ms"))).await;
    let mut timeouts = 0;
    for _ in 0..2 {
        let (up, sent) = body::channel();
        let response = Client::http2(pair.web.address()).await.send(request(Method::PUT, "/", sent)).await;
        assert_eq!(field(&response.unwrap(), "x-outrider-reason"), Some("request_timeout"));
        timeouts += 1;
        drop(up);
    }
    assert_eq!((timeouts, pair.hedges(), pair.web.retries()), (2, (0, 0), 0));
}

#[tokio::test]
async fn hedges_spend_the_budget_of_retries() {
    let (odd, _taken_back) = hanging().await;
    let keys = "balance: round_robin, request_timeout: 300ms, retry: {budget_percent: 0, \
                budget_min_per_second: 0, hedge: 20ms}";
    let pair = Pair::with(odd, keys).await;
    let mut failed = 0;
    for _ in 0..4 {
        failed += usize::from(call(pair.web.address(), Method::GET).await.0 != StatusCode::OK);
    }
    assert!(failed > 0);
    assert_eq!(pair.hedges(), (0, 0));
    assert_eq!(pair.odd.count() + pair.good.count(), 4);
    let over = pair.web.cluster("orders").runtime.retries_over_budget.load(Ordering::Relaxed);
    assert_eq!(over, failed as u64);
}

#[tokio::test]
async fn an_answer_that_would_be_repeated_does_not_win() {
    // The slow one answers well, the other one at once with what the policy repeats.
    let pair = Pair::of(late(300).await, answering(|| failing(503)).await, &plenty("hedge: 50ms")).await;
    for _ in 0..4 {
        let called = soon("an answer", call(pair.web.address(), Method::GET)).await;
        assert_eq!(called, (StatusCode::OK, "late".to_owned()));
    }
    assert!(pair.good.count() > 0);
    eventually("nothing is under way", || pair.is_idle()).await;
}

#[tokio::test]
async fn a_single_endpoint_is_not_asked_twice() {
    let (mesh, app) = (TestMesh::new(), late(200).await);
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[orders.address()], &plenty("hedge: 20ms")).await;
    assert_eq!(call(web.address(), Method::GET).await.1, "late");
    assert_eq!(app.count(), 1);
}

#[tokio::test]
async fn a_hedged_request_that_nobody_answers_ends_in_time_and_counts_against_both() {
    let (first, told_first) = hanging().await;
    let (second, told_second) = hanging().await;
    let keys = format!("request_timeout: 400ms, {}", plenty("hedge: 50ms"));
    let pair = Pair::of(first, second, &keys).await;
    let started = Instant::now();
    let response = soon("an answer", Client::http1(pair.web.address()).await.get("/")).await.unwrap();
    assert_eq!(field(&response, "x-outrider-reason"), Some("request_timeout"));
    assert!(started.elapsed() >= Duration::from_millis(400));
    let told = || told_first.load(Ordering::Relaxed) + told_second.load(Ordering::Relaxed);
    eventually("both are told", || told() == 2).await;
    eventually("nothing is under way", || pair.is_idle()).await;
    for endpoint in &pair.web.cluster("orders").endpoints {
        assert_eq!(endpoint.runtime.failures.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn a_hedged_request_whose_caller_was_impatient_speaks_against_nobody() {
    let pair = Pair::of(late(2000).await, late(2000).await, &plenty("hedge: 50ms")).await;
    // What is usual there is known of both: a POST is not hedged.
    let post = || call(pair.web.address(), Method::POST);
    let (one, other) = tokio::join!(post(), post());
    assert_eq!((one.0, other.0), (StatusCode::OK, StatusCode::OK));
    assert_eq!((pair.odd.count(), pair.good.count()), (1, 1));
    let mut hurried = request(Method::GET, "/", body::empty());
    hurried.headers_mut().insert("x-outrider-timeout-ms", HeaderValue::from_static("1000"));
    let mut client = Client::http1(pair.web.address()).await;
    let response = soon("an answer", client.send(hurried)).await.unwrap();
    assert_eq!(field(&response, "x-outrider-reason"), Some("deadline_exceeded"));
    assert_eq!(pair.hedges().0, 1);
    eventually("nothing is under way", || pair.is_idle()).await;
    for endpoint in &pair.web.cluster("orders").endpoints {
        assert_eq!(endpoint.runtime.failures.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn the_probe_of_an_ejected_endpoint_is_not_hedged_and_so_decides_something() {
    let is_hanging: Arc<AtomicBool> = Arc::default();
    let hangs = Arc::clone(&is_hanging);
    let odd = HttpApp::start(move |_request| {
        let hangs = hangs.load(Ordering::Relaxed);
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok(failing(503))
        }
    })
    .await;
    let outlier = "outlier_detection: {ejection_time: 300ms, max_ejection_time: 300ms}";
    let pair = Pair::with(odd, &format!("{outlier}, {}", plenty("hedge: 50ms"))).await;
    let odd = Arc::clone(&pair.web.cluster("orders").endpoints[0]);
    let standing = || odd.runtime.standing(true, Instant::now());
    while standing() == Standing::Usable {
        assert_eq!(call(pair.web.address(), Method::GET).await.0, StatusCode::OK);
    }
    is_hanging.store(true, Ordering::Relaxed);
    eventually("it has rested", || standing() == Standing::Due).await;
    let (asked, hedges) = (pair.odd.count(), pair.hedges().0);
    let probe = tokio::spawn(call(pair.web.address(), Method::GET));
    eventually("it is probed", || pair.odd.count() > asked).await;
    // So many that it is known how soon the other answers.
    for _ in 0..40 {
        assert_eq!(call(pair.web.address(), Method::GET).await, (StatusCode::OK, "good".to_owned()));
    }
    assert_eq!(soon("it is taken back", probe).await.unwrap(), (StatusCode::OK, "good".to_owned()));
    assert_eq!((pair.odd.count() - asked, pair.hedges().0 - hedges), (1, 0));
    assert_eq!(pair.retries_for(RetryReason::Silent), 1);
}

#[tokio::test]
async fn a_hedge_at_the_p95_waits_until_enough_is_known_and_then_comes_when_an_answer_is_late() {
    let is_slow: Arc<AtomicBool> = Arc::default();
    let slow = Arc::clone(&is_slow);
    let odd = HttpApp::start(move |_request| {
        let slow = Arc::clone(&slow);
        async move {
            if slow.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
            Ok(Response::new(body::full("odd")))
        }
    })
    .await;
    let pair = Pair::with(odd, &plenty("hedge: p95")).await;
    // With fewer than 20 answers of an endpoint nothing is known of it.
    for _ in 0..30 {
        assert_eq!(call(pair.web.address(), Method::GET).await.0, StatusCode::OK);
    }
    assert_eq!(pair.hedges(), (0, 0));
    for _ in 0..30 {
        assert_eq!(call(pair.web.address(), Method::GET).await.0, StatusCode::OK);
    }
    is_slow.store(true, Ordering::Relaxed);
    let (asked, started) = (pair.odd.count(), Instant::now());
    for _ in 0..6 {
        assert_eq!(call(pair.web.address(), Method::GET).await, (StatusCode::OK, "good".to_owned()));
    }
    assert!(pair.odd.count() > asked, "the slow one was never asked");
    assert!(pair.hedges().1 > 0);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}
