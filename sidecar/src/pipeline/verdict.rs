//! What a request showed of its endpoint is told to balancing and to outlier detection: here, and nowhere else.
//!
//! ```text
//!   head ──▶ [`head`] ─────────────────────────────▶ counts ─▶ ejected? back?
//!     └─ gRPC: how the call ended is in the trailers ──▶ [`ended`] ─▶ the same
//!   no head ──▶ [`failed`] ────────────────────────▶ the same
//! ```

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, Response};
use rustix::io::Errno;

use super::{error::ProxyError, respond, worker::Worker};
use crate::{
    balance::InFlight,
    connect,
    headers::{grpc, retry_after::retry_after},
    model::{Cluster, ClusterName, Endpoint, Snapshot, wire},
    net::Net,
    relay::{body, received::Received},
    resilience::{
        outcome::{self, Judgement, Outcome},
        outlier::{self, Event, Report, Step},
    },
};

/// An opaque stream that the far side resets within this after it took it was not served.
const EARLY: Duration = Duration::from_secs(1);

/// The longest that an endpoint gets less for a 429, which may be about one caller only.
const OF_ONE: Duration = Duration::from_secs(10);
/// A caller's time that ended sooner says nothing of an endpoint that is known.
const SOON: Duration = Duration::from_millis(100);
/// Nor does one that was no longer than so many times what is usual there.
const UNUSUAL: u32 = 5;

/// Whether an answer's head has said how the request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It has.
    Yes,
    /// A call of gRPC, whose status comes last.
    Later,
}

/// Tells of an answer's head, and what kind of failure the far sidecar says that it is, if it answered itself.
pub(super) fn head<N: Net>(
    worker: &Worker<N>,
    cluster: &Cluster,
    (in_flight, now): (&mut InFlight, Instant),
    response: &Response<Received>,
) -> Told {
    let headers = response.headers();
    let is_sidecar = cluster.settings.transport.is_sidecar();
    // A sidecar whose app is down says so faster than any app answers: that must not attract requests.
    let is_sidecars_failure = is_sidecar && respond::processed(headers).is_some();
    if cluster.settings.outlier.is_none() {
        in_flight.answered(now);
        return Told::Yes;
    }
    let Some(judgement) = of_head(response, is_sidecar) else {
        in_flight.answered(now);
        outlier::headed(in_flight.endpoint(), in_flight.started(), now);
        return Told::Later;
    };
    weigh(worker, cluster, in_flight, (judgement, headers), now);
    // One alone occurs; a second in a row would attract requests.
    if is_sidecars_failure || outlier::is_failing(in_flight.endpoint(), judgement.outcome) {
        in_flight.refused(now);
    } else if judgement.is_overloaded {
        // Said faster than done: that must not attract requests.
        in_flight.declined(now);
    } else {
        in_flight.answered(now);
    }
    report(worker, cluster, in_flight, (judgement.outcome, false), now);
    Told::Yes
}

/// Tells that an opaque stream was taken.
pub(super) fn accepted<N: Net>(
    worker: &Worker<N>,
    cluster: &Cluster,
    (in_flight, now): (&mut InFlight, Instant),
) {
    in_flight.answered(now);
    report(worker, cluster, in_flight, (Outcome::Success, false), now);
}

/// Tells of an attempt that had no answer.
pub(super) fn failed<N: Net>(
    worker: &Worker<N>,
    cluster: &Cluster,
    (in_flight, now): (&mut InFlight, Instant),
    error: &ProxyError,
) {
    // Said by the far side: a stream has no other word for it.
    let is_limited = matches!(error, ProxyError::RateLimited { quota: None, .. });
    let said = if let ProxyError::NotProcessed { said, .. } = error { *said } else { None };
    let is_impatient = matches!(error, ProxyError::DeadlineExceeded { .. }) && is_soon(in_flight, now);
    let outcome = if is_impatient { Outcome::Nothing } else { of_error(error) };
    if is_limited || said.is_some_and(|said| said.is_overloaded) {
        outlier::overload(cluster, in_flight.endpoint(), None, now);
    } else if error.is_endpoints_fault() && !matches!(outcome, Outcome::Success | Outcome::Nothing) {
        in_flight.failed(now);
    }
    report(worker, cluster, in_flight, (outcome, false), now);
}

