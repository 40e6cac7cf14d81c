//! How fast an endpoint answered lately: counts in buckets that grow by a fifth, over one or two windows.
//!
//! Memory is bounded: nothing before the first sample, 648 bytes from then on, however many there are. A quantile is
//! right to within a fifth.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Buckets of an octave: each is 19 % wider than the one before.
const PER_OCTAVE: u32 = 4;
/// The upper bound of the first bucket, in microseconds.
const FIRST_US: f64 = 64.0;
/// From 64 µs to 64 µs × 2^20, 67 s; what lies beyond is in the last one.
const BUCKETS: usize = 81;

/// Latencies of this window and the one before.
#[derive(Debug, Default)]
pub struct LatencyWindow(OnceLock<Box<Windows>>);

#[derive(Debug)]
struct Windows {
    counts: [[AtomicU32; BUCKETS]; 2],
    current: AtomicUsize,
}

impl LatencyWindow {
    /// Counts one answer. A few atomic operations; the first one allocates.
    pub fn record(&self, latency: Duration) {
        let windows = self.0.get_or_init(|| {
            let row = || std::array::from_fn(|_| AtomicU32::new(0));
            Box::new(Windows { counts: [row(), row()], current: AtomicUsize::new(0) })
        });
        if let Some(count) = windows.row(0).and_then(|row| row.get(bucket(latency))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Begins a window: the one before the last is forgotten. One at a time may call it; a sample that is counted at
    /// the same moment may be forgotten, too.
    pub fn rotate(&self) {
        let Some(windows) = self.0.get() else { return };
        for count in windows.row(1).into_iter().flatten() {
            count.store(0, Ordering::Relaxed);
        }
        windows.current.fetch_xor(1, Ordering::Relaxed);
    }

    /// Answers of this window and the one before.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.read(2).iter().sum()
    }

    /// Answers of this window.
    #[must_use]
    pub fn count_in_window(&self) -> u64 {
        self.read(1).iter().sum()
    }

    /// An estimate of the `ratio` quantile (0.0..=1.0) over this window and the one before: between one and two
    /// windows' time. The upper bound of its bucket, so that at least so many were as fast. `None` without answers;
    /// whether there are enough is for the caller to ask ([`count`](Self::count)).
    #[must_use]
    pub fn quantile(&self, ratio: f64) -> Option<Duration> {
        quantile(&self.read(2), ratio)
    }

    /// The same over this window alone.
    #[must_use]
    pub fn quantile_in_window(&self, ratio: f64) -> Option<Duration> {
        quantile(&self.read(1), ratio)
    }

    /// The counts of the newest `windows`, 1 or 2.
    fn read(&self, windows: usize) -> [u64; BUCKETS] {
        let mut sums = [0; BUCKETS];
        let Some(held) = self.0.get() else { return sums };
        for age in 0..windows {
            let row = held.row(age).into_iter().flatten();
            for (sum, count) in sums.iter_mut().zip(row) {
                *sum += u64::from(count.load(Ordering::Relaxed));
            }
        }
        sums
    }
}

impl Windows {
    /// The window that is so many windows old.
    fn row(&self, age: usize) -> Option<&[AtomicU32; BUCKETS]> {
        self.counts.get((self.current.load(Ordering::Relaxed) + age) % 2)
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn quantile(counts: &[u64; BUCKETS], ratio: f64) -> Option<Duration> {
    let all: u64 = counts.iter().sum();
    let rank = (all as f64 * ratio).max(1.0);
    let mut below = 0;
    let index = counts.iter().position(|count| {
        below += count;
        below > 0 && below as f64 >= rank
    })?;
    Some(bound(index))
}

/// The bucket of a latency: the first whose upper bound is not below it.
fn bucket(latency: Duration) -> usize {
    let octaves = (latency.as_secs_f64() * 1e6 / FIRST_US).max(1.0).log2();
    // The cast saturates. A little is taken off for what the logarithm makes of a bound itself.
    ((octaves * f64::from(PER_OCTAVE) - 1e-9).ceil().max(0.0) as usize).min(BUCKETS - 1)
}

/// The upper bound of a bucket.
#[expect(clippy::cast_precision_loss, reason = "there are 81")]
fn bound(index: usize) -> Duration {
    Duration::from_secs_f64(FIRST_US * (index as f64 / f64::from(PER_OCTAVE)).exp2() / 1e6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_quantile_needs_answers() {
        let window = LatencyWindow::default();
        assert_eq!((window.quantile(0.5), window.count()), (None, 0));
        window.rotate();
        window.record(MS);
        assert!(window.quantile(0.0).is_some() && window.quantile(1.0).is_some());
    }

    #[test]
    fn two_windows_are_remembered_and_no_more() {
        let window = LatencyWindow::default();
        for _ in 0..99 {
            window.record(MS);
        }
        window.rotate();
        window.record(100 * MS);
        assert_eq!((window.count(), window.count_in_window()), (100, 1));
        assert!(window.quantile(0.99).unwrap() < 2 * MS);
        assert!(window.quantile(1.0).unwrap() >= 100 * MS);
        assert!(window.quantile_in_window(0.5).unwrap() >= 100 * MS);
        window.rotate();
        assert_eq!((window.count(), window.count_in_window()), (1, 0));
        window.rotate();
        assert_eq!((window.quantile(0.5), window.count()), (None, 0));
    }

    proptest! {
        #[test]
        fn a_quantile_is_right_to_within_a_fifth(
            mut micros in proptest::collection::vec(64_u64..60_000_000, 1..200), ratio in 0.0..=1.0_f64,
        ) {
            let window = LatencyWindow::default();
            for micros in &micros {
                window.record(Duration::from_micros(*micros));
            }
            micros.sort_unstable();
            let rank = ((micros.len() as f64 * ratio).ceil() as usize).clamp(1, micros.len());
            let exact = Duration::from_micros(micros[rank - 1]).as_secs_f64();
            let found = window.quantile(ratio).unwrap().as_secs_f64();
            prop_assert!(found >= exact * 0.999_999 && found <= exact * 1.2, "{} and {}", found, exact);
        }
    }

    #[test]
    fn latencies_out_of_range_are_in_the_outer_buckets() {
        let window = LatencyWindow::default();
        window.record(Duration::ZERO);
        assert_eq!(window.quantile(1.0), Some(Duration::from_micros(64)));
        window.record(Duration::MAX);
        assert!(window.quantile(1.0).unwrap() > Duration::from_secs(60));
    }
}
