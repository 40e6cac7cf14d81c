//! When to ask again.

use std::time::Duration;

/// Share of the TTL by which asking again is put off at most, so that sidecars whose answers ran out together (they
/// came from one server's cache) do not ask together. Later, not earlier: a cache would only give the rest of its TTL.
const JITTER_RATIO: f64 = 0.1;
/// First wait after a failure; it doubles.
const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// Longest wait after a failure: how long a cluster may take to see that the DNS is well again, and how often a name
/// that is not there is asked for.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// What a good answer without any TTL counts as (a simulation's, at most).
const NO_TTL: Duration = Duration::ZERO;

/// How long an answer counts: its TTL within the bounds. `max` wins, should they contradict each other.
pub(super) fn ttl(ttl: Option<Duration>, min: Duration, max: Duration) -> Duration {
    ttl.unwrap_or(NO_TTL).max(min).min(max)
}

/// Time until the next look after an answer that counts for `ttl`: that, and up to a tenth more.
pub(super) fn after_answer(ttl: Duration, rng: &mut fastrand::Rng) -> Duration {
    ttl.mul_f64(1.0 + JITTER_RATIO * rng.f64())
}

/// Time until the next look after so many failures in a row (from 1): half to all of the doubled base.
pub(super) fn after_failure(failures: u32, rng: &mut fastrand::Rng) -> Duration {
    let doubled = BACKOFF_BASE.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    doubled.min(BACKOFF_MAX).mul_f64(0.5 + 0.5 * rng.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(5);
    const MAX: Duration = Duration::from_secs(300);

    #[test]
    fn a_ttl_counts_within_its_bounds() {
        let seconds = |count| ttl(Some(Duration::from_secs(count)), MIN, MAX).as_secs();
        assert_eq!([0, 4, 5, 60, 300, 86_400].map(seconds), [5, 5, 5, 60, 300, 300]);
        assert_eq!(ttl(None, MIN, MAX), MIN);
    }

    #[test]
    fn looks_spread_over_a_tenth_of_the_ttl_and_never_come_early() {
        let mut rng = fastrand::Rng::with_seed(1);
        let ttl = Duration::from_secs(10);
        let delays: Vec<_> = (0..1000).map(|_| after_answer(ttl, &mut rng)).collect();
        let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
        assert!((10.0..10.1).contains(&least.as_secs_f64()), "{least:?}");
        assert!((10.9..=11.0).contains(&most.as_secs_f64()), "{most:?}");
    }

    #[test]
    fn failures_are_asked_about_ever_less_often_down_to_every_half_minute() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (failures, most) in [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (40, 30), (u32::MAX, 30)] {
            let most = Duration::from_secs(most);
            for _ in 0..100 {
                let delay = after_failure(failures, &mut rng);
                assert!(delay >= most / 2 && delay <= most, "{failures}: {delay:?}");
            }
        }
    }
}
