//! Faults that are injected on purpose, to see what callers make of them.

use std::time::Duration;

use http::StatusCode;

use super::policy::HeaderMatch;

/// What is injected into requests: a delay, an abort, or both, each into its share of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How long a request waits before it goes on, 1 ms..=1 h; `None`: not at all.
    pub delay: Option<Duration>,
    /// How many of the requests wait, 0..=100.
    pub delay_percent: u32,
    /// The answer to a request that is aborted; `None`: only gRPC's are.
    pub abort: Option<StatusCode>,
    /// The gRPC status of the answer to a call that is aborted, 1..=16; `None`: what gRPC makes of `abort`.
    pub abort_grpc: Option<u8>,
    /// How many of the requests are aborted, 0..=100, whether or not they waited.
    pub abort_percent: u32,
    /// Only into requests with this field.
    pub header: Option<HeaderMatch>,
}

impl Fault {
    /// Whether there is anything to inject.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.delay.is_some() || self.abort.is_some() || self.abort_grpc.is_some()
    }
}
