//! Backoff: how long to wait before a retry.

use std::time::Duration;

/// The longest wait, in base intervals (as Envoy).
const CAP: u32 = 10;

/// A random wait of zero up to `base`, doubled with every retry after the first and capped at ten times `base`.
///
/// `retry` counts from 1. The whole range is random (full jitter, as Envoy): callers that failed together must not come
/// back together. A `base` of zero never waits.
#[must_use]
pub fn delay(base: Duration, retry: u32, rng: &mut fastrand::Rng) -> Duration {
    let doublings = retry.saturating_sub(1);
    // Past 2^4 the cap has the say; no larger shift is needed, and none can overflow.
    let factor = (1_u32 << doublings.min(4)).min(CAP);
    let longest = base.saturating_mul(factor);
    let longest_ns = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(rng.u64(..=longest_ns))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: Duration = Duration::from_millis(25);

    #[test]
    fn the_range_doubles_up_to_ten_times_the_base() {
        for (retry, longest_ms) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (6, 250), (u32::MAX, 250)]
        {
            let mut rng = fastrand::Rng::with_seed(7);
            let longest = (0..2_000).map(|_| delay(BASE, retry, &mut rng)).max().unwrap();
            let bound = Duration::from_millis(longest_ms);
            assert!(longest <= bound && longest > bound.mul_f64(0.98), "retry {retry}: {longest:?}");
        }
    }

    #[test]
    fn the_whole_range_is_used_evenly() {
        let mut rng = fastrand::Rng::with_seed(7);
        let below_half = (0..10_000).filter(|_| delay(BASE, 1, &mut rng) < BASE / 2).count();
        assert!((4_700..5_300).contains(&below_half), "{below_half}");
    }

    proptest! {
        #[test]
        fn no_base_and_no_count_overflows(seconds: u64, nanos in 0_u32..1_000_000_000, retry: u32, seed: u64) {
            let base = Duration::new(seconds, nanos);
            let mut rng = fastrand::Rng::with_seed(seed);
            prop_assert!(delay(base, retry, &mut rng) <= base.saturating_mul(10));
        }
    }
}
