//! Counters that outlive a snapshot: plain atomics, shared by all workers.
//!
//! Settings are replaced on every swap, counters are not: `publish` carries these over from the old snapshot to the
//! new by key. Decisions about them (`balance`, `resilience`) are pure functions elsewhere; here is only the state.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use indexmap::IndexMap;
use outrider_certs::SpiffeId;

pub use super::endpoint::{EndpointRuntime, TlsFacts};
use super::{
    authorization::VERDICTS,
    balance::PickCounts,
    closed::{Closed, Revoked},
    detection::Detections,
    flag::ResponseFlag,
    habit::LastHabit,
    handshake::TlsFailure,
    health_check::CheckCounts,
    histogram::Histogram,
    listener::Exception,
    log_histogram::LogHistogram,
    mirror::MirrorCounts,
    outlier::OutlierRuntime,
    pool_counts::PoolCounts,
    retries::RepeatCounts,
    starvation::Starvation,
    status::DiscoveryStatus,
};

/// Callers counted by name on one inbound listener; the rest share one bucket, so that no peer can grow our memory.
pub const MAX_COUNTED_PEERS: usize = 256;

/// Counters of one cluster.
#[derive(Debug)]
pub struct ClusterRuntime {
    /// Requests or streams not yet ended. Raised and lowered by `resilience::circuit_breaker`.
    pub in_flight: AtomicU32,
    /// Upstream connections that are open or being opened, over all workers.
    pub connections: AtomicU32,
    /// Requests or streams that wait for a connection, over all workers.
    pub pending: AtomicU32,
    /// Times that a cap stood in the way, in the order of `resilience::circuit_breaker::Overflow`.
    pub overflows: [AtomicU64; 5],
    /// What became of connections.
    pub pool: PoolCounts,
    /// Next turn of round-robin.
    pub cursor: AtomicUsize,
    /// How its endpoints were chosen.
    pub picks: PickCounts,
    /// Raised whenever an endpoint's standing changes: what was worked out of the old ones is stale.
    pub standings: AtomicU64,
    /// State of outlier detection.
    pub outlier: OutlierRuntime,
    /// State of the retry budget.
    pub retry_budget: BudgetState,
    /// What happened.
    pub counts: RequestCounts,
    /// Retries made.
    pub retries: AtomicU64,
    /// Retries and hedges that policy allowed and the budget did not.
    pub retries_over_budget: AtomicU64,
    /// What was repeated, and why.
    pub repeats: RepeatCounts,
    /// What became of copies of requests.
    pub mirrors: MirrorCounts,
    /// Faults injected.
    pub faults: FaultCounts,
    /// Streams that left HTTP.
    pub upgrades: UpgradeCounts,
    /// How finding its endpoints goes.
    pub discovery: Arc<DiscoveryStatus>,
    /// TLS handshakes with its endpoints that went well.
    pub tls_handshakes: AtomicU64,
    /// TLS handshakes with its endpoints that failed, by reason.
    pub tls_failures: [AtomicU64; TlsFailure::ALL.len()],
    /// What left and came unencrypted; only `tls: none` has it.
    pub unencrypted: Arc<ByteCounts>,
    /// Who spoke first on intercepted connections.
    pub habit: LastHabit,
    /// Since when nobody can be asked.
    pub starvation: Starvation,
    /// Health checks of its endpoints.
    pub checks: CheckCounts,
}

/// Connections that are not the mesh's own, and what they carried.
#[derive(Debug, Default)]
pub struct ByteCounts {
    /// Connections made, or let in.
    pub connections: AtomicU64,
    /// Bytes written to them.
    pub sent_bytes: AtomicU64,
    /// Bytes read from them.
    pub received_bytes: AtomicU64,
}

/// What happened to requests, and how long they took.
#[derive(Debug, Default)]
pub struct RequestCounts {
    /// Requests (streams for TCP) ended, by status class 1xx to 5xx; index 0 is "no status".
    pub by_class: [AtomicU64; 6],
    /// Answers of our own and broken streams, by flag.
    pub by_flag: [AtomicU64; ResponseFlag::ALL.len()],
    /// From the request's arrival to the response's head.
    pub latency: LogHistogram,
}