/// Tells how an answer ended of which the head was told, with its trailers.
pub(super) fn ended<N: Net>(
    worker: &Worker<N>,
    cluster: &Cluster,
    (in_flight, told): (&mut InFlight, Told),
    result: Result<(), &body::Error>,
    trailers: Option<&HeaderMap>,
) {
    let now = worker.now();
    match (result, told) {
        (Ok(()), Told::Yes)
        | (Err(body::Error::Idle | body::Error::Deadline | body::Error::NoLongerAllowed), _) => {}
        (Ok(()), Told::Later) => {
            let status = trailers.and_then(|trailers| trailers.get("grpc-status"));
            // Without a status it is UNKNOWN.
            let judgement = outcome::of_grpc(status.map_or(b"", |status| status.as_bytes()));
            if let Some(trailers) = trailers {
                weigh(worker, cluster, in_flight, (judgement, trailers), now);
            }
            if outlier::is_failing(in_flight.endpoint(), judgement.outcome) {
                in_flight.failed(now);
            }
            report(worker, cluster, in_flight, (judgement.outcome, false), now);
        }
        (Err(body::Error::Upstream(_)), told) => {
            in_flight.failed(now);
            report(worker, cluster, in_flight, (Outcome::Gateway, told == Told::Yes), now);
        }
    }
}

/// Tells that the far side reset an opaque stream that it had taken.
pub(super) fn reset<N: Net>(worker: &Worker<N>, cluster: &ClusterName, in_flight: &mut InFlight) {
    let now = worker.now();
    let is_early = now.saturating_duration_since(in_flight.started()) < EARLY;
    let snapshot = worker.snapshots.load();
    if is_early && let Some(cluster) = snapshot.cluster(cluster) {
        in_flight.failed(now);
        report(worker, cluster, in_flight, (Outcome::Gateway, true), now);
    }
}

/// What an answer's head says; `None` if only its trailers will.
fn of_head(response: &Response<Received>, is_sidecar: bool) -> Option<Judgement> {
    let (status, headers) = (response.status(), response.headers());
    // Apps have none: their sidecars take it off.
    if is_sidecar
        && let Some(reason) = headers.get(wire::REASON)
        && let Some(said) = outcome::of_reason(reason.as_bytes())
    {
        return Some(said);
    }
    if status.is_success() && grpc::is_call(headers) {
        return headers.get("grpc-status").map(|status| outcome::of_grpc(status.as_bytes()));
    }
    Some(outcome::of_status(status, headers.contains_key(http::header::RETRY_AFTER)))
}

/// Whether it has not taken longer than is usual for the endpoint: a caller that wants it faster speaks against nobody.
fn is_soon(in_flight: &InFlight, now: Instant) -> bool {
    let usual = in_flight.endpoint().runtime.seen.latencies.quantile(0.5);
    let elapsed = now.saturating_duration_since(in_flight.started());
    usual.is_some_and(|usual| elapsed < SOON.max(usual.saturating_mul(UNUSUAL)))
}

/// What a failure says of the endpoint.
fn of_error(error: &ProxyError) -> Outcome {
    match error {
        ProxyError::Connect { source, .. } if is_our_own(source) => Outcome::Nothing,
        ProxyError::Connect { .. } | ProxyError::Identity { .. } => Outcome::Local,
        ProxyError::NotProcessed { said: Some(said), .. } => said.outcome,
        ProxyError::NotProcessed { said: None, .. }
        | ProxyError::Reset { .. }
        | ProxyError::Protocol { .. }
        | ProxyError::BadResponse { .. } => Outcome::Gateway,
        ProxyError::TryTimeout { .. }
        | ProxyError::Timeout { .. }
        | ProxyError::DeadlineExceeded { .. }
        | ProxyError::Idle { .. } => Outcome::Late,
        ProxyError::ResponseHeadersTooLarge { .. } => Outcome::Success,
        ProxyError::BadRequest(_)
        | ProxyError::HeadersTooLarge
        | ProxyError::Unsupported(_)
        | ProxyError::NoRoute { .. }
        | ProxyError::NotDiscovered(_)
        | ProxyError::NoRule { .. }
        | ProxyError::NotAllowed
        | ProxyError::NoLongerAllowed
        | ProxyError::NotAuthorized
        | ProxyError::RateLimited { .. }
        | ProxyError::FaultInjected(_)
        | ProxyError::NoEndpoint { .. }
        | ProxyError::Overflow { .. }
        | ProxyError::Downstream => Outcome::Nothing,
    }
}

