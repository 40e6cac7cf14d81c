//! One attempt at one endpoint, as its load counters see it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::ewma;
use crate::model::{Endpoint, runtime::EndpointRuntime};

/// Counts one attempt as load on its endpoint until dropped. Keep it until the response's body has ended: a stream
/// that still runs is load.
#[derive(Debug)]
#[must_use = "the attempt stops counting when this is dropped"]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    started: Instant,
    is_answered: bool,
}

impl InFlight {
    /// Begins to count an attempt. Call it before connecting, so that an endpoint that cannot be reached is slow too.
    pub fn start(endpoint: &Arc<Endpoint>, now: Instant) -> Self {
        let runtime = &endpoint.runtime;
        runtime.in_flight.fetch_add(1, Ordering::Relaxed);
        if runtime.unanswered.fetch_add(1, Ordering::Relaxed) == 0 {
            heard(runtime, now);
        }
        Self { endpoint: Arc::clone(endpoint), started: now, is_answered: false }
    }

    /// Records that the head of the (final) response came, and so the endpoint's latency. Only the first call counts.
    pub fn answered(&mut self, now: Instant) {
        if self.is_answered {
            return;
        }
        self.settle();
        let runtime = &self.endpoint.runtime;
        heard(runtime, now);
        ewma::record(runtime, now.saturating_duration_since(self.started), now);
    }

    /// Records that the attempt failed: no connection, reset, timeout, or a body that broke off. Not for what our own
    /// side called off. Raises `failures` and makes the endpoint dearer ([`ewma`] says by how much). After an answer
    /// the time since the start no longer counts: that was the length of the stream, not a latency.
    pub fn failed(&mut self, now: Instant) {
        let elapsed =
            if self.is_answered { Duration::ZERO } else { now.saturating_duration_since(self.started) };
        self.settle();
        let runtime = &self.endpoint.runtime;
        runtime.failures.fetch_add(1, Ordering::Relaxed);
        ewma::record_failure(runtime, elapsed, now);
    }

    /// From here on no answer is owed.
    fn settle(&mut self) {
        if !self.is_answered {
            self.is_answered = true;
            lower(&self.endpoint.runtime.unanswered);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.settle();
        lower(&self.endpoint.runtime.in_flight);
    }
}

fn heard(runtime: &EndpointRuntime, now: Instant) {
    let now_us = ewma::micros(now.saturating_duration_since(runtime.epoch));
    // The newest news stands: workers may come here out of order.
    runtime.heard_at_us.fetch_max(now_us, Ordering::Relaxed);
}

/// Lowers a counter, but not below zero: a wrapped one would shut the endpoint out for ever.
fn lower(counter: &AtomicU32) {
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).ok();
}
