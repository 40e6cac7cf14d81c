//! The composition root: the only file that knows every part.
//!
//! ```text
//!   identity ┐                        ┌▶ worker 0: accept loops, connections
//!            ├▶ publish ──snapshot──▶ ├▶ worker 1 …
//!   discovery┘                        └▶ admin
//! ```
//! Listeners are bound only when the first certificate and the first endpoints are there: a sidecar that takes over from
//! another must not take connections that it cannot serve yet.

mod joined;
mod listening;
mod reload;
mod worker;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use indexmap::IndexMap;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use self::{joined::Halves, listening::Listening};
use crate::{
    accept,
    clock::Clock,
    connect::reclaim::Hub,
    discovery::{
        Configured, Sources,
        controller::{self, Told, WithController},
    },
    drain::{self, Drains, Phase},
    identity::{self, public::PublicFiles, source::Source, tls_configs::TlsBase},
    memory,
    model::{
        EndpointSettings, Generation, Settings, Snapshot, controller::ControllerStatus,
        file::parse_endpoints, load::Load, settings::Limits, snapshot::Snapshots, status::IdentityStatus,
        transport::ExpectedIds, wanted::Wanted,
    },
    net::{self, Net},
    publish,
    readiness::Readiness,
    telemetry::{self, Consumers, Finisher, Insight, Observer, export::Dialing},
};

pub use reload::Rejected;

/// What readiness waits for last.
const LISTENERS: &str = "listeners";
/// What readiness waits for where a controller is asked: its first word.
const CONTROLLER: &str = "controller";
/// What readiness waits for in a pod: that it is in force who may call, as the controller says it.
const WORKLOAD: &str = "workload";
/// For what was told of requests and waits to be sent, when all else is over.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why a sidecar did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configured TLS algorithms cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] identity::tls_configs::Error),
    /// An address cannot be listened on.
    #[error(
        "listener `{listener}`: cannot listen on {address}: {source}; is another program using that port?"
    )]
    Bind {
        /// The listener's name.
        listener: Arc<str>,
        /// Its address.
        address: SocketAddr,
        /// As the operating system says.
        source: io::Error,
    },
    /// A data-path thread could not be started.
    #[error("cannot start a worker: {0}")]
    Worker(#[source] io::Error),
    /// A data-path thread ended before it was running.
    #[error("a worker ended while starting")]
    WorkerEnded,
    /// The drain began before the sidecar was up.
    #[error("told to stop before the sidecar was ready")]
    Stopped,
}

/// Where workers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// Each on an OS thread of its own, with its own runtime: production.
    Threads,
    /// As tasks of the calling runtime: simulations, which have one thread and virtual time.
    Tasks,
}

/// The world that a sidecar runs in.
#[derive(Debug)]
pub struct World<N> {
    /// How it reaches and is reached.
    pub net: N,
    /// Its clocks and randomness.
    pub clock: Clock,
    /// Where its workers run.
    pub workers: Workers,
}

/// Where facts come from, if not from where the configuration says: the seams for tests and simulations.
pub struct Parts {
    /// Instead of the configured source of identity.
    pub identity: Option<Arc<dyn Source>>,
    /// How endpoints are found.
    pub sources: Arc<dyn Sources>,
}

impl Default for Parts {
    fn default() -> Self {
        Self { identity: None, sources: Arc::new(Configured::new(parse)) }
    }
}

/// A sidecar that is starting or running.
#[derive(Clone, Debug)]
pub struct App {
    /// Its clocks.
    pub clock: Clock,
    /// The newest facts.
    pub snapshots: Snapshots,
    /// What it still waits for.
    pub readiness: Readiness,
    /// How far it has stopped.
    pub drains: Drains,
    /// How it goes with the certificate.
    pub identity: Arc<IdentityStatus>,
    /// Where workers ask each other for room under a shared cap.
    pub hub: Hub,
    /// What the process carries, and may carry.
    pub load: Arc<Load>,
    /// What is told of requests.
    pub observer: Arc<Observer>,
    /// Where that goes.
    pub watching: Finisher,
    /// What operators may ask of requests.
    pub insight: Arc<Insight>,
    /// What the own app tries to reach and nobody knows.
    pub wanted: Arc<Wanted>,
    /// How it goes with the controller.
    pub controller: Arc<ControllerStatus>,
    /// Cancelled when a worker ended that should not have: nothing can be served rightly any more.
    pub broken: CancellationToken,
    /// The newest limit: connections per listener.
    max_connections: Arc<AtomicUsize>,
    /// The configuration that is wanted; in force once the snapshot says so.
    config: watch::Sender<Arc<Generation>>,
    /// What the file says, and what the controller says.
    halves: Arc<Halves>,
    /// Held over waits, of the control side alone: one change of the configuration at a time.
    listening: Arc<Mutex<Listening>>,
}

