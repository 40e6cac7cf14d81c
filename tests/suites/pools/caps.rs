//! Caps on connections and on those who wait for one, over endpoints and workers.

use std::{sync::atomic::Ordering, time::Instant};

use http::{Method, StatusCode};
use outrider::model::{flag::ResponseFlag, pool_counts::Closed};

use super::{closed, post};
use crate::harness::{
    Client, HttpApp, TcpApp, TestMesh, ca,
    client::{call, field},
    eventually, soon,
};

#[tokio::test]
async fn endpoints_share_a_cap_by_turns() {
    let (mesh, app) = (TestMesh::new(), HttpApp::named("app").await);
    let one = mesh.callee("orders", app.address(), "").await;
    let two = mesh.callee("orders", app.address(), "").await;
    let keys = "balance: round_robin, max_connections: 1, retry: {max_retries: 0}";
    let web = mesh.caller(&[one.address(), two.address()], keys).await;
    for _ in 0..20 {
        assert_eq!(post(web.address()).await, "app");
    }
    assert_eq!(closed(&web, "orders", Closed::Reclaimed), 19);
    assert_eq!(web.cluster("orders").runtime.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn workers_share_a_cap_by_turns() {
    let (mesh, app) = (TestMesh::new(), HttpApp::named("app").await);
    let orders = mesh.callee("orders", app.address(), "").await;
    for keys in ["", "peer: standard, peer_protocol: http1, "] {
        let standard = mesh.callee("orders", app.address(), "peer: standard").await;
        let callee = if keys.is_empty() { &orders } else { &standard };
        let yaml = format!(
            "workers: 2\noutbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
             clusters: [{{name: orders, {keys}spiffe_ids: ['{}'], max_connections: 1, retry: {{max_retries: 0}}, \
             endpoints: [{{address: '{}'}}]}}]",
            ca::id("orders"),
            callee.address(),
        );
        let web = mesh.start("web", &yaml).await;
        // Each call is a connection of its own, and goes to whichever worker the kernel chooses.
        for _ in 0..60 {
            assert_eq!(post(web.address()).await, "app");
        }
        assert!(closed(&web, "orders", Closed::Reclaimed) > 0, "one worker did it all");
    }
}

#[tokio::test]
async fn what_is_in_use_makes_no_room() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let app = HttpApp::start(move |_request| {
        let mut gate = gate.clone();
        async move {
            gate.wait_for(|is_open| *is_open).await?;
            Ok(http::Response::new(crate::harness::body::full("at last")))
        }
    })
    .await;
    let mesh = TestMesh::new();
    let keys = "app_protocol: http1, max_connections: 1";
    let orders = mesh.callee("orders", app.address(), keys).await;
    let web = mesh.caller(&[orders.address()], "retry: {max_retries: 0}").await;
    let address = web.address();
    let first = tokio::spawn(async move { call(address, Method::POST).await.0 });
    eventually("the first is at the app", || app.count() == 1).await;
    let asked = Instant::now();
    let response =
        soon("the second is answered", async { Client::http1(web.address()).await.get("/").await.unwrap() })
            .await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&response, "x-outrider-reason"), Some("max_connections"));
    assert!(asked.elapsed().as_secs() < 2, "it waited");
    go.send(true).unwrap();
    assert_eq!(first.await.unwrap(), StatusCode::OK);
    assert_eq!(call(web.address(), Method::POST).await.0, StatusCode::OK);
}

#[tokio::test]
async fn only_so_many_wait_for_a_connection_and_all_of_them_are_told_how_it_ended() {
    // It takes connections, and never says anything.
    let deaf = TcpApp::start(async |stream| {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let mesh = TestMesh::new();
    let keys = "max_pending: 3, connect_timeout: 1s, retry: {max_retries: 0}";
    let web = mesh.caller(&[deaf.address()], keys).await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let address = web.address();
        callers.spawn(async move {
            let response = Client::http1(address).await.post("/", "x").await.unwrap();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            field(&response, "x-outrider-reason").unwrap().to_owned()
        });
    }
    let mut reasons = soon("all are answered", callers.join_all()).await;
    reasons.sort_unstable();
    assert_eq!(reasons, [vec!["connect_failed"; 3], vec!["max_pending"; 7]].concat());
    assert_eq!(deaf.connections(), 1, "those who wait for a shared connection wait for one");
    assert_eq!((web.flagged(ResponseFlag::UO), web.flagged(ResponseFlag::UF)), (7, 3));
    assert_eq!(web.cluster("orders").runtime.pending.load(Ordering::Relaxed), 0);
}
