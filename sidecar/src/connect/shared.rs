//! HTTP/2 connections, shared by many requests, and the dials that many wait for.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use indexmap::IndexMap;
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    dial::Speak,
    http2::{Http2, StreamSlot},
    place::{KeyHash, Place, PoolKey, Target, Terms},
};
use crate::{
    model::{
        ClusterName,
        pool_counts::Closed,
        runtime::{ClusterRuntime, EndpointRuntime},
        transport::Transport,
    },
    resilience::circuit_breaker::ConnectionSlot,
};

/// The HTTP/2 connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Shared {
    // In order of first use, as the unused ones.
    entries: IndexMap<PoolKey, Entry, KeyHash>,
}

#[derive(Debug)]
struct Entry {
    cluster: ClusterName,
    /// These keep the key's addresses from being used again.
    endpoint: Arc<EndpointRuntime>,
    _transport: Transport,
    connections: Vec<Connection>,
    /// The dial under way, for those who wait for it.
    dialing: Option<Dialing>,
}

#[derive(Debug)]
struct Connection {
    http2: Http2,
    /// When the sweeper first found it without streams.
    idle_since: Option<Instant>,
}

/// A dial under way. Those who wait go on in the order in which they came: a `watch` would wake them in random order,
/// and with them the draws of their next decisions.
#[derive(Clone, Debug)]
pub(super) struct Dialing {
    /// Cancelled when the dial has ended, however it ended.
    pub(super) over: CancellationToken,
    /// Stays empty if the dial was given up.
    pub(super) outcome: Arc<OnceLock<Result<(), Error>>>,
}

impl Dialing {
    /// Waits for its end.
    pub(super) async fn ended(&self) -> Result<(), Error> {
        self.over.cancelled().await;
        self.outcome.get().cloned().unwrap_or(Err(Error::GivenUp))
    }
}

/// A place on a connection.
pub(super) type Stream = (Http2, StreamSlot);

/// How a request gets its place on a connection.
#[derive(Debug)]
pub(super) enum Way {
    /// Here it is.
    Stream(Stream),
    /// Wait for a dial; whoever is told that it is new, starts it.
    Dial {
        /// That dial.
        dialing: Dialing,
        /// Whether it has yet to be started.
        is_new: bool,
    },
}

impl Shared {
    /// A place on an open connection with room.
    pub(super) fn stream(&mut self, key: &PoolKey) -> Option<Stream> {
        self.entries.get_mut(key)?.stream()
    }

    /// A place on an open connection with room, or the one dial that may be under way for the key.
    pub(super) fn stream_or_dial(&mut self, target: Target<'_>, key: PoolKey) -> Way {
        let entry = self.entry(target, key);
        if let Some(stream) = entry.stream() {
            return Way::Stream(stream);
        }
        entry.connections.retain(|connection| connection.http2.is_open());
        // One that was given up has left nothing behind: it is as if there were none.
        if let Some(dialing) = entry.dialing.as_ref().filter(|dialing| !dialing.over.is_cancelled()) {
            return Way::Dial { dialing: dialing.clone(), is_new: false };
        }
        let dialing = Dialing { over: CancellationToken::new(), outcome: Arc::default() };
        entry.dialing = Some(dialing.clone());
        Way::Dial { dialing, is_new: true }
    }

    fn entry(&mut self, target: Target<'_>, key: PoolKey) -> &mut Entry {
        self.entries.entry(key).or_insert_with(|| Entry {
            cluster: target.cluster.name().clone(),
            endpoint: Arc::clone(&target.endpoint.runtime),
            _transport: target.cluster.settings.transport.clone(),
            connections: Vec::new(),
            dialing: None,
        })
    }

    /// A connection that was made without a dial of [`Shared::stream_or_dial`].
    pub(super) fn add(&mut self, target: Target<'_>, http2: Http2) {
        let key = PoolKey::new(target, Speak::Http2);
        self.entry(target, key).connections.push(Connection { http2, idle_since: None });
    }

    /// The end of the key's dial.
    pub(super) fn dialed(&mut self, key: &PoolKey, connection: Option<Http2>) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.dialing = None;
            entry.connections.extend(connection.map(|http2| Connection { http2, idle_since: None }));
        }
    }

    /// A place on any open connection, be it full: h2 lets the stream wait for its turn.
    pub(super) fn any_open(&self, key: &PoolKey) -> Option<Stream> {
        let connections = &self.entries.get(key)?.connections;
        connections.iter().find(|connection| connection.http2.is_open()).map(Connection::stream)
    }

    /// Closes a connection of that cluster on which there are no streams, and gives its slot.
    pub(super) fn reclaim(&mut self, cluster: &Arc<ClusterRuntime>) -> Option<ConnectionSlot> {
        let is_unused = |connection: &Connection| {
            connection.http2.streams() == 0 && Arc::ptr_eq(&connection.place().counts, cluster)
        };
        self.entries.values_mut().find_map(|entry| {
            let index = entry.connections.iter().position(is_unused)?;
            let unused = entry.connections.remove(index);
            unused.place().closing(Closed::Reclaimed);
            unused.place().take_slot()
        })
    }

    /// Lets go of what was unused for too long, is too old, gone, or of removed endpoints and clusters. Streams under
    /// way are not touched: a connection that is let go of closes when its last one has ended.
    pub(super) fn sweep(&mut self, now: Instant, terms: impl Fn(&ClusterName) -> Option<Terms>) {
        self.entries.retain(|_key, entry| {
            let is_removed = entry.endpoint.is_removed.load(std::sync::atomic::Ordering::Relaxed);
            let terms = terms(&entry.cluster).filter(|_| !is_removed);
            entry.connections.retain_mut(|connection| {
                let why = match terms {
                    Some(terms) => connection.over(terms, now),
                    None => Some(Closed::Removed),
                };
                why.inspect(|why| connection.place().closing(*why)).is_none()
            });
            terms.is_some() || entry.dialing.is_some()
        });
    }

    /// Lets go of all.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

impl Entry {
    fn stream(&mut self) -> Option<Stream> {
        let connection = self.connections.iter_mut().find(|connection| connection.http2.has_room())?;
        connection.idle_since = None;
        Some(connection.stream())
    }
}

impl Connection {
    fn place(&self) -> &Place {
        self.http2.place()
    }

    fn stream(&self) -> Stream {
        (self.http2.clone(), self.http2.slot())
    }

    /// Why its time is over, if it is.
    fn over(&mut self, terms: Terms, now: Instant) -> Option<Closed> {
        if !self.http2.is_open() {
            return Some(Closed::Peer);
        }
        if self.place().life.is_over(terms.age, now) {
            return Some(Closed::Age);
        }
        if self.http2.streams() > 0 {
            self.idle_since = None;
            return None;
        }
        let since = *self.idle_since.get_or_insert(now);
        (now.saturating_duration_since(since) >= terms.idle).then_some(Closed::Idle)
    }
}
