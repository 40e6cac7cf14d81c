//! How the endpoints of a cluster share its requests.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The better of two random ones, by latency and load (the default).
    PeakEwma,
    /// The better of two random ones, by load.
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The one that the request's [`Affinity`] leads to, by consistent hashing.
    Maglev,
}

/// How endpoints of a cluster were chosen.
#[derive(Debug, Default)]
pub struct PickCounts {
    /// In the own zone and elsewhere, where the own zone is known.
    pub by_zone: [AtomicU64; 2],
    /// In panic: of all, because too few were usable.
    pub in_panic: AtomicU64,
    /// Probes of those that were ejected.
    pub probes: AtomicU64,
}

/// What else configuration says of the choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancing {
    /// What keeps requests of one kind with one endpoint; only [`Balance::Maglev`] has it.
    pub affinity: Option<Affinity>,
    /// With a smaller share of usable endpoints than this all are used, 0..=100; 0: never.
    pub panic_percent: u32,
    /// How long an endpoint that is new or back gets less than its share; `None`: it has it at once.
    pub slow_start: Option<Duration>,
    /// Whether endpoints of the own zone come first, where it is known.
    pub prefers_zone: bool,
}

impl Balancing {
    /// Whatever is there is used.
    #[must_use]
    pub fn bare() -> Self {
        Self { affinity: None, panic_percent: 100, slow_start: None, prefers_zone: false }
    }
}

/// What keeps requests of one kind with one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// What they have in common.
    pub by: AffinityBy,
    /// An endpoint with more than this share of the average load is passed over, as a percentage above 100; `None`:
    /// none is (as HAProxy's `hash-balance-factor`).
    pub max_load_percent: Option<u32>,
}

/// What requests of one kind have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AffinityBy {
    /// The value of a header field, whose name is in lower case.
    Header(http::HeaderName),
    /// A cookie's value. Where a request has none the answer sets it.
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// How long a browser keeps it; `None`: until it is closed.
        ttl: Option<Duration>,
    },
    /// The caller's IP address.
    Source,
    /// The caller's SPIFFE ID: the verified peer's, or our own for what our app sends.
    SpiffeId,
}
