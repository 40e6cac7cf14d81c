//! A latency histogram of plain atomics: recorded by the data side, read by whoever scrapes.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of the buckets, in seconds; a last one without bound follows. Half-decade steps where sidecars live
/// (0.5 to 50 ms) and coarser outside.
pub const BOUNDS_SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Counts per bucket (not cumulative) and their sum.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BOUNDS_SECONDS.len() + 1],
    sum_us: AtomicU64,
}

/// What a histogram held at one moment. Counts are per bucket, in order, the unbounded one last.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramReading {
    /// Samples per bucket.
    pub counts: Vec<u64>,
    /// All samples' sum.
    pub sum_seconds: f64,
}

impl Histogram {
    /// Counts one sample. Two relaxed additions, no lock.
    pub fn record(&self, value: Duration) {
        let seconds = value.as_secs_f64();
        let bucket = BOUNDS_SECONDS.partition_point(|bound| *bound < seconds);
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
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum_seconds: Duration::from_micros(self.sum_us.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
