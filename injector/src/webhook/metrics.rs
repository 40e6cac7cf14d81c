//! The webhook's numbers, for Prometheus. Labels come from lists in this file.

use std::{
    sync::{Mutex, PoisonError, atomic::AtomicI64},
    time::SystemTime,
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{certificate::Newest, review::Verdict};

/// Bounds of the histogram of answering, in seconds.
const SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// All metrics of the webhook.
pub struct Metrics {
    registry: Mutex<Registry>,
    reviews: Family<[(&'static str, &'static str); 1], Counter>,
    refused: Family<[(&'static str, &'static str); 1], Counter>,
    pub(super) seconds: Histogram,
    pub(super) connections: Gauge,
    pub(super) handshakes_failed: Counter,
    pub(super) ca_bundle_written: Counter,
    pub(super) ca_bundle_failed: Counter,
    pub(super) events_dropped: Counter,
    not_after: Gauge<i64, AtomicI64>,
}

impl Metrics {
    /// All at nought.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("outrider_injector")),
            reviews: Family::default(),
            refused: Family::default(),
            seconds: Histogram::new(SECONDS),
            connections: Gauge::default(),
            handshakes_failed: Counter::default(),
            ca_bundle_written: Counter::default(),
            ca_bundle_failed: Counter::default(),
            events_dropped: Counter::default(),
            not_after: Gauge::default(),
        };
        {
            let mut registry = metrics.registry.lock().unwrap_or_else(PoisonError::into_inner);
            let registry = &mut *registry;
            registry.register("reviews", "Pods asked about, by what became of them", metrics.reviews.clone());
            registry.register(
                "requests_refused",
                "Requests that were not answered, by why",
                metrics.refused.clone(),
            );
            registry.register(
                "answer_seconds",
                "Time from a request's head to its answer",
                metrics.seconds.clone(),
            );
            registry.register("connections", "Connections that are open", metrics.connections.clone());
            registry.register(
                "handshakes_failed",
                "TLS handshakes that failed",
                metrics.handshakes_failed.clone(),
            );
            registry.register(
                "ca_bundle_written",
                "Times that caBundle was changed",
                metrics.ca_bundle_written.clone(),
            );
            registry.register(
                "ca_bundle_failed",
                "Times that caBundle could not be looked at or changed",
                metrics.ca_bundle_failed.clone(),
            );
            registry.register(
                "events_dropped",
                "Events that were over their rate",
                metrics.events_dropped.clone(),
            );
            registry.register(
                "certificate_not_after_seconds",
                "When the certificate runs out, in seconds since 1970; 0: unknown",
                metrics.not_after.clone(),
            );
        }
        metrics
    }

    /// Counts an answer.
    pub(super) fn answered(&self, verdict: &Verdict) {
        let result = match verdict {
            Verdict::Injected => "injected",
            Verdict::Unchanged => "unchanged",
            Verdict::Left(_) => "left",
            Verdict::Denied(_) => "denied",
        };
        self.reviews.get_or_create_owned(&[("result", result)]).inc();
    }

    /// Counts a request that got no answer.
    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create_owned(&[("reason", reason)]).inc();
    }

    /// All of them as text.
    pub(super) fn text(&self, newest: &Newest) -> String {
        let not_after = newest.borrow().as_ref().and_then(|serving| serving.not_after);
        let seconds = not_after.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        self.not_after.set(seconds.and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0));
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        encode(&mut text, &registry).expect("a string takes whatever is written");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
