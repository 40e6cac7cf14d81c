//! Who shares a cluster's requests, worked out when something has changed.
//!
//! ```text
//! usable endpoints, or all of them in panic
//!   × weight × slow start × overload
//!   × what the own zone and the others get          → seats, drawn in constant time
//! ejected and rested                                → due: a request may be the probe
//! ```
//! Follows Envoy where it has the same: the panic threshold, the slow start (aggression 1, at least 10 %), and how much
//! goes to the own zone.
//!
//! # Invariants
//! - A lineup is a function of the cluster, its endpoints' counters and `now`.
//! - It is stale as soon as a standing changes, and at `valid_until`: when a rest ends, a slow start has come further,
//!   an overload is over, or it is to be seen what became of an endpoint that nobody had heard from.

mod draw;
mod share;
mod zones;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use arc_swap::Guard;

use self::share::Expiry;
use super::ewma;
use crate::model::{
    Cluster, Endpoint,
    balance::Balance,
    health::Standing,
    lineup::{Due, Lineup, Seat},
};

/// An endpoint that is due gets its probe from a request that can be repeated. For so long: then from any.
pub const UNPROBED: Duration = Duration::from_secs(5);
/// While there is an endpoint that nobody has heard from, what is assumed of it is looked at anew this often.
const UNHEARD: Duration = Duration::from_secs(1);

/// The lineup of a cluster, made anew if it is stale.
pub(super) fn of(cluster: &Cluster, now: Instant) -> Guard<Option<Arc<Lineup>>> {
    let version = cluster.runtime.standings.load(Ordering::Acquire);
    cluster.lineup.fresh(version, now, || build(cluster, now))
}

/// Works out the lineup of a cluster.
#[must_use]
pub fn build(cluster: &Cluster, now: Instant) -> Lineup {
    // Before any standing is looked at: a change in between makes it stale.
    let version = cluster.runtime.standings.load(Ordering::Acquire);
    let mut expiry = Expiry::at(now);
    let mut usable = Vec::with_capacity(cluster.endpoints.len());
    let mut due = Vec::new();
    for (index, endpoint) in (0_u32..).zip(&cluster.endpoints) {
        match standing(cluster, endpoint, now) {
            Standing::Usable => usable.push(index),
            Standing::Resting(until) => expiry.not_after(until),
            Standing::Due => due.push(Due { endpoint: index, by_any: by_any(endpoint) }),
            Standing::Unhealthy => {}
        }
    }
    let all = cluster.endpoints.len();
    let is_panic = usable.len() * 100 < all * cluster.settings.balancing.panic_percent as usize;
    let usable_count = u32::try_from(usable.len()).unwrap_or(u32::MAX);
    let candidates = if is_panic { (0_u32..).take(all).collect() } else { usable };
    let mut seats: Vec<Seat> = candidates
        .into_iter()
        .filter_map(|index| Some((index, cluster.endpoints.get(index as usize)?)))
        .map(|(index, endpoint)| share::seat(cluster, (index, endpoint), now, &mut expiry))
        .collect();
    let zoned = zones::divide(cluster, is_panic, &mut seats);
    let draw = draw::new(cluster.settings.balance, &mut seats);
    let assumed_us = ewma::assumed_us(&cluster.endpoints, &seats);
    let is_assumed = cluster.settings.balance == Balance::PeakEwma;
    if is_assumed && seats.iter().any(|seat| is_unheard(cluster, seat)) {
        expiry.not_after(now + UNHEARD);
    }
    Lineup {
        version,
        valid_until: expiry.get(),
        seats: seats.into(),
        draw,
        spare: zoned.spare.into(),
        due: due.into(),
        usable: usable_count,
        is_panic,
        own_zone_ratio: zoned.own_ratio,
        assumed_us,
    }
}

/// Whether it may be asked. One that was chosen already is; it may be the probe of itself, too.
fn standing(cluster: &Cluster, endpoint: &Endpoint, now: Instant) -> Standing {
    if cluster.is_chosen {
        return Standing::Usable;
    }
    endpoint.runtime.standing(endpoint.settings.is_ready, now)
}

/// When any request may probe an endpoint that is due.
fn by_any(endpoint: &Endpoint) -> Instant {
    let until_us = endpoint.runtime.health.ejected_until_us.load(Ordering::Acquire);
    endpoint.runtime.epoch + Duration::from_micros(until_us) + UNPROBED
}

fn is_unheard(cluster: &Cluster, seat: &Seat) -> bool {
    let endpoint = cluster.endpoints.get(seat.endpoint as usize);
    endpoint.is_some_and(|endpoint| endpoint.runtime.latency_us.load(Ordering::Relaxed) == 0)
}
