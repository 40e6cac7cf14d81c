//! Power of two choices: the cheaper of two random endpoints.
//!
//! Looking at two avoids the herd that always choosing the best would make of many callers with the same knowledge
//! (Mitzenmacher 2001), and takes constant time.

use std::{sync::Arc, time::Instant};

use super::{Tried, ewma};
use crate::model::Endpoint;

/// The cheaper (by [`ewma::cost`]) of two distinct random endpoints that are not in `tried`; the cheapest of all if
/// every one was tried. Equal costs: the one drawn first.
pub(super) fn choose<'a>(
    endpoints: &'a [Arc<Endpoint>],
    tried: &Tried,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Option<&'a Arc<Endpoint>> {
    if tried.is_empty() {
        let (first, second) = two_of(endpoints.len(), rng)?;
        return Some(cheaper(endpoints.get(first)?, endpoints.get(second)?, now));
    }
    let untried = || endpoints.iter().filter(|endpoint| !tried.contains(endpoint.address()));
    match two_of(untried().count(), rng) {
        Some((first, second)) => Some(cheaper(untried().nth(first)?, untried().nth(second)?, now)),
        None => endpoints.iter().reduce(|best, next| cheaper(best, next, now)),
    }
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

fn cheaper<'a>(first: &'a Arc<Endpoint>, second: &'a Arc<Endpoint>, now: Instant) -> &'a Arc<Endpoint> {
    if is_cheaper(second, first, now) { second } else { first }
}

fn is_cheaper(one: &Endpoint, other: &Endpoint, now: Instant) -> bool {
    ewma::cost(&one.runtime, now) < ewma::cost(&other.runtime, now)
}
