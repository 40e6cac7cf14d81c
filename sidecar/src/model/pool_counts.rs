//! Counters of what becomes of upstream connections.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why an upstream connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// A request or stream was on it: broken off, failed, or ended in a way that leaves no connection.
    InUse,
    /// Unused for too long, by our setting or by what the peer said.
    Idle,
    /// Too old, or used as often as the peer said that it may be.
    Age,
    /// The peer closed it, or said that it would.
    Peer,
    /// Bytes came that nobody had asked for.
    UnexpectedBytes,
    /// Its place under the cluster's cap was needed elsewhere.
    Reclaimed,
    /// More connections were unused than are kept.
    Full,
    /// Its endpoint is no longer listed.
    Removed,
    /// Another connection to its endpoint turned out to be dead.
    Distrusted,
}

impl Closed {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 9] = [
        Self::InUse,
        Self::Idle,
        Self::Age,
        Self::Peer,
        Self::UnexpectedBytes,
        Self::Reclaimed,
        Self::Full,
        Self::Removed,
        Self::Distrusted,
    ];

    /// The reason as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::InUse => "in_use",
            Self::Idle => "idle",
            Self::Age => "age",
            Self::Peer => "peer",
            Self::UnexpectedBytes => "unexpected_bytes",
            Self::Reclaimed => "reclaimed",
            Self::Full => "full",
            Self::Removed => "removed",
            Self::Distrusted => "distrusted",
        }
    }
}

/// What became of a cluster's upstream connections: each opened one is closed once, for one reason.
#[derive(Debug, Default)]
pub struct PoolCounts {
    /// Connections made.
    pub opened: AtomicU64,
    /// Requests and streams that went over a connection that was there already.
    pub reused: AtomicU64,
    /// Connections closed, by reason.
    pub closed: [AtomicU64; Closed::ALL.len()],
}

impl PoolCounts {
    /// Counts a closed connection.
    pub fn close(&self, why: Closed) {
        if let Some(count) = self.closed.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Connections closed for that reason.
    #[must_use]
    pub fn closed_for(&self, why: Closed) -> u64 {
        self.closed.get(why as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}
