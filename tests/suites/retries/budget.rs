//! How often something is repeated at most.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use http::{Method, StatusCode};
use outrider::{model::flag::ResponseFlag, resilience::retry_budget};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{HttpApp, Sidecar, TcpApp, TestMesh, body, client::call, eventually, mesh, soon};

/// Endpoints that accept a connection and close it.
async fn closing(count: usize) -> Vec<TcpApp> {
    let mut endpoints = Vec::new();
    for _ in 0..count {
        endpoints.push(TcpApp::start(async |stream| drop(stream)).await);
    }
    endpoints
}

fn attempts(endpoints: &[TcpApp]) -> usize {
    endpoints.iter().map(TcpApp::connections).sum()
}

async fn web(mesh: &TestMesh, endpoints: &[TcpApp], retry: &str) -> Sidecar {
    let addresses: Vec<_> = endpoints.iter().map(TcpApp::address).collect();
    mesh.caller(&addresses, &format!("retry: {{backoff_base: 1ms, {retry}}}")).await
}

#[tokio::test]
async fn a_request_is_tried_as_often_as_it_may_be_each_time_elsewhere() {
    for max_retries in [0, 1, 2, 4] {
        let (mesh, endpoints) = (TestMesh::new(), closing(5).await);
        let web = web(&mesh, &endpoints, &format!("max_retries: {max_retries}")).await;
        assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::SERVICE_UNAVAILABLE);
        let each: Vec<_> = endpoints.iter().map(TcpApp::connections).collect();
        assert_eq!(attempts(&endpoints), max_retries + 1, "{each:?}");
        assert!(each.iter().all(|count| *count <= 1), "{each:?}");
    }
}

#[tokio::test]
async fn a_cluster_that_fails_fully_sees_no_more_than_its_budget() {
    const REQUESTS: usize = 300;
    for (percent, floor) in [(20, 0), (20, 2), (0, 0), (50, 1)] {
        // Each app is asked and gives no answer: what it sees is what retries cost it.
        let (mesh, apps) = (TestMesh::new(), [TcpApp::silent().await, TcpApp::silent().await]);
        let first = mesh.callee("orders", apps[0].address(), "").await;
        let second = mesh.callee("orders", apps[1].address(), "").await;
        let retry = format!("budget_percent: {percent}, budget_min_per_second: {floor}, backoff_base: 1ms");
        let web = mesh.caller(&[first.address(), second.address()], &format!("retry: {{{retry}}}")).await;
        let started = Instant::now();
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let address = web.address();
            callers.spawn(async move {
                for _ in 0..REQUESTS / 6 {
                    let (status, _text) = call(address, Method::GET).await;
                    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
                }
            });
        }
        while let Some(done) = callers.join_next().await {
            done.unwrap();
        }
        // The cluster's first second began a little before ours.
        let seconds = (started.elapsed() + Duration::from_secs(2)).as_secs() as usize;
        assert!(seconds < 10, "the window has moved on; this machine is too slow for the sum below");
        let extra = attempts(&apps) - REQUESTS;
        let allowed = REQUESTS * percent / 100 + floor * seconds;
        assert!(extra <= allowed, "{extra} retries, {allowed} allowed: {retry}");
        assert!(extra >= REQUESTS * percent / 100 * 8 / 10, "{extra} retries of {allowed}: {retry}");
        assert_eq!(web.retries(), extra as u64);
        let over = web.cluster("orders").runtime.retries_over_budget.load(Ordering::Relaxed);
        assert!(over > 0, "none was over the budget: {retry}");
    }
}

#[tokio::test]
async fn a_storm_of_retries_and_hedges_stays_within_the_budget() {
    const REQUESTS: usize = 400;
    // Every app takes its time and then fails, and everything may be repeated and hedged.
    let failing = async || {
        HttpApp::start(async |request| {
            body::drain(request.into_body()).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(super::failing(503))
        })
        .await
    };
    let (mesh, apps) = (TestMesh::new(), [failing().await, failing().await, failing().await]);
    let mut sidecars = Vec::new();
    for app in &apps {
        sidecars.push(mesh.callee("orders", app.address(), "").await);
    }
    let addresses: Vec<_> = sidecars.iter().map(Sidecar::address).collect();
    let retry = "max_retries: 10, methods: any, hedge: 5ms, backoff_base: 1ms, budget_min_per_second: 2";
    let web = mesh.caller(&addresses, &format!("retry: {{{retry}}}")).await;
    let started = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let address = web.address();
        callers.spawn(async move {
            for round in 0..REQUESTS / 16 {
                let method = if round % 2 == 0 { Method::GET } else { Method::POST };
                let (status, text) = call(address, method).await;
                assert_eq!((status.as_u16(), text.as_str()), (503, "the app's own words"));
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    let seconds = (started.elapsed() + Duration::from_secs(2)).as_secs() as usize;
    assert!(seconds < 10, "the window has moved on; this machine is too slow for the sum below");
    let extra = apps.iter().map(HttpApp::count).sum::<usize>() - REQUESTS;
    let allowed = REQUESTS / 5 + 2 * seconds;
    let cluster = web.cluster("orders");
    let hedges = cluster.runtime.repeats.hedges.load(Ordering::Relaxed);
    assert!(extra <= allowed, "{extra} extra requests, {allowed} allowed");
    assert!(extra >= REQUESTS / 5 * 8 / 10, "{extra} extra requests of {allowed}");
    // One that was cancelled early may not have come to its app.
    assert!(web.retries() + hedges >= extra as u64 && web.retries() + hedges <= allowed as u64);
    assert!(hedges > 0 && cluster.runtime.retries_over_budget.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn opaque_streams_spend_the_same_budget() {
    let (mesh, endpoints) = (TestMesh::new(), closing(3).await);
    let addresses: Vec<_> = endpoints.iter().map(TcpApp::address).collect();
    let web = mesh.tcp_caller(&addresses, "retry: {budget_percent: 20, budget_min_per_second: 0}").await;
    for _ in 0..50 {
        mesh::reset_by(web.address()).await;
    }
    let extra = attempts(&endpoints) - 50;
    assert!((1..=10).contains(&extra), "{extra} retries for 50 streams");
}

#[tokio::test]
async fn a_stream_over_the_cap_earns_no_retries() {
    let (mesh, app) = (TestMesh::new(), TcpApp::echo().await);
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let keys = "max_requests: 1, retry: {budget_percent: 100, budget_min_per_second: 0}";
    let web = mesh.tcp_caller(&[orders.address()], keys).await;
    let mut held = TcpStream::connect(web.address()).await.unwrap();
    held.write_all(b"hello").await.unwrap();
    soon("the echo", held.read_exact(&mut [0; 5])).await.unwrap();
    for refused in 1..=20 {
        mesh::reset_by(web.address()).await;
        eventually("the refusal is counted", || web.flagged(ResponseFlag::UO) == refused).await;
    }
    let state = &web.cluster("orders").runtime.retry_budget;
    assert!(retry_budget::standing(state, 1.0, 0, Instant::now()).left <= 1, "only one was carried");
}
