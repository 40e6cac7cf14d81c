//! How the control side is doing: facts for metrics and operators, written by the loops that know them.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use super::federation::FederationStatus;

/// How getting and renewing our certificate goes, and what followed from changed trust. Times of the certificate itself are in the snapshot's identity.
#[derive(Debug, Default)]
pub struct IdentityStatus {
    /// Certificates obtained, the first included.
    pub renewals: Progress,
    /// Looks at the trust bundle (sources that have one to look at).
    pub bundle_refreshes: Progress,
    /// How it goes with the bundles of other trust domains.
    pub federation: FederationStatus,
    /// Live connections closed because the trust bundle does not vouch for their peers any more.
    pub trust_cuts: AtomicU64,
}

/// How one recurring activity goes.
#[derive(Debug, Default)]
pub struct Progress {
    /// Times it succeeded.
    pub successes: AtomicU64,
    /// Times it failed.
    pub failures: AtomicU64,
    last: Mutex<Last>,
}

/// What became of the newest attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Last {
    /// When it last succeeded, in wall time.
    pub succeeded_at: Option<SystemTime>,
    /// Why the newest attempt failed; `None` when it succeeded.
    pub error: Option<String>,
}

impl Progress {
    /// Counts a success at wall time `now`.
    pub fn succeed(&self, now: SystemTime) {
        self.successes.fetch_add(1, Ordering::Relaxed);
        let last = Last { succeeded_at: Some(now), error: None };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    /// Counts a failure.
    pub fn fail(&self, error: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.last.lock().unwrap_or_else(PoisonError::into_inner).error = Some(error);
    }

    /// What became of the newest attempts.
    #[must_use]
    pub fn last(&self) -> Last {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the newest attempt failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).error.is_some()
    }
}

/// How finding the endpoints of one cluster goes. Outlives snapshots, like the counters of the cluster.
#[derive(Debug)]
pub struct DiscoveryStatus {
    epoch: Instant,
    /// When the source last confirmed the list, in milliseconds after `epoch`; 0 = never.
    confirmed_ms: AtomicU64,
    /// Whether the list never changes, so that it has no age.
    is_constant: AtomicBool,
    /// Times the source gave no usable list; the last good one stayed.
    pub failures: AtomicU64,
    error: Mutex<Option<String>>,
    /// How lookups went, if it is the DNS that is asked.
    pub lookups: Lookups,
}

/// How lookups in the DNS went.
#[derive(Debug, Default)]
pub struct Lookups {
    /// Lookups, by what came of them.
    pub by_outcome: [AtomicU64; LookupOutcome::ALL.len()],
    /// How long the newest answer counts, in milliseconds, within the configured bounds; 0 before the first.
    pub ttl_ms: AtomicU64,
}

/// What came of one lookup of a cluster's name, all questions that it took together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupOutcome {
    /// Endpoints.
    Answered,
    /// Endpoints, but a part of the questions (one family of addresses, the target of a service) had no answer.
    Incomplete,
    /// There is no such name.
    NoSuchName,
    /// The name has no such records.
    NoData,
    /// Servers answered that they cannot or will not tell (SERVFAIL, REFUSED and the like).
    Refused,
    /// No answer in time.
    Timeout,
    /// Anything else: no server could be reached, an answer made no sense or held nothing that can be used.
    Failed,
}

impl LookupOutcome {
    /// Every outcome, in the order of their discriminants.
    pub const ALL: [Self; 7] = [
        Self::Answered,
        Self::Incomplete,
        Self::NoSuchName,
        Self::NoData,
        Self::Refused,
        Self::Timeout,
        Self::Failed,
    ];

    /// The outcome as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Incomplete => "incomplete",
            Self::NoSuchName => "no_such_name",
            Self::NoData => "no_data",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
        }
    }
}

impl Lookups {
    /// Counts one lookup.
    pub fn count(&self, outcome: LookupOutcome) {
        if let Some(count) = self.by_outcome.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps how long the newest answer counts.
    pub fn set_ttl(&self, ttl: Duration) {
        self.ttl_ms.store(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl DiscoveryStatus {
    /// Nothing confirmed. `now` is what times are counted from.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            confirmed_ms: AtomicU64::new(0),
            is_constant: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            error: Mutex::new(None),
            lookups: Lookups::default(),
        }
    }

    /// The source has looked, and the list stands (changed or not).
    pub fn confirm(&self, now: Instant) {
        let after = now.saturating_duration_since(self.epoch).as_millis();
        self.confirmed_ms.store(u64::try_from(after).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the list is part of the configuration and has no age.
    pub fn set_constant(&self, is_constant: bool) {
        self.is_constant.store(is_constant, Ordering::Relaxed);
    }

    /// The source has looked and found nothing usable; the last good list stays.
    pub fn fail(&self, error: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// How old the list is: the time since the source last confirmed it. `None` if it never did, or if the list is
    /// part of the configuration.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let confirmed_ms = self.confirmed_ms.load(Ordering::Relaxed);
        if confirmed_ms == 0 || self.is_constant.load(Ordering::Relaxed) {
            return None;
        }
        let confirmed = self.epoch + Duration::from_millis(confirmed_ms);
        Some(now.saturating_duration_since(confirmed))
    }

    /// Why the newest look failed; `None` when it did not.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
