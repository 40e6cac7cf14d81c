//! A histogram of durations in plain atomics: recorded by the data side, read by whoever scrapes.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of the buckets, in seconds and rising; a last one without bound follows.
pub type Bounds = [f64; 16];

/// Bounds for answers to requests: half-decade steps where sidecars live (0.5 to 50 ms) and coarser outside.
pub const REQUEST_BOUNDS_SECONDS: Bounds =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Bounds for telling protocols apart: fine where a client's bytes are there already or come with the next packets
/// (10 µs to 10 ms), coarse where somebody waits.
pub const DETECTION_BOUNDS_SECONDS: Bounds = [
    0.000_01, 0.000_025, 0.000_05, 0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0,
    5.0, 10.0,
];

const BUCKETS: usize = REQUEST_BOUNDS_SECONDS.len() + 1;

/// Counts per bucket (not cumulative) and their sum. The default is for answers to requests.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static Bounds,
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new(&REQUEST_BOUNDS_SECONDS)
    }
}

/// What a histogram held at one moment. Counts are per bucket, in order, the unbounded one last.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramReading {
    /// Of the buckets but the last.
    pub bounds: &'static Bounds,
    /// Samples per bucket.
    pub counts: Vec<u64>,
    /// All samples' sum.
    pub sum_seconds: f64,
}

impl Histogram {
    /// Without samples.
    #[must_use]
    pub fn new(bounds: &'static Bounds) -> Self {
        Self { bounds, counts: Default::default(), sum_us: AtomicU64::new(0) }
    }

    /// Counts one sample. Two relaxed additions, no lock.
    pub fn record(&self, value: Duration) {
        let seconds = value.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// Reads it. Samples recorded meanwhile may be in one bucket and not yet in the sum.
    #[must_use]
    pub fn read(&self) -> HistogramReading {
        HistogramReading {
            bounds: self.bounds,
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum_seconds: Duration::from_micros(self.sum_us.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }
}

impl HistogramReading {
    /// Samples in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// An estimate of the `ratio` quantile (0.0..=1.0), in seconds: as if samples were spread evenly in their bucket
    /// (as Prometheus' `histogram_quantile`). `None` without samples; the last bound if it lies beyond that.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "an estimate; counts beyond 2^53 do not occur")]
    pub fn quantile(&self, ratio: f64) -> Option<f64> {
        let rank = self.count() as f64 * ratio;
        let mut below = 0.0;
        let mut lower = 0.0;
        for (count, upper) in self.counts.iter().zip(*self.bounds) {
            let count = *count as f64;
            if count > 0.0 && below + count >= rank {
                return Some(lower + (upper - lower) * ((rank - below) / count).clamp(0.0, 1.0));
            }
            below += count;
            lower = upper;
        }
        (self.count() > 0).then_some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_in_its_samples_bucket() {
        let histogram = Histogram::default();
        assert_eq!(histogram.read().quantile(0.5), None);
        for _ in 0..99 {
            histogram.record(Duration::from_micros(1500));
        }
        histogram.record(Duration::from_secs(60));
        let reading = histogram.read();
        let median = reading.quantile(0.5).unwrap();
        assert!(median > 0.001 && median <= 0.002, "{median}");
        assert_eq!(reading.quantile(1.0), Some(10.0));
    }

    #[test]
    fn bounds_rise() {
        for bounds in [REQUEST_BOUNDS_SECONDS, DETECTION_BOUNDS_SECONDS] {
            assert!(bounds.is_sorted_by(|lower, upper| lower < upper), "{bounds:?}");
        }
    }

    #[test]
    fn a_sample_on_a_bound_falls_into_that_bucket() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_micros(500));
        histogram.record(Duration::from_micros(501));
        histogram.record(Duration::from_secs(3600));
        let reading = histogram.read();
        assert_eq!(reading.counts.first(), Some(&1));
        assert_eq!(reading.counts.get(1), Some(&1));
        assert_eq!(reading.counts.last(), Some(&1));
        assert!((reading.sum_seconds - 3600.001).abs() < 0.001);
    }
}
