//! Backoff: how long to wait before a retry.
//!
//! What a server says of its own return is respected, as far as it speaks of us: `Retry-After` is about the one who
//! says it, so a retry elsewhere need not wait for it; gRPC's push-back (gRFC A6) is about the retry itself.

use std::time::Duration;

/// The longest `Retry-After` that a request waits for, where there is nobody else to ask: what asks for more is better
/// told to the caller.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The longest wait, in base intervals (as Envoy).
const CAP: u32 = 10;

/// What a failing answer says of a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing.
    None,
    /// The server will be back after this (`Retry-After`).
    Back(Duration),
    /// The retry is to come after exactly this (`grpc-retry-pushback-ms`).
    Exactly(Duration),
    /// There is to be none.
    Never,
}

/// What a wait depends on.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// What was said.
    pub advice: Advice,
    /// Which retry this is, counted from 1.
    pub retry: u32,
    /// Whether what failed was certainly not processed: then nothing is overloaded by it, and the first retry goes
    /// elsewhere at once.
    pub is_unprocessed: bool,
    /// Whether an endpoint is usable that this request was not sent to.
    pub is_elsewhere: bool,
    /// The policy's first backoff.
    pub base: Duration,
    /// What is left of the request's time; `None`: nothing bounds it.
    pub left: Option<Duration>,
}

/// How long to wait before a retry; `None`: it would come too late, or is not wanted, and the failure stands.
#[must_use]
pub fn wait(before: Before, rng: &mut fastrand::Rng) -> Option<Duration> {
    let wait = match before.advice {
        Advice::Never => return None,
        Advice::Exactly(wait) => wait,
        Advice::Back(wait) if !before.is_elsewhere => {
            if wait > MAX_RETRY_AFTER {
                return None;
            }
            wait
        }
        Advice::Back(_) | Advice::None if before.is_unprocessed && before.retry <= 1 => Duration::ZERO,
        Advice::Back(_) | Advice::None => delay(before.base, before.retry, rng),
    };
    before.left.is_none_or(|left| wait < left).then_some(wait)
}

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

    const FIRST: Before = Before {
        advice: Advice::None,
        retry: 1,
        is_unprocessed: false,
        is_elsewhere: true,
        base: BASE,
        left: None,
    };

    fn waits(before: Before) -> Vec<Option<Duration>> {
        (0..100).map(|seed| wait(before, &mut fastrand::Rng::with_seed(seed))).collect()
    }

    #[test]
    fn what_was_not_processed_goes_elsewhere_at_once_and_then_waits() {
        let at_once = Before { is_unprocessed: true, ..FIRST };
        assert!(waits(at_once).iter().all(|wait| *wait == Some(Duration::ZERO)));
        assert!(waits(Before { retry: 2, ..at_once }).iter().any(|wait| *wait > Some(BASE)));
        assert!(waits(FIRST).iter().any(|wait| *wait > Some(BASE / 2)));
    }

    #[test]
    fn a_server_that_will_be_back_is_waited_for_only_where_there_is_no_other() {
        let half = Duration::from_millis(500);
        let back = Before { advice: Advice::Back(half), ..FIRST };
        assert!(waits(back).iter().all(|wait| wait.is_some_and(|wait| wait <= BASE)));
        let alone = Before { is_elsewhere: false, ..back };
        assert!(waits(alone).iter().all(|wait| *wait == Some(half)));
        let long = Advice::Back(MAX_RETRY_AFTER + Duration::from_millis(1));
        assert!(waits(Before { advice: long, ..alone }).iter().all(Option::is_none));
        assert!(waits(Before { advice: long, ..FIRST }).iter().all(Option::is_some));
    }

    #[test]
    fn a_push_back_is_waited_for_to_the_millisecond_and_a_refusal_is_final() {
        let exact = Duration::from_millis(1_234);
        let before = Before { advice: Advice::Exactly(exact), is_unprocessed: true, ..FIRST };
        assert!(waits(before).iter().all(|wait| *wait == Some(exact)));
        assert!(waits(Before { advice: Advice::Never, ..before }).iter().all(Option::is_none));
    }

    proptest! {
        #[test]
        fn no_wait_outlasts_the_request(
            retry in 1_u32..12, is_unprocessed: bool, is_elsewhere: bool, base_ms in 0_u64..20_000,
            advice_ms in 0_u64..20_000, kind in 0..4_usize, left_ms in 0_u64..20_000, seed: u64,
        ) {
            let said = Duration::from_millis(advice_ms);
            let advice = [Advice::None, Advice::Back(said), Advice::Exactly(said), Advice::Never][kind];
            let (base, left) = (Duration::from_millis(base_ms), Some(Duration::from_millis(left_ms)));
            let before = Before { advice, retry, is_unprocessed, is_elsewhere, base, left };
            let found = wait(before, &mut fastrand::Rng::with_seed(seed));
            prop_assert!(found.is_none_or(|wait| wait.as_millis() < u128::from(left_ms)));
            prop_assert!(advice != Advice::Never || found.is_none());
        }

        #[test]
        fn no_base_and_no_count_overflows(seconds: u64, nanos in 0_u32..1_000_000_000, retry: u32, seed: u64) {
            let base = Duration::new(seconds, nanos);
            let mut rng = fastrand::Rng::with_seed(seed);
            prop_assert!(delay(base, retry, &mut rng) <= base.saturating_mul(10));
        }
    }
}
