//! Joins settings, endpoints and identity into snapshots; the only writer of [`Snapshots`].
//!
//! ```text
//!   settings ───┐  (a generation: as a whole, or not at all)
//!   discovery ──┼──▶ build (pure) ──▶ Arc<Snapshot> ──▶ Snapshots
//!   controller ─┤  (what leads outside)
//!   identity ───┘         ▲ counters of the snapshot before
//! ```
//!
//! # Invariants
//! - A snapshot is complete: every cluster of the settings is in it, every route's cluster exists.
//! - Everything in a snapshot is of one generation of the configuration. The clusters that a new generation adds are
//!   looked for first, for [`WARM_UP`] at most: nothing is routed to a cluster whose endpoints are about to be found.
//! - Counters belong to a cluster by name, and to an endpoint by cluster, transport, address and SPIFFE IDs: a recycled
//!   address starts afresh, and so do the connections to an endpoint that must be reached in another way.
//! - An endpoint that is no longer listed is marked removed after the swap, and never comes back to life: listed again,
//!   it starts afresh.
//! - The latest values count: a burst of changes costs one publication per [`MIN_INTERVAL`].

mod warn;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use indexmap::IndexMap;
use outrider_certs::spiffe_id::SpiffeId;
use tokio::sync::watch;

use crate::{
    clock::Clock,
    discovery::{Discovery, Lists, Sources},
    drain,
    identity::public::PublicFiles,
    model::{
        Cluster, ClusterName, ClusterSettings, Endpoint, EndpointSettings, Generation, Identity, Settings,
        Snapshot,
        cluster::EndpointSource,
        rate_limit::RateLimiters,
        runtime::{ClusterRuntime, EndpointRuntime},
        snapshot::{Addresses, Snapshots},
        wanted::Outside,
    },
    readiness::{BlockReady, Readiness},
};

/// Shortest time between two publications; a change after a quiet time is published at once.
pub const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// Longest time that a new generation waits for the first answers of its new clusters' sources. After it they come into
/// force without endpoints, as at the start of a process that is asked before it is ready.
pub const WARM_UP: Duration = Duration::from_secs(3);

/// What snapshots are made from, as it changes.
pub struct Inputs {
    /// The configuration; the newest counts.
    pub config: watch::Receiver<Arc<Generation>>,
    /// Who we are.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// How endpoints are found.
    pub sources: Arc<dyn Sources>,
    /// What clusters outside the mesh are reached with.
    pub public: PublicFiles,
    /// What leads out of the cluster, as the controller has said.
    pub outside: watch::Receiver<Arc<Outside>>,
}

/// What one snapshot is made from.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The configuration: its clusters, the `inbound/…` ones included, have unique names.
    pub config: &'a Arc<Generation>,
    /// What discovery found.
    pub lists: &'a Lists,
    /// What clusters outside the mesh are reached with.
    pub public: &'a PublicFiles,
    /// What leads out of the cluster.
    pub outside: &'a Arc<Outside>,
    /// Who we are.
    pub identity: Option<Arc<Identity>>,
}

