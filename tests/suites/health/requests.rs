//! What health checks and readiness do to requests.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use http::{Method, StatusCode};
use outrider::{model::health::Checked, model::runtime::EndpointRuntime};
use tokio::task::JoinSet;

use super::{OFTEN, Told, becomes, item, list, watching};
use crate::harness::{Client, Sidecar, TestMesh, body, client::call, eventually, soon};

/// Apps that call as fast as they are answered, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    callers: JoinSet<()>,
}

impl Load {
    fn start(web: &Sidecar) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut callers = JoinSet::new();
        for _ in 0..4 {
            let (address, stop, answered) = (web.address(), Arc::clone(&stop), Arc::clone(&answered));
            callers.spawn(async move {
                let mut client = Client::http1(address).await;
                while !stop.load(Ordering::Relaxed) {
                    let response = client.post("/", "a body").await.unwrap();
                    assert_eq!(response.status(), StatusCode::OK);
                    body::drain(response.into_body()).await.unwrap();
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { stop, answered, callers }
    }

    /// Waits until so many more were answered.
    async fn more(&self, count: u64) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually("the load goes on", || self.answered.load(Ordering::Relaxed) >= before + count).await;
    }

    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = soon("the callers end", self.callers.join_next()).await {
            ended.unwrap();
        }
    }
}

fn runtime(web: &Sidecar, index: usize) -> Arc<EndpointRuntime> {
    Arc::clone(&web.cluster("orders").endpoints[index].runtime)
}

fn picks(web: &Sidecar, index: usize) -> u64 {
    runtime(web, index).picks.load(Ordering::Relaxed)
}

#[tokio::test]
async fn an_unhealthy_endpoint_gets_no_request_and_is_back_when_it_is_well() {
    let mesh = TestMesh::new();
    let (sick, well) = (Told::start().await, Told::start().await);
    let first = mesh.callee("orders", sick.app.address(), "").await;
    let second = mesh.callee("orders", well.app.address(), "").await;
    let keys = format!("balance: round_robin, health_check: {{path: /health, {OFTEN}}}");
    let web = mesh.caller(&[first.address(), second.address()], &keys).await;
    becomes(&web, second.address(), Checked::Healthy).await;
    sick.tell(500);
    becomes(&web, first.address(), Checked::Unhealthy).await;
    let before = picks(&web, 0);
    for _ in 0..50 {
        assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
    }
    assert_eq!(picks(&web, 0), before);
    sick.tell(200);
    becomes(&web, first.address(), Checked::Healthy).await;
    for _ in 0..20 {
        assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
    }
    assert!(picks(&web, 0) >= before + 5, "it has its share again");
}

#[tokio::test]
async fn with_too_few_left_all_are_used_and_not_those_that_are_well_alone() {
    let mesh = TestMesh::new();
    let apps = [Told::start().await, Told::start().await, Told::start().await];
    let mut sidecars = Vec::new();
    for told in &apps {
        sidecars.push(mesh.callee("orders", told.app.address(), "").await);
    }
    let addresses: Vec<_> = sidecars.iter().map(Sidecar::address).collect();
    let keys = format!("balance: round_robin, health_check: {{path: /health, {OFTEN}}}");
    let web = mesh.caller(&addresses, &keys).await;
    for (told, address) in apps.iter().zip(&addresses) {
        told.tell(418);
        becomes(&web, *address, Checked::Unhealthy).await;
    }
    for _ in 0..30 {
        assert_eq!(call(web.address(), Method::GET).await.0.as_u16(), 418, "their apps answer");
    }
    for index in 0..3 {
        assert!(picks(&web, index) >= 5, "endpoint {index} has its share");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_ready_is_drained_without_a_loss() {
    let mesh = TestMesh::new();
    let (one, two) = (Told::start().await, Told::start().await);
    let first = mesh.callee("orders", one.app.address(), "").await;
    let second = mesh.callee("orders", two.app.address(), "").await;
    let unready = format!("{{address: '{}', ready: false}}", first.address());
    list(&mesh, &[item(first.address()), item(second.address())]);
    let web = watching(&mesh, "balance: round_robin, retry: {max_retries: 0}").await;
    let load = Load::start(&web);
    load.more(50).await;
    list(&mesh, &[unready, item(second.address())]);
    let is_ready = || web.cluster("orders").endpoints[0].settings.is_ready;
    eventually("the list is in use", || !is_ready()).await;
    // Those that were chosen before.
    let in_flight = runtime(&web, 0);
    eventually("what was under way has ended", || in_flight.in_flight.load(Ordering::Relaxed) == 0).await;
    let before = picks(&web, 0);
    load.more(200).await;
    assert_eq!(picks(&web, 0), before, "no new one goes there");
    list(&mesh, &[item(first.address()), item(second.address())]);
    eventually("the list is in use", is_ready).await;
    load.more(50).await;
    assert!(picks(&web, 0) > before);
    load.end().await;
}

#[tokio::test]
async fn checks_of_an_app_that_restarts_under_load_cost_nothing() {
    let mesh = TestMesh::new();
    let told = Told::start().await;
    let orders = mesh.callee("orders", told.app.address(), "").await;
    let web = mesh
        .caller(&[orders.address()], "health_check: {interval: 100ms, timeout: 5s}, max_requests: 4")
        .await;
    // As many as may be under way: a check is none of them.
    let load = Load::start(&web);
    let cluster = web.cluster("orders");
    let checks = || cluster.runtime.checks.read(outrider::model::health_check::CheckOutcome::Well);
    let before = checks();
    eventually("checks go on beside the requests", || checks() >= before + 10).await;
    load.end().await;
    eventually("no place is left taken", || cluster.runtime.in_flight.load(Ordering::Relaxed) == 0).await;
}
