//! How long requests took, as a histogram of bounded size and error.

use std::time::Duration;

/// Buckets per doubling: values are exact to 1/32.
const PER_DOUBLING: u64 = 32;
/// Values up to 2^32 µs, more than an hour; later ones count as that.
const DOUBLINGS: usize = 32;
const BUCKETS: usize = PER_DOUBLING as usize * (DOUBLINGS - 4);

/// A histogram of durations with about 3 % error, like HdrHistogram's.
#[derive(Clone, Debug)]
pub struct Latency {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl Latency {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(micros).min(BUCKETS - 1)) {
            *count += 1;
            self.total += 1;
        }
    }

    /// The duration, in milliseconds, that a share (0.0..=1.0) of all stayed at or under; `None` without any.
    #[must_use]
    pub fn quantile_ms(&self, share: f64) -> Option<f64> {
        let mut missing = ((self.total as f64 * share).ceil() as u64).max(1);
        for (index, count) in self.counts.iter().enumerate() {
            if *count >= missing {
                return Some(upper_bound(index) as f64 / 1000.0);
            }
            missing -= count;
        }
        None
    }
}

/// Below `PER_DOUBLING` each value has its bucket; above, each doubling is divided in `PER_DOUBLING` parts.
fn bucket(micros: u64) -> usize {
    let doubling = u64::from((micros | PER_DOUBLING).ilog2() - PER_DOUBLING.ilog2());
    (doubling * PER_DOUBLING + (micros >> doubling)) as usize
}

/// The largest value in a bucket.
fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let doubling = (bucket / PER_DOUBLING).saturating_sub(1);
    ((bucket - doubling * PER_DOUBLING + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_whose_bounds_hold_it() {
        for micros in (0..5000).chain([65_535, 65_536, 1_000_000, 3_999_999_999]) {
            let bucket = bucket(micros);
            assert!(upper_bound(bucket) >= micros, "{micros} in {bucket}");
            assert!(bucket == 0 || upper_bound(bucket - 1) < micros, "{micros} in {bucket}");
            assert!(bucket < BUCKETS);
        }
    }

    #[test]
    fn quantiles_are_close() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile_ms(0.5), None);
        for millis in 1..=1000 {
            latency.record(Duration::from_millis(millis));
        }
        let median = latency.quantile_ms(0.5).expect("there are values");
        assert!((500.0..=516.0).contains(&median), "{median}");
        let last = latency.quantile_ms(1.0).expect("there are values");
        assert!((1000.0..=1032.0).contains(&last), "{last}");
    }
}