/// Where a running sidecar listens: the real ports, by listener name.
pub type Addresses = IndexMap<Arc<str>, SocketAddr>;

impl App {
    /// Starts the control side on the calling runtime: identity, discovery, publication.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn start<N: Net>(settings: Settings, world: &World<N>, parts: Parts) -> Result<Self, Error> {
        let (clock, readiness) = (world.clock.clone(), Readiness::default());
        let (wanted, fragments) = (Arc::<Wanted>::default(), watch::Sender::default());
        let status = Arc::new(ControllerStatus::new(clock.now()));
        let file = Arc::new(settings);
        let halves = Halves::new(Arc::clone(&file), fragments.subscribe(), Arc::clone(&status));
        // Also before its first word the controller has a say: nobody may call before it.
        let config = watch::Sender::new(Arc::new(Generation::first(Arc::new(halves.join(&file)))));
        let first = Arc::clone(&config.borrow());
        let bootstrap = &first.settings.bootstrap;
        let identity = identity::start(parts.identity, config.subscribe(), &world.net, &clock, &readiness)?;
        let snapshots = Snapshots::new(Snapshot::empty(Arc::clone(&first)));
        let (lists, outside) = (Told::default(), watch::Sender::default());
        let inputs = publish::Inputs {
            config: config.subscribe(),
            identity: identity.identity,
            sources: Arc::new(WithController { others: parts.sources, told: lists.clone() }),
            public: PublicFiles::new(TlsBase::new(&bootstrap.tls, &clock)?, &clock),
            outside: outside.subscribe(),
        };
        publish::start(inputs, snapshots.clone(), &clock, &readiness);
        let limits = &first.settings.limits;
        let load = Arc::new(load(limits, world.workers));
        memory::watch(&load);
        let max_connections = Arc::new(AtomicUsize::new(limits.max_connections));
        let (observer, arriving) = Observer::new();
        let insight = Insight::new(&clock);
        let (dialing, told) = (Dialing::by(&world.net), &observer);
        let consumers = Consumers::new(&dialing, &clock, &told.exports, &told.records, &insight);
        let watching = telemetry::watch(arriving, consumers, snapshots.clone());
        let weak = (Arc::downgrade(&insight), Arc::downgrade(&observer));
        drain::spawn_background(telemetry::ring::keep(weak.0, weak.1, snapshots.clone(), clock.clone()));
        telemetry::metrics::tidy(&observer, &clock);
        if let Some(settings) = bootstrap.controller.clone() {
            controller::start(controller::Inputs {
                settings,
                net: world.net.clone(),
                clock: clock.clone(),
                snapshots: snapshots.clone(),
                wanted: Arc::clone(&wanted),
                told: lists,
                fragments,
                outside,
                status: Arc::clone(&status),
                guard: readiness.block(CONTROLLER),
            });
        }
        let app = Self {
            clock,
            snapshots,
            readiness,
            drains: Drains::default(),
            identity: identity.status,
            hub: Hub::default(),
            load,
            observer,
            watching,
            insight,
            wanted,
            controller: status,
            broken: CancellationToken::new(),
            max_connections,
            config,
            halves: Arc::new(halves),
            listening: Arc::default(),
        };
        if let Some(settings) = &first.settings.bootstrap.controller {
            app.follow_controller(settings.pod.is_some());
        }
        Ok(app)
    }

    /// Waits for the first certificate and the first endpoints, then starts the workers and their listeners.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn serve<N: Net>(&self, world: &World<N>) -> Result<Addresses, Error> {
        let guard = self.readiness.block(LISTENERS);
        self.first_snapshot().await?;
        match self.listen(world).await {
            Ok(addresses) => {
                guard.release();
                Ok(addresses)
            }
            Err(error) => {
                // The workers that did start have nothing to stay for.
                self.drains.advance(Phase::Forced);
                Err(error)
            }
        }
    }

    async fn listen<N: Net>(&self, world: &World<N>) -> Result<Addresses, Error> {
        let mut listening = self.listening.lock().await;
        for index in 0..self.settings().bootstrap.workers.get() {
            listening.add_worker(self.start_worker(world, index)?);
        }
        let config = Arc::clone(&self.config.borrow());
        let bound = listening.bind(&config).await?;
        listening.serve(self, &config, bound).await;
        Ok(listening.addresses(&config))
    }

    /// The number of the configuration in force.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.snapshots.load().config.number
    }

    /// The configuration in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.snapshots.load().config.settings)
    }

    async fn first_snapshot(&self) -> Result<(), Error> {
        let mut watcher = self.drains.outbound.watcher();
        tokio::select! {
            biased;
            () = watcher.reached(Phase::Draining) => Err(Error::Stopped),
            () = self.first_facts() => {
                self.snapshots.until(|snapshot| snapshot.identity.is_some()).await;
                Ok(())
            }
        }
    }

    /// Waits for certificate and endpoints; and a while for the controller, so that the first connection need not. Without it, we
    /// listen all the same: peers can be served.
    async fn first_facts(&self) {
        self.readiness.until_only(&[LISTENERS, CONTROLLER, WORKLOAD]).await;
        let controller = self.settings().bootstrap.controller.clone();
        let wait = controller.map(|controller| controller.wait).unwrap_or_default();
        let is_there = self.readiness.until_only(&[LISTENERS, WORKLOAD]);
        if tokio::time::timeout(wait, is_there).await.is_err() && !wait.is_zero() {
            tracing::warn!("the controller has said nothing yet: we serve peers, and are not ready");
        }
    }

    /// Stops: no new work, what is in flight ends, within the configured deadline.
    pub async fn drain(&self) {
        let (settings, drains) = (self.settings().drain.clone(), &self.drains);
        let mut finished = std::pin::pin!(drains.finished());
        drains.advance(Phase::Draining);
        tracing::info!(in_flight = drains.in_flight(), "draining: no new connections");
        let grace = settings.idle_grace.min(settings.deadline);
        if tokio::time::timeout(grace, &mut finished).await.is_err() {
            drains.advance(Phase::Closing);
            tracing::info!(in_flight = drains.in_flight(), "draining: closing idle connections");
            if tokio::time::timeout(settings.deadline - grace, &mut finished).await.is_err() {
                tracing::warn!(in_flight = drains.in_flight(), "drain deadline passed: closing what is left");
            }
        }
        drains.advance(Phase::Forced);
        self.watching.finish(LAST_WORDS).await;
        tracing::info!("drained");
    }

    /// Stops taking calls of peers; the own app may still call out. What is in flight goes on.
    pub fn drain_inbound(&self) {
        self.drains.inbound.advance(Phase::Draining);
        tracing::info!(
            in_flight = self.drains.inbound.in_flight(),
            "draining inbound: no new connections of peers"
        );
    }
}

/// The process's bounds. Simulated sidecars have no memory of their own to look at.
fn load(limits: &Limits, workers: Workers) -> Load {
    let budget = match workers {
        Workers::Threads => memory::budget(limits.memory),
        Workers::Tasks => None,
    };
    let descriptors = net::descriptor_limit();
    let max_open = accept::max_open(descriptors);
    if max_open < limits.max_connections {
        tracing::warn!(
            descriptors,
            max_open,
            "limits.max_connections is above what the process may open; raise its limit of open files (`ulimit -Hn`, LimitNOFILE)"
        );
    }
    Load::new(max_open, budget)
}

fn parse(text: &str, expected: &ExpectedIds) -> Result<Vec<EndpointSettings>, String> {
    parse_endpoints(text, expected)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}
