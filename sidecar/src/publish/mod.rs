//! Joins settings, endpoints and identity into snapshots; the only writer of [`Snapshots`].
//!
//! ```text
//!   settings ───┐
//!   discovery ──┼──▶ build (pure) ──▶ Arc<Snapshot> ──▶ Snapshots
//!   identity ───┘         ▲ counters of the snapshot before
//! ```
//!
//! # Invariants
//! - A snapshot is complete: every cluster of the settings is in it, every route's cluster exists.
//! - Counters belong to a cluster by name, and to an endpoint by cluster, address and SPIFFE IDs: a recycled address
//!   starts afresh.
//! - An endpoint that is no longer listed is marked removed after the swap, and never comes back to life: listed again,
//!   it starts afresh.
//! - The latest values count: a burst of changes costs one publication per [`MIN_INTERVAL`].

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use outrider_certs::spiffe_id::SpiffeId;
use tokio::sync::watch;

use crate::{
    clock::Clock,
    discovery::{Discovery, Lists, Sources},
    drain,
    identity::public::PublicFiles,
    model::{
        Cluster, ClusterName, ClusterSettings, Endpoint, EndpointSettings, Identity, Settings, Snapshot,
        runtime::{ClusterRuntime, EndpointRuntime},
        snapshot::Snapshots,
        transport::Transport,
    },
    readiness::{BlockReady, Readiness},
};

/// Shortest time between two publications; a change after a quiet time is published at once.
pub const MIN_INTERVAL: Duration = Duration::from_millis(50);

/// What snapshots are made from, as it changes.
pub struct Inputs {
    /// The configuration.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Who we are.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// How endpoints are found.
    pub sources: Arc<dyn Sources>,
    /// What clusters outside the mesh are reached with.
    pub public: PublicFiles,
}

/// What one snapshot is made from.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Every cluster, the `inbound/…` ones included; names are unique.
    pub clusters: &'a [Arc<ClusterSettings>],
    /// What discovery found.
    pub lists: &'a Lists,
    /// What clusters outside the mesh are reached with.
    pub public: &'a PublicFiles,
    /// Who we are.
    pub identity: Option<Arc<Identity>>,
}

/// Publishes the first snapshot before it returns, and then one whenever something changes, on the runtime of the
/// caller. Readiness waits for the first answer of every cluster's source, under the name `endpoints`.
pub fn start(inputs: Inputs, snapshots: Snapshots, clock: &Clock, readiness: &Readiness) {
    let discovery = Discovery::new(inputs.sources, clock);
    let mut publisher = Publisher {
        lists: discovery.lists(),
        discovery,
        settings: inputs.settings,
        identity: inputs.identity,
        public: inputs.public,
        snapshots,
        clock: clock.clone(),
        guard: Some(readiness.block("endpoints")),
    };
    publisher.publish();
    drain::spawn_background(publisher.run());
}

struct Publisher {
    discovery: Discovery,
    lists: watch::Receiver<Lists>,
    settings: watch::Receiver<Arc<Settings>>,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    public: PublicFiles,
    snapshots: Snapshots,
    clock: Clock,
    guard: Option<BlockReady>,
}

impl Publisher {
    async fn run(mut self) {
        loop {
            // The first change after a quiet time finds this over.
            let quiet_until = self.clock.now() + MIN_INTERVAL;
            tokio::select! {
                biased;
                () = changed(&mut self.settings) => {}
                () = changed(&mut self.identity) => {}
                () = changed(&mut self.lists) => {}
                () = self.public.changed() => {}
            }
            tokio::time::sleep_until(quiet_until.into()).await;
            self.publish();
        }
    }

    fn publish(&mut self) {
        let settings = Arc::clone(&self.settings.borrow_and_update());
        self.discovery.reconcile(&settings.clusters);
        self.public.reconcile(&settings.clusters);
        let identity = self.identity.borrow_and_update().clone();
        let previous = self.snapshots.load();
        let lists = self.lists.borrow_and_update();
        let facts = Facts { clusters: &settings.clusters, lists: &lists, public: &self.public, identity };
        let next = Arc::new(build(&previous, &facts, self.clock.now()));
        let is_complete = lists.is_complete();
        drop(lists);
        tracing::debug!(version = next.version, clusters = next.clusters.len(), "snapshot published");
        warn_of_unencrypted(&previous, &next);
        self.snapshots.store(Arc::clone(&next));
        retire(&previous, &next);
        if is_complete && let Some(guard) = self.guard.take() {
            guard.release();
        }
    }
}

