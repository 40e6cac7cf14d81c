//! When to renew, when to try again and when to worry: pure functions of time and chance.
//!
//! ```text
//!   obtained          renew at 60 % ± 5 %            not_after
//!      ├──────────────────────┼────┬──────────┬────────┤
//!                                 50 %       20 %     5 % left: warnings, if not renewed by then
//! ```
//! The certificate stays in use to its last second, whatever fails before.

use std::time::{Duration, SystemTime};

/// Share of the lifetime after which a renewal is due.
const RENEW_AFTER_RATIO: f64 = 0.60;
/// How far it is moved at random to either side, so that workloads started together do not renew together.
const RENEW_JITTER_RATIO: f64 = 0.05;
/// Shortest wait between two attempts.
const MIN_RETRY: Duration = Duration::from_secs(1);
/// Longest wait between two attempts.
const MAX_RETRY: Duration = Duration::from_secs(60);
/// Shortest time between two looks at the bundle, whatever its publisher hints at.
const MIN_REFRESH: Duration = Duration::from_secs(5);
/// Longest time between two looks at the bundle: a root that was taken out is trusted no longer than this.
const MAX_REFRESH: Duration = Duration::from_secs(3600);
/// Time between two looks at the bundle where its publisher hints at none.
const DEFAULT_REFRESH: Duration = Duration::from_secs(300);

/// The moment at which a certificate is to be renewed.
///
/// `obtained` is when it came, if that is known, else its `not_before`: a CA backdates, and a short lifetime counted
/// from there could be half over on arrival. Never before `obtained`, never after `not_after`.
#[must_use]
pub fn renew_at(obtained: SystemTime, not_after: SystemTime, rng: &mut fastrand::Rng) -> SystemTime {
    let lifetime = not_after.duration_since(obtained).unwrap_or_default();
    let jitter = RENEW_JITTER_RATIO * (2.0 * rng.f64() - 1.0);
    obtained + lifetime.mul_f64(RENEW_AFTER_RATIO + jitter)
}

/// How long to wait after the `failures`-th failure in a row (counted from 1), with `left` of the certificate's
/// lifetime to go: between 1 s and a ceiling that doubles from 2 s up to 60 s, at random, so that the sidecars of a
/// whole mesh do not return to a recovered CA at once. Never more than a quarter of `left` (but at least 1 s), so
/// that several attempts fit in before the end.
#[must_use]
pub fn retry_delay(failures: u32, left: Option<Duration>, rng: &mut fastrand::Rng) -> Duration {
    let doubled = MIN_RETRY.saturating_mul(1 << failures.clamp(1, 6));
    let ceiling = doubled.min(MAX_RETRY).min(left.map_or(MAX_RETRY, |left| left / 4)).max(MIN_RETRY);
    MIN_RETRY + (ceiling - MIN_RETRY).mul_f64(rng.f64())
}

/// How long until the bundle is looked at again: the publisher's hint within 5 s to 1 h, else 5 min; moved by up to
/// 10 % to be earlier, at random.
#[must_use]
pub fn refresh_delay(hint: Option<Duration>, rng: &mut fastrand::Rng) -> Duration {
    let whole = hint.unwrap_or(DEFAULT_REFRESH).clamp(MIN_REFRESH, MAX_REFRESH);
    whole.mul_f64(1.0 - 0.1 * rng.f64()).max(MIN_REFRESH)
}

/// How long until a federated domain's bundle is looked at again after a failure. While one is held, a quarter of the time
/// between two looks, so that several fit in before a new key is used (SPIFFE Federation §4.1: it is published for three to
/// five of them before); before that as [`retry_delay`]. Never below 5 s while
/// one is held: the endpoint is somebody else's.
#[must_use]
pub fn endpoint_retry_delay(
    failures: u32,
    held: Option<Option<Duration>>,
    rng: &mut fastrand::Rng,
) -> Duration {
    match held {
        Some(hint) => (refresh_delay(hint, rng) / 4).max(MIN_REFRESH),
        None => retry_delay(failures, None, rng),
    }
}

/// The age at which a bundle is too old: its publisher may have begun to use keys that it announced since (SPIFFE
/// Federation §4.1: after three times its refresh hint).
#[must_use]
pub fn stale_after(hint: Option<Duration>) -> Duration {
    3 * hint.unwrap_or(DEFAULT_REFRESH).max(MIN_REFRESH)
}

/// How much of a certificate's lifetime is left, in the steps that operators are told of. Ordered by urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Left {
    /// More than half.
    Plenty,
    /// Half or less. Renewal is due soon; a reason to speak only if it fails.
    Half,
    /// A fifth or less.
    Fifth,
    /// A twentieth or less.
    Twentieth,
    /// Nothing: it has expired.
    Nothing,
}

