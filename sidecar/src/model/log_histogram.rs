//! A histogram of latencies, fine enough that a quantile is off by less than 10 %: about 29 buckets a decade from
//! 50 µs to 100 s, in plain atomics.
//!
//! Bounds are round decimals, so that those of [`REQUEST_BOUNDS_SECONDS`] are among them: what is shown to Prometheus
//! with a few buckets is exact, though every sample is counted once only.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::histogram::{HistogramReading, REQUEST_BOUNDS_SECONDS};

/// Upper bounds below 100 µs, in microseconds.
const FIRST_US: [u32; 9] = [50, 55, 60, 65, 70, 75, 82, 90, 95];
/// Upper bounds of a decade, in hundredths of where it begins: each at most a tenth above the one before.
const DECADE: [u32; 29] = [
    100, 110, 120, 130, 140, 150, 160, 175, 190, 200, 220, 240, 250, 275, 300, 330, 360, 390, 425, 460, 500,
    550, 600, 650, 700, 750, 825, 900, 950,
];
/// From 100 µs.
const DECADES: usize = 6;
const BOUNDED: usize = FIRST_US.len() + DECADES * DECADE.len() + 1;
/// Upper bounds of all buckets but the last, in microseconds and rising.
static BOUNDS_US: [u32; BOUNDED] = bounds();
/// Buckets, the one without bound included.
pub const BUCKETS: usize = BOUNDED + 1;

#[expect(clippy::indexing_slicing, reason = "worked out by the compiler, which stops at one out of range")]
const fn bounds() -> [u32; BOUNDED] {
    let mut all = [0; BOUNDED];
    let mut at = 0;
    while at < FIRST_US.len() {
        all[at] = FIRST_US[at];
        at += 1;
    }
    let mut scale = 1;
    while at + 1 < BOUNDED {
        let step = (at - FIRST_US.len()) % DECADE.len();
        all[at] = DECADE[step] * scale;
        if step + 1 == DECADE.len() {
            scale *= 10;
        }
        at += 1;
    }
    all[at] = DECADE[0] * scale;
    all
}

/// Counts per bucket (not cumulative) and their sum.
#[derive(Debug)]
pub struct LogHistogram {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Default for LogHistogram {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], sum_us: AtomicU64::new(0) }
    }
}

/// What a histogram held at one moment, or came to between two. Takes room for buckets with samples only.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LatencyReading {
    /// Buckets with samples, rising, and how many.
    counts: Vec<(u8, u64)>,
    /// All samples' sum.
    pub sum_seconds: f64,
}

