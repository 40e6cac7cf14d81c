//! A steady load on `web`, as clients outside the mesh would make it.
//!
//! Open loop: each request has its moment, whether or not earlier ones were answered, and its time counts from that
//! moment. A mesh that stalls can't slow the load down and so look better than it is.

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
use tokio::{sync::Semaphore, task::JoinSet};

use super::{latency::Latency, plan::Service};
use crate::{client::Client, effects};

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
}

/// One kind of failure.
#[derive(Clone, Debug, Serialize)]
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

    fn succeeded(&self, replica: String, took: Duration) {
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        totals.ok += 1;
        totals.latency.record(took);
        *totals.replicas.entry(replica).or_default() += 1;
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
        (self.duration.as_secs_f64() * f64::from(self.rate)).round() as u64
    }

    /// Makes them all and waits for the last answer.
    pub async fn drive(self, tally: Arc<Tally>) {
        let client = Arc::new(Client::new(self.target.to_string()));
        let slots = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        let mut requests = JoinSet::new();
        for number in 0..self.planned() {
            let due = self.start + Duration::from_secs_f64(number as f64 / f64::from(self.rate));
            tokio::time::sleep_until(due.into()).await;
            while requests.try_join_next().is_some() {}
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                tally.failed(due - self.start, NOT_SENT);
                continue;
            };
            let (client, tally) = (Arc::clone(&client), Arc::clone(&tally));
            requests.spawn(async move {
                let outcome = tokio::time::timeout(TIMEOUT, call(&client)).await;
                match outcome.map_err(anyhow::Error::new).and_then(|answer| answer) {
                    Ok(replica) => tally.succeeded(replica, effects::now().saturating_duration_since(due)),
                    Err(error) => tally.failed(due - self.start, &format!("{error:#}")),
                }
                drop(slot);
            });
        }
        while requests.join_next().await.is_some() {}
    }
}

/// Makes one request to the mesh and returns the replica of the last service that answered.
///
/// # Errors
/// Anything but status 200 with an answer from every service, and the trace of this very request at the last of them.
pub async fn call(client: &Client) -> anyhow::Result<String> {
    let trace = format!("{:032x}", fastrand::u128(1..));
    let request = Request::get("/basket")
        .header(HOST, "web")
        .header("traceparent", format!("00-{trace}-{:016x}-00", fastrand::u64(1..)))
        .body(Full::new(Bytes::new()))?;
    let response = client.send(request).await.context("calling web")?;
    check(&response, &trace)
}

fn check(response: &Response<Bytes>, trace: &str) -> anyhow::Result<String> {
    let text = String::from_utf8_lossy(response.body());
    anyhow::ensure!(
        response.status() == StatusCode::OK,
        "web answered {}: {}",
        response.status(),
        text.trim_end()
    );
    let web: Value = serde_json::from_str(&text).with_context(|| format!("web answered {text:?}"))?;
    let last = web.pointer("/upstream/upstream").unwrap_or(&Value::Null);
    let is_complete = last.get("service").and_then(Value::as_str) == Some(Service::Inventory.name());
    anyhow::ensure!(is_complete, "the answer did not come from inventory: {text}");
    let arrived = last.get("traceparent").and_then(Value::as_str).unwrap_or_default();
    // Also what would tell if one request ever got another's answer.
    anyhow::ensure!(arrived.contains(trace), "sent trace {trace}, inventory saw {arrived:?}");
    Ok(last.get("replica").and_then(Value::as_str).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(trace: &str, service: &str) -> Response<Bytes> {
        let inventory =
            serde_json::json!({ "service": service, "replica": "inventory-2", "traceparent": trace });
        let web = serde_json::json!({ "upstream": { "upstream": inventory } });
        Response::new(Bytes::from(web.to_string()))
    }

    #[test]
    fn an_answer_counts_only_with_its_own_trace_from_the_last_service() {
        assert_eq!(check(&answer("00-abc-1-00", "inventory"), "abc").expect("good"), "inventory-2");
        assert!(check(&answer("00-abd-1-00", "inventory"), "abc").is_err());
        assert!(check(&answer("00-abc-1-00", "orders"), "abc").is_err());
        let mut failed = answer("00-abc-1-00", "inventory");
        *failed.status_mut() = StatusCode::BAD_GATEWAY;
        assert!(check(&failed, "abc").is_err());
    }
}
