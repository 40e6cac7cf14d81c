//! Health checks: what endpoints are asked, what counts as an answer, and what becomes of requests.

mod bounds;
mod checks;
mod grpc;
mod recycling;
mod requests;
mod tcp;
mod waiting;

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use http::{Request, Response};
use hyper::body::Incoming;
use outrider::model::{
    health::Checked,
    health_check::{CheckOutcome, CheckState},
};

use crate::harness::{HttpApp, Sidecar, TestMesh, body, ca::id, eventually};

/// Keys that check often.
const OFTEN: &str = "interval: 100ms, timeout: 5s";

/// An app that answers with the status it is told to.
struct Told {
    app: HttpApp,
    status: Arc<AtomicU16>,
}

impl Told {
    async fn start() -> Self {
        let status = Arc::new(AtomicU16::new(200));
        let says = Arc::clone(&status);
        let app = HttpApp::start(move |request: Request<Incoming>| {
            let status = says.load(Ordering::Relaxed);
            async move {
                body::drain(request.into_body()).await?;
                Ok(Response::builder().status(status).body(body::full("as told"))?)
            }
        });
        Self { app: app.await, status }
    }

    fn tell(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }
}

/// What health checks say of the endpoint there.
fn checked(sidecar: &Sidecar, address: SocketAddr) -> Checked {
    let cluster = sidecar.cluster("orders");
    let endpoint = cluster.endpoints.iter().find(|endpoint| endpoint.address() == address).unwrap();
    endpoint.runtime.health.checked()
}

/// What the checks of the endpoint there have seen.
fn state(sidecar: &Sidecar, address: SocketAddr) -> CheckState {
    let cluster = sidecar.cluster("orders");
    let endpoint = cluster.endpoints.iter().find(|endpoint| endpoint.address() == address).unwrap();
    endpoint.runtime.health.checks()
}

/// Checks of `orders` that ended so.
fn counted(sidecar: &Sidecar, outcome: CheckOutcome) -> u64 {
    sidecar.cluster("orders").runtime.checks.read(outcome)
}

async fn becomes(sidecar: &Sidecar, address: SocketAddr, verdict: Checked) {
    eventually(&format!("{address} is {verdict:?}"), || checked(sidecar, address) == verdict).await;
}

/// The outcome and the words of the first check of the endpoint there.
async fn found(sidecar: &Sidecar, address: SocketAddr) -> (CheckOutcome, String) {
    eventually("it was checked", || state(sidecar, address).last.is_some()).await;
    let last = state(sidecar, address).last.unwrap();
    (last.outcome, last.text.into())
}

/// A caller that reads the endpoints of `orders` from a file.
async fn watching(mesh: &TestMesh, keys: &str) -> Sidecar {
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, spiffe_ids: ['{}'], endpoints_file: endpoints.yaml, {keys}}}]",
        id("orders"),
    );
    mesh.start("web", &yaml).await
}

/// Replaces that file, as `mv` would.
fn list(mesh: &TestMesh, items: &[String]) {
    let new = mesh.dir().join("endpoints.new");
    fs::write(&new, format!("endpoints: [{}]", items.join(", "))).unwrap();
    fs::rename(new, mesh.dir().join("endpoints.yaml")).unwrap();
}

/// An item of that file.
fn item(address: SocketAddr) -> String {
    format!("{{address: '{address}'}}")
}
