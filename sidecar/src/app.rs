//! The composition root: the only file that knows every part.
//!
//! ```text
//!   identity ┐                        ┌▶ worker 0: accept loops, connections
//!            ├▶ publish ──snapshot──▶ ├▶ worker 1 …
//!   discovery┘                        └▶ admin
//! ```
//! Listeners are bound only when the first certificate and the first endpoints are there: a sidecar that takes over from
//! another must not take connections that it cannot serve yet.

use std::{io, net::SocketAddr, sync::Arc};

use futures_util::future::join_all;
use indexmap::IndexMap;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    accept::{self, Admission},
    clock::Clock,
    connect::{connector::Connector, dial::Dialer, reclaim::Hub},
    discovery::{Configured, Sources},
    drain::{self, Drains, Phase},
    identity::{self, public::PublicFiles, source::Source, tls_configs::TlsBase},
    memory,
    model::{
        EndpointSettings, Listener, Settings, file::parse_endpoints, load::Load, runtime::ListenerRuntime,
        settings::Limits, snapshot::Snapshots, status::IdentityStatus, transport::ExpectedIds,
    },
    net::{self, Listener as _, Net},
    pipeline::{
        serve,
        worker::{Shared, Worker},
    },
    publish,
    readiness::Readiness,
    tls::trust,
};

/// What readiness waits for last.
const LISTENERS: &str = "listeners";

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
    /// What it was configured with.
    pub settings: Arc<Settings>,
    /// Its clocks.
    pub clock: Clock,
    /// The newest facts.
    pub snapshots: Snapshots,
    /// What it still waits for.
    pub readiness: Readiness,
    /// How far it has stopped.
    pub drains: Drains,
    /// Counters per listener, by name.
    pub listeners: Arc<IndexMap<Arc<str>, Arc<ListenerRuntime>>>,
    /// How it goes with the certificate.
    pub identity: Arc<IdentityStatus>,
    /// Where workers ask each other for room under a shared cap.
    pub hub: Hub,
    /// What the process carries, and may carry.
    pub load: Arc<Load>,
    /// Cancelled when a worker ended that should not have: nothing can be served rightly any more.
    pub broken: CancellationToken,
}

/// Where a running sidecar listens: the real ports, by listener name.
pub type Addresses = IndexMap<Arc<str>, SocketAddr>;

