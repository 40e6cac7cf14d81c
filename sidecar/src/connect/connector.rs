//! What one worker has by way of upstream connections, and how it comes by new ones.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    Error,
    dial::{Connection, Dialer, Speak},
    http_client::Http1,
    idle::{Bounds, Idles, Pooled, Said, State},
    place::{AGE_PERMILLE, Life, Place, Seat, Target, Terms},
    reclaim::{Hub, Mailbox, Member},
    shared::Shared,
};
use crate::{
    clock::Clock,
    model::{Cluster, ClusterName, Snapshot, pool_counts::Closed, runtime::ClusterRuntime},
    net::{Net, Stream},
    resilience::circuit_breaker::{self, ConnectionSlot, Overflow},
};

/// Unused connections of one worker; over a bound the oldest are closed. An endpoint has as many as a cluster may have
/// connections by default. A framed one costs a TLS session: more than these are rarely used again in time.
const BOUNDS: Bounds = Bounds { http1: 1024, framed: 64, total: 4096 };

/// An unused connection, for one message at a time.
#[derive(Debug)]
pub(super) enum Kept<S> {
    /// HTTP/1.
    Http1(Http1),
    /// Frames.
    Framed(Connection<S>),
}

/// All kept connections of one worker. No lock here is ever waited for: only the worker's thread takes it.
#[derive(Debug)]
pub(super) struct Store<S> {
    idles: Mutex<Idles<Kept<S>>>,
    shared: Mutex<Shared>,
}

/// Makes a worker's connections, and room for them.
#[derive(Debug)]
pub struct Connector<N: Net> {
    /// What it makes them with.
    pub dialer: Dialer<N>,
    store: Store<N::Stream>,
    member: Member,
    rng: Mutex<fastrand::Rng>,
}

impl<N: Net> Connector<N> {
    /// A connector without connections, in a process of many; whoever polls the mailbox answers the others.
    #[must_use]
    pub fn new(dialer: Dialer<N>, hub: &Hub, clock: &Clock) -> (Arc<Self>, Mailbox) {
        let (member, mailbox) = hub.join();
        let store = Store { idles: Mutex::new(Idles::new(BOUNDS)), shared: Mutex::default() };
        (Arc::new(Self { dialer, store, member, rng: Mutex::new(clock.fork_rng()) }), mailbox)
    }

    /// A new connection within the connect timeout. The caller has counted its request as pending.
    ///
    /// # Errors
    /// [`Error`]; nothing of any request was sent.
    pub(super) async fn open(
        &self,
        target: Target<'_>,
        speak: Speak,
        now: Instant,
    ) -> Result<Connection<N::Stream>, Error> {
        let opening = async {
            let slot = self.slot(target.cluster).await?;
            let seat = Seat::new(target, speak, slot, self.life(now));
            self.dialer.dial(target, speak, seat).await
        };
        let limit = target.cluster.settings.timeouts.connect;
        tokio::time::timeout(limit, opening).await.map_err(|_elapsed| Error::Timeout)?
    }

    /// As [`Connector::open`], for one request, which counts as pending meanwhile.
    ///
    /// # Errors
    /// As there, and [`Error::Overflow`] if too many wait.
    pub(super) async fn open_for_one(
        &self,
        target: Target<'_>,
        speak: Speak,
        now: Instant,
    ) -> Result<Connection<N::Stream>, Error> {
        let _pending = circuit_breaker::admit_pending(target.cluster)?;
        self.open(target, speak, now).await
    }

    /// A slot under the cluster's cap: a free one, or that of an unused connection, here or at another worker.
    async fn slot(&self, cluster: &Arc<Cluster>) -> Result<ConnectionSlot, Overflow> {
        loop {
            let overflow = match circuit_breaker::admit_connection(cluster) {
                Ok(slot) => return Ok(slot),
                Err(overflow) => overflow,
            };
            let slot = match self.reclaim(&cluster.runtime) {
                Some(slot) => slot,
                None => self.member.ask(&cluster.runtime).await.ok_or(overflow)?,
            };
            // If the cap was lowered, this one only brings the number down.
            if slot.is_within(cluster) {
                return Ok(slot);
            }
        }
    }

    /// Closes the connection of a cluster that has been unused for longest, and gives its slot.
    pub fn reclaim(&self, cluster: &Arc<ClusterRuntime>) -> Option<ConnectionSlot> {
        self.store.reclaim(cluster)
    }

    fn life(&self, now: Instant) -> Life {
        let permille = self.rng.lock().unwrap_or_else(PoisonError::into_inner).u32(AGE_PERMILLE);
        Life { born: now, permille }
    }

    pub(super) fn idles(&self) -> MutexGuard<'_, Idles<Kept<N::Stream>>> {
        self.store.idles()
    }

    pub(super) fn shared(&self) -> MutexGuard<'_, Shared> {
        self.store.shared()
    }

    /// Keeps a connection whose message has ended.
    pub(super) fn keep(&self, connection: Kept<N::Stream>, now: Instant) {
        if connection.place().is_removed() {
            connection.place().closing(Closed::Removed);
            return;
        }
        self.idles().put(connection, now);
    }

    /// Closes what is over its time by the newest settings, what is gone, and what belongs to removed endpoints. Call it
    /// about once a second. What is under way is not touched.
    pub fn sweep(&self, now: Instant, snapshot: &Snapshot) {
        let terms = |name: &ClusterName| snapshot.cluster(name).map(|cluster| Terms::of(&cluster.settings));
        self.idles().sweep(now, terms);
        self.shared().sweep(now, terms);
    }

    /// Closes every kept connection; streams under way end in their own time.
    pub fn clear(&self) {
        self.idles().clear();
        self.shared().clear();
    }
}

impl<S> Store<S> {
    fn idles(&self) -> MutexGuard<'_, Idles<Kept<S>>> {
        self.idles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Stream> Store<S> {
    fn reclaim(&self, cluster: &Arc<ClusterRuntime>) -> Option<ConnectionSlot> {
        let mut idles = self.idles();
        while let Some(unused) = idles.reclaim(cluster) {
            unused.place().closing(Closed::Reclaimed);
            // One that has ended by itself has no slot any more.
            if let Some(slot) = unused.place().take_slot() {
                return Some(slot);
            }
        }
        drop(idles);
        self.shared().reclaim(cluster)
    }
}

impl<S: Stream> Pooled for Kept<S> {
    fn place(&self) -> &Arc<Place> {
        match self {
            Self::Http1(connection) => connection.place(),
            Self::Framed(connection) => connection.place(),
        }
    }

    fn peer_idle(&self) -> Option<Duration> {
        match self {
            Self::Http1(connection) => connection.peer_idle(),
            Self::Framed(_) => None,
        }
    }

    fn state(&mut self) -> State {
        match self {
            Self::Http1(connection) => connection.state(),
            // Nobody reads it meanwhile, so nobody knows without asking: the next probe finds out.
            Self::Framed(connection) => match connection.unasked() {
                None => State::Ready,
                Some(_) => State::Ended,
            },
        }
    }

    fn probe(&mut self) -> Said {
        match self {
            Self::Http1(connection) => connection.probe(),
            Self::Framed(connection) => connection.probe(),
        }
    }
}
