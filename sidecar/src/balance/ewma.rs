//! Peak EWMA: what one more request to an endpoint would cost, as an expected wait.
//!
//! ```text
//! cost = max(remembered latency, silence) × (requests in flight / share + 1)
//! ```
//! - A latency above the memory replaces it at once (the peak); one below is mixed in by how much time has passed
//!   since the last, with a time constant of [`DECAY`].
//! - Left alone, the memory fades towards zero: an endpoint that was slow or failed is asked again some day, by one
//!   request at first, because a new peak shuts it out again. The memory of a failure fades faster ([`FAILURE_DECAY`]):
//!   an endpoint that was restarted is back within seconds.
//! - An endpoint nobody has heard from starts with the memory of what its peers take ([`assumed_us`]), at most
//!   [`DEFAULT_RTT`], which fades as any other: beside peers of 1 ms it does not stand idle for half a minute.
//! - The share is what an endpoint gets of what the average one gets: a heavier one has as many more in flight.
//! - Silence, the age of the oldest news while answers are owed, counts as a latency seen: an endpoint that hangs
//!   becomes dear before any of its requests has timed out.
//!
//! Follows Linkerd (`linkerd2-proxy`, `tower::load::PeakEwma`) in the measure and its constants; silence is ours.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::model::{Endpoint, lineup::Seat, runtime::EndpointRuntime};

/// The latency assumed of an endpoint that nobody has heard from, where nothing better is known (as Linkerd).
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
/// A latency so many times the peak before is a standstill, and fades as a failure: an endpoint that stood still for 8 s,
/// and then answers in 1 ms as before, would be left alone for 90 s else (ln 8000 × [`DECAY`]).
const STANDSTILL: f64 = 10.0;

/// What one more request would cost an endpoint of average share, as [`cost_of`].
#[must_use]
pub fn cost(runtime: &EndpointRuntime, now: Instant) -> f64 {
    cost_of(runtime, 1.0, float(micros(DEFAULT_RTT)), now)
}

/// What one more request would cost, in microseconds of expected wait; only good for comparing. Never negative,
/// never NaN. `assumed_us` is what is assumed of an endpoint that nobody has heard from.
#[must_use]
pub fn cost_of(runtime: &EndpointRuntime, share: f64, assumed_us: f64, now: Instant) -> f64 {
    let now_us = micros(now.saturating_duration_since(runtime.epoch));
    let stored = stored_us(runtime).unwrap_or(assumed_us);
    let remembered = stored * kept_ratio(runtime, now_us);
    let expected = if runtime.unanswered.load(Ordering::Relaxed) > 0 {
        let silence_us = now_us.saturating_sub(runtime.heard_at_us.load(Ordering::Relaxed));
        remembered.max(float(silence_us))
    } else {
        remembered
    };
    expected * (f64::from(runtime.in_flight.load(Ordering::Relaxed)) / share + 1.0)
}

/// What is to be assumed of an endpoint that nobody has heard from: the median of what is remembered of those with a
/// seat, failures left out, and at most [`DEFAULT_RTT`].
#[must_use]
pub fn assumed_us(endpoints: &[Arc<Endpoint>], seats: &[Seat]) -> f64 {
    let most = micros(DEFAULT_RTT);
    let mut known: Vec<u64> = seats
        .iter()
        .filter_map(|seat| endpoints.get(seat.endpoint as usize))
        .filter(|endpoint| !endpoint.runtime.is_penalised.load(Ordering::Relaxed))
        .map(|endpoint| endpoint.runtime.latency_us.load(Ordering::Relaxed))
        .filter(|latency_us| *latency_us > 0)
        .collect();
    if known.is_empty() {
        return float(most);
    }
    let middle = known.len() / 2;
    let (_, median, _) = known.select_nth_unstable(middle);
    float((*median).min(most))
}

/// Remembers the latency of one answer.
///
/// Two workers that record at the same moment may lose one of the samples.
pub fn record(runtime: &EndpointRuntime, latency: Duration, now: Instant) {
    let now_us = micros(now.saturating_duration_since(runtime.epoch));
    let sample = float(micros(latency));
    let known = stored_us(runtime);
    let peak = known.unwrap_or_else(|| float(micros(DEFAULT_RTT)));
    let latency_us = if sample >= peak {
        // Nothing was served meanwhile: as after a failure, the next requests tell more than the length of it.
        let is_standstill =
            known.is_some() && sample >= STANDSTILL * peak && sample >= float(micros(FAILURE_FLOOR));
        runtime.is_penalised.store(is_standstill, Ordering::Relaxed);
        sample
    } else {
        let kept = kept_ratio(runtime, now_us);
        // As long as the penalty outweighs what was seen, it goes on fading as one.
        runtime.is_penalised.fetch_and(peak * kept > sample, Ordering::Relaxed);
        peak * kept + sample * (1.0 - kept)
    };
    store(runtime, latency_us, now_us);
}

/// Keeps the memory as it is for now, instead of letting it fade: there was an answer that is no latency.
pub(super) fn hold(runtime: &EndpointRuntime, now: Instant) {
    if stored_us(runtime).is_some() {
        let now_us = micros(now.saturating_duration_since(runtime.epoch));
        let remembered = remembered_us(runtime, now_us);
        store(runtime, remembered, now_us);
    }
}

/// Remembers that an answer had not come after `elapsed`. It was at least that slow, and the endpoint is asked again soon.
pub(super) fn record_silence(runtime: &EndpointRuntime, elapsed: Duration, now: Instant) {
    let now_us = micros(now.saturating_duration_since(runtime.epoch));
    let sample = float(micros(elapsed));
    if sample > remembered_us(runtime, now_us) {
        runtime.is_penalised.store(true, Ordering::Relaxed);
        store(runtime, sample, now_us);
    }
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

/// The memory as it was written, if anything was.
fn stored_us(runtime: &EndpointRuntime) -> Option<f64> {
    Some(runtime.latency_us.load(Ordering::Relaxed)).filter(|latency_us| *latency_us > 0).map(float)
}

/// The memory as it has faded until now.
fn remembered_us(runtime: &EndpointRuntime, now_us: u64) -> f64 {
    stored_us(runtime).unwrap_or_else(|| float(micros(DEFAULT_RTT))) * kept_ratio(runtime, now_us)
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