/// Publishes the first snapshot before it returns, and then one whenever something changes, on the runtime of the
/// caller. Readiness waits for the first answer of every cluster's source, under the name `endpoints`.
pub fn start(inputs: Inputs, snapshots: Snapshots, clock: &Clock, readiness: &Readiness) {
    let mut discovery = Discovery::new(inputs.sources, clock);
    let active = Arc::clone(&inputs.config.borrow());
    discovery.reconcile(&active.settings.clusters);
    let mut public = inputs.public;
    public.reconcile(&active.settings.clusters);
    let mut publisher = Publisher {
        lists: discovery.lists(),
        discovery,
        active,
        warm_until: None,
        config: inputs.config,
        identity: inputs.identity,
        public,
        outside: inputs.outside,
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
    config: watch::Receiver<Arc<Generation>>,
    /// What is published.
    active: Arc<Generation>,
    /// While a newer one waits for its new clusters: for how long.
    warm_until: Option<Instant>,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    public: PublicFiles,
    outside: watch::Receiver<Arc<Outside>>,
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
                () = changed(&mut self.config) => {}
                () = changed(&mut self.identity) => {}
                () = changed(&mut self.lists) => {}
                () = changed(&mut self.outside) => {}
                () = self.public.changed() => {}
                () = reached(self.warm_until) => {}
            }
            tokio::time::sleep_until(quiet_until.into()).await;
            self.publish();
        }
    }

    /// Goes on to the newest generation, once the sources of the clusters that are new in it have answered. What both
    /// generations have keeps its source until then.
    fn advance(&mut self) {
        let newest = Arc::clone(&self.config.borrow_and_update());
        if newest.number == self.active.number {
            return;
        }
        let active = &self.active.settings.clusters;
        let known: HashSet<&ClusterName> = active.iter().map(|cluster| &cluster.name).collect();
        let clusters = newest.settings.clusters.iter();
        let added: Vec<_> = clusters.filter(|cluster| !known.contains(&cluster.name)).cloned().collect();
        self.discovery.reconcile(&[active.as_slice(), added.as_slice()].concat());
        let now = self.clock.now();
        let is_over = *self.warm_until.get_or_insert(now + WARM_UP) <= now;
        let is_there = |cluster: &Arc<ClusterSettings>| self.lists.borrow().has_answered(&cluster.name);
        if is_over || added.iter().all(is_there) {
            self.warm_until = None;
            self.discovery.reconcile(&newest.settings.clusters);
            self.public.reconcile(&newest.settings.clusters);
            self.active = newest;
        }
    }

    fn publish(&mut self) {
        self.advance();
        let identity = self.identity.borrow_and_update().clone();
        let previous = self.snapshots.load();
        let outside = Arc::clone(&self.outside.borrow_and_update());
        let lists = self.lists.borrow_and_update();
        let facts =
            Facts { config: &self.active, lists: &lists, public: &self.public, outside: &outside, identity };
        let next = Arc::new(build(&previous, &facts, self.clock.now()));
        let is_complete = lists.is_complete();
        drop(lists);
        tracing::debug!(version = next.version, clusters = next.clusters.len(), "snapshot published");
        warn::of_unencrypted(&previous, &next);
        warn::of_exceptions(&previous, &next);
        self.snapshots.store(Arc::clone(&next));
        retire(&previous, &next);
        if is_complete && let Some(guard) = self.guard.take() {
            guard.release();
        }
    }
}

/// Waits for that time, for ever if there is none.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
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
    let settings = &facts.config.settings;
    let clusters = settings
        .clusters
        .iter()
        .map(|cluster| (cluster.name.clone(), self::cluster(previous, cluster, facts, now)))
        .collect();
    let is_intercepted = settings.bootstrap.intercept.is_some();
    Snapshot {
        version: previous.version + 1,
        config: Arc::clone(facts.config),
        identity: facts.identity.clone(),
        addresses: if is_intercepted { addresses(&clusters) } else { Addresses::default() },
        outside: Arc::clone(facts.outside),
        clusters,
        routes: routes(&settings.clusters),
    }
}

/// The snapshot that a process would begin with: of the endpoints only those that the configuration names itself, and
/// nobody to be. For whoever asks what would become of a request.
#[must_use]
pub fn preview(settings: Arc<Settings>, now: Instant) -> Snapshot {
    let cluster = |of: &Arc<ClusterSettings>| {
        let listed = match &of.source {
            EndpointSource::Static(endpoints) => endpoints.as_slice(),
            EndpointSource::File { .. } | EndpointSource::Dns(_) | EndpointSource::Controller(_) => &[],
        };
        let (limits, runtime) = (Arc::clone(&settings.limits), Arc::new(ClusterRuntime::new(now)));
        let cluster = Cluster::new(Arc::clone(of), limits, endpoints(None, listed, now), runtime);
        (of.name.clone(), Arc::new(cluster))
    };
    let clusters = settings.clusters.iter().map(cluster).collect();
    Snapshot {
        version: 1,
        identity: None,
        addresses: addresses(&clusters),
        outside: Arc::default(),
        routes: routes(&settings.clusters),
        clusters,
        config: Arc::new(Generation::first(settings)),
    }
}

