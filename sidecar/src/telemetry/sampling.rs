//! Which traces are sampled that begin here, and what share of requests is logged. Pure.

use crate::model::trace::TraceId;

/// What shares are counted in.
pub const WHOLE: u32 = 1_000_000;
/// Bits of a trace ID that are random for sure (W3C Trace Context Level 2, §3.2.2.3): the lowest.
const RANDOM_BITS: u32 = 56;

/// Whether a trace is among so many of a [million](WHOLE): the same wherever it is asked, and the traces of a smaller
/// share are among those of a larger one.
#[must_use]
pub fn is_sampled(trace: TraceId, of_million: u32) -> bool {
    let random = trace.0.get() & ((1 << RANDOM_BITS) - 1);
    (random * u128::from(WHOLE)) >> RANDOM_BITS < u128::from(of_million)
}

/// Whether this one is among so many of a million.
pub fn is_drawn(of_million: u32, rng: &mut fastrand::Rng) -> bool {
    of_million >= WHOLE || (of_million > 0 && rng.u32(..WHOLE) < of_million)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(of_million: u32) -> f64 {
        let mut rng = fastrand::Rng::with_seed(7);
        let sampled = (0..100_000).filter(|_| is_sampled(TraceId::random(&mut rng), of_million)).count();
        sampled as f64 / 100_000.0
    }

    #[test]
    fn the_share_is_what_was_asked_for() {
        assert_eq!((share(0), share(WHOLE)), (0.0, 1.0));
        for of_million in [1_000, 10_000, 500_000, 990_000] {
            let (share, asked) = (share(of_million), f64::from(of_million) / f64::from(WHOLE));
            assert!((share - asked).abs() < 0.005, "{share} instead of {asked}");
        }
    }

    #[test]
    fn what_is_drawn_is_the_share_that_was_asked_for() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut drawn = |of_million| (0..100_000).filter(|_| is_drawn(of_million, &mut rng)).count();
        assert_eq!((drawn(0), drawn(WHOLE)), (0, 100_000));
        assert!((9_500..10_500).contains(&drawn(100_000)));
    }

    proptest! {
        #[test]
        fn a_larger_share_has_all_of_a_smaller_one(id in 1_u128.., one in 0..=WHOLE, other in 0..=WHOLE) {
            let trace = TraceId(id.try_into().unwrap());
            let (small, large) = (one.min(other), one.max(other));
            prop_assert!(!is_sampled(trace, small) || is_sampled(trace, large));
        }

        #[test]
        fn only_the_random_bits_decide(id in 1_u128.., upper: u64, of_million in 0..=WHOLE) {
            let low = id & ((1 << 56) - 1) | 1;
            let with = |upper: u64| TraceId((u128::from(upper) << 64 | low).try_into().unwrap());
            prop_assert_eq!(is_sampled(with(0), of_million), is_sampled(with(upper), of_million));
        }
    }
}