/// Streams that left HTTP for another protocol, as WebSocket, or that were asked for as a tunnel.
#[derive(Debug, Default)]
pub struct UpgradeCounts {
    /// Those begun.
    pub total: AtomicU64,
    /// Those under way.
    pub active: AtomicU32,
    /// Bytes from callers, after the switch.
    pub sent_bytes: AtomicU64,
    /// Bytes to callers, after the switch.
    pub received_bytes: AtomicU64,
    /// How long those that ended lasted, in microseconds, as a sum.
    pub duration_us: AtomicU64,
}

/// Faults injected on purpose.
#[derive(Debug, Default)]
pub struct FaultCounts {
    /// Requests that waited.
    pub delays: AtomicU64,
    /// Requests that were answered.
    pub aborts: AtomicU64,
}

/// The place of a status in `by_class`. What is over 599 is treated as 5xx (RFC 9110 §15).
#[must_use]
pub fn class(status: u16) -> usize {
    usize::from(status / 100).min(5)
}

impl RequestCounts {
    /// Counts one ended request.
    pub fn record(&self, status: Option<u16>, flag: Option<ResponseFlag>) {
        let class = status.map_or(0, class);
        if let Some(count) = self.by_class.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(count) = flag.and_then(|flag| self.by_flag.get(flag as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A sliding window of requests and retries in coarse slots; the rules are in `resilience::retry_budget`.
#[derive(Debug)]
pub struct BudgetState {
    /// Slots with the second they stand for, packed as `second << 40 | requests << 20 | retries`.
    pub slots: [AtomicU64; 10],
    /// What seconds are counted from.
    pub epoch: Instant,
}

impl ClusterRuntime {
    /// Counters at zero. `now` is what the budget's seconds are counted from.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            overflows: Default::default(),
            pool: PoolCounts::default(),
            cursor: AtomicUsize::new(0),
            picks: PickCounts::default(),
            standings: AtomicU64::new(0),
            outlier: OutlierRuntime::new(now),
            retry_budget: BudgetState { slots: Default::default(), epoch: now },
            counts: RequestCounts::default(),
            retries: AtomicU64::new(0),
            retries_over_budget: AtomicU64::new(0),
            repeats: RepeatCounts::default(),
            mirrors: MirrorCounts::default(),
            faults: FaultCounts::default(),
            upgrades: UpgradeCounts::default(),
            discovery: Arc::new(DiscoveryStatus::new(now)),
            tls_handshakes: AtomicU64::new(0),
            tls_failures: Default::default(),
            unencrypted: Arc::default(),
            habit: LastHabit::default(),
            starvation: Starvation::new(now),
            checks: CheckCounts::default(),
        }
    }
}

/// Counters of one listener.
#[derive(Debug, Default)]
pub struct ListenerRuntime {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections open.
    pub active: AtomicUsize,
    /// Connections closed for what they cost or for what they sent.
    pub closed: Arc<Closed>,
    /// Connections ended for their age.
    pub recycled: AtomicU64,
    /// Failed accepts (out of file descriptors and the like).
    pub accept_errors: AtomicU64,
    /// Connections refused in the TLS handshake or by identity, by reason.
    pub refused: [AtomicU64; Refusal::ALL.len()],
    /// Requests that were answered before any cluster was chosen, by flag.
    pub unrouted: [AtomicU64; ResponseFlag::ALL.len()],
    /// Connections let in without mutual TLS, by exception.
    pub exceptions: [Arc<ByteCounts>; Exception::ALL.len()],
    /// How long handshakes with peers took that were let in.
    pub handshakes: Histogram,
    /// What was under way and was ended, because the rules allow it no more, in the order of [`Revoked`].
    pub revoked: [AtomicU64; Revoked::ALL.len()],
    /// What connections were found to speak.
    pub detections: Detections,
    /// What authorization rules said of calls, in the order of [`authorization::VERDICTS`](super::authorization::VERDICTS).
    pub authorized: [AtomicU64; VERDICTS.len()],
    /// Requests per verified peer.
    pub peers: PeerCounts,
}

/// Why a connection of a peer was refused before any request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It did not start with a TLS handshake record.
    Plaintext,
    /// It gave no certificate.
    NoCertificate,
    /// Its certificate did not verify.
    BadCertificate,
    /// It verified, but may not call here.
    NotAllowed,
    /// It and we share no application protocol.
    NoProtocol,
    /// It speaks no TLS 1.3.
    OldTls,
    /// It and we share no cipher suite, or no key exchange group.
    NoAlgorithm,
    /// It did not finish the handshake in time.
    Timeout,
    /// Anything else the TLS library objects to.
    Tls,
    /// We have no certificate to show.
    NoIdentity,
    /// It dialled a port that is only for what the kernel brings there.
    NotRedirected,
    /// It is our own: the kernel's rules bring back to us what we send.
    Loop,
    /// What is there in place of a PROXY protocol header is none, and there must be one.
    NoProxyHeader,
    /// Its PROXY protocol header is malformed.
    BadProxyHeader,
}

impl Refusal {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 14] = [
        Self::Plaintext,
        Self::NoCertificate,
        Self::BadCertificate,
        Self::NotAllowed,
        Self::NoProtocol,
        Self::OldTls,
        Self::NoAlgorithm,
        Self::Timeout,
        Self::Tls,
        Self::NoIdentity,
        Self::NotRedirected,
        Self::Loop,
        Self::NoProxyHeader,
        Self::BadProxyHeader,
    ];

