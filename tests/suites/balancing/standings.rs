//! Panic, and the one request that probes an endpoint.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use super::{Replicas, config, who, who_over};
use crate::harness::{Client, HttpApp, Sidecar, TestMesh, body, client::call, eventually, soon};

/// Ejects an endpoint for so long.
fn eject(web: &Sidecar, index: usize, rest: Duration) {
    let cluster = web.cluster("orders");
    let runtime = &cluster.endpoints[index].runtime;
    let until = runtime.epoch.elapsed() + rest;
    runtime.health.ejected_until_us.store(u64::try_from(until.as_micros()).unwrap(), Ordering::Release);
    cluster.runtime.standings.fetch_add(1, Ordering::Release);
}

#[tokio::test]
async fn where_too_few_are_ready_all_are_used_unless_the_file_says_never() {
    let replicas = Replicas::start(3).await;
    let endpoints = || replicas.addresses().into_iter().zip(["ready: false", "ready: false", ""]);
    let panicking = replicas.mesh.start("web", &config("", endpoints(), "balance: round_robin")).await;
    for _ in 0..9 {
        who(panicking.address(), &[]).await;
    }
    assert_eq!(replicas.counts(), [3, 3, 3]);
    let in_panic = panicking.cluster("orders").runtime.picks.in_panic.load(Ordering::Relaxed);
    assert_eq!(in_panic, 9);

    let keys = "balance: round_robin, panic_percent: 0";
    let strict = replicas.mesh.start("web", &config("", endpoints(), keys)).await;
    for _ in 0..9 {
        who(strict.address(), &[]).await;
    }
    assert_eq!(replicas.counts(), [3, 3, 12], "the one that is ready");
    let none = replicas.addresses().into_iter().map(|address| (address, "ready: false"));
    let nobody = replicas.mesh.start("web", &config("", none, keys)).await;
    assert_eq!(call(nobody.address(), Method::GET).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(replicas.counts(), [3, 3, 12]);
}

#[tokio::test]
async fn an_endpoint_that_has_rested_is_probed_by_one_request_that_can_be_repeated() {
    let (mesh, open) = (TestMesh::new(), Arc::new(Semaphore::new(0)));
    let gate = Arc::clone(&open);
    let good = HttpApp::named("good").await;
    let held = HttpApp::start(move |_request: Request<Incoming>| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await?.forget();
            Ok(Response::new(body::full("back")))
        }
    })
    .await;
    let sidecars =
        [mesh.callee("orders", good.address(), "").await, mesh.callee("orders", held.address(), "").await];
    let endpoints = sidecars.iter().map(|sidecar| (sidecar.address(), ""));
    let web = mesh.start("web", &config("workers: 2", endpoints, "balance: round_robin")).await;
    eject(&web, 1, Duration::from_millis(1));
    // What must not be done twice does not probe.
    for _ in 0..10 {
        let mut client = Client::http1(web.address()).await;
        assert_eq!(who_over(&mut client, Method::POST, &[]).await.0, "good");
    }
    assert_eq!(held.count(), 0);
    let probe = tokio::spawn(call(web.address(), Method::GET));
    eventually("the probe is there", || held.count() == 1).await;
    for _ in 0..20 {
        assert_eq!(who(web.address(), &[]).await.0, "good", "one at a time");
    }
    assert_eq!(held.count(), 1);
    open.add_permits(1000);
    assert_eq!(soon("the probe ends", probe).await.unwrap(), (StatusCode::OK, "back".to_owned()));
    assert!(web.cluster("orders").runtime.picks.probes.load(Ordering::Relaxed) >= 1);
    // It is asked again, as another probe or as one of two.
    eventually("the probe is given back", || !web.cluster("orders").endpoints[1].runtime.is_probed()).await;
    let mut names = Vec::new();
    for _ in 0..4 {
        names.push(who(web.address(), &[]).await.0);
    }
    assert!(names.contains(&"back".to_owned()), "{names:?}");
}

#[tokio::test]
async fn a_probe_that_is_called_off_lets_another_be_it() {
    let mesh = TestMesh::new();
    let good = HttpApp::named("good").await;
    let silent = HttpApp::start(async |_request: Request<Incoming>| std::future::pending().await).await;
    let sidecars =
        [mesh.callee("orders", good.address(), "").await, mesh.callee("orders", silent.address(), "").await];
    let endpoints = sidecars.iter().map(|sidecar| (sidecar.address(), ""));
    let web = mesh.start("web", &config("", endpoints, "balance: round_robin")).await;
    eject(&web, 1, Duration::from_millis(1));
    for probes in 1..=3 {
        let mut probe = tokio::spawn(call(web.address(), Method::GET));
        eventually("the probe is there", || {
            // On a busy machine the connection may take too long: that was a probe, too, and the endpoint rests.
            if probe.is_finished() {
                eject(&web, 1, Duration::from_millis(1));
                probe = tokio::spawn(call(web.address(), Method::GET));
            }
            silent.count() >= probes
        })
        .await;
        assert_eq!(who(web.address(), &[]).await.0, "good");
        probe.abort();
        eventually("the probe is given back", || !web.cluster("orders").endpoints[1].runtime.is_probed())
            .await;
    }
}
