//! Outlier detection: rest an endpoint that keeps failing, or is not as the others are.
//!
//! It judges *endpoints* by what real requests got of them. It sends none itself (that would be a health check), and
//! refuses none (that is the circuit breaker's job, per cluster).
//!
//! ```text
//!           each result: failures in a row            rest is over           one request, the probe
//!  usable ─────────────────────────────────▶ resting ─────────────▶ due ─────────────────────────────▶ usable
//!     │     each window: rate, latency          ▲                    │                 ok
//!     └──── each look: silence ─────────────────┘◀───────────────────┘ failed: a longer rest
//! ```
//!
//! # Why it is safe to have on
//! - Never more than `max_ejected_percent` (at most half) of a cluster's endpoints are out of use for it to eject one
//!   more; what health checks and discovery hold back counts. Of one endpoint, and of the last one, that is none.
//! - Nobody is ejected while every other endpoint does no better: it would only make them fewer.
//! - What may be the caller's doing ejects nobody: what is answered with 4xx, who leaves, a timeout that is too short for
//!   everybody.
//! - An endpoint comes back by one request, not by a flood.
//!
//! # Invariants
//! - Only [`eject()`], [`release()`] and the settling of excess change who is ejected, under the cluster's lock, so the
//!   bound is exact over workers. [`record()`], which every request goes through, takes no lock.
//! - Whoever changes a standing raises the cluster's `standings`.
//! - Time and chance are arguments.
//!
//! Follows Envoy's outlier detection for names, and for what is a gateway's failure or a local one; the probe is
//! Linkerd's way back; silence, and that nobody rests for what all others do too, are ours.

mod change;
mod look;
mod overload;
mod record;
#[cfg(test)]
mod tests;
mod window;

use std::{net::SocketAddr, time::Duration};

pub use change::{eject, release};
pub use look::look;
pub use overload::{MAX_OVERLOAD, OVERLOAD, overload};
pub use record::{Report, Step, headed, is_failing, record, take};

use crate::model::{Endpoint, outlier::Reason};

/// What was decided, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An endpoint rests.
    Ejected {
        /// Which.
        endpoint: SocketAddr,
        /// Why.
        reason: Reason,
        /// For how long.
        rest: Duration,
        /// Which ejection in a row this is, from 1.
        in_a_row: u32,
    },
    /// An endpoint is back.
    Back {
        /// Which.
        endpoint: SocketAddr,
        /// It was let in without a probe, because too few others are left.
        is_needed: bool,
    },
}

/// Microseconds from one moment to another, saturating.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The moment `now` as an endpoint's counters write it; at least 1, because 0 says "not".
fn moment_us(endpoint: &Endpoint, now: std::time::Instant) -> u64 {
    micros(now.saturating_duration_since(endpoint.runtime.epoch)).max(1)
}
