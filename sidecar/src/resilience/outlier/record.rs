//! What one result changes: counts, and whether its endpoint is to be looked at more closely.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use super::{Event, change, moment_us, window};
use crate::{
    model::{
        Cluster, Endpoint,
        outlier::{OutlierSettings, Reason, Results},
    },
    resilience::outcome::Outcome,
};

/// A timeout ejects only where the others succeeded in so many of a hundred requests: else it is too short for all.
const OTHERS_WELL_PERCENT: u64 = 90;

/// One result.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// What became of the request.
    pub outcome: Outcome,
    /// When it was begun.
    pub started: Instant,
    /// From then to the answer's head, if there was one.
    pub latency: Option<Duration>,
    /// Its head was reported as a success already: this is how its end differs.
    pub is_late_end: bool,
}

/// What is to be done about an endpoint after a result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Nothing.
    None,
    /// It may have to be ejected.
    Suspect {
        /// Why.
        reason: Reason,
        /// It was a timeout: that counts only if the others are in time.
        is_late: bool,
    },
    /// It has rested, and a request that was begun since then went well.
    Passed {
        /// Time to its answer's head.
        latency: Option<Duration>,
    },
    /// It has rested, and a request that was begun since then failed.
    Failed,
}

/// Counts one result of an endpoint. No lock; a few atomic operations.
#[must_use]
pub fn record(settings: &OutlierSettings, endpoint: &Endpoint, report: Report) -> Step {
    let (health, seen) = (&endpoint.runtime.health, &endpoint.runtime.seen);
    let is_failure = match report.outcome {
        Outcome::Nothing => return Step::None,
        Outcome::Success => false,
        Outcome::Error | Outcome::Gateway | Outcome::Local | Outcome::Late => true,
    };
    let started_us = moment_us(endpoint, report.started);
    let ejected_until_us = health.ejected_until_us.load(Ordering::Acquire);
    if ejected_until_us > 0 {
        // What was begun before says nothing of how it is after its rest.
        return if started_us < ejected_until_us {
            Step::None
        } else if is_failure && speaks_against(endpoint, report.outcome) {
            Step::Failed
        } else {
            Step::Passed { latency: report.latency }
        };
    }
    if !is_failure {
        reset(&seen.consecutive_gateway);
        reset(&seen.consecutive_local);
        seen.successes.fetch_add(1, Ordering::Relaxed);
        if let Some(latency) = report.latency {
            seen.latencies.record(latency);
        }
        return Step::None;
    }
    // Of before its return: it has rested for that.
    if started_us < health.back_at_us.load(Ordering::Relaxed) {
        return Step::None;
    }
    if report.is_late_end {
        let less = |count: u64| count.checked_sub(1);
        seen.successes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok();
    }
    seen.failures.fetch_add(1, Ordering::Relaxed);
    in_a_row(settings, endpoint, report.outcome)
}

/// Notes the head of an answer that does not say yet how it ends: the endpoint is there, and may be well.
pub fn headed(endpoint: &Endpoint, started: Instant, now: Instant) {
    let (health, seen) = (&endpoint.runtime.health, &endpoint.runtime.seen);
    reset(&seen.consecutive_local);
    let ejected_until_us = health.ejected_until_us.load(Ordering::Acquire);
    if ejected_until_us > 0 && moment_us(endpoint, started) >= ejected_until_us {
        let now_us = moment_us(endpoint, now);
        seen.headed_at_us.compare_exchange(0, now_us, Ordering::Relaxed, Ordering::Relaxed).ok();
    }
}

/// Whether an answer is a gateway's failure and not the first in a row: one alone occurs, and says nothing yet.
#[must_use]
pub fn is_failing(endpoint: &Endpoint, outcome: Outcome) -> bool {
    outcome == Outcome::Gateway && endpoint.runtime.seen.consecutive_gateway.load(Ordering::Relaxed) > 0
}

/// What a failure means after those before it.
fn in_a_row(settings: &OutlierSettings, endpoint: &Endpoint, outcome: Outcome) -> Step {
    let seen = &endpoint.runtime.seen;
    let (reason, is_late) = match outcome {
        Outcome::Gateway => {
            // Something of it was heard.
            reset(&seen.consecutive_local);
            (Reason::GatewayFailures, false)
        }
        Outcome::Local => (Reason::LocalFailures, false),
        Outcome::Late => (Reason::LocalFailures, true),
        // The app is there.
        Outcome::Error => {
            reset(&seen.consecutive_gateway);
            reset(&seen.consecutive_local);
            return Step::None;
        }
        Outcome::Success | Outcome::Nothing => return Step::None,
    };
    let (count, limit) = if reason == Reason::GatewayFailures {
        (&seen.consecutive_gateway, settings.consecutive_gateway_failures)
    } else {
        (&seen.consecutive_local, settings.consecutive_local_failures)
    };
    let count = count.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    // Where it could not be ejected at the first time, it is tried again after as many.
    match limit {
        Some(limit) if count.is_multiple_of(limit.max(1)) => Step::Suspect { reason, is_late },
        Some(_) | None => Step::None,
    }
}

/// Whether a failure of its probe is one of what the endpoint was ejected for: an app that fails is there, and that is
/// all that was in doubt where it could not be reached.
fn speaks_against(endpoint: &Endpoint, outcome: Outcome) -> bool {
    outcome != Outcome::Error
        || matches!(
            endpoint.runtime.seen.reason(),
            Some(Reason::SuccessRate | Reason::FailurePercent | Reason::Probe)
        )
}

/// Mostly it is zero already: then there is nothing to write.
fn reset(count: &AtomicU32) {
    if count.load(Ordering::Relaxed) > 0 {
        count.store(0, Ordering::Relaxed);
    }
}

/// Does what a result asks for. `cluster` is that of the newest snapshot: the bound counts its endpoints.
pub fn take(
    cluster: &Cluster,
    endpoint: &Endpoint,
    step: Step,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Option<Event> {
    let settings = cluster.settings.outlier.as_ref()?;
    match step {
        Step::None => None,
        Step::Suspect { is_late: true, .. } if !others_are_well(cluster, endpoint, settings, now) => {
            cluster.runtime.outlier.held_back.fetch_add(1, Ordering::Relaxed);
            None
        }
        Step::Suspect { reason, .. } => change::eject(cluster, endpoint, reason, now, rng),
        Step::Failed => change::eject(cluster, endpoint, Reason::Probe, now, rng),
        Step::Passed { latency } => {
            let was_slow = endpoint.runtime.seen.reason() == Some(Reason::Slow);
            let is_slow =
                was_slow && latency.is_some_and(|latency| window::is_slow(cluster, endpoint, latency, now));
            if is_slow {
                change::eject(cluster, endpoint, Reason::Probe, now, rng)
            } else {
                change::release(cluster, endpoint, latency, now)
            }
        }
    }
}

/// Whether the others, taken together, answered well lately.
fn others_are_well(cluster: &Cluster, endpoint: &Endpoint, settings: &OutlierSettings, now: Instant) -> bool {
    let all = change::others(cluster, endpoint, now).fold(Results::default(), |all, other| {
        let results = other.runtime.seen.lately();
        Results { successes: all.successes + results.successes, failures: all.failures + results.failures }
    });
    all.total() >= u64::from(settings.min_requests)
        && all.successes * 100 >= all.total() * OTHERS_WELL_PERCENT
}
