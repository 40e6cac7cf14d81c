//! Reusable HTTP connections of one worker, per endpoint.
//!
//! Workers do not share connections: what a worker lends it also takes back, and no lock is ever waited for. Many
//! requests that find no connection make one together (one dial at a time per endpoint and protocol for HTTP/2).
//!
//! # Invariants
//! - A connection is lent for the endpoint it was made for: the key is the endpoint's runtime, which a recycled
//!   address does not share.
//! - An HTTP/1 connection is lent again only after its message ended in both directions.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::Ordering},
    time::Instant,
};

use indexmap::IndexMap;
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    dial::{Dialer, Speak},
    http_client::Http1,
    http2::{Http2, StreamSlot},
};
use crate::{
    drain,
    model::{Cluster, ClusterName, Endpoint, Identity, Snapshot},
    net::Net,
};

/// The HTTP connections of one worker.
#[derive(Debug)]
pub struct Pool<N> {
    dialer: Dialer<N>,
    // In order of first use, not of a hash: what the sweeper closes, it closes in the same order in every run.
    entries: Arc<Mutex<IndexMap<Key, Entry>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// Address of the endpoint's runtime; the entry keeps that alive, so it stays unique.
    endpoint: usize,
    speak: Speak,
}

#[derive(Debug)]
struct Entry {
    /// By name: its settings are those of the newest snapshot, whoever made the entry.
    cluster: ClusterName,
    endpoint: Arc<Endpoint>,
    http1: Vec<IdleHttp1>,
    http2: Vec<SharedHttp2>,
    /// The dial under way, for those who wait for it.
    dialing: Option<Dialing>,
}

/// A dial under way. Those who wait go on in the order in which they came: a `watch` would wake them in random order,
/// and with them the draws of their next decisions.
#[derive(Clone, Debug)]
struct Dialing {
    /// Cancelled when the dial has ended, however it ended.
    over: CancellationToken,
    /// Stays empty if the dial was given up.
    outcome: Arc<OnceLock<Result<(), Error>>>,
}

impl Dialing {
    async fn ended(&self) -> Result<(), Error> {
        self.over.cancelled().await;
        self.outcome.get().cloned().unwrap_or(Err(Error::GivenUp))
    }
}

#[derive(Debug)]
struct IdleHttp1 {
    connection: Http1,
    since: Instant,
}

#[derive(Debug)]
struct SharedHttp2 {
    connection: Http2,
    /// When the sweeper first found it without streams.
    idle_since: Option<Instant>,
}

/// Whom a connection is wanted for: one endpoint of one snapshot.
#[derive(Clone, Debug)]
pub struct Target {
    /// The cluster, for its timeouts and caps.
    pub cluster: Arc<Cluster>,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Our identity in that snapshot.
    pub identity: Option<Arc<Identity>>,
}

/// A connection on loan.
#[derive(Debug)]
pub enum Lease {
    /// For one request; give it back when the response has ended.
    Http1 {
        /// The connection.
        connection: Http1,
    },
    /// A place on a shared one.
    Http2 {
        /// The connection.
        connection: Http2,
        /// The place.
        slot: StreamSlot,
    },
}

impl<N: Net> Pool<N> {
    /// An empty pool that dials by `dialer`.
    #[must_use]
    pub fn new(dialer: Dialer<N>) -> Self {
        Self { dialer, entries: Arc::default() }
    }

    /// A connection to the target: a kept one if there is, else a new one.
    ///
    /// # Errors
    /// [`Error`]; nothing was sent.
    pub async fn lease(&self, target: &Target, speak: Speak) -> Result<Lease, Error> {
        if speak != Speak::Http2
            && let Some(connection) = self.take_idle(target)
        {
            return Ok(Lease::Http1 { connection });
        }
        self.fresh(target, speak).await
    }

    /// A new HTTP/1 connection, never a kept one, or a place on a shared one: for a request that a kept one just failed.
    ///
    /// # Errors
    /// [`Error`]; nothing was sent.
    pub async fn fresh(&self, target: &Target, speak: Speak) -> Result<Lease, Error> {
        match speak {
            Speak::Http2 => self.http2(target).await,
            Speak::Http1 | Speak::Either | Speak::Tcp => self.new_http1(target).await,
        }
    }

    async fn new_http1(&self, target: &Target) -> Result<Lease, Error> {
        let connection = self
            .dialer
            .dial(&target.cluster, &target.endpoint, target.identity.as_ref(), Speak::Http1)
            .await?;
        let connection = Http1::start(connection, &target.cluster.limits).await?;
        Ok(Lease::Http1 { connection })
    }

    fn take_idle(&self, target: &Target) -> Option<Http1> {
        let mut entries = lock(&self.entries);
        let entry = entries.get_mut(&Key::new(target, Speak::Http1))?;
        // Newest first: the oldest are the likeliest to be closed by the peer, and may run into the idle timeout.
        // One whose driver has not yet seen the end of its message is left for later.
        entry.http1.retain(|idle| !idle.connection.is_closed());
        let ready = entry.http1.iter().rposition(|idle| idle.connection.is_ready())?;
        Some(entry.http1.remove(ready).connection)
    }

    /// Takes an HTTP/1 connection back after its response has ended.
    pub fn give_back(&self, target: &Target, connection: Http1, now: Instant) {
        if connection.is_closed() || target.endpoint.runtime.is_removed.load(Ordering::Relaxed) {
            return;
        }
        let mut entries = lock(&self.entries);
        entry(&mut entries, target, Speak::Http1).http1.push(IdleHttp1 { connection, since: now });
    }