    /// The reason as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate => "bad_certificate",
            Self::NotAllowed => "not_allowed",
            Self::NoProtocol => "no_protocol",
            Self::OldTls => "old_tls",
            Self::NoAlgorithm => "no_algorithm",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::NoIdentity => "no_identity",
            Self::NotRedirected => "not_redirected",
            Self::Loop => "loop",
            Self::NoProxyHeader => "no_proxy_header",
            Self::BadProxyHeader => "bad_proxy_header",
        }
    }
}

impl ListenerRuntime {
    /// Counts one request that was answered before any cluster was chosen.
    pub fn count_unrouted(&self, flag: ResponseFlag) {
        if let Some(count) = self.unrouted.get(flag as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts one refused connection; how many there were before for that reason.
    pub fn refuse(&self, reason: Refusal) -> u64 {
        self.refused.get(reason as usize).map_or(0, |count| count.fetch_add(1, Ordering::Relaxed))
    }
}

/// Requests per verified peer, bounded by [`MAX_COUNTED_PEERS`].
#[derive(Debug, Default)]
pub struct PeerCounts {
    named: Mutex<IndexMap<SpiffeId, Arc<PeerCount>>>,
    other: Arc<PeerCount>,
}

/// What one peer did, and the TLS facts of its newest connection.
#[derive(Debug, Default)]
pub struct PeerCount {
    /// Requests or streams.
    pub requests: AtomicU64,
    /// Connections.
    pub connections: AtomicU64,
    /// Facts of the newest handshake.
    pub tls: Mutex<Option<TlsFacts>>,
}

impl PeerCount {
    /// Keeps the facts of the newest handshake.
    pub fn set_tls(&self, facts: TlsFacts) {
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts);
    }

    /// The facts of the newest handshake.
    #[must_use]
    pub fn tls(&self) -> Option<TlsFacts> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PeerCounts {
    /// The counter for a peer; looked up once per connection.
    #[must_use]
    pub fn of(&self, peer: &SpiffeId) -> Arc<PeerCount> {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = named.get(peer) {
            return Arc::clone(count);
        }
        if named.len() >= MAX_COUNTED_PEERS {
            return Arc::clone(&self.other);
        }
        let count = Arc::new(PeerCount::default());
        named.insert(peer.clone(), Arc::clone(&count));
        count
    }

    /// All named peers, in order of appearance, and the rest.
    #[must_use]
    pub fn read(&self) -> (Vec<(SpiffeId, Arc<PeerCount>)>, Arc<PeerCount>) {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let named = named.iter().map(|(peer, count)| (peer.clone(), Arc::clone(count))).collect();
        (named, Arc::clone(&self.other))
    }
}