impl LogHistogram {
    /// Counts one sample. A search among bounds that lie in ten cache lines, two relaxed additions, no lock.
    pub fn record(&self, value: Duration) {
        let micros = value.as_nanos().div_ceil(1000);
        let bounded = u32::try_from(micros).unwrap_or(u32::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < bounded);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// Reads it. Samples recorded meanwhile may be in one bucket and not yet in the sum.
    #[must_use]
    pub fn read(&self) -> LatencyReading {
        let counts = (0..=u8::MAX).zip(&self.counts).filter_map(|(bucket, count)| {
            let count = count.load(Ordering::Relaxed);
            (count > 0).then_some((bucket, count))
        });
        LatencyReading {
            counts: counts.collect(),
            sum_seconds: Duration::from_micros(self.sum_us.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }
}

impl LatencyReading {
    /// A reading with these samples: buckets, rising, and how many.
    #[must_use]
    pub fn of_buckets(counts: Vec<(u8, u64)>, sum_seconds: f64) -> Self {
        Self { counts, sum_seconds }
    }

    /// Buckets with samples, rising, and how many.
    #[must_use]
    pub fn buckets(&self) -> &[(u8, u64)] {
        &self.counts
    }

    /// Samples in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// What came since `earlier`, a reading of the same histogram. Of another one: never less than nothing.
    #[must_use]
    pub fn minus(&self, earlier: &Self) -> Self {
        let left = |&(bucket, count): &(u8, u64)| {
            let left = count.saturating_sub(earlier.of_bucket(bucket));
            (left > 0).then_some((bucket, left))
        };
        Self {
            counts: self.counts.iter().filter_map(left).collect(),
            sum_seconds: (self.sum_seconds - earlier.sum_seconds).max(0.0),
        }
    }

    /// Adds the samples of another one: of another time, or another edge.
    pub fn add(&mut self, other: &Self) {
        for &(bucket, count) in &other.counts {
            match self.counts.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
                Ok(at) => {
                    if let Some((_, sum)) = self.counts.get_mut(at) {
                        *sum += count;
                    }
                }
                Err(at) => self.counts.insert(at, (bucket, count)),
            }
        }
        self.sum_seconds += other.sum_seconds;
    }

    /// An estimate of the `ratio` quantile (0.0..=1.0), in seconds: off by less than 10 % from 50 µs to 100 s. `None`
    /// without samples; 100 s if it lies beyond that.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "an estimate; counts beyond 2^53 do not occur")]
    pub fn quantile(&self, ratio: f64) -> Option<f64> {
        let rank = self.count() as f64 * ratio;
        let mut below = 0.0;
        let mut highest = None;
        for &(bucket, count) in &self.counts {
            let count = count as f64;
            let (lower, upper) = edges(usize::from(bucket));
            if below + count >= rank {
                return Some(lower + (upper - lower) * ((rank - below) / count).clamp(0.0, 1.0));
            }
            below += count;
            highest = Some(upper);
        }
        highest
    }

    /// The same with the few buckets of [`REQUEST_BOUNDS_SECONDS`].
    #[must_use]
    pub fn coarse(&self) -> HistogramReading {
        let mut counts = vec![0; REQUEST_BOUNDS_SECONDS.len() + 1];
        for &(bucket, count) in &self.counts {
            let upper = BOUNDS_US.get(usize::from(bucket)).map_or(f64::INFINITY, |us| f64::from(*us) / 1e6);
            // Half a microsecond, so that it does not matter how a bound's decimal is rounded.
            let into = REQUEST_BOUNDS_SECONDS.partition_point(|bound| bound + 5e-7 < upper);
            if let Some(sum) = counts.get_mut(into) {
                *sum += count;
            }
        }
        HistogramReading { bounds: &REQUEST_BOUNDS_SECONDS, counts, sum_seconds: self.sum_seconds }
    }

    fn of_bucket(&self, bucket: u8) -> u64 {
        let at = self.counts.binary_search_by_key(&bucket, |(bucket, _)| *bucket);
        at.ok().and_then(|at| self.counts.get(at)).map_or(0, |(_, count)| *count)
    }
}

/// Where a bucket begins and ends, in seconds. That without bound is its lower edge.
fn edges(bucket: usize) -> (f64, f64) {
    let us = |bucket: usize| BOUNDS_US.get(bucket).map(|us| f64::from(*us) / 1e6);
    let lower = bucket.checked_sub(1).and_then(us).unwrap_or(0.0);
    (lower, us(bucket).unwrap_or(lower))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(samples: impl IntoIterator<Item = Duration>) -> LatencyReading {
        let histogram = LogHistogram::default();
        for sample in samples {
            histogram.record(sample);
        }
        histogram.read()
    }

    #[test]
    fn bounds_rise_by_a_tenth_at_most() {
        for pair in BOUNDS_US.windows(2) {
            assert!(pair[0] < pair[1] && f64::from(pair[1]) <= f64::from(pair[0]) * 1.112, "{pair:?}");
        }
        assert_eq!((BOUNDS_US[0], BOUNDS_US[BOUNDED - 1]), (50, 100_000_000));
        assert!(u8::try_from(BUCKETS).is_ok());
    }

    #[test]
    fn every_coarse_bound_is_a_fine_one() {
        for bound in REQUEST_BOUNDS_SECONDS {
            assert!(BOUNDS_US.iter().any(|us| (f64::from(*us) / 1e6 - bound).abs() < 1e-9), "{bound}");
        }
    }

    #[test]
    fn coarse_buckets_hold_what_a_coarse_histogram_would() {
        let mut rng = fastrand::Rng::with_seed(7);
        let coarse = super::super::histogram::Histogram::default();
        let fine = LogHistogram::default();
        let on_bounds = REQUEST_BOUNDS_SECONDS.map(Duration::from_secs_f64);
        let beside = on_bounds.map(|bound| bound + Duration::from_nanos(1));
        let anywhere = (0..10_000).map(|_| Duration::from_nanos(1 << rng.u32(10..36)) * rng.u32(1..9));
        for sample in on_bounds.into_iter().chain(beside).chain(anywhere) {
            coarse.record(sample);
            fine.record(sample);
        }
        assert_eq!(fine.read().coarse(), coarse.read());
    }

    #[test]
    fn a_quantile_is_off_by_less_than_a_tenth() {
        let mut rng = fastrand::Rng::with_seed(11);
        for _ in 0..300 {
            let middle_us = 60.0 * 10f64.powf(rng.f64() * 6.0);
            let spread = rng.f64();
            let mut samples: Vec<f64> =
                (0..999).map(|_| middle_us / 1e6 * (1.0 + spread * (rng.f64() - 0.5))).collect();
            let reading = of(samples.iter().copied().map(Duration::from_secs_f64));
            samples.sort_by(f64::total_cmp);
            for (ratio, at) in [(0.5, 499), (0.99, 989)] {
                let (found, real) = (reading.quantile(ratio).unwrap(), samples[at]);
                assert!((found / real - 1.0).abs() < 0.1, "{ratio}: {found} for {real}");
            }
        }
    }

    #[test]
    fn without_samples_there_is_no_quantile_and_beyond_the_last_bound_that_bound() {
        assert_eq!(of([]).quantile(0.5), None);
        assert_eq!(of([Duration::from_secs(7200)]).quantile(0.5), Some(100.0));
        let long = of([Duration::MAX]);
        assert_eq!((long.count(), long.coarse().counts.last()), (1, Some(&1)));
    }

    #[test]
    fn a_difference_is_what_came_between_and_adds_up_again() {
        let histogram = LogHistogram::default();
        histogram.record(Duration::from_millis(3));
        let first = histogram.read();
        histogram.record(Duration::from_millis(3));
        histogram.record(Duration::from_micros(200));
        let second = histogram.read();
        let between = second.minus(&first);
        assert_eq!(between.count(), 2);
        assert!(between.quantile(0.5).unwrap() <= 0.0002 + 1e-9, "{between:?}");
        let mut sum = first.clone();
        sum.add(&between);
        assert_eq!((sum.counts, sum.sum_seconds), (second.counts.clone(), second.sum_seconds));
        assert_eq!(first.minus(&second).count(), 0, "of a histogram that began anew");
    }
}
