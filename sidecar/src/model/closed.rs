//! Connections that were closed for what they cost or for what they sent: closed lists, each a metric label.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use outrider_certs::SpiffeId;

/// What was ended because the rules of who may call allow it no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// A connection: its peer may not connect any more.
    Connection,
    /// A request under way, its answer, or what it has become by a switch of protocols.
    Request,
    /// An opaque stream.
    Stream,
}

impl Revoked {
    /// Every kind, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Connection, Self::Request, Self::Stream];

    /// The kind as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Request => "request",
            Self::Stream => "stream",
        }
    }
}

/// Why a connection was closed unserved, although nothing was wrong with it: some bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// `max_connections` of the listener.
    Listener,
    /// Descriptors of the process.
    Descriptors,
    /// `max_handshakes`: too many handshakes under way, on the worker or from this address.
    Handshakes,
    /// `max_connections_per_peer`.
    Peer,
    /// `memory`.
    Memory,
}

impl Shed {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 5] =
        [Self::Listener, Self::Descriptors, Self::Handshakes, Self::Peer, Self::Memory];

    /// The reason as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Descriptors => "descriptors",
            Self::Handshakes => "handshakes",
            Self::Peer => "peer",
            Self::Memory => "memory",
        }
    }
}

/// Why we ended an HTTP connection that had been let in: what its other end sent, or did not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// No HTTP/1: answered with 400 and closed, or closed in the midst of a body.
    Malformed,
    /// An HTTP/1 head beyond `header_bytes` or `header_count`, or a target beyond 64 KiB: 431 or 414, and closed.
    HeadTooLarge,
    /// No whole HTTP/1 head within `header_read_timeout`: closed.
    HeadTimeout,
    /// No HTTP/2, or a broken rule of it: GOAWAY and closed.
    Http2,
    /// Frames that cost more than they carry (`ENHANCE_YOUR_CALM`): GOAWAY and closed.
    Flood,
    /// More than `max_resets` streams per second that were reset before their answers: GOAWAY, then closed.
    Resets,
}

impl Misuse {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 6] =
        [Self::Malformed, Self::HeadTooLarge, Self::HeadTimeout, Self::Http2, Self::Flood, Self::Resets];

    /// The reason as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::HeadTooLarge => "head_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::Http2 => "http2",
            Self::Flood => "flood",
            Self::Resets => "resets",
        }
    }
}

/// Whom a connection counts for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// A verified peer.
    Peer(SpiffeId),
    /// Somebody who has proved nothing but an address.
    Address(IpAddr),
}

/// Counters of [`Shed`] and [`Misuse`] of one listener, and the connections that each caller has open there.
#[derive(Debug, Default)]
pub struct Closed {
    /// By [`Shed`].
    pub shed: [AtomicU64; Shed::ALL.len()],
    /// By [`Misuse`].
    pub misused: [AtomicU64; Misuse::ALL.len()],
    // No larger than the number of open connections: who has none is not in here.
    open: Mutex<HashMap<Who, Open>>,
}

/// What one caller has open.
#[derive(Debug, Default)]
struct Open {
    connections: usize,
    requests: Arc<AtomicU32>,
}

impl Closed {
    /// Counts a connection closed unserved.
    pub fn count_shed(&self, reason: Shed) {
        if let Some(count) = self.shed.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a connection ended for misuse.
    pub fn count_misuse(&self, reason: Misuse) {
        if let Some(count) = self.misused.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a connection until the returned value is dropped; `None` if its caller has `max` already.
    #[must_use]
    pub fn open_for(self: &Arc<Self>, who: Who, max: usize) -> Option<CallerSlot> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let caller = open.entry(who.clone()).or_default();
        if caller.connections >= max {
            return None;
        }
        caller.connections += 1;
        let requests = Arc::clone(&caller.requests);
        Some(CallerSlot { closed: Arc::clone(self), who, requests })
    }
}

/// A caller's open connection, which counts until this is dropped.
#[derive(Debug)]
pub struct CallerSlot {
    closed: Arc<Closed>,
    who: Who,
    requests: Arc<AtomicU32>,
}

impl CallerSlot {
    /// The requests and streams that the caller has under way, on all its connections.
    #[must_use]
    pub fn requests(&self) -> &Arc<AtomicU32> {
        &self.requests
    }
}

impl Drop for CallerSlot {
    fn drop(&mut self) {
        let mut open = self.closed.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(caller) = open.get_mut(&self.who) {
            caller.connections -= 1;
            if caller.connections == 0 {
                open.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_its_own_bound_and_gives_its_places_back() {
        let closed = Arc::new(Closed::default());
        let web = Who::Peer(SpiffeId::parse("spiffe://t/web").unwrap());
        let first = closed.open_for(web.clone(), 1).unwrap();
        assert!(closed.open_for(web.clone(), 1).is_none());
        let _other = closed.open_for(Who::Address([10, 0, 0, 7].into()), 1).unwrap();
        drop(first);
        drop(closed.open_for(web, 1).unwrap());
        assert_eq!(closed.open.lock().unwrap().len(), 1, "who has none takes no room");
    }

    #[test]
    fn labels_follow_their_discriminants() {
        assert!(Shed::ALL.into_iter().enumerate().all(|(index, reason)| reason as usize == index));
        assert!(Misuse::ALL.into_iter().enumerate().all(|(index, reason)| reason as usize == index));
    }
}