fn cluster(
    previous: &Snapshot,
    settings: &Arc<ClusterSettings>,
    facts: &Facts<'_>,
    now: Instant,
) -> Arc<Cluster> {
    let (lists, limits, zone) = (facts.lists, &facts.config.settings.limits, &facts.config.settings.zone);
    let before = previous.cluster(&settings.name);
    let listed = lists.endpoints(&settings.name).map(|list| &**list).unwrap_or_default();
    // Another way to the same address is another endpoint: no connection that was made the old way may be used.
    let same_way = before.filter(|before| before.settings.transport == settings.transport);
    let endpoints = endpoints(same_way, listed, now);
    let public = facts.public.of(&settings.name).cloned();
    if let Some(before) = before
        && *before.settings == **settings
        && before.limits == *limits
        && before.zone == *zone
        && is_same(&before.endpoints, &endpoints)
        && before.public.as_ref().map(Arc::as_ptr) == public.as_ref().map(Arc::as_ptr)
    {
        return Arc::clone(before);
    }
    let runtime = before.map_or_else(
        || {
            let fresh = ClusterRuntime::new(now);
            let discovery = lists.status(&settings.name).unwrap_or(&fresh.discovery);
            Arc::new(ClusterRuntime { discovery: Arc::clone(discovery), ..fresh })
        },
        |before| Arc::clone(&before.runtime),
    );
    let limiters = RateLimiters::new(settings, before.map(|before| &*before.limiters), now);
    let (settings, limits) = (Arc::clone(settings), Arc::clone(limits));
    let rest = Cluster::new(settings, limits, endpoints, runtime);
    Arc::new(Cluster { zone: zone.clone(), public, limiters: Arc::new(limiters), ..rest })
}

/// The listed endpoints in their order, each once; those that were there before are taken over with their
/// counters, whatever else is said of them now.
fn endpoints(before: Option<&Arc<Cluster>>, listed: &[EndpointSettings], now: Instant) -> Vec<Arc<Endpoint>> {
    let before = before.map(|cluster| cluster.endpoints.as_slice()).unwrap_or_default();
    let known: HashMap<_, _> = before.iter().map(|endpoint| (key(&endpoint.settings), endpoint)).collect();
    let mut seen = HashSet::with_capacity(listed.len());
    let mut endpoints = Vec::with_capacity(listed.len());
    for settings in listed.iter().filter(|settings| seen.insert(key(settings))) {
        let endpoint = match known.get(&key(settings)) {
            Some(endpoint) if endpoint.settings == *settings => Arc::clone(endpoint),
            known => {
                let runtime = known.map(|endpoint| Arc::clone(&endpoint.runtime));
                let runtime = runtime.unwrap_or_else(|| Arc::new(EndpointRuntime::new(now)));
                Arc::new(Endpoint { settings: settings.clone(), runtime, client: None })
            }
        };
        endpoints.push(endpoint);
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

/// Addresses to clusters. `config` has made the services' unique.
fn addresses(clusters: &IndexMap<ClusterName, Arc<Cluster>>) -> Addresses {
    let mut addresses = Addresses::default();
    for (name, cluster) in clusters.iter().filter(|(name, _)| !name.is_inbound()) {
        for address in &cluster.settings.addresses {
            addresses.services.entry(*address).or_insert_with(|| name.clone());
        }
        for endpoint in &cluster.endpoints {
            let address = endpoint.address();
            // The kernel says IPv4 as such, however it is written here.
            let dialled = SocketAddr::new(address.ip().to_canonical(), address.port());
            let known = addresses.endpoints.entry(dialled);
            known.or_insert_with(|| (name.clone(), Arc::clone(endpoint)));
        }
    }
    addresses
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