impl App {
    /// Starts the control side on the calling runtime: identity, discovery, publication.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn start<N: Net>(settings: Settings, world: &World<N>, parts: Parts) -> Result<Self, Error> {
        let settings = Arc::new(settings);
        let (clock, readiness) = (world.clock.clone(), Readiness::default());
        let bootstrap = &settings.bootstrap;
        let identity = match parts.identity {
            Some(source) => identity::start_with(source, &bootstrap.tls, &clock, &readiness)?,
            None => identity::start(bootstrap, &world.net, &clock, &readiness)?,
        };
        let snapshots = Snapshots::default();
        let inputs = publish::Inputs {
            settings: watch::Sender::new(Arc::clone(&settings)).subscribe(),
            identity: identity.identity,
            sources: parts.sources,
            public: PublicFiles::new(TlsBase::new(&bootstrap.tls, &clock)?, &clock),
        };
        publish::start(inputs, snapshots.clone(), &clock, &readiness);
        let load = Arc::new(load(&bootstrap.limits, world.workers));
        memory::watch(&load);
        let listeners = settings.listeners.iter().map(|l| (Arc::clone(&l.name), Arc::default())).collect();
        Ok(Self {
            clock,
            snapshots,
            readiness,
            drains: Drains::default(),
            listeners: Arc::new(listeners),
            identity: identity.status,
            hub: Hub::default(),
            load,
            broken: CancellationToken::new(),
            settings,
        })
    }

    /// Waits for the first certificate and the first endpoints, then starts the workers and their listeners.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn serve<N: Net>(&self, world: &World<N>) -> Result<Addresses, Error> {
        let guard = self.readiness.block(LISTENERS);
        self.first_snapshot().await?;
        let mut addresses = Addresses::new();
        for index in 0..self.settings.bootstrap.workers.get() {
            addresses = self.start_worker(world, index, addresses).await?;
        }
        guard.release();
        Ok(addresses)
    }

    async fn first_snapshot(&self) -> Result<(), Error> {
        let mut watcher = self.drains.outbound.watcher();
        tokio::select! {
            biased;
            () = watcher.reached(Phase::Draining) => Err(Error::Stopped),
            () = self.readiness.until_only(LISTENERS) => {
                self.snapshots.until(|snapshot| snapshot.identity.is_some()).await;
                Ok(())
            }
        }
    }

    /// Starts one worker. The first finds out the real addresses; the others share them.
    async fn start_worker<N: Net>(
        &self,
        world: &World<N>,
        index: usize,
        addresses: Addresses,
    ) -> Result<Addresses, Error> {
        let (bound, is_bound) = oneshot::channel();
        let app = self.clone();
        let net = world.net.clone();
        let work = async move { app.work(net, addresses, bound).await };
        match world.workers {
            Workers::Tasks => drain::spawn_background(work),
            Workers::Threads => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(Error::Worker)?;
                std::thread::Builder::new()
                    .name(format!("worker-{index}"))
                    .spawn(move || runtime.block_on(work))
                    .map_err(Error::Worker)?;
            }
        }
        is_bound.await.map_err(|_gone| Error::WorkerEnded)?
    }

    /// One worker's life: bind, accept, and stay until everything it carries has ended.
    async fn work<N: Net>(
        self,
        net: N,
        addresses: Addresses,
        bound: oneshot::Sender<Result<Addresses, Error>>,
    ) {
        let (addresses, listeners) = match self.bind(&net, addresses) {
            Ok(listeners) => listeners,
            Err(error) => {
                drop(bound.send(Err(error)));
                return;
            }
        };
        if bound.send(Ok(addresses)).is_err() {
            return;
        }
        // A panic of ours in here ends the thread; the process must not go on without it.
        let broken = self.broken.clone().drop_guard();
        let (settings, snapshots, load) =
            (Arc::clone(&self.settings), self.snapshots.clone(), Arc::clone(&self.load));
        let trust = trust::Registry::new(self.clock.clone(), Arc::clone(&self.identity));
        let connector = Connector::new(Dialer { net, trust }, &self.hub, &self.clock);
        let shared =
            Shared { settings, snapshots, clock: self.clock.clone(), drains: self.drains.clone(), load };
        let worker = Worker::start(connector, shared);
        let accepting =
            listeners.into_iter().map(|(listener, socket)| self.accept(&worker, listener, socket));
        join_all(accepting).await;
        self.drains.finished().await;
        worker.connector.clear();
        broken.disarm();
    }

    fn bind<N: Net>(&self, net: &N, known: Addresses) -> Result<(Addresses, Bound<N>), Error> {
        let mut addresses = Addresses::new();
        let mut sockets = Vec::new();
        for listener in &self.settings.listeners {
            let address = known.get(&listener.name).copied().unwrap_or(listener.address);
            let failed = |source| Error::Bind { listener: Arc::clone(&listener.name), address, source };
            let socket = net.bind(address).map_err(failed)?;
            addresses.insert(Arc::clone(&listener.name), socket.local_addr().map_err(failed)?);
            sockets.push((Arc::new(listener.clone()), socket));
        }
        Ok((addresses, sockets))
    }

    async fn accept<N: Net>(&self, worker: &Arc<Worker<N>>, listener: Arc<Listener>, socket: N::Listener) {
        let counts = self.listeners.get(&listener.name).cloned().unwrap_or_default();
        let drain = self.drains.of(&listener).clone();
        let admission = Admission {
            max_connections: self.settings.bootstrap.limits.max_connections,
            counts: Arc::clone(&counts),
            load: Arc::clone(&self.load),
            sheds_on_memory: listener.is_inbound(),
        };
        accept::run(socket, admission, drain, |stream, peer| {
            serve::serve(Arc::clone(worker), Arc::clone(&listener), Arc::clone(&counts), stream, peer)
        })
        .await;
    }

    /// Stops: no new work, what is in flight ends, within the configured deadline.
    pub async fn drain(&self) {
        let (settings, drains) = (&self.settings.bootstrap.drain, &self.drains);
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

type Bound<N> = Vec<(Arc<Listener>, <N as Net>::Listener)>;

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
