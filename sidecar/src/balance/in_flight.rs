//! One attempt at one endpoint, as its load counters see it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Pick, Probe, ewma};
use crate::model::{Endpoint, pending::Slot, runtime::EndpointRuntime};

/// Who waits for less in vain may just be impatient.
const LONG: Duration = Duration::from_secs(1);

/// Counts one attempt as load on its endpoint until dropped. Keep it until the response's body has ended: a stream
/// that still runs is load.
#[derive(Debug)]
#[must_use = "the attempt stops counting when this is dropped"]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    /// Until it is known what became of the attempt; of a call of gRPC, until its end.
    probe: Option<Probe>,
    started: Instant,
    slot: Slot,
    is_answered: bool,
    /// From its beginning to the answer's head.
    latency: Option<Duration>,
}

impl InFlight {
    /// Begins to count an attempt. Call it before connecting, so that an endpoint that cannot be reached is slow too.
    pub fn start(Pick { endpoint, probe }: Pick, now: Instant) -> Self {
        let runtime = &endpoint.runtime;
        runtime.in_flight.fetch_add(1, Ordering::Relaxed);
        let is_first = runtime.unanswered.fetch_add(1, Ordering::Relaxed) == 0;
        // Whom somebody has waited for in vain owes a word.
        if is_first && runtime.seen.abandoned.load(Ordering::Relaxed) == 0 {
            silent_from(runtime, now);
        }
        let slot = runtime.seen.pending.begin();
        Self { endpoint, probe, started: now, slot, is_answered: false, latency: None }
    }

    /// Where the attempt goes.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// When it began.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// From its beginning to the answer's head; `None` before that.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// Whether it decides whether its endpoint is back.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// It is known what became of it: the endpoint is back, or rests again.
    pub fn decided(&mut self) {
        self.probe = None;
    }

    /// Records that the head of the (final) response came, and so the endpoint's latency. Only the first call counts.
    pub fn answered(&mut self, now: Instant) {
        if self.is_answered {
            return;
        }
        self.settle();
        let runtime = &self.endpoint.runtime;
        heard(runtime, now);
        let latency = now.saturating_duration_since(self.started);
        self.latency = Some(latency);
        ewma::record(runtime, latency, now);
    }

    /// Records that the endpoint answered without doing the work: no latency of it, but no silence either.
    pub fn declined(&mut self, now: Instant) {
        if !self.is_answered {
            heard(&self.endpoint.runtime, now);
        }
        ewma::hold(&self.endpoint.runtime, now);
        self.settle();
    }

    /// Records that nobody waits any more for an answer that did not come. What has waited for long was silence.
    pub fn abandoned(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.started);
        if self.is_answered || elapsed < LONG {
            return;
        }
        let runtime = &self.endpoint.runtime;
        runtime.seen.abandoned.fetch_add(1, Ordering::Relaxed);
        ewma::record_silence(runtime, elapsed, now);
    }

    /// Records that the endpoint answered, and that the answer is a failure of it: it is not silent, and dearer all the same
    /// (as [`failed`](Self::failed)).
    pub fn refused(&mut self, now: Instant) {
        if !self.is_answered {
            heard(&self.endpoint.runtime, now);
        }
        self.failed(now);
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
            self.endpoint.runtime.seen.pending.end(self.slot);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.settle();
        lower(&self.endpoint.runtime.in_flight);
    }
}

/// Something came of the endpoint.
fn heard(runtime: &EndpointRuntime, now: Instant) {
    runtime.seen.abandoned.store(0, Ordering::Relaxed);
    silent_from(runtime, now);
}

/// Silence counts from here.
fn silent_from(runtime: &EndpointRuntime, now: Instant) {
    let now_us = ewma::micros(now.saturating_duration_since(runtime.epoch));
    // The newest news stands: workers may come here out of order.
    runtime.heard_at_us.fetch_max(now_us, Ordering::Relaxed);
}

/// Lowers a counter, but not below zero: a wrapped one would shut the endpoint out for ever.
fn lower(counter: &AtomicU32) {
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).ok();
}