/// Waits for a change; for ever if none can come any more.
async fn changed<T>(value: &mut watch::Receiver<T>) {
    if value.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The snapshot after `previous`. Clusters and endpoints that did not change are the same objects in both.
#[must_use]
pub fn build(previous: &Snapshot, facts: &Facts<'_>, now: Instant) -> Snapshot {
    let clusters = facts
        .clusters
        .iter()
        .map(|settings| {
            let before = previous.cluster(&settings.name);
            (settings.name.clone(), cluster(before, settings, facts, now))
        })
        .collect();
    Snapshot {
        version: previous.version + 1,
        identity: facts.identity.clone(),
        clusters,
        routes: routes(facts.clusters),
    }
}

fn cluster(
    before: Option<&Arc<Cluster>>,
    settings: &Arc<ClusterSettings>,
    facts: &Facts<'_>,
    now: Instant,
) -> Arc<Cluster> {
    let listed = facts.lists.endpoints(&settings.name).map(|list| &**list).unwrap_or_default();
    // Another way to the same address is another endpoint: no connection that was made the old way may be used.
    let same_way = before.filter(|before| before.settings.transport == settings.transport);
    let endpoints = endpoints(same_way, listed, now);
    let public = facts.public.of(&settings.name).cloned();
    if let Some(before) = before
        && *before.settings == **settings
        && is_same(&before.endpoints, &endpoints)
        && before.public.as_ref().map(Arc::as_ptr) == public.as_ref().map(Arc::as_ptr)
    {
        return Arc::clone(before);
    }
    let runtime = before.map_or_else(
        || {
            let fresh = ClusterRuntime::new(now);
            let discovery = facts.lists.status(&settings.name).unwrap_or(&fresh.discovery);
            Arc::new(ClusterRuntime { discovery: Arc::clone(discovery), ..fresh })
        },
        |before| Arc::clone(&before.runtime),
    );
    Arc::new(Cluster { settings: Arc::clone(settings), endpoints, runtime, public })
}

/// The listed endpoints in their order, each once; those that were there before are taken over with their counters.
fn endpoints(before: Option<&Arc<Cluster>>, listed: &[EndpointSettings], now: Instant) -> Vec<Arc<Endpoint>> {
    let before = before.map(|cluster| cluster.endpoints.as_slice()).unwrap_or_default();
    let known: HashMap<_, _> = before.iter().map(|endpoint| (key(&endpoint.settings), endpoint)).collect();
    let mut seen = HashSet::with_capacity(listed.len());
    let mut endpoints = Vec::with_capacity(listed.len());
    for settings in listed.iter().filter(|settings| seen.insert(key(settings))) {
        endpoints.push(known.get(&key(settings)).map_or_else(
            || {
                Arc::new(Endpoint {
                    settings: settings.clone(),
                    runtime: Arc::new(EndpointRuntime::new(now)),
                })
            },
            |endpoint| Arc::clone(endpoint),
        ));
    }
    endpoints
}

/// What makes an endpoint the same: where it is and who must answer there.
fn key(settings: &EndpointSettings) -> (SocketAddr, &[SpiffeId]) {
    (settings.address, &settings.spiffe_ids)
}

fn is_same(before: &[Arc<Endpoint>], after: &[Arc<Endpoint>]) -> bool {
    before.len() == after.len() && before.iter().zip(after).all(|(before, after)| Arc::ptr_eq(before, after))
}

/// Authorities to clusters. `config` has made them unique and lower-case; were two the same, the first would count.
fn routes(clusters: &[Arc<ClusterSettings>]) -> HashMap<Box<str>, ClusterName> {
    let mut routes = HashMap::new();
    for cluster in clusters {
        for authority in &cluster.authorities {
            routes.entry(authority.as_str().into()).or_insert_with(|| cluster.name.clone());
        }
    }
    routes
}

/// Names every cluster whose traffic is not encrypted, once: nobody should find out by chance.
fn warn_of_unencrypted(previous: &Snapshot, next: &Snapshot) {
    let is_plain = |cluster: &Cluster| matches!(cluster.settings.transport, Transport::Plain(_));
    for cluster in next.clusters.values().filter(|cluster| is_plain(cluster)) {
        if !previous.cluster(cluster.name()).is_some_and(|before| is_plain(before)) {
            tracing::warn!(
                cluster = %cluster.name(),
                "tls: none: requests to this cluster leave unencrypted, and nobody proves who answers them"
            );
        }
    }
}

/// Marks the endpoints that `next` does not have any more, so that pooled connections to them are closed.
fn retire(previous: &Snapshot, next: &Snapshot) {
    let runtimes = |snapshot: &Snapshot| -> Vec<Arc<EndpointRuntime>> {
        let endpoints = snapshot.clusters.values().flat_map(|cluster| &cluster.endpoints);
        endpoints.map(|endpoint| Arc::clone(&endpoint.runtime)).collect()
    };
    let kept: HashSet<_> = runtimes(next).iter().map(Arc::as_ptr).collect();
    for runtime in runtimes(previous) {
        if !kept.contains(&Arc::as_ptr(&runtime)) {
            runtime.is_removed.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests;
