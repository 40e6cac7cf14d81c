//! What one worker owns: its connections, its randomness, and its view of the world.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{live::Live, originals::Originals, verdict, waiting};
use crate::{
    accept::Handshakes,
    clock::Clock,
    connect::{connector::Connector, negotiate::Negotiator, pool::Pool, reclaim::Mailbox, tcp_pool::TcpPool},
    drain::{Drains, Phase},
    model::{load::Load, snapshot::Snapshots, wanted::Wanted},
    net::Net,
    relay::body::Streams,
    telemetry::Observer,
};

/// How often idle connections are looked at, and whether peers are still trusted, and what is under way allowed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Sets the randomness of traces apart from that of decisions: π's first digits, which mean nothing here.
const TRACE_SEED: u64 = 0x243F_6A88_85A3_08D3;

/// One worker. Its connections' tasks share it; other workers have their own.
#[derive(Debug)]
pub struct Worker<N: Net> {
    /// The newest facts.
    pub snapshots: Snapshots,
    /// Time.
    pub clock: Clock,
    /// Whether we are stopping.
    pub drains: Drains,
    /// HTTP connections upstream.
    pub pool: Pool<N>,
    /// What servers outside the mesh like to speak.
    pub negotiator: Negotiator<N>,
    /// Framed connections upstream.
    pub tcp_pool: TcpPool<N>,
    /// Response bodies under way.
    pub streams: Streams,
    /// What is under way for the own app, and by whose leave.
    pub live: Arc<Live>,
    /// What the pools keep, and how they come by more.
    pub connector: Arc<Connector<N>>,
    /// What the process carries, and may carry.
    pub load: Arc<Load>,
    /// Handshakes of peers under way.
    pub handshakes: Handshakes,
    /// Whom intercepted connections were made to.
    pub originals: Originals,
    /// Whom requests are told of.
    pub observer: Arc<Observer>,
    /// What the own app tries to reach and nobody knows.
    pub wanted: Arc<Wanted>,
    rng: Mutex<fastrand::Rng>,
    /// For what is only told, and decides nothing: traces that come and go leave decisions as they are.
    trace_rng: Mutex<fastrand::Rng>,
}

/// What all workers have in common.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The newest facts.
    pub snapshots: Snapshots,
    /// Time.
    pub clock: Clock,
    /// Whether we are stopping.
    pub drains: Drains,
    /// What the process carries, and may carry.
    pub load: Arc<Load>,
    /// Whom requests are told of.
    pub observer: Arc<Observer>,
    /// What the own app tries to reach and nobody knows.
    pub wanted: Arc<Wanted>,
}

impl<N: Net> Worker<N> {
    /// A worker without connections. Starts its sweeper, and what makes room for other workers, so call it inside the
    /// worker's runtime.
    #[must_use]
    pub fn start((connector, mailbox): (Arc<Connector<N>>, Mailbox), shared: Shared) -> Arc<Self> {
        let Shared { snapshots, clock, drains, load, observer, wanted } = shared;
        let handshakes = Handshakes::new(snapshots.load().config.settings.limits.max_handshakes);
        let rng = clock.fork_rng();
        let trace_rng = fastrand::Rng::with_seed(rng.get_seed() ^ TRACE_SEED).fork();
        let worker = Arc::new(Self {
            snapshots,
            pool: Pool::new(Arc::clone(&connector)),
            negotiator: Negotiator::new(Arc::clone(&connector)),
            tcp_pool: TcpPool::new(Arc::clone(&connector)),
            streams: Streams::default(),
            live: Arc::default(),
            connector,
            load,
            handshakes,
            originals: Originals::default(),
            observer,
            wanted,
            rng: Mutex::new(rng),
            trace_rng: Mutex::new(trace_rng),
            clock,
            drains,
        });
        crate::drain::spawn_background(sweep(Arc::clone(&worker)));
        crate::drain::spawn_background(make_room(Arc::clone(&worker), mailbox));
        worker
    }

    /// The moment.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Whether an address is the host's own, whatever its port.
    #[must_use]
    pub fn is_own(&self, address: SocketAddr) -> bool {
        let net = &self.connector.dialer.net;
        self.originals.is_own(address, || net.is_own(address))
    }

    /// Lets a decision draw from this worker's randomness. Never waits: only this worker's thread uses it.
    pub fn with_rng<T>(&self, decide: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        decide(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same for the IDs of traces and spans, and for what is logged.
    pub fn with_trace_rng<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.trace_rng.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn sweep<N: Net>(worker: Arc<Worker<N>>) {
    let mut watcher = worker.drains.outbound.watcher();
    loop {
        tokio::select! {
            biased;
            () = watcher.reached(Phase::Forced) => return,
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
        let snapshot = worker.snapshots.load();
        if let Some(identity) = &snapshot.identity {
            worker.connector.dialer.trust.judge(&identity.bundles).await;
        }
        worker.handshakes.set_max(snapshot.config.settings.limits.max_handshakes);
        let now = worker.now();
        worker.connector.sweep(now, &snapshot);
        waiting::sweep(&snapshot, now);
        // First: bodies that are allowed no more are ended with the others.
        worker.live.judge(&worker).await;
        worker.streams.sweep(now);
        verdict::look(&worker, &snapshot);
    }
}

/// Closes unused connections where another worker needs their slots under a cluster's cap.
async fn make_room<N: Net>(worker: Arc<Worker<N>>, mailbox: Mailbox) {
    let mut watcher = worker.drains.outbound.watcher();
    tokio::select! {
        biased;
        () = watcher.reached(Phase::Forced) => {}
        () = mailbox.answer(|cluster| worker.connector.reclaim(cluster)) => {}
    }
}
