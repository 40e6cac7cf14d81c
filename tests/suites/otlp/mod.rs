//! Spans, sent to a collector: what it gets, and what becomes of requests when it is away, slow or lying.

pub(crate) mod collector;
mod export;
mod moods;
mod traces;

use std::sync::atomic::Ordering;

use http::StatusCode;

use self::collector::{Collector, Mood, text};
use crate::harness::{Client, HttpApp, Sidecar, TestMesh, body};

/// What is spoken with a collector, as the configuration says it.
const PROTOCOLS: [&str; 2] = ["grpc", "http"];

/// `telemetry` with all traces sampled, to that collector; `keys` are further ones of `traces`.
fn telemetry(collector: &Collector, protocol: &str, keys: &str) -> String {
    let address = collector.address;
    format!(
        "telemetry: {{traces: {{endpoint: 'http://{address}', protocol: {protocol}, sample_percent: 100, interval: 50ms, {keys}}}}}\n"
    )
}

/// The sidecar of `web`, whose calls to `orders` go to an app behind a sidecar of its own, which makes no spans.
struct Bench {
    mesh: TestMesh,
    web: Sidecar,
    orders: Sidecar,
    _app: HttpApp,
}

impl Bench {
    async fn start(telemetry: &str) -> Self {
        Self::start_in(TestMesh::new(), telemetry).await
    }

    async fn start_in(mesh: TestMesh, telemetry: &str) -> Self {
        let app = HttpApp::named("orders").await;
        let orders = mesh.callee("orders", app.address(), "").await;
        let web = mesh.start("web", &Self::yaml(&orders, telemetry)).await;
        Self { mesh, web, orders, _app: app }
    }

    fn yaml(orders: &Sidecar, telemetry: &str) -> String {
        let cluster = TestMesh::cluster("orders", &[orders.address()], "");
        format!("{telemetry}outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{cluster}]")
    }

    async fn reload(&mut self, telemetry: &str) {
        let yaml = Self::yaml(&self.orders, telemetry);
        self.mesh.reload(&mut self.web, "web", &yaml).await.unwrap();
    }

    async fn calls(&self, count: usize) {
        let mut client = Client::http1(self.web.address()).await;
        for _ in 0..count {
            let response = client.get("/items/7?card=4711").await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(body::text(response.into_body()).await, "orders");
        }
    }

    /// Spans that were sent, and that were dropped: for want of room, of a collector, by it.
    fn counts(&self) -> [u64; 4] {
        let counts = &self.web.app().observer.exports.spans;
        [&counts.sent, &counts.dropped_queue, &counts.dropped_failed, &counts.dropped_rejected]
            .map(|count| count.load(Ordering::Relaxed))
    }
}
