//! A short wait for an endpoint that may be asked, where there is none.
//!
//! It bridges the moment between an endpoint that went and the one that takes its place. Whoever waits looks again when a
//! newer snapshot is there, and every [`LOOK`] for what changes in between: standings are counted and not announced, because
//! requests change them, too, and would pay for it.
//!
//! # Invariants
//! - Nobody waits longer than the cluster's `queue_timeout`, and at most `max_pending` wait at a time, over all workers.
//! - Once a cluster has had nobody for that long, others are told so at once, until it has somebody again.
//! - Nothing was sent of what waits, so that it can go by a newer snapshot as a whole.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{error::ProxyError, worker::Worker};
use crate::{
    balance,
    model::{Cluster, Snapshot},
    net::Net,
    resilience::circuit_breaker,
};

/// So often those who wait look whether they still have to.
const LOOK: Duration = Duration::from_millis(20);

/// Whether there is nobody to ask, as far as is known now.
pub(super) fn is_needed(cluster: &Cluster, may_probe: bool, now: Instant) -> bool {
    let can_be_asked = balance::can_pick(cluster, may_probe, now);
    if can_be_asked {
        cluster.runtime.starvation.is_over();
    }
    !can_be_asked
}

/// Waits until somebody can be asked in the cluster of that name. `load` gives what a request goes by that begins now.
/// Dropping the future gives up.
///
/// # Errors
/// [`ProxyError::NoEndpoint`], [`ProxyError::Overflow`].
pub(super) async fn wait<N: Net>(
    worker: &Worker<N>,
    cluster: &Arc<Cluster>,
    may_probe: bool,
    load: impl Fn() -> Arc<Snapshot>,
) -> Result<(Arc<Snapshot>, Arc<Cluster>), ProxyError> {
    let now = worker.now();
    let (name, queue) = (cluster.name(), cluster.settings.timeouts.queue);
    let starvation = &cluster.runtime.starvation;
    if starvation.found_nobody(now) >= queue {
        return Err(ProxyError::no_endpoint(cluster, now));
    }
    let _pending = circuit_breaker::admit_pending(cluster)
        .map_err(|cap| ProxyError::Overflow { cluster: name.clone(), cap })?;
    let until = now + queue;
    loop {
        // Before it is looked at: one that is stored meanwhile is not missed.
        let seen = worker.snapshots.load().version;
        let snapshot = load();
        let newest = snapshot.cluster(name);
        let now = worker.now();
        if let Some(newest) = newest.filter(|newest| !is_needed(newest, may_probe, now)) {
            starvation.found.fetch_add(1, Ordering::Relaxed);
            return Ok((Arc::clone(&snapshot), Arc::clone(newest)));
        }
        if newest.is_none() || now >= until {
            starvation.in_vain.fetch_add(1, Ordering::Relaxed);
            return Err(ProxyError::no_endpoint(newest.unwrap_or(cluster), now));
        }
        drop(snapshot);
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(until.min(now + LOOK).into()) => {}
            _newer = worker.snapshots.until(|newest| newest.version != seen) => {}
        }
    }
}

/// Forgets that clusters had nobody which have somebody again, where no request has found that out. About once a second.
pub(super) fn sweep(snapshot: &Snapshot, now: Instant) {
    for cluster in snapshot.clusters.values() {
        if cluster.runtime.starvation.is_known() {
            is_needed(cluster, true, now);
        }
    }
}