/// Whether there was no connection for something that is missing here.
fn is_our_own(error: &connect::Error) -> bool {
    match error {
        connect::Error::NoIdentity
        | connect::Error::NoPublicTls
        | connect::Error::Overflow(_)
        | connect::Error::GivenUp => true,
        connect::Error::Tcp(error) => is_lack(error),
        connect::Error::Timeout
        | connect::Error::Tls(_)
        | connect::Error::Refused
        | connect::Error::Http(_)
        | connect::Error::Http2(_)
        | connect::Error::ClosedAtOnce => false,
    }
}

/// Descriptors, ports or memory.
fn is_lack(error: &io::Error) -> bool {
    let lacks = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| lacks.contains(&errno))
}

/// Lowers the weight of an endpoint that says it is overloaded.
fn weigh<N: Net>(
    worker: &Worker<N>,
    cluster: &Cluster,
    in_flight: &InFlight,
    (judgement, headers): (Judgement, &HeaderMap),
    now: Instant,
) {
    if judgement.is_overloaded {
        let asked = retry_after(headers, worker.clock.wall());
        // What is no failure may be about one caller: all others shall not stay away for long.
        let is_failure = judgement.outcome == Outcome::Gateway;
        let asked = if is_failure { asked } else { asked.map(|asked| asked.min(OF_ONE)) };
        outlier::overload(cluster, in_flight.endpoint(), asked, now);
    }
}

/// Counts a result, and does what follows from it.
fn report<N: Net>(
    worker: &Worker<N>,
    cluster: &Cluster,
    in_flight: &mut InFlight,
    (outcome, is_late_end): (Outcome, bool),
    now: Instant,
) {
    count(worker, cluster, in_flight, (outcome, is_late_end), now);
    in_flight.decided();
}

fn count<N: Net>(
    worker: &Worker<N>,
    cluster: &Cluster,
    in_flight: &InFlight,
    (outcome, is_late_end): (Outcome, bool),
    now: Instant,
) {
    let Some(settings) = &cluster.settings.outlier else { return };
    let (started, latency) = (in_flight.started(), in_flight.latency());
    let report = Report { outcome, started, latency, is_late_end };
    let step = outlier::record(settings, in_flight.endpoint(), report);
    if step == Step::None {
        return;
    }
    // The bound counts the endpoints that there are, and not those of when the request came.
    let snapshot = worker.snapshots.load();
    let Some(newest) = snapshot.cluster(cluster.name()) else { return };
    let is_same = |endpoint: &&Arc<_>| is_same(endpoint, in_flight.endpoint());
    let Some(endpoint) = newest.endpoints.iter().find(is_same) else { return };
    let event = worker.with_rng(|rng| outlier::take(newest, endpoint, step, now, rng));
    if let Some(event) = event {
        tell(newest, &event);
    }
}

fn is_same(one: &Arc<Endpoint>, other: &Arc<Endpoint>) -> bool {
    Arc::ptr_eq(&one.runtime, &other.runtime)
}

/// Looks at every cluster: call it about once a second.
pub(super) fn look<N: Net>(worker: &Worker<N>, snapshot: &Snapshot) {
    let now = worker.now();
    for cluster in snapshot.clusters.values() {
        for event in worker.with_rng(|rng| outlier::look(cluster, now, rng)) {
            tell(cluster, &event);
        }
    }
}

/// Logs what became of an endpoint. Rests are seconds long and grow: that cannot fill the log.
fn tell(cluster: &Cluster, event: &Event) {
    match event {
        Event::Ejected { endpoint, reason, rest, in_a_row } => tracing::warn!(
            cluster = %cluster.name(), %endpoint, reason = reason.label(), rest_ms = rest.as_millis(), in_a_row,
            "endpoint ejected"
        ),
        Event::Back { endpoint, is_needed } => {
            tracing::info!(cluster = %cluster.name(), %endpoint, is_needed, "endpoint is back");
        }
    }
}
