//! What became of what was to be sent.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

/// What became of spans, or of metrics, that were to go to a collector.
#[derive(Debug, Default)]
pub struct ExportCounts {
    /// Spans (or points of metrics) that a collector took.
    pub sent: AtomicU64,
    /// Dropped because too many waited.
    pub dropped_queue: AtomicU64,
    /// Dropped because no collector took them in time.
    pub dropped_failed: AtomicU64,
    /// Dropped because the collector refused them.
    pub dropped_rejected: AtomicU64,
    /// Those that wait.
    pub waiting: AtomicU64,
    last: Mutex<LastExport>,
}

/// How it went last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastExport {
    /// When a collector took something, in wall time.
    pub succeeded_at: Option<SystemTime>,
    /// When sending failed, in wall time, and why.
    pub failed: Option<(SystemTime, String)>,
}

/// Both signals.
#[derive(Debug, Default)]
pub struct Exports {
    /// Spans.
    pub spans: ExportCounts,
    /// Points of metrics.
    pub metrics: ExportCounts,
}

impl ExportCounts {
    /// How it went last.
    #[must_use]
    pub fn last(&self) -> LastExport {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A collector took so many, and refused others, at wall time `now`.
    pub fn took(&self, sent: u64, rejected: u64, now: SystemTime) {
        self.sent.fetch_add(sent, Ordering::Relaxed);
        self.dropped_rejected.fetch_add(rejected, Ordering::Relaxed);
        self.last.lock().unwrap_or_else(PoisonError::into_inner).succeeded_at = Some(now);
    }

    /// So many are lost, for that reason, at wall time `now`.
    pub fn lost(&self, count: u64, is_refused: bool, why: &str, now: SystemTime) {
        let counter = if is_refused { &self.dropped_rejected } else { &self.dropped_failed };
        counter.fetch_add(count, Ordering::Relaxed);
        self.last.lock().unwrap_or_else(PoisonError::into_inner).failed = Some((now, why.to_owned()));
    }
}
