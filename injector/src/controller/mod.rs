//! `outrider-controller`: the only part of the mesh that watches the cluster, and tells each sidecar what its app uses of it.
//!
//! ```text
//!   API server ──watches──▶ events ──▶ model (objects) ──▶ subscriptions (who asked for what) ──▶ streams ──▶ sidecars
//!                                        pure                pure                                   mutual TLS
//! ```
//! `docs/controller.md` describes what operators see of it. Read in this order:
//!
//! | module | what it holds |
//! |---|---|
//! | [`model`] | the cluster as sidecars see it; pure |
//! | [`gateway`] | routes of the Gateway API; pure |
//! | [`subscriptions`] | who asks for what, what has been told, what is next; pure |
//! | [`election`] | who of the replicas writes; pure |
//! | [`kubernetes`] | watches, the Lease, the trust bundle's ConfigMaps, statuses of routes |
//! | [`wire`] | connections and streams of sidecars; `/live`, `/ready`, `/metrics` |
//! | [`identity`], [`metrics`], [`cli`] | our certificate, our numbers, our flags |
//!
//! # Invariants
//! - A sidecar is told what it asked for and nothing else, and always the newest: nothing waits in a queue for it.
//! - No sidecar waits for another: whatever one does not read is not made.
//! - While the API server is away, what is known stays and is told. Before it was known once, nothing is told.

pub mod cli;
pub mod election;
pub mod gateway;
pub mod identity;
pub mod kubernetes;
pub mod metrics;
pub mod model;
pub mod subscriptions;
pub mod wire;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use kube::Client;
use outrider::{
    clock::Clock,
    drain,
    identity::{source::Source, tls_configs::TlsBase},
    model::Identity,
};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use self::{
    election::Election,
    kubernetes::{
        api::{ApiNamespace, ApiPod, ApiService, ApiSlice, Watched},
        bundle, lease,
        policies::{ApiAuthorizationPolicy, ApiTrafficPolicy},
        routes::{ApiGrant, ApiGrpcRoute, ApiHttpRoute},
        statuses,
        watch::{bounded, watch},
    },
    metrics::Metrics,
    model::{
        objects::{Event, Kind, Name},
        value::World,
    },
    subscriptions::{Hub, MaxWants},
    wire::{
        desk::Desk,
        server::{Server, Tasks},
    },
};

/// Events that wait to be taken in; who watches waits if there are more.
const EVENTS: usize = 1024;

/// Bounds of the server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Streams at a time.
    pub streams: usize,
    /// Streams at a time of one SPIFFE ID, which all replicas of a workload share.
    pub streams_of_identity: usize,
    /// Destinations that streams may want.
    pub wants: MaxWants,
    /// Time for a TLS handshake.
    pub handshake_timeout: Duration,
    /// Time for streams to end when the controller stops.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            streams: 20_000,
            streams_of_identity: 5000,
            // Some 1.2 KiB each if nobody else wants the same, 240 MiB in all: beside a cluster it fits the 512 MiB that the chart
            // gives, and is what 5,000 sidecars want that call 40 services each.
            wants: MaxWants { of_identity: 20_000, of_all: 200_000 },
            handshake_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(10),
        }
    }
}

/// What a controller goes by.
pub struct Options {
    /// How the API server is reached.
    pub kube: kube::Config,
    /// Where our certificate comes from.
    pub source: Arc<dyn Source>,
    /// Algorithms of TLS.
    pub tls: TlsBase,
    /// The cluster's domain and the mesh's.
    pub world: World,
    /// The namespace of the Lease: our own.
    pub namespace: String,
    /// The name in the Lease, which no other replica has.
    pub name: String,
    /// How long a watch lasts before it is begun anew.
    pub watch_seconds: u32,
    /// Bounds.
    pub limits: Limits,
}

/// Serves sidecars on `listener` and operators on `status` until `stop`, then lets streams end.
///
/// # Errors
/// When no client for the API server can be made.
pub async fn serve(
    mut options: Options,
    (listener, status): (TcpListener, TcpListener),
    clock: Clock,
    stop: CancellationToken,
) -> kube::Result<()> {
    options.watch_seconds = options.watch_seconds.max(1);
    options.kube = bounded(options.kube, options.watch_seconds);
    let metrics = Arc::new(Metrics::new(clock.now()));
    let epoch = clock.fork_rng().u64(1..);
    let hub = Hub::new(options.world.clone(), epoch, options.limits.wants);
    let desk = Arc::new(Desk::new(hub, options.limits.clone()));
    let identity = identity::start(Arc::clone(&options.source), options.tls.clone());
    let due = Arc::new(Notify::new());
    let namespaces = feed(&options, (&desk, &due), &metrics, &clock);
    let client = Client::try_from(options.kube.clone())?;
    let (leads, leading) = watch::channel(false);
    let election = Election::new(options.name.clone());
    let campaign =
        lease::run(client.clone(), options.namespace.clone(), election, clock.clone(), (leads, stop.clone()));
    let inputs = bundle::Inputs {
        leads: leading.clone(),
        roots: roots_of(&options.world, identity.clone()),
        namespaces,
        metrics: Arc::clone(&metrics),
    };
    drain::spawn_background(bundle::run(client.clone(), inputs));
    let inputs = statuses::Inputs {
        leads: leading.clone(),
        desk: Arc::clone(&desk),
        due,
        clock: clock.clone(),
        metrics: Arc::clone(&metrics),
    };
    drain::spawn_background(statuses::run(client, inputs));
    drain::spawn_background(show_leader(leading, Arc::clone(&metrics)));
    let grace = options.limits.grace;
    let tasks = Tasks::new(stop);
    let server = Server {
        desk,
        identity,
        limits: options.limits,
        connections: Arc::default(),
        metrics,
        clock: clock.clone(),
        tasks: tasks.clone(),
    };
    let server = Arc::new(server);
    tokio::join!(
        Arc::clone(&server).serve_sidecars(listener),
        server.serve_status(status),
        Box::pin(campaign),
    );
    tasks.finish(grace).await;
    Ok(())
}

