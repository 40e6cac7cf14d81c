//! Power of two choices: the cheaper of two random endpoints.
//!
//! Looking at two avoids the herd that always choosing the best would make of many callers with the same knowledge
//! (Mitzenmacher 2001), and takes constant time.
//!
//! Where endpoints have weights, both are drawn by weight and may be the same one. So among endpoints that cost the
//! same each gets exactly its share, and what costs make of that stays within bounds: a share of p becomes p² at least
//! and 2p − p² at most. But no weight forces requests on one that is far worse than another ([`FAR_WORSE`]).

use std::time::Instant;

use super::{Tried, ewma};
use crate::model::{
    Cluster,
    lineup::{Draw, Lineup, Seat},
};

/// One that costs more than this many times what another does gets nothing for its weight.
const FAR_WORSE: f64 = 8.0;

/// What endpoints are compared by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Measure {
    /// The expected wait.
    Wait,
    /// Requests in flight.
    Load,
}

/// The first choice: the cheaper of two seats, of different ones where all have the same share. The place among the
/// seats. Equal costs: the one drawn first.
pub(super) fn choose(
    (cluster, lineup): (&Cluster, &Lineup),
    measure: Measure,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Option<usize> {
    let cost = |seat| cost((cluster, lineup), measure, seat, now);
    if matches!(lineup.draw, Draw::Even) {
        let (first, second) = two_of(lineup.seats.len(), rng)?;
        return Some(if first == second || cost(first) <= cost(second) { first } else { second });
    }
    let (first, second) = (lineup.draw(rng)?, lineup.draw(rng)?);
    if first != second {
        return Some(if cost(second) < cost(first) { second } else { first });
    }
    // Some other one, each with the same chance: the next after it as many times as is drawn.
    let count = lineup.seats.len();
    let other = (first + rng.usize(1..count.max(2))) % count;
    Some(if cost(other) * FAR_WORSE < cost(first) { other } else { first })
}

/// A later choice: as [`choose`], of those that were not tried; both drawn by share, the second of the others.
pub(super) fn choose_untried(
    (cluster, lineup): (&Cluster, &Lineup),
    measure: Measure,
    tried: &Tried,
    (now, rng): (Instant, &mut fastrand::Rng),
) -> Option<usize> {
    let first = super::untried(cluster, lineup, tried, None, rng)?;
    let Some(second) = super::untried(cluster, lineup, tried, Some(first), rng) else { return Some(first) };
    let cost = |seat| cost((cluster, lineup), measure, seat, now);
    Some(if cost(second) < cost(first) { second } else { first })
}

/// The cheapest of all.
pub(super) fn cheapest(
    (cluster, lineup): (&Cluster, &Lineup),
    measure: Measure,
    now: Instant,
) -> Option<usize> {
    let cost = |seat: &usize| cost((cluster, lineup), measure, *seat, now);
    (0..lineup.seats.len()).min_by(|one, other| cost(one).total_cmp(&cost(other)))
}

/// Two distinct random indices below `count`; the same one twice if there is only one.
fn two_of(count: usize, rng: &mut fastrand::Rng) -> Option<(usize, usize)> {
    match count {
        0 => None,
        1 => Some((0, 0)),
        _ => {
            let first = rng.usize(..count);
            let other = rng.usize(..count - 1);
            // The second is drawn from the others: those from `first` on have moved up by one.
            Some((first, if other < first { other } else { other + 1 }))
        }
    }
}

/// What one more request to a seat's endpoint would cost.
fn cost((cluster, lineup): (&Cluster, &Lineup), measure: Measure, seat: usize, now: Instant) -> f64 {
    let Some(Seat { endpoint, share, .. }) = lineup.seats.get(seat).copied() else { return f64::MAX };
    let Some(endpoint) = cluster.endpoints.get(endpoint as usize) else { return f64::MAX };
    match measure {
        Measure::Wait => ewma::cost_of(&endpoint.runtime, share, lineup.assumed_us, now),
        Measure::Load => {
            f64::from(endpoint.runtime.in_flight.load(std::sync::atomic::Ordering::Relaxed)) / share + 1.0
        }
    }
}
