//! Faults that are injected on purpose.

use std::{
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant, SystemTime},
};

use http::{Method, StatusCode};
use outrider::{clock::Clock, model::flag::ResponseFlag, net::TcpNet};

use super::{caller, grpc};
use crate::harness::{
    Client, HttpApp, Sidecar, TestMesh, body,
    client::{field, request},
    eventually, soon,
};

/// `web` with that fault in its cluster, and the app that it calls.
async fn faulty(fault: &str, keys: &str) -> (TestMesh, HttpApp, [Sidecar; 2]) {
    let mesh = TestMesh::new();
    let app = HttpApp::echo().await;
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = caller(&mesh, "web", &[orders.address()], &format!("fault: {{{fault}}}, {keys}")).await;
    (mesh, app, [web, orders])
}

/// Faults injected: delays and aborts.
fn injected(web: &Sidecar) -> (u64, u64) {
    let faults = &web.cluster("orders").runtime.faults;
    (faults.delays.load(Ordering::Relaxed), faults.aborts.load(Ordering::Relaxed))
}

#[tokio::test]
async fn an_abort_is_answered_here_and_nothing_is_sent_or_repeated() {
    let (_mesh, app, [web, _orders]) = faulty("abort: 503, abort_grpc: 8", "").await;
    let mut client = Client::http2(web.address()).await;
    let response = client.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&response, "x-outrider-reason"), Some("fault_injected"));
    let response = client.send(grpc()).await.unwrap();
    assert_eq!((response.status(), field(&response, "grpc-status")), (StatusCode::OK, Some("8")));
    assert_eq!((app.count(), web.retries(), injected(&web)), (0, 0, (0, 2)));
    eventually("aborts are flagged", || web.flagged(ResponseFlag::FI) == 2).await;
}

#[tokio::test]
async fn only_requests_with_the_field_are_hit_and_a_route_may_have_none() {
    let keys = "routes: [{path: /well, fault: {}}, {path: /worse, fault: {abort: 500}}]";
    let (_mesh, app, [web, _orders]) = faulty("abort: 503, header: x-fault, value: please", keys).await;
    let mut client = Client::http1(web.address()).await;
    for (path, value, status) in [
        ("/", None, 200),
        ("/", Some("no"), 200),
        ("/", Some("please"), 503),
        ("/well", Some("please"), 200),
        ("/worse", None, 500),
    ] {
        let mut request = request(Method::GET, path, body::empty());
        if let Some(value) = value {
            request.headers_mut().insert("x-fault", value.parse().unwrap());
        }
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path} {value:?}");
        body::text(response.into_body()).await;
    }
    assert_eq!((app.count(), injected(&web)), (3, (0, 2)));
}

#[tokio::test]
async fn a_delay_comes_before_the_request_and_changes_nothing_else() {
    let (_mesh, app, [web, _orders]) = faulty("delay: 300ms", "").await;
    let began = Instant::now();
    let response = Client::http1(web.address()).await.post("/", "body").await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(body::text(response.into_body()).await, "body");
    assert_eq!((app.count(), injected(&web)), (1, (1, 0)));
    eventually("the delay is flagged", || web.flagged(ResponseFlag::DI) == 1).await;
}

#[tokio::test]
async fn a_delay_ends_when_the_requests_time_is_up() {
    let (_mesh, app, [web, _orders]) = faulty("delay: 1h", "request_timeout: 100ms").await;
    let response = soon("an answer", Client::http1(web.address()).await.get("/")).await;
    assert_eq!(response.unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(app.count(), 0);
    eventually("it was the time", || web.flagged(ResponseFlag::UT) == 1).await;
    assert_eq!(web.flagged(ResponseFlag::DI), 0, "something else was odd");
}

#[tokio::test]
async fn a_delay_ends_when_its_caller_leaves() {
    for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
        let (_mesh, app, [web, _orders]) = faulty("delay: 1h", "").await;
        let mut client = Client::connect(web.address(), version).await;
        let in_flight = || web.cluster("orders").runtime.in_flight.load(Ordering::Relaxed);
        let request = tokio::spawn(async move { client.get("/").await.map(drop) });
        eventually("it waits", || in_flight() == 1).await;
        request.abort();
        eventually("it is over", || in_flight() == 0).await;
        assert_eq!((app.count(), web.flagged(ResponseFlag::DC)), (0, 1), "{version:?}");
    }
}

#[tokio::test]
async fn nothing_is_asked_of_an_endpoint_that_a_fault_stands_for() {
    let (_mesh, _app, [web, _orders]) = faulty("abort: 502", "").await;
    let mut client = Client::http1(web.address()).await;
    for _ in 0..20 {
        body::text(client.get("/").await.unwrap().into_body()).await;
    }
    let runtime = &web.cluster("orders").endpoints[0].runtime;
    let counts = [&runtime.picks, &runtime.failures].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [0, 0]);
}

/// Sends so many requests; which of them were aborted.
async fn pattern(address: SocketAddr, count: usize) -> Vec<bool> {
    let mut client = Client::http1(address).await;
    let mut aborted = Vec::with_capacity(count);
    for _ in 0..count {
        let response = client.get("/").await.unwrap();
        aborted.push(response.status() == StatusCode::IM_A_TEAPOT);
        body::text(response.into_body()).await;
    }
    aborted
}

#[tokio::test]
async fn a_share_of_requests_is_hit_and_the_same_ones_again_with_the_same_seed() {
    let mut patterns = Vec::new();
    for seed in [11, 11, 12] {
        let mesh = TestMesh::new();
        let app = HttpApp::echo().await;
        let orders = mesh.callee("orders", app.address(), "").await;
        let fault = "fault: {abort: 418, abort_percent: 25}";
        let cluster = TestMesh::cluster("orders", &[orders.address()], fault);
        let yaml = format!("outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{cluster}]");
        let clock = Clock::simulated(SystemTime::now(), seed);
        let web = mesh.start_in(TcpNet, clock, "web", &yaml).await;
        let aborted = pattern(web.address(), 400).await;
        let count = aborted.iter().filter(|is_aborted| **is_aborted).count();
        assert!((60..=140).contains(&count), "{count} of 400");
        assert_eq!((app.count(), injected(&web)), (400 - count, (0, count as u64)));
        patterns.push(aborted);
    }
    assert!(patterns[0] == patterns[1] && patterns[0] != patterns[2]);
}
