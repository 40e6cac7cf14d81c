//! What may be repeated is, elsewhere, within a budget; what may not be is done once at most.

mod answers;
mod apps;
mod budget;
mod grpc;
mod hedges;
mod hops;
mod peers;
mod silence;
mod slow;

use std::sync::atomic::Ordering;

use http::{Request, Response};
use hyper::body::Incoming;
use outrider::model::retries::RetryReason;

use crate::harness::{HttpApp, Sidecar, TestMesh, app::Answered, body};

/// More retries than any test here needs: the budget is the matter of `budget` alone.
const PLENTY: &str = "balance: round_robin, retry: {budget_min_per_second: 1000, backoff_base: 1ms}";

/// [`PLENTY`], with further keys of `retry`.
fn plenty(keys: &str) -> String {
    format!("balance: round_robin, retry: {{budget_min_per_second: 1000, backoff_base: 1ms, {keys}}}")
}

/// An odd replica and a good one, each behind its sidecar, asked in turns.
struct Pair {
    _mesh: TestMesh,
    sidecars: [Sidecar; 2],
    odd: HttpApp,
    good: HttpApp,
    web: Sidecar,
}

impl Pair {
    async fn of(odd: HttpApp, good: HttpApp, keys: &str) -> Self {
        let mesh = TestMesh::new();
        let sidecars = [
            mesh.callee("orders", odd.address(), "app_protocol: http2").await,
            mesh.callee("orders", good.address(), "app_protocol: http2").await,
        ];
        let web = mesh.caller(&[sidecars[0].address(), sidecars[1].address()], keys).await;
        Self { _mesh: mesh, sidecars, odd, good, web }
    }

    /// With a good one that reads everything and answers with its name.
    async fn with(odd: HttpApp, keys: &str) -> Self {
        Self::of(odd, HttpApp::named("good").await, keys).await
    }

    /// Retries made for that reason.
    fn retries_for(&self, reason: RetryReason) -> u64 {
        self.web.cluster("orders").runtime.repeats.by_reason[reason as usize].load(Ordering::Relaxed)
    }

    /// Second attempts, and how many of them won.
    fn hedges(&self) -> (u64, u64) {
        let cluster = self.web.cluster("orders");
        let repeats = &cluster.runtime.repeats;
        (repeats.hedges.load(Ordering::Relaxed), repeats.hedges_won.load(Ordering::Relaxed))
    }

    /// Whether nothing is under way any more, by every counter of the three sidecars.
    fn is_idle(&self) -> bool {
        let orders = self.web.cluster("orders");
        let inbound = self.sidecars.iter().map(|sidecar| sidecar.cluster("inbound/in"));
        let is_unasked = orders.endpoints.iter().all(|endpoint| {
            endpoint.runtime.in_flight.load(Ordering::Relaxed) == 0
                && endpoint.runtime.unanswered.load(Ordering::Relaxed) == 0
        });
        is_unasked
            && orders.runtime.repeats.active.load(Ordering::Relaxed) == 0
            && inbound.chain([orders]).all(|cluster| cluster.runtime.in_flight.load(Ordering::Relaxed) == 0)
    }
}

/// An app that reads everything and then gives this answer.
async fn answering(answer: impl Fn() -> Response<body::Body> + Clone + Send + Sync + 'static) -> HttpApp {
    HttpApp::start(move |request: Request<Incoming>| {
        let answer = answer.clone();
        async move {
            body::drain(request.into_body()).await?;
            let answered: Answered = Ok(answer());
            answered
        }
    })
    .await
}

/// A failing app's own words.
fn failing(status: u16) -> Response<body::Body> {
    Response::builder()
        .status(status)
        .header("x-own", "word")
        .body(body::full("the app's own words"))
        .unwrap()
}
