//! Counters that outlive a snapshot: plain atomics, shared by all workers.
//!
//! Settings are replaced on every swap, counters are not: `publish` carries these over from the old snapshot to the
//! new by key. Decisions about them (`balance`, `resilience`) are pure functions elsewhere; here is only the state.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use indexmap::IndexMap;
use outrider_certs::SpiffeId;

use super::{
    closed::Closed, detection::Detections, flag::ResponseFlag, habit::LastHabit, handshake::TlsFailure,
    histogram::Histogram, listener::Exception, pool_counts::PoolCounts, status::DiscoveryStatus,
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
    /// What became of connections.
    pub pool: PoolCounts,
    /// Next turn of round-robin.
    pub cursor: AtomicUsize,
    /// State of the retry budget.
    pub retry_budget: BudgetState,
    /// What happened.
    pub counts: RequestCounts,
    /// Retries made.
    pub retries: AtomicU64,
    /// Retries that policy allowed and the budget did not.
    pub retries_over_budget: AtomicU64,
    /// Streams that left HTTP.
    pub upgrades: UpgradeCounts,
    /// How finding its endpoints goes.
    pub discovery: Arc<DiscoveryStatus>,
    /// TLS handshakes with its endpoints that failed, by reason.
    pub tls_failures: [AtomicU64; TlsFailure::ALL.len()],
    /// What left and came unencrypted; only `tls: none` has it.
    pub unencrypted: Arc<ByteCounts>,
    /// Who spoke first on intercepted connections.
    pub habit: LastHabit,
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
    pub latency: Histogram,
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

impl RequestCounts {
    /// Counts one ended request.
    pub fn record(&self, status: Option<u16>, flag: Option<ResponseFlag>) {
        let class = status.map_or(0, |status| usize::from(status / 100));
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
            pool: PoolCounts::default(),
            cursor: AtomicUsize::new(0),
            retry_budget: BudgetState { slots: Default::default(), epoch: now },
            counts: RequestCounts::default(),
            retries: AtomicU64::new(0),
            retries_over_budget: AtomicU64::new(0),
            upgrades: UpgradeCounts::default(),
            discovery: Arc::new(DiscoveryStatus::new(now)),
            tls_failures: Default::default(),
            unencrypted: Arc::default(),
            habit: LastHabit::default(),
        }
    }
}

/// Counters of one endpoint.
#[derive(Debug)]
pub struct EndpointRuntime {
    /// What the times below are counted from.
    pub epoch: Instant,
    /// Requests sent and not yet ended. Raised and lowered by `balance::InFlight`.
    pub in_flight: AtomicU32,
    /// Those of them whose response head has not come: a long answered stream is load, but it is not silence.
    pub unanswered: AtomicU32,
    /// Smoothed time to response head, in microseconds; 0 = no sample yet. Written by `balance::ewma`; a stale value
    /// costs one poor pick.
    pub latency_us: AtomicU64,
    /// When `latency_us` was written, in microseconds after `epoch`.
    pub latency_at_us: AtomicU64,
    /// `latency_us` is mostly what a failure counts as, and fades faster. Written by `balance::ewma`.
    pub is_penalised: AtomicBool,
    /// When something was last heard, or when the first of the unanswered requests was sent, in microseconds after
    /// `epoch`: with unanswered requests, the age of this is how long the endpoint has been silent.
    pub heard_at_us: AtomicU64,
    /// Times it was chosen.
    pub picks: AtomicU64,
    /// Attempts that ended without a usable answer (connect, handshake, identity, reset, timeout).
    pub failures: AtomicU64,
    /// Open upstream connections.
    pub connections: AtomicU32,
    /// Discovery dropped it: pooled connections to it are closed when their streams end.
    pub is_removed: AtomicBool,
    /// Facts of the newest handshake, for operators.
    pub tls: Mutex<Option<TlsFacts>>,
    /// The newest handshake that failed, in words, for operators.
    pub tls_failure: Mutex<Option<Box<str>>>,
    /// Which kinds of failure the log has told of, a bit for each: a broken endpoint must not fill it.
    pub tls_failures_told: AtomicU32,
    /// What ALPN agreed on with it, where that decides (`tls: public`, `protocol: auto`): the HTTP version, 0 is
    /// "not known".
    pub http_version: AtomicU8,
}

/// What a TLS handshake agreed on, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// Whom the peer proved to be: its SPIFFE ID, or the name of a server outside the mesh.
    pub peer: Arc<str>,
    /// Protocol version, as `TLSv1_3`.
    pub version: String,
    /// Cipher suite, as `TLS13_AES_256_GCM_SHA384`.
    pub cipher_suite: String,
    /// Key exchange group, as `X25519MLKEM768`.
    pub key_exchange: String,
    /// Application protocol agreed on; empty if none.
    pub alpn: String,
}

impl EndpointRuntime {
    /// Counters at zero.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            in_flight: AtomicU32::new(0),
            unanswered: AtomicU32::new(0),
            latency_us: AtomicU64::new(0),
            latency_at_us: AtomicU64::new(0),
            is_penalised: AtomicBool::new(false),
            heard_at_us: AtomicU64::new(0),
            picks: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            connections: AtomicU32::new(0),
            is_removed: AtomicBool::new(false),
            tls: Mutex::new(None),
            tls_failure: Mutex::new(None),
            tls_failures_told: AtomicU32::new(0),
            http_version: AtomicU8::new(0),
        }
    }

    /// Keeps the facts of the newest handshake.
    pub fn set_tls(&self, facts: TlsFacts) {
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts);
    }

    /// The facts of the newest handshake.
    #[must_use]
    pub fn tls(&self) -> Option<TlsFacts> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps why a handshake failed. Tells whether it is the first failure of this kind.
    pub fn tls_failed(&self, failure: TlsFailure, text: &str) -> bool {
        *self.tls_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.into());
        let bit = 1 << failure as u32;
        self.tls_failures_told.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Why the newest handshake that failed did so.
    #[must_use]
    pub fn tls_failure(&self) -> Option<Box<str>> {
        self.tls_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
    /// Failed accepts (out of file descriptors and the like).
    pub accept_errors: AtomicU64,
    /// Connections refused in the TLS handshake or by identity, by reason.
    pub refused: [AtomicU64; Refusal::ALL.len()],
    /// Requests that were answered before any cluster was chosen, by flag.
    pub unrouted: [AtomicU64; ResponseFlag::ALL.len()],
    /// Connections let in without mutual TLS, by exception.
    pub exceptions: [Arc<ByteCounts>; Exception::ALL.len()],
    /// What connections were found to speak.
    pub detections: Detections,
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
}

impl Refusal {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 12] = [
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
