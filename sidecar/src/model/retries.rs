//! Repetitions, counted.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Why an attempt was followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    /// No connection to the endpoint could be had, or somebody else was there.
    Connect,
    /// The endpoint, or the sidecar before it, did not take the request.
    NotProcessed,
    /// It broke off before an answer, or did not answer in HTTP.
    Reset,
    /// The app's answer has a status that the policy names.
    Status,
    /// The app's answer has a gRPC status that the policy names.
    GrpcStatus,
    /// No answer within the time of an attempt.
    PerTryTimeout,
    /// The endpoint was ejected for its silence while the request waited there.
    Silent,
}

impl RetryReason {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 7] = [
        Self::Connect,
        Self::NotProcessed,
        Self::Reset,
        Self::Status,
        Self::GrpcStatus,
        Self::PerTryTimeout,
        Self::Silent,
    ];

    /// The reason as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::NotProcessed => "not_processed",
            Self::Reset => "reset",
            Self::Status => "status",
            Self::GrpcStatus => "grpc_status",
            Self::PerTryTimeout => "per_try_timeout",
            Self::Silent => "silent",
        }
    }
}

/// What was repeated of a cluster's requests and streams, and what was not.
#[derive(Debug, Default)]
pub struct RepeatCounts {
    /// Retries made, by what they follow.
    pub by_reason: [AtomicU64; RetryReason::ALL.len()],
    /// Retries and hedges under way. Raised and lowered by `resilience::circuit_breaker`.
    pub active: AtomicU32,
    /// Retries and hedges that policy allowed and `max_active` did not.
    pub over_active: AtomicU64,
    /// Second attempts beside a slow one.
    pub hedges: AtomicU64,
    /// Those of them whose answer was the one delivered.
    pub hedges_won: AtomicU64,
}

impl RepeatCounts {
    /// Counts one retry.
    pub fn count(&self, reason: RetryReason) {
        if let Some(count) = self.by_reason.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
