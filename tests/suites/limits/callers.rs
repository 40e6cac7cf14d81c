//! Inbound limits: of all callers together, and of each for itself.

use std::time::{Duration, Instant};

use http::Method;
use outrider::model::flag::ResponseFlag;

use super::{THREE, caller, grpc, let_through, refused, told};
use crate::harness::{
    Client, HttpApp, TestMesh, body,
    client::{field, request},
    eventually,
};

#[tokio::test]
async fn a_limit_of_all_is_shared_by_its_callers() {
    let mesh = TestMesh::new();
    let app = HttpApp::echo().await;
    let orders = mesh.callee("orders", app.address(), &format!("rate_limits: [{{{THREE}}}]")).await;
    let web = caller(&mesh, "web", &[orders.address()], "").await;
    let batch = caller(&mesh, "batch", &[orders.address()], "").await;
    assert_eq!(let_through(web.address(), "/", 2).await, 2);
    assert_eq!(let_through(batch.address(), "/", 5).await, 1);
    assert_eq!(let_through(web.address(), "/", 5).await, 0);
    assert_eq!(app.count(), 3);
}

#[tokio::test]
async fn a_flood_of_one_caller_does_not_touch_another() {
    let mesh = TestMesh::new();
    let app = HttpApp::echo().await;
    let limits = format!("rate_limits: [{{by: caller, {THREE}}}]");
    let orders = mesh.callee("orders", app.address(), &limits).await;
    let web = caller(&mesh, "web", &[orders.address()], "").await;
    let batch = caller(&mesh, "batch", &[orders.address()], "").await;
    assert_eq!(let_through(batch.address(), "/", 200).await, 3);
    assert_eq!(let_through(web.address(), "/", 3).await, 3);
    assert_eq!(refused(&orders, "inbound/in"), 197);
    let cluster = orders.cluster("inbound/in");
    let counted = || cluster.runtime.counts.by_flag[ResponseFlag::RL as usize].load(super::Ordering::Relaxed);
    eventually("refusals are flagged", || counted() == 197).await;
    let known = cluster.limiters.lists()[0].limiters[0].state.callers.load().len();
    assert_eq!(known, 2, "one bucket for each");
}

#[tokio::test]
async fn a_caller_is_told_what_is_left_and_when_to_come_again() {
    let mesh = TestMesh::new();
    let app = HttpApp::echo().await;
    let limits = format!("rate_limits: [{{name: each, by: caller, headers: always, burst: 2, {THREE}}}]");
    let orders = mesh.callee("orders", app.address(), &limits).await;
    let web = caller(&mesh, "web", &[orders.address()], "").await;
    let mut client = Client::http1(web.address()).await;
    let policy = Some("\"each\";q=3;w=3600;outrider-burst=2");
    for left in ["\"each\";r=1;t=1200", "\"each\";r=0;t=1200"] {
        let response = client.get("/").await.unwrap();
        assert_eq!(response.status(), 200);
        let [told_policy, told_left, again] = told(&response);
        assert_eq!((told_policy, again), (policy, None));
        // The second request comes up to a few seconds later.
        let told_left = told_left.unwrap();
        assert_eq!(told_left.get(..told_left.len() - 2), left.get(..left.len() - 2), "{told_left}");
        body::text(response.into_body()).await;
    }
    let response = client.get("/").await.unwrap();
    assert_eq!(response.status(), 429);
    let [told_policy, told_left, again] = told(&response);
    assert_eq!(told_policy, policy);
    let again: u64 = again.unwrap().parse().unwrap();
    assert!((1100..=1200).contains(&again), "{again}");
    assert_eq!(told_left, Some(&*format!("\"each\";r=0;t={again}")));
    assert_eq!(app.count(), 2);
}

#[tokio::test]
async fn only_refusals_tell_unless_it_is_ordered() {
    let mesh = TestMesh::new();
    let app = HttpApp::echo().await;
    let orders = mesh.callee("orders", app.address(), &format!("rate_limits: [{{{THREE}}}]")).await;
    let web = caller(&mesh, "web", &[orders.address()], "").await;
    let response = Client::http1(web.address()).await.get("/").await.unwrap();
    assert_eq!(told(&response), [None; 3]);
}

