//! Who shares the requests of a cluster for now.

use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::{
    balance::lineup,
    model::{Cluster, Endpoint, health::Standing, lineup::Lineup},
};

/// The lineup as it would be made now: that of a cluster without requests may be stale.
pub(super) fn lineup(cluster: &Cluster, now: Instant) -> Lineup {
    lineup::build(cluster, now)
}

/// What holds for the whole cluster.
pub(super) fn whole(lineup: &Lineup) -> Value {
    json!({
        "usable": lineup.usable,
        "due": lineup.due.len(),
        "panic": lineup.is_panic,
        "own_zone_ratio": lineup.own_zone_ratio,
        "assumed_latency_ms": lineup.assumed_us / 1000.0,
    })
}

/// What an endpoint gets, and why. `index` is its place in the cluster.
pub(super) fn part(lineup: &Lineup, index: usize, endpoint: &Endpoint, now: Instant) -> Map<String, Value> {
    let seats = lineup.seats.len() as f64;
    let seat = lineup.seats.iter().find(|seat| seat.endpoint as usize == index);
    let facts = [
        ("standing", standing(endpoint, now).into()),
        ("weight", endpoint.settings.weight.into()),
        ("zone", endpoint.settings.zone.as_deref().into()),
        // Of the whole cluster's requests.
        ("share", seat.map_or(0.0, |seat| seat.share / seats).into()),
        // What slow start and overload leave of its weight.
        ("weight_factor", seat.map(|seat| seat.factor).into()),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn standing(endpoint: &Endpoint, now: Instant) -> &'static str {
    match endpoint.runtime.standing(endpoint.settings.is_ready, now) {
        Standing::Usable => "usable",
        Standing::Resting(_) => "resting",
        Standing::Due => "due",
        Standing::Unhealthy => "unhealthy",
    }
}
