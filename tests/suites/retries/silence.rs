//! What waits at an endpoint that falls silent is taken back from there, if it may be repeated.

use std::{sync::atomic::Ordering, time::Duration};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use outrider::model::retries::RetryReason;
use tokio::{sync::watch, task::JoinSet, time::interval};

use super::plenty;
use crate::harness::{HttpApp, Sidecar, TestMesh, body, client::call, eventually, soon};

/// An app that answers when it is not told to be silent.
async fn falling_silent(is_silent: watch::Receiver<bool>) -> HttpApp {
    HttpApp::start(move |request: Request<Incoming>| {
        let mut is_silent = is_silent.clone();
        async move {
            body::drain(request.into_body()).await?;
            let was_silent = *is_silent.borrow();
            is_silent.wait_for(|is_silent| !is_silent).await?;
            Ok(Response::new(body::full(if was_silent { "late" } else { "good" })))
        }
    })
    .await
}

#[tokio::test]
async fn what_waits_at_an_endpoint_that_falls_silent_is_answered_elsewhere_unless_it_may_have_been_done() {
    falls_silent("").await;
}

#[tokio::test]
async fn so_it_is_where_a_hedge_would_come_much_later() {
    falls_silent("hedge: 1m").await;
}

async fn falls_silent(keys: &str) {
    let mesh = TestMesh::new();
    let (silence, is_silent) = watch::channel(false);
    let odd = falling_silent(is_silent).await;
    let good = [HttpApp::named("good").await, HttpApp::named("good").await];
    let mut sidecars = Vec::new();
    for address in [odd.address(), good[0].address(), good[1].address()] {
        sidecars.push(mesh.callee("orders", address, "").await);
    }
    let addresses: Vec<_> = sidecars.iter().map(Sidecar::address).collect();
    let web = mesh.caller(&addresses, &plenty(keys)).await;
    for _ in 0..150 {
        assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
    }
    silence.send(true).unwrap();
    let (mut gets, mut posts) = (JoinSet::new(), JoinSet::new());
    let mut pace = interval(Duration::from_millis(10));
    let orders = web.cluster("orders");
    let taken_back = &orders.runtime.repeats.by_reason[RetryReason::Silent as usize];
    while taken_back.load(Ordering::Relaxed) == 0 {
        pace.tick().await;
        gets.spawn(call(web.address(), Method::GET));
        if gets.len() % 10 == 1 {
            posts.spawn(call(web.address(), Method::POST));
        }
        assert!(gets.len() < 1000, "nothing was taken back");
    }
    let asked = gets.len();
    while let Some(called) = soon("every idempotent request is answered", gets.join_next()).await {
        assert_eq!(called.unwrap(), (StatusCode::OK, "good".to_owned()));
    }
    assert!(taken_back.load(Ordering::Relaxed) >= 3, "of {asked}");
    // What may have been done waits on, and is done once.
    let sent = posts.len();
    silence.send(false).unwrap();
    let mut late = 0;
    while let Some(called) = soon("the others wait on", posts.join_next()).await {
        let (status, text) = called.unwrap();
        assert_eq!(status, StatusCode::OK);
        late += usize::from(text == "late");
    }
    assert!((1..=sent).contains(&late), "{late} of {sent} waited");
    eventually("nothing is under way", || orders.runtime.in_flight.load(Ordering::Relaxed) == 0).await;
    assert_eq!(orders.runtime.repeats.active.load(Ordering::Relaxed), 0);
}
