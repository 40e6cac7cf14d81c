//! The one request that decides whether an ejected endpoint is back.

use std::{sync::Arc, time::Instant};

use super::{Ask, Pick, affinity};
use crate::model::{
    Cluster,
    health::Standing,
    lineup::{Due, Lineup},
    runtime::EndpointRuntime,
};

/// How many of those that are due one request looks at: their probes may all be under way.
const LOOKED_AT: usize = 4;

/// The one request that decides whether an ejected endpoint is back. Dropped, another may be it.
#[derive(Debug)]
#[must_use = "the endpoint is asked again when this is dropped"]
pub struct Probe {
    runtime: Arc<EndpointRuntime>,
    /// Of which ejection.
    of_us: u64,
}

impl Probe {
    /// The probe of an endpoint that is due; `None` if a request has it.
    #[must_use]
    pub fn take(runtime: &Arc<EndpointRuntime>) -> Option<Self> {
        runtime.take_probe().map(|of_us| Self { runtime: Arc::clone(runtime), of_us })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.runtime.release_probe(self.of_us);
    }
}

/// Whether an endpoint is due whose probe nobody has, and such a request may be it.
#[cold]
pub(super) fn is_free(cluster: &Cluster, lineup: &Lineup, may_probe: bool, now: Instant) -> bool {
    lineup.due.iter().filter(|due| may_probe || now >= due.by_any).any(|due| {
        let endpoint = cluster.endpoints.get(due.endpoint as usize);
        endpoint.is_some_and(|endpoint| !endpoint.runtime.is_probed())
    })
}

/// Where a request belongs: it probes no other endpoint, so that what is kept together stays so, until that one has waited for
/// its own for long. `None`: it belongs nowhere, or there is nobody else to ask.
fn own((cluster, lineup): (&Cluster, &Lineup), ask: Ask<'_>) -> Option<u32> {
    let (table, key) = (cluster.maglev.as_ref()?, ask.affinity?);
    if lineup.seats.is_empty() {
        return None;
    }
    let is_due = |endpoint: u32| lineup.due.binary_search_by_key(&endpoint, |due| due.endpoint).is_ok();
    let is_tried = |endpoint: u32| {
        let endpoint = cluster.endpoints.get(endpoint as usize);
        endpoint.is_none_or(|endpoint| ask.tried.contains(endpoint.address()))
    };
    let may_be_it =
        |endpoint: &u32| (affinity::has_seat(lineup, *endpoint) || is_due(*endpoint)) && !is_tried(*endpoint);
    table.of(key).take(affinity::LOOKED_AT).find(may_be_it)
}

/// An endpoint that is due, with its probe, if this request may be it.
#[cold]
pub(super) fn take(
    cluster: &Cluster,
    lineup: &Lineup,
    ask: Ask<'_>,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Option<Pick> {
    // From anywhere among them, so that none waits behind the others.
    let (before, after) = lineup.due.split_at(rng.usize(..lineup.due.len().max(1)));
    let own = own((cluster, lineup), ask);
    let is_for_it = |due: &&Due| own.is_none_or(|own| own == due.endpoint) || now >= due.by_any;
    for due in after.iter().chain(before).filter(is_for_it).take(LOOKED_AT) {
        if !ask.may_probe && now < due.by_any {
            continue;
        }
        let Some(endpoint) = cluster.endpoints.get(due.endpoint as usize) else { continue };
        if ask.tried.contains(endpoint.address()) {
            continue;
        }
        let Some(probe) = Probe::take(&endpoint.runtime) else { continue };
        // Whoever had it before may have decided since the lineup was made.
        if endpoint.runtime.standing(endpoint.settings.is_ready, now) == Standing::Due {
            return Some(Pick { endpoint: Arc::clone(endpoint), probe: Some(probe) });
        }
    }
    None
}
