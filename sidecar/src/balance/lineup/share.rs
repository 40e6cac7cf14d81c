//! What one endpoint gets of what its weight says.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::model::{Cluster, Endpoint, lineup::Seat};

/// What slow start leaves at least (as Envoy's `min_weight_percent`).
pub(super) const SLOW_START_LEAST: f64 = 0.1;
/// Steps in which an endpoint comes to its whole share.
const SLOW_START_STEPS: u32 = 20;
/// What one gets that says it is overloaded: enough to hear when it is not.
pub(super) const OVERLOADED: f64 = 0.1;

/// The earliest moment at which something changes by itself.
pub(super) struct Expiry {
    now: Instant,
    earliest: Option<Instant>,
}

impl Expiry {
    pub(super) fn at(now: Instant) -> Self {
        Self { now, earliest: None }
    }

    /// Something changes then, if that is still to come.
    pub(super) fn not_after(&mut self, moment: Instant) {
        if moment > self.now {
            self.earliest = Some(self.earliest.map_or(moment, |earliest| earliest.min(moment)));
        }
    }

    pub(super) fn get(self) -> Option<Instant> {
        self.earliest
    }
}

/// The seat of an endpoint, with its weight as it is for now.
pub(super) fn seat(
    cluster: &Cluster,
    (index, endpoint): (u32, &Endpoint),
    now: Instant,
    expiry: &mut Expiry,
) -> Seat {
    let slow =
        cluster.settings.balancing.slow_start.map_or(1.0, |window| ramp(endpoint, window, now, expiry));
    let capacity = overload(endpoint, now, expiry);
    let factor = slow * capacity;
    Seat { endpoint: index, share: f64::from(endpoint.settings.weight.max(1)) * factor, factor, capacity }
}

/// What overload leaves of an endpoint's weight.
fn overload(endpoint: &Endpoint, now: Instant, expiry: &mut Expiry) -> f64 {
    let until = after_epoch(endpoint, endpoint.runtime.health.overloaded_until_us.load(Ordering::Relaxed));
    expiry.not_after(until);
    if now < until { OVERLOADED } else { 1.0 }
}

/// What slow start leaves of it: in proportion to the time since it came or came back, in steps.
fn ramp(endpoint: &Endpoint, window: Duration, now: Instant, expiry: &mut Expiry) -> f64 {
    let since = after_epoch(endpoint, endpoint.runtime.health.back_at_us.load(Ordering::Relaxed));
    let elapsed = now.saturating_duration_since(since);
    if elapsed >= window {
        return 1.0;
    }
    let step = (window / SLOW_START_STEPS).max(Duration::from_millis(1));
    let done = u32::try_from(elapsed.as_nanos() / step.as_nanos()).unwrap_or(SLOW_START_STEPS);
    expiry.not_after(since + step * (done + 1));
    (f64::from(done) / f64::from(SLOW_START_STEPS)).clamp(SLOW_START_LEAST, 1.0)
}

fn after_epoch(endpoint: &Endpoint, micros: u64) -> Instant {
    let epoch = endpoint.runtime.epoch;
    epoch.checked_add(Duration::from_micros(micros)).unwrap_or(epoch)
}
