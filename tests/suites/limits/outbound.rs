//! Limits of what the own app sends: of a cluster, and of its routes.

use outrider::model::flag::ResponseFlag;

use super::{THREE, caller, let_through, refused};
use crate::harness::{HttpApp, TestMesh, client::exchange, eventually};

#[tokio::test]
async fn what_is_over_a_clusters_limit_is_not_sent() {
    let mesh = TestMesh::new();
    let app = HttpApp::echo().await;
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = caller(&mesh, "web", &[orders.address()], &format!("rate_limits: [{{{THREE}}}]")).await;
    assert_eq!(let_through(web.address(), "/", 10).await, 3);
    assert_eq!((app.count(), refused(&web, "orders")), (3, 7));
    eventually("refusals are flagged", || web.flagged(ResponseFlag::RL) == 7).await;
    // What was refused earns no retries.
    let slots = &web.cluster("orders").runtime.retry_budget.slots;
    let requests =
        slots.iter().map(|slot| (slot.load(super::Ordering::Relaxed) >> 20) & 0xf_ffff).sum::<u64>();
    assert_eq!(requests, 3);
}

#[tokio::test]
async fn a_route_has_its_own_limits_or_shares_its_clusters() {
    let mesh = TestMesh::new();
    let app = HttpApp::echo().await;
    let orders = mesh.callee("orders", app.address(), "").await;
    let routes = "routes: [{path: /own, rate_limits: [{requests: 2, per: 1h}]}, \
                  {path: /shared, request_timeout: 10s}, {path: /free, rate_limits: []}]";
    let keys = format!("rate_limits: [{{{THREE}}}], {routes}");
    let web = caller(&mesh, "web", &[orders.address()], &keys).await;
    assert_eq!(let_through(web.address(), "/own", 5).await, 2);
    assert_eq!(let_through(web.address(), "/shared", 2).await, 2);
    assert_eq!(let_through(web.address(), "/", 5).await, 1);
    assert_eq!(let_through(web.address(), "/shared", 2).await, 0);
    assert_eq!(let_through(web.address(), "/free", 20).await, 20);
}

#[tokio::test]
async fn all_of_several_limits_must_have_one_left_and_else_none_is_used() {
    let mesh = TestMesh::new();
    let app = HttpApp::echo().await;
    let orders = mesh.callee("orders", app.address(), "").await;
    let routes = "routes: [{path: /few, rate_limits: [{name: a, requests: 9, per: 1h}, {name: b, requests: 1, per: 1h}]}]";
    let web = caller(&mesh, "web", &[orders.address()], routes).await;
    assert_eq!(let_through(web.address(), "/few", 20).await, 1);
    let cluster = web.cluster("orders");
    let lists = cluster.limiters.lists();
    let spent = |index: usize| {
        let state = &lists[0].limiters[index].state;
        let now = web.app().clock.now();
        let full_at = state.shared.full_at.load(super::Ordering::Relaxed);
        full_at.saturating_sub(now.saturating_duration_since(state.epoch).as_nanos() as u64)
    };
    assert!(spent(0) <= 400_000_000_000 && spent(0) > 0, "one of nine: {}", spent(0));
    assert_eq!(lists[0].route.as_deref(), Some("route-0"));
}

#[tokio::test]
async fn a_tunnel_is_a_request() {
    let mesh = TestMesh::new();
    let app = HttpApp::echo().await;
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let keys = "authorities: ['orders:443'], rate_limits: [{requests: 1, per: 1h}]";
    let web = caller(&mesh, "web", &[orders.address()], keys).await;
    let connect = b"CONNECT orders:443 HTTP/1.1\r\nHost: orders:443\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let first = String::from_utf8(exchange(web.address(), connect).await).unwrap();
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    let second = String::from_utf8(exchange(web.address(), connect).await).unwrap();
    assert!(second.starts_with("HTTP/1.1 429") && second.contains("retry-after: 3"), "{second}");
}
