//! Discovery by the controller: its settings, what it has said, and how it goes with it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use outrider_certs::SpiffeId;

use super::file::Fault;

/// Routes of one service. The controller keeps to fewer: to as many matches as are looked at.
pub const MAX_ROUTES: usize = 1024;
/// Bytes of all of them; as many as the controller says at most.
pub const MAX_ROUTES_BYTES: usize = 512 * 1024;

/// Where a sidecar asks for what its app uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerSettings {
    /// `host:port` of the controller.
    pub address: String,
    /// Who must answer there.
    pub spiffe_id: SpiffeId,
    /// The pod that this sidecar is in; `None`: it is called as its host.
    pub pod: Option<String>,
    /// Its UID, if that is known: another pod may have had its name.
    pub pod_uid: Option<String>,
    /// How long a connection or request waits for the first word about where it goes.
    pub wait: Duration,
    /// After this, what is not used is asked after no more.
    pub idle: Duration,
    /// Addresses and names asked after at a time.
    pub max_wanted: usize,
    /// Connections and requests that wait at a time, over all workers.
    pub max_waiting: usize,
}

/// What the controller says of all services that are asked after, in the words of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragments {
    /// Services, by name.
    pub services: Vec<Fragment>,
    /// `{"ports": […]}` of `intercept.inbound`.
    pub inbound: Option<Arc<str>>,
}

/// What the controller says of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The name of its cluster.
    pub name: Arc<str>,
    /// Raised when something else is said of it: endpoints belong to one revision, so that those of a service that is
    /// reached in another way from now on are never reached in the old way.
    pub revision: u64,
    /// An entry of `clusters[]`, as JSON.
    pub cluster: Arc<str>,
    /// Entries of the top-level `routes[]`, each as JSON; `None`: more than [`MAX_ROUTES`] or [`MAX_ROUTES_BYTES`].
    pub routes: Option<Arc<[Box<str>]>>,
    /// The app has asked for what leads to it; else it is there for the rules of others alone.
    pub is_asked_for: bool,
    /// `host:port` that lead to it, as the app wrote them.
    pub names: Vec<Box<str>>,
}

/// A service of which what the controller says is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its name; or what is said of the own workload: [`Self::CALLERS`], [`Self::PORTS`].
    pub service: Arc<str>,
    /// Why. The last good is in force, if there was one.
    pub faults: Vec<Fault>,
    /// It is sound, but the file, or another service, has something of it.
    pub is_conflict: bool,
}

impl Rejected {
    /// The name under which faults of what is said of who may call are told.
    pub const CALLERS: &'static str = "authorization";
    /// The name under which faults of what is said of the own workload's ports are told.
    pub const PORTS: &'static str = "intercept.inbound";

    /// Whether it is about the own workload, and not about a service that the app calls.
    #[must_use]
    pub fn is_of_workload(&self) -> bool {
        [Self::CALLERS, Self::PORTS].contains(&&*self.service)
    }
}

/// How it goes with the controller, for metrics and operators.
#[derive(Debug)]
pub struct ControllerStatus {
    epoch: Instant,
    /// A stream is there and has said something.
    pub is_connected: AtomicBool,
    /// Streams that said something.
    pub connects: AtomicU64,
    /// Streams that ended otherwise than by our own wish, or never came to be.
    pub failures: AtomicU64,
    /// Addresses and names that were asked after.
    pub wants: AtomicU64,
    /// Those that were forgotten, for nobody used them.
    pub forgotten: AtomicU64,
    /// Addresses and names asked after now.
    pub wanted: AtomicU64,
    /// When something was heard last, in milliseconds since `epoch`; 0: never.
    heard_ms: AtomicU64,
    error: Mutex<Option<String>>,
    rejected: Mutex<Arc<[Rejected]>>,
}

impl ControllerStatus {
    /// Nothing was heard yet. `now` is what times are counted from.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            is_connected: AtomicBool::new(false),
            connects: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            wants: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            error: Mutex::default(),
            rejected: Mutex::default(),
        }
    }

    /// The controller has said something; whether it is the first word of a stream.
    pub fn hear(&self, now: Instant) -> bool {
        let after = now.saturating_duration_since(self.epoch).as_millis();
        self.heard_ms.store(u64::try_from(after).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
        let is_first = !self.is_connected.swap(true, Ordering::Relaxed);
        if is_first {
            self.connects.fetch_add(1, Ordering::Relaxed);
            *lock(&self.error) = None;
        }
        is_first
    }

    /// The stream has ended; `error` says why, if that was not our own wish.
    pub fn end(&self, error: Option<String>) {
        self.is_connected.store(false, Ordering::Relaxed);
        if error.is_some() {
            self.failures.fetch_add(1, Ordering::Relaxed);
            *lock(&self.error) = error;
        }
    }

    /// How long ago something was heard; `None`: never.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let heard_ms = self.heard_ms.load(Ordering::Relaxed);
        let heard = self.epoch + Duration::from_millis(heard_ms);
        (heard_ms > 0).then(|| now.saturating_duration_since(heard))
    }

    /// Why there is no stream; `None` where there is one.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        lock(&self.error).clone()
    }

    /// Services of which what was said is not in force.
    #[must_use]
    pub fn rejected(&self) -> Arc<[Rejected]> {
        Arc::clone(&lock(&self.rejected))
    }

    /// Replaces those.
    pub fn set_rejected(&self, rejected: Arc<[Rejected]>) {
        *lock(&self.rejected) = rejected;
    }
}

fn lock<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