    /// Takes a new connection in, for whoever needs one.
    pub(super) fn keep_http2(&self, target: &Target, connection: Http2) {
        let shared = SharedHttp2 { connection, idle_since: None };
        entry(&mut lock(&self.entries), target, Speak::Http2).http2.push(shared);
    }

    async fn http2(&self, target: &Target) -> Result<Lease, Error> {
        loop {
            let dialing = match self.shared_or_dial(target) {
                Ok(lease) => return Ok(lease),
                Err(dialing) => dialing,
            };
            match dialing.ended().await {
                // A peer that closes what it has just accepted must not be dialled for ever by one request.
                Ok(()) if self.any_open(target).is_none() => return Err(Error::ClosedAtOnce),
                Ok(()) => {}
                Err(Error::Overflow) => return self.any_open(target).ok_or(Error::Overflow),
                Err(error) => return Err(error),
            }
        }
    }

    /// A place on an open connection, or the dial to wait for.
    fn shared_or_dial(&self, target: &Target) -> Result<Lease, Dialing> {
        let mut entries = lock(&self.entries);
        let entry = entry(&mut entries, target, Speak::Http2);
        entry.http2.retain(|shared| shared.connection.is_open());
        if let Some(shared) = entry.http2.iter_mut().find(|shared| shared.connection.has_room()) {
            shared.idle_since = None;
            let slot = shared.connection.slot();
            return Ok(Lease::Http2 { connection: shared.connection.clone(), slot });
        }
        // One that was given up has left nothing behind: it is as if there were none.
        if let Some(dialing) = entry.dialing.as_ref().filter(|dialing| !dialing.over.is_cancelled()) {
            return Err(dialing.clone());
        }
        let dialing = Dialing { over: CancellationToken::new(), outcome: Arc::default() };
        entry.dialing = Some(dialing.clone());
        drop(entries);
        self.start_dial(target, dialing.clone());
        Err(dialing)
    }

    /// Dials in a task of its own: a request that goes away must not take the others' connection with it.
    fn start_dial(&self, target: &Target, dialing: Dialing) {
        let (dialer, entries) = (self.dialer.clone(), Arc::clone(&self.entries));
        let target = target.clone();
        let over = dialing.over.drop_guard();
        drain::spawn_background(async move {
            // Dropped last, and also if this task is.
            let _over = over;
            let dialed = async {
                let identity = target.identity.as_ref();
                let connection =
                    dialer.dial(&target.cluster, &target.endpoint, identity, Speak::Http2).await?;
                let limit = target.cluster.settings.timeouts.connect;
                let started = tokio::time::timeout(limit, Http2::start(connection, &target.cluster.limits));
                started.await.unwrap_or(Err(Error::Timeout))
            }
            .await;
            let outcome = {
                let mut entries = lock(&entries);
                let entry = entry(&mut entries, &target, Speak::Http2);
                entry.dialing = None;
                dialed.map(|connection| entry.http2.push(SharedHttp2 { connection, idle_since: None }))
            };
            // Only this task sets it.
            dialing.outcome.get_or_init(|| outcome);
        });
    }

    fn any_open(&self, target: &Target) -> Option<Lease> {
        let entries = lock(&self.entries);
        let shared = entries
            .get(&Key::new(target, Speak::Http2))?
            .http2
            .iter()
            .find(|shared| shared.connection.is_open())?;
        let slot = shared.connection.slot();
        Some(Lease::Http2 { connection: shared.connection.clone(), slot })
    }

    /// Closes what was idle for too long, by the settings of that snapshot, and what belongs to removed endpoints. Call
    /// it about once a second. Streams under way are not touched.
    pub fn sweep(&self, snapshot: &Snapshot, now: Instant) {
        lock(&self.entries).retain(|_key, entry| {
            entry.sweep(snapshot.cluster(&entry.cluster), now);
            entry.dialing.is_some() || !entry.http1.is_empty() || !entry.http2.is_empty()
        });
    }

    /// Closes every kept connection; streams under way end in their own time.
    pub fn clear(&self) {
        lock(&self.entries).clear();
    }
}

impl Entry {
    fn sweep(&mut self, cluster: Option<&Arc<Cluster>>, now: Instant) {
        let is_removed = self.endpoint.runtime.is_removed.load(Ordering::Relaxed);
        let Some(cluster) = cluster.filter(|_| !is_removed) else {
            self.http1.clear();
            self.http2.clear();
            return;
        };
        let limit = cluster.settings.timeouts.pool_idle;
        let is_over = |since: Instant| now.saturating_duration_since(since) >= limit;
        self.http1.retain(|idle| !idle.connection.is_closed() && !is_over(idle.since));
        self.http2.retain_mut(|shared| {
            if shared.connection.streams() > 0 {
                shared.idle_since = None;
                return shared.connection.is_open();
            }
            shared.connection.is_open() && !is_over(*shared.idle_since.get_or_insert(now))
        });
    }
}

impl Key {
    fn new(target: &Target, speak: Speak) -> Self {
        Self { endpoint: Arc::as_ptr(&target.endpoint.runtime) as usize, speak }
    }
}

fn entry<'a>(entries: &'a mut IndexMap<Key, Entry>, target: &Target, speak: Speak) -> &'a mut Entry {
    entries.entry(Key::new(target, speak)).or_insert_with(|| Entry {
        cluster: target.cluster.name().clone(),
        endpoint: Arc::clone(&target.endpoint),
        http1: Vec::new(),
        http2: Vec::new(),
        dialing: None,
    })
}

fn lock(entries: &Mutex<IndexMap<Key, Entry>>) -> MutexGuard<'_, IndexMap<Key, Entry>> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}
