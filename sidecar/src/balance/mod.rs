//! Balancing: which endpoint of a cluster gets this request.
//!
//! A choice is made per attempt, from the counters of [`EndpointRuntime`](crate::model::runtime::EndpointRuntime) and
//! without a lock: two workers that choose at the same moment may choose alike, which costs one poor pick. It judges
//! nothing for good (that is outlier detection's job): a poor endpoint is merely chosen less, and asked again when
//! its memory has faded.
//!
//! # Invariants
//! - A retry goes to an endpoint that was not tried yet, as long as there is one.
//! - There is a choice whenever there is an endpoint.
//! - `now` and `rng` are arguments: the same history and seed choose alike.

pub mod ewma;
mod in_flight;
mod p2c;
mod round_robin;
mod tried;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use crate::model::{Cluster, Endpoint, cluster::Balance};

pub use in_flight::InFlight;
pub use tried::Tried;

/// Chooses an endpoint for the next attempt and counts the choice in `picks`.
///
/// Endpoints in `tried` are passed over. If all were tried, it is the best of all by the cluster's own measure, so
/// that a cluster of one endpoint can be retried too. `None` only if the cluster has no endpoint.
///
/// First attempts take constant time; later ones look at every endpoint.
#[must_use]
pub fn pick(
    cluster: &Cluster,
    tried: &Tried,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Option<Arc<Endpoint>> {
    let endpoints = cluster.endpoints.as_slice();
    let chosen = match cluster.settings.balance {
        Balance::PeakEwma => p2c::choose(endpoints, tried, now, rng),
        Balance::RoundRobin => round_robin::choose(endpoints, tried, &cluster.runtime.cursor),
    }?;
    chosen.runtime.picks.fetch_add(1, Ordering::Relaxed);
    Some(Arc::clone(chosen))
}

#[cfg(test)]
mod tests;