#[tokio::test]
async fn who_waits_as_told_is_let_through() {
    let mesh = TestMesh::new();
    let app = HttpApp::echo().await;
    let orders = mesh.callee("orders", app.address(), "rate_limits: [{requests: 1}]").await;
    let web = caller(&mesh, "web", &[orders.address()], "").await;
    for _ in 0..2 {
        let began = Instant::now();
        assert_eq!(let_through(web.address(), "/", 1).await, 1);
        let response = Client::http1(web.address()).await.get("/").await.unwrap();
        if began.elapsed() < Duration::from_secs(1) {
            assert_eq!(response.status(), 429);
            assert_eq!(field(&response, "retry-after"), Some("1"));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_call_of_grpc_is_refused_in_its_own_words() {
    let mesh = TestMesh::new();
    let app = HttpApp::echo().await;
    let orders = mesh.callee("orders", app.address(), "rate_limits: [{requests: 1, per: 1h}]").await;
    let web = caller(&mesh, "web", &[orders.address()], "").await;
    let mut client = Client::http2(web.address()).await;
    assert_eq!(field(&client.send(grpc()).await.unwrap(), "grpc-status"), None);
    let response = client.send(grpc()).await.unwrap();
    assert_eq!(response.status(), 200);
    for (name, value) in
        [("grpc-status", "8"), ("grpc-message", "rate_limited"), ("ratelimit-policy", "\"all\";q=1;w=3600")]
    {
        assert_eq!(field(&response, name), Some(value));
    }
    let pushback: u64 = field(&response, "grpc-retry-pushback-ms").unwrap().parse().unwrap();
    assert!((3_500_000..=3_600_000).contains(&pushback), "{pushback}");
    assert_eq!(app.count(), 1);
}

/// The others have limits of their own: passing a flood around makes it larger.
#[tokio::test]
async fn a_refusal_is_an_answer_and_is_not_taken_elsewhere() {
    let mesh = TestMesh::new();
    let (full, free) = (HttpApp::echo().await, HttpApp::echo().await);
    let limited = mesh.callee("orders", full.address(), "rate_limits: [{requests: 1, per: 1h}]").await;
    let unlimited = mesh.callee("orders", free.address(), "").await;
    let keys = "balance: round_robin, retry: {budget_min_per_second: 1000, max_retries: 5}";
    let web = caller(&mesh, "web", &[limited.address(), unlimited.address()], keys).await;
    for method in [Method::GET, Method::POST] {
        let mut client = Client::http1(web.address()).await;
        let (mut refused, before) = (0, full.count() + free.count());
        for _ in 0..10 {
            let response = client.send(request(method.clone(), "/", body::empty())).await.unwrap();
            refused += usize::from(response.status() == 429);
            body::text(response.into_body()).await;
        }
        assert_eq!(full.count() + free.count() - before, 10 - refused, "each went to one place");
    }
    assert!(refused(&limited, "inbound/in") > 0 && full.count() == 1);
    assert_eq!(web.retries(), 0);
    assert_eq!(web.flagged(ResponseFlag::RL), 0, "the far sidecar's, not ours");
}

#[tokio::test]
async fn what_was_used_stays_used_over_a_reload_of_something_else() {
    let mesh = TestMesh::new();
    let app = HttpApp::echo().await;
    let yaml = |keys: &str| {
        format!("inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}', {keys}}}]", app.address())
    };
    let limited = |limit: &str, keys: &str| {
        yaml(&format!("rate_limits: [{{{limit}}}, {{name: other, requests: 1000}}], {keys}"))
    };
    let mut orders = mesh.start("orders", &limited(THREE, "")).await;
    let web = caller(&mesh, "web", &[orders.address()], "").await;
    assert_eq!(let_through(web.address(), "/", 2).await, 2);
    let with_headers = format!("{THREE}, headers: always");
    mesh.reload(&mut orders, "orders", &limited(&with_headers, "max_requests: 7")).await.unwrap();
    eventually("it is in force", || orders.cluster("inbound/in").settings.caps.max_requests == 7).await;
    assert_eq!(let_through(web.address(), "/", 5).await, 1);
    mesh.reload(&mut orders, "orders", &limited("requests: 4, per: 1h", "max_requests: 8")).await.unwrap();
    eventually("it is in force", || orders.cluster("inbound/in").settings.caps.max_requests == 8).await;
    assert_eq!(let_through(web.address(), "/", 9).await, 4, "another limit starts afresh");
}
