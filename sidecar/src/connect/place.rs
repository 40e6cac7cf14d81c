//! Whom a connection is wanted for, what makes two of them interchangeable, and what each one occupies.

use std::{
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use outrider_certs::SpiffeId;

use super::dial::Speak;
use crate::{
    model::{
        Cluster, ClusterName, ClusterSettings, Endpoint, Identity,
        pool_counts::Closed,
        runtime::{ClusterRuntime, EndpointRuntime},
        transport::{PeerKind, Transport},
    },
    resilience::circuit_breaker::ConnectionSlot,
};

/// A connection's jitter: its greatest age is this share of the configured one, in thousandths (as gRPC's
/// `MAX_CONNECTION_AGE`, a tenth either way).
pub(super) const AGE_PERMILLE: std::ops::RangeInclusive<u32> = 900..=1100;
/// [`Place::why`] before anybody gave a reason.
const NO_REASON: u8 = u8::MAX;

/// Whom a connection is wanted for: one endpoint of one snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The cluster, for its timeouts and caps.
    pub cluster: &'a Arc<Cluster>,
    /// The endpoint.
    pub endpoint: &'a Arc<Endpoint>,
    /// Our identity in that snapshot.
    pub identity: Option<&'a Arc<Identity>>,
}

/// What makes two connections interchangeable: endpoint, protocol and transport. Timeouts and caps are no part of it:
/// they are those of the snapshot in which a connection is used, whichever it was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// Address of the endpoint's runtime, which a recycled IP address does not share. Whatever is kept under the key
    /// keeps the runtime alive, so it stays unique.
    endpoint: usize,
    speak: Speak,
    route: Route,
}

/// What the transport adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Route {
    App,
    Outrider,
    Standard,
    /// Address of the settings: name, roots and certificate. Kept alive as the endpoint's runtime is.
    Public(usize),
    Plain,
}

impl Route {
    fn of(transport: &Transport) -> Self {
        match transport {
            Transport::App => Self::App,
            Transport::Mesh(PeerKind::Outrider, _) => Self::Outrider,
            Transport::Mesh(PeerKind::Standard, _) => Self::Standard,
            Transport::Public(settings) => Self::Public(Arc::as_ptr(settings) as usize),
            Transport::Plain(_) => Self::Plain,
        }
    }
}

/// For [`PoolKey`]s: none of their parts comes from the network, so a fast hash does.
pub(super) type KeyHash = BuildHasherDefault<KeyHasher>;

/// A multiplicative hash.
#[derive(Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // Fibonacci hashing (Knuth, TAOCP 3 §6.4): 2^64 over the golden ratio.
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value.unsigned_abs() as u64);
    }

    fn finish(&self) -> u64 {
        // A product's low bits know only its factors' low bits, and the table takes its index from them.
        self.0 ^ (self.0 >> 32)
    }
}

impl PoolKey {
    /// The key of connections to `target` that speak `speak`.
    #[must_use]
    pub fn new(target: Target<'_>, speak: Speak) -> Self {
        Self {
            endpoint: Arc::as_ptr(&target.endpoint.runtime) as usize,
            speak,
            route: Route::of(&target.cluster.settings.transport),
        }
    }

    /// What is spoken.
    #[must_use]
    pub fn speak(&self) -> Speak {
        self.speak
    }
}

/// When a connection was made, and its share of the jitter.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// When it was asked for.
    pub born: Instant,
    /// Its greatest age in thousandths of the configured one.
    pub permille: u32,
}

impl Life {
    /// Whether it is too old for anything new.
    #[must_use]
    pub fn is_over(&self, max_age: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.born) >= (max_age / 1000).saturating_mul(self.permille)
    }
}

/// How long connections of a cluster are kept.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Unused.
    pub idle: Duration,
    /// In all.
    pub age: Duration,
}

impl Terms {
    /// As the settings say.
    #[must_use]
    pub fn of(settings: &ClusterSettings) -> Self {
        Self { idle: settings.timeouts.pool_idle, age: settings.timeouts.connection_age }
    }
}

/// What one connection belongs to and occupies.
#[derive(Debug)]
pub struct Place {
    /// What it is interchangeable with.
    pub key: PoolKey,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Counters of its cluster.
    pub counts: Arc<ClusterRuntime>,
    /// Counters of its endpoint.
    pub endpoint: Arc<EndpointRuntime>,
    /// Keeps what the key points to.
    _transport: Transport,
    /// Its age.
    pub life: Life,
    /// Its slot under the cluster's cap, until it is closed or another connection gets it.
    slot: Mutex<Option<ConnectionSlot>>,
    is_open: AtomicBool,
    /// Whom the other end proved to be, in the mesh.
    peer: OnceLock<SpiffeId>,
    /// Why it is closed: the first reason given.
    why: AtomicU8,
}

/// Held by the connection itself: gives everything back when the connection is gone.
#[derive(Debug)]
pub struct Seat(pub Arc<Place>);

impl Place {
    /// The connection is there.
    pub fn opened(&self) {
        self.is_open.store(true, Ordering::Relaxed);
        self.counts.pool.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// The other end has proved to be that.
    pub(super) fn proved(&self, peer: SpiffeId) {
        // A connection makes one handshake.
        self.peer.get_or_init(|| peer);
    }

    /// Whom the other end proved to be, in the mesh.
    #[must_use]
    pub fn peer(&self) -> Option<&SpiffeId> {
        self.peer.get()
    }

    /// Says why the connection is about to be closed; the first reason counts.
    pub fn closing(&self, why: Closed) {
        let _first = self.why.compare_exchange(NO_REASON, why as u8, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Takes the slot for another connection. The caller closes this one.
    #[must_use]
    pub fn take_slot(&self) -> Option<ConnectionSlot> {
        self.lock().take()
    }

    /// Whether the endpoint is no longer listed.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.endpoint.is_removed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<ConnectionSlot>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// A seat for a connection to `target` that is about to be made.
    #[must_use]
    pub fn new(target: Target<'_>, speak: Speak, slot: ConnectionSlot, life: Life) -> Self {
        target.endpoint.runtime.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Place {
            key: PoolKey::new(target, speak),
            cluster: target.cluster.name().clone(),
            counts: Arc::clone(&target.cluster.runtime),
            endpoint: Arc::clone(&target.endpoint.runtime),
            _transport: target.cluster.settings.transport.clone(),
            life,
            slot: Mutex::new(Some(slot)),
            is_open: AtomicBool::new(false),
            peer: OnceLock::new(),
            why: AtomicU8::new(NO_REASON),
        }))
    }
}

impl Seat {
    /// It was found out what is spoken. Only before anybody else holds the place.
    pub(super) fn speaks(&mut self, speak: Speak) {
        if let Some(place) = Arc::get_mut(&mut self.0) {
            place.key.speak = speak;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let place = &self.0;
        place.endpoint.connections.fetch_sub(1, Ordering::Relaxed);
        if place.is_open.load(Ordering::Relaxed) {
            let why = place.why.load(Ordering::Relaxed);
            let why = Closed::ALL.get(usize::from(why)).copied();
            place.counts.pool.close(why.unwrap_or(match place.key.speak {
                Speak::Http1 | Speak::Either | Speak::Tcp | Speak::OwnTls => Closed::InUse,
                // Whoever closes a shared one says why, except for the peer.
                Speak::Http2 => Closed::Peer,
            }));
        }
        drop(place.take_slot());
    }
}
