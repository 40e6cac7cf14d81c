//! Copies of requests, sent to another cluster whose answers nobody gets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{cluster::ClusterName, policy::Policy};

/// Mirrors of one rule: each may send a copy of each of its requests.
pub const MAX_MIRRORS: usize = 4;
/// Copies under way to one cluster, over all workers. Each holds as much of a body as the rule's `replay_bytes` says.
pub const MAX_COPIES: u32 = 256;
/// For a request's body to come to its end, and then for all that is done about its copy, whatever the rule's timeout is.
pub const MAX_COPY_TIME: Duration = Duration::from_secs(30);
/// What shares are counted in.
pub const WHOLE: u32 = 1_000_000;

/// Where copies of a rule's requests go.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// There.
    pub cluster: ClusterName,
    /// Of so many in a [million](WHOLE), 0..=1,000,000.
    pub of_million: u32,
    /// What holds for a copy: the rule's changes of requests, a time of at most [`MAX_COPY_TIME`], and nothing else: it is
    /// sent once.
    pub policy: Arc<Policy>,
}

/// Why a copy was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The request's body is longer than the rule's `replay_bytes`.
    TooLarge,
    /// The request's body did not come to its end in time, or at all.
    Incomplete,
    /// As many copies to this cluster are under way as may be.
    TooMany,
    /// A cap of the cluster is reached, or the process is short of memory.
    Overflow,
    /// The cluster has no endpoint that may be asked.
    NoEndpoint,
    /// The request's head cannot go there: the mesh asks for a clear path where the outside does not, and a target of
    /// `https://` for TLS.
    BadRequest,
}

impl Dropped {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 6] =
        [Self::TooLarge, Self::Incomplete, Self::TooMany, Self::Overflow, Self::NoEndpoint, Self::BadRequest];

    /// The reason as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Incomplete => "incomplete",
            Self::TooMany => "too_many",
            Self::Overflow => "overflow",
            Self::NoEndpoint => "no_endpoint",
            Self::BadRequest => "bad_request",
        }
    }
}

/// What became of copies to one cluster.
#[derive(Debug, Default)]
pub struct MirrorCounts {
    /// Copies under way. Raised and lowered by `resilience::circuit_breaker`.
    pub active: AtomicU32,
    /// Copies for which there was an endpoint.
    pub sent: AtomicU64,
    /// Those of them that had no answer: no connection, a reset, or the time was over.
    pub unanswered: AtomicU64,
    /// Copies that were not sent, by reason.
    pub dropped: [AtomicU64; Dropped::ALL.len()],
}

impl MirrorCounts {
    /// Counts a copy that is not sent.
    pub fn drop_one(&self, why: Dropped) {
        if let Some(count) = self.dropped.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
