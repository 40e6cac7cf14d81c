//! Active health checks: what an endpoint is asked, how often, and what came of it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How the endpoints of a cluster are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What an endpoint is asked.
    pub question: Question,
    /// From the start of one check of an endpoint to the next one's, give or take a tenth.
    pub interval: Duration,
    /// For the whole of a check, connecting included.
    pub timeout: Duration,
    /// Checks in a row that must fail before a healthy endpoint is unhealthy, 1..=100.
    pub unhealthy_threshold: u32,
    /// Checks in a row that must succeed before an unhealthy endpoint is healthy, 1..=100.
    pub healthy_threshold: u32,
}

/// What an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// `GET`: a status of 200 to 299 is well.
    Http {
        /// Path and query.
        path: String,
        /// Whom the request is for: `host`, or `host:port`.
        host: String,
    },
    /// `grpc.health.v1.Health/Check`: `SERVING` is well.
    Grpc {
        /// The service; empty: the server as a whole.
        service: String,
        /// As for HTTP.
        host: String,
    },
    /// A stream: that it is accepted is well.
    Tcp,
}

impl Question {
    /// The word for it in configuration and dumps.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Grpc { .. } => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

/// What came of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// It is well.
    Well,
    /// An HTTP status that is not of success.
    Status,
    /// The app, or its sidecar, says that it does not serve.
    NotServing,
    /// No answer in time.
    Timeout,
    /// No connection could be had.
    Connect,
    /// Who answers at the endpoint's address is not who it must be.
    Identity,
    /// The connection or stream broke off before the answer was there.
    Reset,
    /// The answer makes no sense.
    Protocol,
    /// It says nothing about the endpoint: a cap was in the way, here or there, or we have no certificate.
    Skipped,
}

impl CheckOutcome {
    /// Every outcome, in the order of their discriminants.
    pub const ALL: [Self; 9] = [
        Self::Well,
        Self::Status,
        Self::NotServing,
        Self::Timeout,
        Self::Connect,
        Self::Identity,
        Self::Reset,
        Self::Protocol,
        Self::Skipped,
    ];

    /// The outcome as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Well => "healthy",
            Self::Status => "status",
            Self::NotServing => "not_serving",
            Self::Timeout => "timeout",
            Self::Connect => "connect_failed",
            Self::Identity => "identity_mismatch",
            Self::Reset => "reset",
            Self::Protocol => "protocol_error",
            Self::Skipped => "skipped",
        }
    }
}

/// Checks of one cluster's endpoints, by outcome.
#[derive(Debug, Default)]
pub struct CheckCounts([AtomicU64; CheckOutcome::ALL.len()]);

impl CheckCounts {
    /// Counts one.
    pub fn count(&self, outcome: CheckOutcome) {
        if let Some(count) = self.0.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So many ended so.
    #[must_use]
    pub fn read(&self, outcome: CheckOutcome) -> u64 {
        self.0.get(outcome as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// What the checks of one endpoint have come to, beside the verdict itself ([`Checked`](super::health::Checked)).
#[derive(Clone, Debug, Default)]
pub struct CheckState {
    /// Checks in a row that spoke against the verdict.
    pub contrary: u32,
    /// The newest one.
    pub last: Option<LastCheck>,
}

/// One check, for operators.
#[derive(Clone, Debug)]
pub struct LastCheck {
    /// What came of it.
    pub outcome: CheckOutcome,
    /// The same in words.
    pub text: Box<str>,
    /// When it ended.
    pub at: Instant,
}