impl Left {
    /// How much is left at `now` of the time from `not_before` to `not_after`.
    #[must_use]
    pub fn of(not_before: SystemTime, not_after: SystemTime, now: SystemTime) -> Self {
        let Ok(left) = not_after.duration_since(now) else {
            return Self::Nothing;
        };
        let lifetime = not_after.duration_since(not_before).unwrap_or_default();
        let steps = [(20, Self::Twentieth), (5, Self::Fifth), (2, Self::Half)];
        steps.into_iter().find(|(share, _)| left <= lifetime / *share).map_or(Self::Plenty, |(_, step)| step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn renewal_falls_between_55_and_65_percent_and_is_spread() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut seen = Vec::new();
        for _ in 0..1000 {
            let due = renew_at(at(0), at(100_000), &mut rng);
            assert!(due >= at(55_000) && due <= at(65_000), "{due:?}");
            seen.push(due);
        }
        seen.sort_unstable();
        assert!(seen[0] < at(56_000) && seen[999] > at(64_000), "jitter uses its whole range");
    }

    #[test]
    fn renewal_of_a_certificate_that_was_over_before_it_came_is_due_at_once() {
        let mut rng = fastrand::Rng::with_seed(7);
        assert_eq!(renew_at(at(100), at(50), &mut rng), at(100));
    }

    #[test]
    fn retries_back_off_from_1_s_to_60_s() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut longest = Duration::ZERO;
        for failures in 0..40 {
            for _ in 0..50 {
                let delay = retry_delay(failures, Some(DAY), &mut rng);
                assert!(delay >= MIN_RETRY && delay <= MAX_RETRY, "{failures}: {delay:?}");
                assert!(failures > 1 || delay <= Duration::from_secs(2), "{failures}: {delay:?}");
                longest = longest.max(delay);
            }
        }
        assert!(longest > Duration::from_secs(50), "{longest:?}");
    }

    #[test]
    fn retries_come_closer_near_the_end() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..100 {
            let delay = retry_delay(30, Some(Duration::from_secs(20)), &mut rng);
            assert!(delay <= Duration::from_secs(5), "{delay:?}");
            assert!(retry_delay(30, Some(Duration::ZERO), &mut rng) <= MIN_RETRY);
        }
    }

    #[test]
    fn bundle_is_refreshed_as_hinted_within_bounds() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut of = |hint: Option<u64>| refresh_delay(hint.map(Duration::from_secs), &mut rng).as_secs_f64();
        for _ in 0..100 {
            assert!((4.99..=5.01).contains(&of(Some(0))));
            assert!((3239.0..=3600.0).contains(&of(Some(100_000))));
            assert!((269.0..=300.0).contains(&of(None)));
            assert!((53.9..=60.0).contains(&of(Some(60))));
        }
    }

    #[test]
    fn an_endpoint_that_fails_is_asked_again_within_a_quarter_of_its_interval() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut after = |failures, held| endpoint_retry_delay(failures, held, &mut rng).as_secs_f64();
        for failures in 1..20 {
            assert!((67.4..=75.0).contains(&after(failures, Some(None))));
            assert!((809.9..=900.0).contains(&after(failures, Some(Some(DAY)))));
            assert!((4.9..=5.1).contains(&after(failures, Some(Some(Duration::ZERO)))));
            assert!((1.0..=60.0).contains(&after(failures, None)));
        }
        assert!(after(1, None) <= 2.0);
    }

    #[test]
    fn a_bundle_is_stale_after_three_of_its_intervals() {
        assert_eq!(stale_after(None), Duration::from_secs(900));
        assert_eq!(stale_after(Some(DAY)), 3 * DAY);
        assert_eq!(stale_after(Some(Duration::ZERO)), Duration::from_secs(15));
    }

    #[test]
    fn what_is_left_is_told_at_50_20_and_5_percent() {
        let left = |now| Left::of(at(1000), at(2000), at(now));
        assert_eq!(left(900), Left::Plenty);
        assert_eq!(left(1499), Left::Plenty);
        assert_eq!(left(1500), Left::Half);
        assert_eq!(left(1799), Left::Half);
        assert_eq!(left(1800), Left::Fifth);
        assert_eq!(left(1949), Left::Fifth);
        assert_eq!(left(1950), Left::Twentieth);
        assert_eq!(left(2000), Left::Twentieth, "valid to the last second");
        assert_eq!(left(2001), Left::Nothing);
    }
}
