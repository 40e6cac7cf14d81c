//! Counters as rows of numbers, and back.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::{
    edge::EdgeCounts,
    flag::ResponseFlag,
    log_histogram::{BUCKETS, LatencyReading},
    outlier::Reason,
    runtime::ClusterRuntime,
};

const CLASSES: usize = 6;
const FLAGS: usize = ResponseFlag::ALL.len();

/// What happened on one edge over some time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EdgeWindow {
    /// Requests (streams for TCP) ended, by status class 1xx to 5xx; index 0 is "no status".
    pub by_class: [u64; CLASSES],
    /// By flag.
    pub by_flag: [u64; FLAGS],
    /// Of all: those that failed.
    pub failed: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Bytes of requests' bodies, or from callers.
    pub request_bytes: u64,
    /// Bytes of answers' bodies, or to callers.
    pub response_bytes: u64,
    /// From the requests' arrival to the heads of their answers.
    pub latency: LatencyReading,
}

/// What happened in one cluster over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterWindow {
    /// Retries made.
    pub retries: u64,
    /// Retries and hedges that policy allowed and the budget did not.
    pub over_budget: u64,
    /// Retries and hedges that policy allowed and `max_active` did not.
    pub over_active: u64,
    /// Second attempts beside a slow one.
    pub hedges: u64,
    /// Endpoints ejected.
    pub ejections: u64,
    /// Ejections that were held back because too many were out already.
    pub held_back: u64,
}

impl EdgeWindow {
    /// Requests that ended.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.by_class.iter().sum()
    }

    pub(super) fn of(row: &[u64]) -> Self {
        let mut numbers = row.iter().copied();
        let mut next = || numbers.next().unwrap_or_default();
        let mut window = Self {
            by_class: std::array::from_fn(|_| next()),
            by_flag: std::array::from_fn(|_| next()),
            failed: next(),
            retries: next(),
            request_bytes: next(),
            response_bytes: next(),
            latency: LatencyReading::default(),
        };
        #[expect(clippy::cast_precision_loss, reason = "microseconds of a quarter of an hour")]
        let sum_seconds = next() as f64 / 1e6;
        let counts = (0..=u8::MAX).zip(numbers).filter(|(_, count)| *count > 0).collect();
        window.latency = LatencyReading::of_buckets(counts, sum_seconds);
        window
    }
}

impl ClusterWindow {
    pub(super) fn of(row: &[u64]) -> Self {
        let mut numbers = row.iter().copied();
        let mut next = || numbers.next().unwrap_or_default();
        Self {
            retries: next(),
            over_budget: next(),
            over_active: next(),
            hedges: next(),
            ejections: next(),
            held_back: next(),
        }
    }
}

pub(super) fn edge(counts: &EdgeCounts) -> Vec<u64> {
    let latency = counts.latency.read();
    let single = [&counts.failed, &counts.retries, &counts.request_bytes, &counts.response_bytes];
    let mut row: Vec<u64> = counts.by_class.iter().chain(&counts.by_flag).chain(single).map(read).collect();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "microseconds since the start"
    )]
    row.push((latency.sum_seconds * 1e6).round() as u64);
    let mut buckets = vec![0; BUCKETS];
    for (bucket, count) in latency.buckets() {
        if let Some(place) = buckets.get_mut(usize::from(*bucket)) {
            *place = *count;
        }
    }
    row.extend(buckets);
    row
}

pub(super) fn cluster(runtime: &ClusterRuntime) -> Vec<u64> {
    let ejections = Reason::ALL.into_iter().map(|reason| runtime.outlier.ejected_for(reason)).sum();
    vec![
        read(&runtime.retries),
        read(&runtime.retries_over_budget),
        read(&runtime.repeats.over_active),
        read(&runtime.repeats.hedges),
        ejections,
        read(&runtime.outlier.held_back),
    ]
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn an_edges_row_says_what_its_counters_say() {
        let counts = EdgeCounts::default();
        counts.by_class[2].store(99, Ordering::Relaxed);
        counts.by_class[5].store(1, Ordering::Relaxed);
        counts.by_flag[ResponseFlag::DE as usize].store(1, Ordering::Relaxed);
        for (counter, value) in [
            (&counts.failed, 1),
            (&counts.retries, 3),
            (&counts.request_bytes, 1 << 40),
            (&counts.response_bytes, 5),
        ] {
            counter.store(value, Ordering::Relaxed);
        }
        for _ in 0..100 {
            counts.latency.record(Duration::from_millis(3));
        }
        let window = EdgeWindow::of(&edge(&counts));
        assert_eq!(window.by_class, [0, 0, 99, 0, 0, 1]);
        assert_eq!((window.requests(), window.failed, window.retries), (100, 1, 3));
        assert_eq!(window.by_flag[ResponseFlag::DE as usize], 1);
        assert_eq!((window.request_bytes, window.response_bytes), (1 << 40, 5));
        assert_eq!(window.latency, counts.latency.read());
    }

    #[test]
    fn a_clusters_row_says_what_its_counters_say() {
        let runtime = ClusterRuntime::new(Instant::now());
        runtime.retries.store(4, Ordering::Relaxed);
        runtime.repeats.hedges.store(2, Ordering::Relaxed);
        let window = ClusterWindow::of(&cluster(&runtime));
        assert_eq!((window.retries, window.hedges, window.ejections), (4, 2, 0));
    }
}