/// Starts the watches and takes in what they learn. The namespaces with the mesh come out; `None` until all is known.
fn feed(
    options: &Options,
    (desk, due): (&Arc<Desk>, &Arc<Notify>),
    metrics: &Arc<Metrics>,
    clock: &Clock,
) -> watch::Receiver<Option<Arc<BTreeSet<Name>>>> {
    let (events, taken) = mpsc::channel(EVENTS);
    start::<ApiNamespace>(options, metrics, clock, &events);
    start::<ApiService>(options, metrics, clock, &events);
    start::<ApiSlice>(options, metrics, clock, &events);
    start::<ApiPod>(options, metrics, clock, &events);
    start::<ApiHttpRoute>(options, metrics, clock, &events);
    start::<ApiGrpcRoute>(options, metrics, clock, &events);
    start::<ApiGrant>(options, metrics, clock, &events);
    start::<ApiTrafficPolicy>(options, metrics, clock, &events);
    start::<ApiAuthorizationPolicy>(options, metrics, clock, &events);
    let (to, namespaces) = watch::channel(None);
    let own = Name::from(options.namespace.as_str());
    drain::spawn_background(take(taken, Arc::clone(desk), Arc::clone(due), (to, own)));
    namespaces
}

fn start<K: Watched>(options: &Options, metrics: &Metrics, clock: &Clock, events: &mpsc::Sender<Event>) {
    let Some(status) = metrics.watches.get(&K::KIND) else { return };
    let (config, events) = (options.kube.clone(), events.clone());
    drain::spawn_background(watch::<K>(
        config,
        Arc::clone(status),
        clock.clone(),
        events,
        options.watch_seconds,
    ));
}

async fn take(
    mut events: mpsc::Receiver<Event>,
    desk: Arc<Desk>,
    due: Arc<Notify>,
    (namespaces, own): (watch::Sender<Option<Arc<BTreeSet<Name>>>>, Name),
) {
    let (mut batch, mut listed, mut meshes) = (Vec::new(), HashSet::new(), None);
    while events.recv_many(&mut batch, EVENTS).await > 0 {
        let ends = batch.iter().filter_map(|event| match event {
            Event::ListEnds(kind) => Some(*kind),
            Event::ListBegins(_) | Event::Set(_) | Event::Gone(..) => None,
        });
        listed.extend(ends);
        desk.apply(batch.drain(..));
        if listed.len() < Kind::ALL.len() {
            continue;
        }
        if !desk.is_synced() {
            desk.set_synced();
            tracing::info!("the cluster is known");
        }
        if desk.is_unsettled() {
            due.notify_one();
        }
        let newest = desk.look(|cluster, _| cluster.meshes());
        if meshes.replace(newest) != Some(newest) {
            // Our own is the CA's to write: whoever made the roots knows them first.
            let mut meshed = desk.meshed_namespaces();
            meshed.remove(&own);
            namespaces.send_replace(Some(Arc::new(meshed)));
        }
    }
}

/// The roots of our trust domain, whenever they change.
fn roots_of(
    world: &World,
    mut identity: watch::Receiver<Option<Arc<Identity>>>,
) -> watch::Receiver<Option<Arc<bundle::Roots>>> {
    let (to, bundle) = watch::channel(None);
    let trust_domain = world.trust_domain.clone();
    drain::spawn_background(async move {
        loop {
            let newest = identity.borrow_and_update().clone();
            let roots = newest.as_ref().and_then(|identity| identity.bundles.get(&trust_domain));
            if let Some(roots) = roots {
                let roots = bundle::Roots { pem: roots.to_pem(), sequence: roots.sequence() };
                to.send_if_modified(|before: &mut Option<Arc<bundle::Roots>>| {
                    let is_new = before.as_deref() != Some(&roots);
                    if is_new {
                        *before = Some(Arc::new(roots));
                    }
                    is_new
                });
            }
            if identity.changed().await.is_err() {
                return to.closed().await;
            }
        }
    });
    bundle
}

async fn show_leader(mut leads: watch::Receiver<bool>, metrics: Arc<Metrics>) {
    loop {
        metrics.leader.set(i64::from(*leads.borrow_and_update()));
        if leads.changed().await.is_err() {
            return;
        }
    }
}
