//! Endpoints: one address of a cluster each, with what is remembered of it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use outrider_certs::SpiffeId;

use super::{handshake::TlsFailure, health::Health, outlier::Seen};

/// Largest weight of an endpoint.
pub const MAX_WEIGHT: u32 = 1000;

/// One address of a cluster, as discovery gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSettings {
    /// Where it is.
    pub address: SocketAddr,
    /// Who must answer there: one of these IDs. Never empty for a mesh transport (checked by `config`).
    pub spiffe_ids: Arc<[SpiffeId]>,
    /// Its share of requests beside the others', 1..=[`MAX_WEIGHT`].
    pub weight: u32,
    /// Where it stands, in the words of whoever lists it; `None`: nobody knows.
    pub zone: Option<Arc<str>>,
    /// Whether discovery says that it takes requests.
    pub is_ready: bool,
}

impl EndpointSettings {
    /// A ready endpoint of weight 1, of which nobody knows where it stands.
    #[must_use]
    pub fn new(address: SocketAddr, spiffe_ids: Arc<[SpiffeId]>) -> Self {
        Self { address, spiffe_ids, weight: 1, zone: None, is_ready: true }
    }
}

/// One endpoint of one snapshot.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it is and who it must be.
    pub settings: EndpointSettings,
    /// Counters, carried over by cluster, transport, address and SPIFFE IDs: a recycled address starts afresh, and so
    /// does whatever needs other connections than before.
    pub runtime: Arc<EndpointRuntime>,
    /// In whose name it is connected to, where it is the own app and sees that.
    pub client: Option<Arc<Client>>,
}

/// In whose name the own app is connected to. Connections in different names are never exchanged for each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client {
    /// The address that a connection comes from, behind a transparent listener.
    pub address: Option<IpAddr>,
    /// What a connection begins with: a header of the PROXY protocol.
    pub announcement: Option<Arc<[u8]>>,
}

impl Endpoint {
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.settings.address
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
    /// Smoothed time to response head, in microseconds; 0 = no sample yet. Written by `balance::ewma`, and afresh by
    /// `resilience::outlier` when the endpoint is back; a stale value costs one poor pick.
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
    /// Whether it may be asked, and since when not.
    pub health: Health,
    /// What was seen of it, for outlier detection.
    pub seen: Seen,
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
            health: Health::default(),
            seen: Seen::default(),
        }
    }

    /// Whether it says that it has too much to do.
    #[must_use]
    pub fn is_overloaded(&self, now: Instant) -> bool {
        let until_us = self.health.overloaded_until_us.load(Ordering::Relaxed);
        now < self.epoch + Duration::from_micros(until_us)
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
