//! Rate limits at the door: after it is known where a request goes, before it costs anything else.

use std::{sync::Arc, time::Instant};

use super::{
    door::{Door, From},
    error::ProxyError,
    worker::Worker,
};
use crate::{
    model::{
        Cluster, Snapshot,
        listener::Asked,
        policy::Policy,
        rate_limit::{Caller, Quota, RateLimiter},
    },
    net::Net,
    resilience::rate_limit::{self, Taken},
};

/// What a stream has used of its cluster's limits.
#[derive(Debug)]
pub(super) struct Charge {
    cluster: Arc<Cluster>,
    caller: Option<Caller>,
    taken: Taken,
}

/// Lets one more request under that policy begin, which asks for `asked`; what is to be told of limits that always tell. Costs nothing where
/// nothing is limited.
///
/// # Errors
/// [`ProxyError::RateLimited`].
pub(super) fn admit(
    (door, snapshot): (&Door, &Snapshot),
    (cluster, policy): (&Cluster, &Policy),
    asked: Asked<'_>,
    now: Instant,
) -> Result<Box<[Quota]>, ProxyError> {
    let limiters = cluster.limiters.of(policy);
    if limiters.is_empty() || is_probe(door, snapshot, asked) {
        return Ok(Box::default());
    }
    let taken = take(cluster, limiters, caller(door).as_ref(), now)?;
    Ok(taken.quotas(limiters, now).into())
}

/// The same for an opaque stream, which may turn out to be none.
///
/// # Errors
/// [`ProxyError::RateLimited`].
pub(super) fn admit_stream(
    door: &Door,
    cluster: &Arc<Cluster>,
    now: Instant,
) -> Result<Option<Charge>, ProxyError> {
    let limiters = cluster.limiters.of(&cluster.settings.policy);
    if limiters.is_empty() {
        return Ok(None);
    }
    let caller = caller(door);
    let taken = take(cluster, limiters, caller.as_ref(), now)?;
    Ok(Some(Charge { cluster: Arc::clone(cluster), caller, taken }))
}

fn take(
    cluster: &Cluster,
    limiters: &[RateLimiter],
    caller: Option<&Caller>,
    now: Instant,
) -> Result<Taken, ProxyError> {
    rate_limit::take(limiters, caller, now)
        .map_err(|quota| ProxyError::RateLimited { cluster: cluster.name().clone(), quota: Some(quota) })
}

impl Charge {
    /// There was no stream after all.
    pub(super) fn give_back(self, now: Instant) {
        let limiters = self.cluster.limiters.of(&self.cluster.settings.policy);
        self.taken.give_back(limiters, self.caller.as_ref(), now);
    }
}

/// What an outbound stream has used that may turn out to be none: given back when this is dropped.
#[derive(Debug)]
pub(super) struct Reserved<N: Net> {
    worker: Arc<Worker<N>>,
    charge: Option<Charge>,
}

impl<N: Net> Reserved<N> {
    /// Lets one more stream of the own app begin, perhaps.
    ///
    /// # Errors
    /// [`ProxyError::RateLimited`].
    pub(super) fn new(worker: &Arc<Worker<N>>, cluster: &Arc<Cluster>) -> Result<Self, ProxyError> {
        let limiters = cluster.limiters.of(&cluster.settings.policy);
        let charge = if limiters.is_empty() {
            None
        } else {
            let taken = take(cluster, limiters, None, worker.now())?;
            Some(Charge { cluster: Arc::clone(cluster), caller: None, taken })
        };
        Ok(Self { worker: Arc::clone(worker), charge })
    }

    /// It is a stream.
    pub(super) fn spend(mut self) {
        self.charge = None;
    }
}

impl<N: Net> Drop for Reserved<N> {
    fn drop(&mut self) {
        if let Some(charge) = self.charge.take() {
            charge.give_back(self.worker.now());
        }
    }
}

/// Who is charged. The own app is one caller: nobody to tell apart.
fn caller(door: &Door) -> Option<Caller> {
    match &door.from {
        From::App { .. } => None,
        From::Peer { peer, .. } => Some(Caller::Id(peer.id().clone())),
        From::Plain { address, .. } => Some(Caller::Address(*address)),
    }
}

/// Whether it is the host asking how the app is: a flood of others must not have the app killed for not answering it.
fn is_probe(door: &Door, snapshot: &Snapshot, asked: Asked<'_>) -> bool {
    matches!(door.from, From::Plain { .. })
        && door.inbound(snapshot).is_some_and(|inbound| inbound.is_probe(asked))
}
