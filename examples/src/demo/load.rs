//! A steady load on `web`, as clients outside the mesh would make it.
//!
//! Open loop ([`open_loop`](crate::open_loop)): a mesh that stalls can't slow the load down and so look better than it
//! is.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header::HOST};
use http_body_util::Full;
use serde::Serialize;
use serde_json::Value;

use super::{latency::Latency, plan::Service, traces};
use crate::{client::Client, effects, open_loop::Schedule};

/// Requests under way at once; past that a request has failed. At 200 per second this is five seconds without an
/// answer.
const MAX_IN_FLIGHT: usize = 1000;
/// An answer that takes longer is a failure.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is said of a request for which there was no room.
const NOT_SENT: &str =
    "not sent: 1000 requests were waiting for their answers; is the machine too busy for this rate?";
/// Kinds of failure kept.
const MAX_KEPT_FAILURES: usize = 20;

/// What came of the load so far. Shared by the requests and whoever watches.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Totals>);

/// Numbers of a [`Tally`].
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Requests answered as they should be.
    pub ok: u64,
    /// All others.
    pub failed: u64,
    /// How long the good answers took, from the moment each request was due.
    pub latency: Latency,
    /// Good answers by the replica of the last service that they came from.
    pub replicas: BTreeMap<String, u64>,
    /// What went wrong, the first few kinds.
    pub failures: Vec<Failure>,
    /// The trace of the last good answer.
    pub last_trace: Option<String>,
}

/// One kind of failure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    /// When the first of them was due, in seconds after the load began.
    pub first_at_s: f64,
    /// How many there were.
    pub count: u64,
    /// What went wrong.
    pub what: String,
}

impl Tally {
    /// The numbers now.
    #[must_use]
    pub fn read(&self) -> Totals {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn succeeded(&self, answer: Answer, took: Duration) {
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        totals.ok += 1;
        totals.latency.record(took);
        *totals.replicas.entry(answer.replica).or_default() += 1;
        totals.last_trace = Some(answer.trace);
    }

    fn failed(&self, at: Duration, why: &str) {
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        totals.failed += 1;
        if let Some(known) = totals.failures.iter_mut().find(|failure| failure.what == why) {
            known.count += 1;
        } else if totals.failures.len() < MAX_KEPT_FAILURES {
            totals.failures.push(Failure { first_at_s: at.as_secs_f64(), count: 1, what: why.to_owned() });
        }
    }
}

/// How much load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Whom to call.
    pub target: SocketAddr,
    /// For how long.
    pub duration: Duration,
    /// Requests per second.
    pub rate: u32,
    /// When it begins.
    pub start: Instant,
}

impl Load {
    /// Requests that will be made.
    #[must_use]
    pub fn planned(&self) -> u64 {
        self.schedule().planned()
    }

    /// Makes them all and waits for the last answer.
    pub async fn drive(self, tally: Arc<Tally>) {
        let client = Arc::new(Client::new(self.target.to_string()));
        let refused = |due: Instant| tally.failed(due - self.start, NOT_SENT);
        let request = |due: Instant| {
            let (client, tally) = (Arc::clone(&client), Arc::clone(&tally));
            async move {
                let outcome = tokio::time::timeout(TIMEOUT, call(&client)).await;
                match outcome.map_err(anyhow::Error::new).and_then(|answer| answer) {
                    Ok(answer) => tally.succeeded(answer, effects::now().saturating_duration_since(due)),
                    Err(error) => tally.failed(due - self.start, &format!("{error:#}")),
                }
            }
        };
        self.schedule().drive(request, refused, || false).await;
    }

    fn schedule(&self) -> Schedule {
        let Self { start, duration, rate, .. } = *self;
        Schedule { start, duration, rate, max_under_way: MAX_IN_FLIGHT }
    }
}

/// A good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The replica of the last service.
    pub replica: String,
    /// The call's trace, 32 hexadecimal digits.
    pub trace: String,
}

/// Makes one request to the mesh.
///
/// # Errors
/// Anything but status 200 with an answer from every service, this very request's ID at the last of them, and one trace
/// at those that were called through sidecars.
pub async fn call(client: &Client) -> anyhow::Result<Answer> {
    let id = format!("demo-{:032x}", fastrand::u128(..));
    let request = Request::get("/basket")
        .header(HOST, "web")
        .header("x-request-id", &id)
        .body(Full::new(Bytes::new()))?;
    let response = client.send(request).await.context("calling web")?;
    check(&response, &id)
}

fn check(response: &Response<Bytes>, id: &str) -> anyhow::Result<Answer> {
    let text = String::from_utf8_lossy(response.body());
    anyhow::ensure!(
        response.status() == StatusCode::OK,
        "web answered {}: {}",
        response.status(),
        text.trim_end()
    );
    let web: Value = serde_json::from_str(&text).with_context(|| format!("web answered {text:?}"))?;
    let said = |of: &str| web.pointer(of).and_then(Value::as_str).unwrap_or_default();
    let is_complete = said("/upstream/upstream/service") == Service::Inventory.name();
    anyhow::ensure!(is_complete, "the answer did not come from inventory: {text}");
    let arrived = said("/upstream/upstream/request_id");
    // Also what would tell if one request ever got another's answer.
    anyhow::ensure!(arrived == id, "sent request {id}, inventory saw {arrived:?}");
    // The sidecar of web began it: nobody told it of a trace.
    let trace = traces::trace_id(said("/upstream/traceparent")).context("at orders")?;
    let further = traces::trace_id(said("/upstream/upstream/traceparent")).context("at inventory")?;
    anyhow::ensure!(trace == further, "orders saw trace {trace}, inventory {further}");
    Ok(Answer { replica: said("/upstream/upstream/replica").to_owned(), trace: trace.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn answer(id: &str, service: &str, trace: &str) -> Response<Bytes> {
        let parent = |trace: &str| format!("00-{trace}-00f067aa0ba902b7-01");
        let inventory = serde_json::json!({
            "service": service, "replica": "inventory-2", "request_id": id, "traceparent": parent(trace),
        });
        let orders = serde_json::json!({ "traceparent": parent(TRACE), "upstream": inventory });
        Response::new(Bytes::from(serde_json::json!({ "upstream": orders }).to_string()))
    }

    #[test]
    fn an_answer_counts_only_with_its_own_id_in_one_trace_from_the_last_service() {
        let good = Answer { replica: "inventory-2".to_owned(), trace: TRACE.to_owned() };
        assert_eq!(check(&answer("abc", "inventory", TRACE), "abc").expect("good"), good);
        assert!(check(&answer("abd", "inventory", TRACE), "abc").is_err());
        assert!(check(&answer("abc", "orders", TRACE), "abc").is_err());
        assert!(check(&answer("abc", "inventory", &TRACE.replace('4', "5")), "abc").is_err());
        assert!(check(&answer("abc", "inventory", ""), "abc").is_err());
        let mut failed = answer("abc", "inventory", TRACE);
        *failed.status_mut() = StatusCode::BAD_GATEWAY;
        assert!(check(&failed, "abc").is_err());
    }
}
