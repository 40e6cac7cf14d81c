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

mod affinity;
pub mod ewma;
mod in_flight;
pub mod lineup;
mod p2c;
mod probe;
mod tried;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use self::p2c::Measure;
use crate::model::{Cluster, Endpoint, balance::Balance, lineup::Lineup};

pub use in_flight::InFlight;
pub use probe::Probe;
pub use tried::Tried;

/// What an endpoint is chosen for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Where the request was already sent to.
    pub tried: &'a Tried,
    /// What keeps requests of one kind with one endpoint; `None`: nothing does, or the cluster does not care.
    pub affinity: Option<u64>,
    /// Whether it could be sent elsewhere if the endpoint fails it: only then may it be the probe of an endpoint that
    /// was ejected.
    pub may_probe: bool,
}

impl<'a> Ask<'a> {
    /// For nothing in particular.
    #[must_use]
    pub fn plain(tried: &'a Tried) -> Self {
        Self { tried, affinity: None, may_probe: false }
    }
}

/// The choice.
#[derive(Debug)]
pub struct Pick {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Held if what becomes of the request decides whether the endpoint is back.
    pub probe: Option<Probe>,
}

/// Chooses an endpoint for the next attempt and counts the choice in `picks`.
///
/// An endpoint that is due goes first, if the request may probe it and no other does. Endpoints in `tried` are passed
/// over. If all were tried, it is the best of all by the cluster's own measure, so that a cluster of one endpoint can be
/// retried too. `None` only if no endpoint is usable, and the cluster's panic threshold does not let it use others.
///
/// First attempts take constant time; later ones look at every endpoint.
#[must_use]
pub fn pick(cluster: &Cluster, ask: Ask<'_>, now: Instant, rng: &mut fastrand::Rng) -> Option<Pick> {
    let lineup = lineup::of(cluster, now);
    let lineup = lineup.as_deref()?;
    if !lineup.due.is_empty()
        && let Some(pick) = probe::take(cluster, lineup, ask, now, rng)
    {
        return Some(counted(cluster, lineup, pick));
    }
    let chosen = choose((cluster, lineup), ask, now, rng)?;
    let endpoint = Arc::clone(cluster.endpoints.get(chosen as usize)?);
    Some(counted(cluster, lineup, Pick { endpoint, probe: None }))
}

/// Whether [`pick`] would choose somebody for a request that was not tried yet.
#[must_use]
pub fn can_pick(cluster: &Cluster, may_probe: bool, now: Instant) -> bool {
    let lineup = lineup::of(cluster, now);
    let Some(lineup) = lineup.as_deref() else { return false };
    !lineup.seats.is_empty() || probe::is_free(cluster, lineup, may_probe, now)
}

fn counted(cluster: &Cluster, lineup: &Lineup, pick: Pick) -> Pick {
    let counts = &cluster.runtime.picks;
    pick.endpoint.runtime.picks.fetch_add(1, Ordering::Relaxed);
    if pick.probe.is_some() {
        counts.probes.fetch_add(1, Ordering::Relaxed);
    } else if lineup.is_panic {
        counts.in_panic.fetch_add(1, Ordering::Relaxed);
    }
    if cluster.zone.is_some() {
        let [own, elsewhere] = &counts.by_zone;
        let count = if cluster.zone == pick.endpoint.settings.zone { own } else { elsewhere };
        count.fetch_add(1, Ordering::Relaxed);
    }
    pick
}

/// The place of an endpoint in the cluster.
fn choose(
    (cluster, lineup): (&Cluster, &Lineup),
    ask: Ask<'_>,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Option<u32> {
    if let Some(key) = ask.affinity
        && let Some(table) = &cluster.maglev
        && let Some(endpoint) = affinity::choose((cluster, lineup), table, key, ask.tried)
    {
        return Some(endpoint);
    }
    let (balance, both) = (cluster.settings.balance, (cluster, lineup));
    let seat = if ask.tried.is_empty() {
        match balance {
            Balance::PeakEwma => p2c::choose(both, Measure::Wait, now, rng),
            Balance::LeastRequest => p2c::choose(both, Measure::Load, now, rng),
            Balance::RoundRobin => lineup.in_turn(turn(cluster)),
            Balance::Random | Balance::Maglev => lineup.draw(rng),
        }?
    } else {
        match choose_untried(both, ask.tried, now, rng) {
            Some(seat) => seat,
            None => return spare_or_tried(both, ask.tried, now, rng),
        }
    };
    lineup.seats.get(seat).map(|seat| seat.endpoint)
}

/// A seat that was not tried.
fn choose_untried(
    both: (&Cluster, &Lineup),
    tried: &Tried,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Option<usize> {
    let (cluster, lineup) = both;
    match cluster.settings.balance {
        Balance::PeakEwma => p2c::choose_untried(both, Measure::Wait, tried, (now, rng)),
        Balance::LeastRequest => p2c::choose_untried(both, Measure::Load, tried, (now, rng)),
        Balance::RoundRobin => {
            let count = lineup.seats.len();
            let turn = lineup.in_turn(turn(cluster))?;
            (turn..count).chain(0..turn).find(|seat| !is_tried(cluster, lineup, *seat, tried))
        }
        Balance::Random | Balance::Maglev => untried(cluster, lineup, tried, None, rng),
    }
}

/// Where no seat is untried: one of another zone, else the best of all that were tried.
fn spare_or_tried(
    both: (&Cluster, &Lineup),
    tried: &Tried,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Option<u32> {
    let (cluster, lineup) = both;
    let address = |index: &u32| cluster.endpoints.get(*index as usize).map(|endpoint| endpoint.address());
    let is_untried = |index: &&u32| address(index).is_some_and(|address| !tried.contains(address));
    let untried = lineup.spare.iter().filter(is_untried).count();
    if untried > 0 {
        return lineup.spare.iter().filter(is_untried).nth(rng.usize(..untried)).copied();
    }
    let seat = match cluster.settings.balance {
        Balance::PeakEwma => p2c::cheapest(both, Measure::Wait, now),
        Balance::LeastRequest => p2c::cheapest(both, Measure::Load, now),
        Balance::RoundRobin => lineup.in_turn(turn(cluster)),
        Balance::Random | Balance::Maglev => lineup.draw(rng),
    };
    lineup.seats.get(seat?).map(|seat| seat.endpoint)
}

/// The next turn of round-robin, over all workers.
fn turn(cluster: &Cluster) -> u64 {
    cluster.runtime.cursor.fetch_add(1, Ordering::Relaxed) as u64
}

/// A seat by share, of those that were not tried and are not `except`.
fn untried(
    cluster: &Cluster,
    lineup: &Lineup,
    tried: &Tried,
    except: Option<usize>,
    rng: &mut fastrand::Rng,
) -> Option<usize> {
    let is_free = |seat: usize| Some(seat) != except && !is_tried(cluster, lineup, seat, tried);
    let free = || (0_usize..).zip(&lineup.seats).filter(|(index, _)| is_free(*index));
    let sum: f64 = free().map(|(_, seat)| seat.share).sum();
    let mut point = rng.f64() * sum;
    let mut last = None;
    for (index, seat) in free() {
        last = Some(index);
        point -= seat.share;
        if point < 0.0 {
            break;
        }
    }
    last
}

fn is_tried(cluster: &Cluster, lineup: &Lineup, seat: usize, tried: &Tried) -> bool {
    let endpoint = lineup.seats.get(seat).and_then(|seat| cluster.endpoints.get(seat.endpoint as usize));
    endpoint.is_none_or(|endpoint| tried.contains(endpoint.address()))
}

#[cfg(test)]
mod tests;
