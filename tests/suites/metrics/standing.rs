//! Caps, budgets, handshakes: how near a sidecar is to what it will not do.

use std::sync::Arc;

use http::{Method, Response, StatusCode};
use tokio::sync::Semaphore;

use super::scrape;
use crate::harness::{HttpApp, TestMesh, body, client::call, eventually};

const ORDERS: [(&str, &str); 2] = [("direction", "outbound"), ("cluster", "orders")];

#[tokio::test]
async fn a_cap_its_use_and_what_it_refused_are_told() {
    let mesh = TestMesh::new();
    let gate = Arc::new(Semaphore::new(0));
    let app = HttpApp::gated(&gate).await;
    let orders = mesh.callee("orders", app.address(), "").await;
    let keys = "max_requests: 1, max_connections: 7, max_pending: 5, retry: {max_retries: 0}";
    let web = mesh.caller(&[orders.address()], keys).await;
    let address = web.address();
    let first = tokio::spawn(async move { call(address, Method::GET).await });
    let of = |name: &str| scrape(&web).sum(name, &ORDERS);
    eventually("one is under way", || of("outrider_cluster_in_flight") == 1.0).await;
    assert_eq!(call(address, Method::GET).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(of("outrider_cluster_in_flight_max"), 1.0);
    assert_eq!(of("outrider_cluster_connections_max"), 7.0);
    assert_eq!(of("outrider_cluster_pending_max"), 5.0);
    let overflows =
        |cap| scrape(&web).sum("outrider_cluster_overflows_total", &[ORDERS[0], ORDERS[1], ("cap", cap)]);
    assert_eq!(["requests", "connections", "pending", "memory"].map(overflows), [1.0, 0.0, 0.0, 0.0]);
    gate.add_permits(1);
    assert_eq!(first.await.unwrap().0, StatusCode::OK);
    eventually("none is under way", || of("outrider_cluster_in_flight") == 0.0).await;
}

#[tokio::test]
async fn what_of_the_retry_budget_is_used_and_left_is_told() {
    let mesh = TestMesh::new();
    let app = HttpApp::start(async |_request| {
        Ok(Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).body(body::full("no"))?)
    })
    .await;
    let orders = mesh.callee("orders", app.address(), "").await;
    let keys = "retry: {max_retries: 2, budget_percent: 0, budget_min_per_second: 100, backoff_base: 1ms}";
    let web = mesh.caller(&[orders.address()], keys).await;
    assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let of = |name: &str| scrape(&web).sum(name, &ORDERS);
    assert_eq!(of("outrider_retries_total"), 2.0);
    eventually("it is over", || of("outrider_retries_active") == 0.0).await;
    let told = scrape(&web);
    let (used, left) =
        (told.sum("outrider_retry_budget_used", &ORDERS), told.sum("outrider_retry_budget_left", &ORDERS));
    // The budget's floor grows by 100 a second, and the window moves on.
    assert!(used <= 2.0 && (used + left) % 100.0 == 0.0 && left >= 98.0, "{used} {left}");
    assert_eq!(told.sum("outrider_edge_retries_total", &[("destination", "orders")]), 2.0);
}

#[tokio::test]
async fn handshakes_are_counted_at_both_ends() {
    let mesh = TestMesh::new();
    let app = HttpApp::named("orders").await;
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[orders.address()], "").await;
    assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
    let (near, far) = (scrape(&web), scrape(&orders));
    let made = near.sum("outrider_tls_handshakes_total", &[("cluster", "orders")]);
    assert_eq!(made, near.sum("outrider_connections_opened_total", &ORDERS));
    assert!(made >= 1.0);
    let name = "outrider_listener_handshake_duration_seconds";
    let took = |suffix: &str| far.sum(&format!("{name}_{suffix}"), &[("listener", "in")]);
    assert!(took("count") >= 1.0 && took("sum") > 0.0, "{far:?}");
}
