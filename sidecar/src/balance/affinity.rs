//! The endpoint that a key leads to.

use std::sync::atomic::Ordering;

use super::Tried;
use crate::model::{
    Cluster,
    lineup::{Lineup, Seat},
    maglev::{self, Maglev},
};

/// Slots that are looked at for a key. Where none of so many is of a usable endpoint, a few of a great many are, and one
/// is chosen by share.
pub(super) const LOOKED_AT: usize = 1024;

/// The first of a key's endpoints that has a seat, was not tried, and has room; its place in the cluster. `None` if none
/// was found.
///
/// An endpoint of which slow start or overload leaves a part keeps that part of its keys, the same ones each time.
pub(super) fn choose(
    (cluster, lineup): (&Cluster, &Lineup),
    table: &Maglev,
    key: u64,
    tried: &Tried,
) -> Option<u32> {
    // Not by the same bits as its slot.
    let lot = (maglev::mix(key) >> 11) as f64 / (1_u64 << 53) as f64;
    let mut passed = None;
    for index in table.of(key).take(LOOKED_AT) {
        let Some(seat) = seat_of(lineup, index) else { continue };
        let Some(endpoint) = cluster.endpoints.get(index as usize) else { continue };
        if tried.contains(endpoint.address()) {
            continue;
        }
        if lot < seat.factor && has_room(cluster, lineup, seat) {
            return Some(index);
        }
        passed = passed.or(Some(index));
    }
    passed
}

/// Whether an endpoint has a seat.
pub(super) fn has_seat(lineup: &Lineup, endpoint: u32) -> bool {
    seat_of(lineup, endpoint).is_some()
}

/// The seat of an endpoint. They are in the cluster's order, and most often all of it.
fn seat_of(lineup: &Lineup, endpoint: u32) -> Option<&Seat> {
    let at_its_place = lineup.seats.get(endpoint as usize).filter(|seat| seat.endpoint == endpoint);
    at_its_place.or_else(|| {
        let found = lineup.seats.binary_search_by_key(&endpoint, |seat| seat.endpoint).ok()?;
        lineup.seats.get(found)
    })
}

/// Whether an endpoint has not too much more of the cluster's load than its share.
fn has_room(cluster: &Cluster, lineup: &Lineup, seat: &Seat) -> bool {
    let affinity = cluster.settings.balancing.affinity.as_ref();
    let Some(percent) = affinity.and_then(|affinity| affinity.max_load_percent) else { return true };
    let Some(endpoint) = cluster.endpoints.get(seat.endpoint as usize) else { return false };
    // This one is counted in the cluster's already.
    let all = f64::from(cluster.runtime.in_flight.load(Ordering::Relaxed).max(1));
    let bound = (all * f64::from(percent) / 100.0 * seat.share / lineup.seats.len() as f64).ceil();
    f64::from(endpoint.runtime.in_flight.load(Ordering::Relaxed)) < bound
}
