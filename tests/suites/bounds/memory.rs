//! Over the memory budget new work is answered or closed at once, a few go on, and other replicas take the rest.

use std::sync::atomic::Ordering;

use http::{Method, Response, StatusCode};
use outrider::model::{closed::Shed, flag::ResponseFlag, load::ALWAYS_ADMITTED};
use tokio::{io::AsyncReadExt, net::TcpStream, task::JoinSet};

use super::shed;
use crate::harness::{Client, HttpApp, TestMesh, body, client, eventually, soon};

/// More than the smallest budget, in the process that the sidecar of a test shares.
fn ballast() -> Vec<u8> {
    vec![1; 96 << 20]
}

#[tokio::test]
async fn over_its_memory_budget_a_sidecar_does_a_little_and_sends_the_rest_elsewhere() {
    let _ballast = ballast();
    let (go, gate) = tokio::sync::watch::channel(false);
    let app = HttpApp::start(move |_request| {
        let mut gate = gate.clone();
        async move {
            gate.wait_for(|is_open| *is_open).await?;
            Ok(Response::new(body::full("full")))
        }
    })
    .await;
    let free = HttpApp::named("free").await;
    let mesh = TestMesh::new();
    let yaml = format!(
        "limits: {{memory: 32MiB}}\ninbound: [{{name: in, listen: '127.0.0.1:0', app: '{}'}}]",
        app.address(),
    );
    let full = mesh.start("orders", &yaml).await;
    let other = mesh.callee("orders", free.address(), "").await;
    eventually("it has looked", || full.app().load.is_over()).await;

    // As many as always go on.
    let only = mesh.caller(&[full.address()], "").await;
    let mut held = JoinSet::new();
    for _ in 0..ALWAYS_ADMITTED {
        let address = only.address();
        held.spawn(async move { client::call(address, Method::POST).await.0 });
    }
    eventually("a few are at the app", || app.count() == ALWAYS_ADMITTED as usize).await;
    let mut client = Client::http1(only.address()).await;
    let answer = soon("an answer", client.post("/", "x")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(client::field(&answer, "x-outrider-reason"), Some("overload"));
    let flagged =
        full.cluster("inbound/in").runtime.counts.by_flag[ResponseFlag::OM as usize].load(Ordering::Relaxed);
    assert!(flagged >= 1);

    // Who knows another replica is served by that one, whatever the method.
    let web = mesh.caller(&[full.address(), other.address()], "balance: round_robin").await;
    for _ in 0..4 {
        assert_eq!(soon("an answer", client::call(web.address(), Method::POST)).await.1, "free");
    }
    go.send(true).unwrap();
    while let Some(status) = soon("the held ones are answered", held.join_next()).await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
}

#[tokio::test]
async fn over_its_memory_budget_a_sidecar_closes_new_connections_of_peers() {
    let _ballast = ballast();
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let yaml = format!(
        "limits: {{memory: 32MiB}}\ninbound: [{{name: in, listen: '127.0.0.1:0', app: '{}'}}]",
        app.address(),
    );
    let orders = mesh.start("orders", &yaml).await;
    eventually("it has looked", || orders.app().load.is_over()).await;
    let mut held = Vec::new();
    for _ in 0..ALWAYS_ADMITTED {
        held.push(TcpStream::connect(orders.address()).await.unwrap());
    }
    let mut newcomer = TcpStream::connect(orders.address()).await.unwrap();
    soon("it is closed", async { drop(newcomer.read_to_end(&mut Vec::new()).await) }).await;
    assert_eq!(shed(&orders, "in", Shed::Memory), 1);
}
