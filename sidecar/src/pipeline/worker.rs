//! What one worker owns: its connections, its randomness, and its view of the world.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    accept::Handshakes,
    clock::Clock,
    connect::{dial::Dialer, negotiate::Negotiator, pool::Pool, tcp_pool::TcpPool},
    drain::{Drains, Phase},
    model::{load::Load, snapshot::Snapshots},
    net::Net,
    relay::body::Streams,
};

/// How often idle connections are looked at, and whether peers are still trusted.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

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
    /// For connections that are not kept.
    pub dialer: Dialer<N>,
    /// What the process carries, and may carry.
    pub load: Arc<Load>,
    /// Handshakes of peers under way.
    pub handshakes: Handshakes,
    rng: Mutex<fastrand::Rng>,
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
}

impl<N: Net> Worker<N> {
    /// A worker without connections. Starts the sweeper, so call it inside the worker's runtime.
    #[must_use]
    pub fn start(dialer: Dialer<N>, shared: Shared) -> Arc<Self> {
        let Shared { snapshots, clock, drains, load } = shared;
        let handshakes = Handshakes::new(snapshots.load().config.settings.limits.max_handshakes);
        let worker = Arc::new(Self {
            snapshots,
            pool: Pool::new(dialer.clone()),
            negotiator: Negotiator::new(dialer.clone()),
            tcp_pool: TcpPool::new(dialer.clone()),
            streams: Streams::default(),
            dialer,
            load,
            handshakes,
            rng: Mutex::new(clock.fork_rng()),
            clock,
            drains,
        });
        crate::drain::spawn_background(sweep(Arc::clone(&worker)));
        worker
    }

    /// The moment.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Lets a decision draw from this worker's randomness. Never waits: only this worker's thread uses it.
    pub fn with_rng<T>(&self, decide: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        decide(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
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
            worker.dialer.trust.judge(&identity.bundles).await;
        }
        worker.handshakes.set_max(snapshot.config.settings.limits.max_handshakes);
        let now = worker.now();
        worker.pool.sweep(&snapshot, now);
        worker.tcp_pool.sweep(&snapshot, now);
        worker.streams.sweep(now);
    }
}
