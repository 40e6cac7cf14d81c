//! Peak EWMA: what one more request to an endpoint would cost, as an expected wait.
//!
//! ```text
//! cost = max(remembered latency, silence) × (requests in flight + 1)
//! ```
//! - A latency above the memory replaces it at once (the peak); one below is mixed in by how much time has passed
//!   since the last, with a time constant of [`DECAY`].
//! - Left alone, the memory fades towards zero: an endpoint that was slow or failed is asked again some day, by one
//!   request at first, because a new peak shuts it out again. The memory of a failure fades faster ([`FAILURE_DECAY`]):
//!   an endpoint that was restarted is back within seconds.
//! - An endpoint nobody has heard from starts with the memory of [`DEFAULT_RTT`], which fades as any other.
//! - Silence, the age of the oldest news while answers are owed, counts as a latency seen: an endpoint that hangs
//!   becomes dear before any of its requests has timed out.
//!
//! Follows Linkerd (`linkerd2-proxy`, `tower::load::PeakEwma`) in the measure and its constants; silence is ours.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::model::runtime::EndpointRuntime;

/// The latency assumed of an endpoint that nobody has heard from (as Linkerd).
pub const DEFAULT_RTT: Duration = Duration::from_millis(30);
/// After this time a memory has faded to 1/e, about 37 % (as Linkerd).
pub const DECAY: Duration = Duration::from_secs(10);

/// The same for a failure, which is no latency but a rest: a dead endpoint costs one retry after each, and one that is
/// back must not wait for long.
pub const FAILURE_DECAY: Duration = Duration::from_secs(2);

/// The least that a failure counts as. Ten default latencies: a service that answers in 1 ms leaves the endpoint alone
/// for about eleven seconds (ln 300 × [`FAILURE_DECAY`]), or until the others carry that much more.
const FAILURE_FLOOR: Duration = Duration::from_millis(300);
/// The most that a failure counts as beyond the time it took, so that a burst of failures does not shut an endpoint
/// out for much longer than one.
const FAILURE_CEILING: Duration = Duration::from_secs(30);

/// What one more request would cost, in microseconds of expected wait; only good for comparing. Never negative,
/// never NaN.
#[must_use]
pub fn cost(runtime: &EndpointRuntime, now: Instant) -> f64 {
    let now_us = micros(now.saturating_duration_since(runtime.epoch));
    let remembered = remembered_us(runtime, now_us);
    let expected = if runtime.unanswered.load(Ordering::Relaxed) > 0 {
        let silence_us = now_us.saturating_sub(runtime.heard_at_us.load(Ordering::Relaxed));
        remembered.max(float(silence_us))
    } else {
        remembered
    };
    expected * (f64::from(runtime.in_flight.load(Ordering::Relaxed)) + 1.0)
}

/// Remembers the latency of one answer.
///
/// Two workers that record at the same moment may lose one of the samples.
pub fn record(runtime: &EndpointRuntime, latency: Duration, now: Instant) {
    let now_us = micros(now.saturating_duration_since(runtime.epoch));
    let sample = float(micros(latency));
    let peak = stored_us(runtime);
    let latency_us = if sample >= peak {
        runtime.is_penalised.store(false, Ordering::Relaxed);
        sample
    } else {
        let kept = kept_ratio(runtime, now_us);
        // As long as the penalty outweighs what was seen, it goes on fading as one.
        runtime.is_penalised.fetch_and(peak * kept > sample, Ordering::Relaxed);
        peak * kept + sample * (1.0 - kept)
    };
    store(runtime, latency_us, now_us);
}

/// Remembers a failure `elapsed` after the attempt began, so that failing fast never looks like answering fast.
///
/// It counts as the longest of `elapsed`, 300 ms, and twice the memory (at most 30 s): whatever the service's normal
/// latency is, the endpoint becomes dearer than its like, and it never becomes cheaper.
pub(super) fn record_failure(runtime: &EndpointRuntime, elapsed: Duration, now: Instant) {
    let now_us = micros(now.saturating_duration_since(runtime.epoch));
    let remembered = remembered_us(runtime, now_us);
    let penalty = (2.0 * remembered).clamp(float(micros(FAILURE_FLOOR)), float(micros(FAILURE_CEILING)));
    runtime.is_penalised.store(true, Ordering::Relaxed);
    store(runtime, penalty.max(float(micros(elapsed))).max(remembered), now_us);
}

/// Microseconds, saturating (in half a million years).
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The memory as it was written; the default if nothing was.
fn stored_us(runtime: &EndpointRuntime) -> f64 {
    match runtime.latency_us.load(Ordering::Relaxed) {
        0 => float(micros(DEFAULT_RTT)),
        latency_us => float(latency_us),
    }
}

/// The memory as it has faded until now.
fn remembered_us(runtime: &EndpointRuntime, now_us: u64) -> f64 {
    stored_us(runtime) * kept_ratio(runtime, now_us)
}

/// Share of the memory that is left, 0.0..=1.0. Before the first sample it fades from the endpoint's epoch on.
fn kept_ratio(runtime: &EndpointRuntime, now_us: u64) -> f64 {
    let age_us = now_us.saturating_sub(runtime.latency_at_us.load(Ordering::Relaxed));
    let decay = if runtime.is_penalised.load(Ordering::Relaxed) { FAILURE_DECAY } else { DECAY };
    (-float(age_us) / float(micros(decay))).exp()
}

fn store(runtime: &EndpointRuntime, latency_us: f64, now_us: u64) {
    // At least 1, because 0 says "no sample"; the cast saturates.
    runtime.latency_us.store((latency_us.round() as u64).max(1), Ordering::Relaxed);
    runtime.latency_at_us.store(now_us, Ordering::Relaxed);
}

/// As a float; above 2^53 microseconds (285 years) it loses digits nobody needs.
fn float(value_us: u64) -> f64 {
    value_us as f64
}
