//! Outlier detection's nouns: its settings, why an endpoint was ejected, and what was seen of endpoints so far.
//!
//! The rules are in `resilience::outlier`.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{latency_window::LatencyWindow, pending::Pending};

/// When an endpoint is ejected, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierSettings {
    /// So many gateway failures in a row eject, 1..=1000; `None`: they do not.
    pub consecutive_gateway_failures: Option<u32>,
    /// So many failures to get anything from it in a row eject, 1..=1000; `None`: they do not.
    pub consecutive_local_failures: Option<u32>,
    /// A share of successes in a window that is so many standard deviations below the others' ejects; `None`: none does.
    pub success_rate_stdev: Option<f64>,
    /// A share of failures in a window that ejects, in percent, 1..=100; `None`: none does.
    pub failure_percent: Option<u32>,
    /// A median latency so many times the others' ejects, and so does silence; `None`: neither does.
    pub slow_factor: Option<f64>,
    /// No median below this is slow.
    pub slow_floor: Duration,
    /// Requests in a window without which an endpoint is not judged by it.
    pub min_requests: u32,
    /// Endpoints with as many, without which nobody is compared.
    pub min_endpoints: u32,
    /// What shares and latencies are counted over.
    pub window: Duration,
    /// The first rest; it doubles with each ejection in a row, and is up to half longer by chance.
    pub ejection_time: Duration,
    /// The rest grows to this, by chance up to half more.
    pub max_ejection_time: Duration,
    /// Share of a cluster's endpoints that may be out of use for it to eject one more, in percent, 0..=50.
    pub max_ejected_percent: u32,
}

/// Why an endpoint was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// Answers of a gateway (502, 503, 504, gRPC UNAVAILABLE) or resets, in a row.
    GatewayFailures = 0,
    /// No connection, or no answer in time, in a row.
    LocalFailures = 1,
    /// It succeeded less often than the others.
    SuccessRate = 2,
    /// It failed nearly always.
    FailurePercent = 3,
    /// It is far slower than the others.
    Slow = 4,
    /// It has requests and says nothing, while others answer.
    Silent = 5,
    /// The request that was to show whether it is back failed.
    Probe = 6,
}

impl Reason {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 7] = [
        Self::GatewayFailures,
        Self::LocalFailures,
        Self::SuccessRate,
        Self::FailurePercent,
        Self::Slow,
        Self::Silent,
        Self::Probe,
    ];

    /// The reason as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::GatewayFailures => "gateway_failures",
            Self::LocalFailures => "local_failures",
            Self::SuccessRate => "success_rate",
            Self::FailurePercent => "failure_percent",
            Self::Slow => "slow",
            Self::Silent => "silent",
            Self::Probe => "probe",
        }
    }
}

/// What was seen of an endpoint by those who asked it. Written by `resilience::outlier`, but for `pending`.
#[derive(Debug, Default)]
pub struct Seen {
    /// Gateway failures since the last answer that was none.
    pub consecutive_gateway: AtomicU32,
    /// Local failures since anything was heard of it.
    pub consecutive_local: AtomicU32,
    /// Requests that it answered well, in all.
    pub successes: AtomicU64,
    /// Requests that it failed, in all.
    pub failures: AtomicU64,
    /// The two sums at the beginning of this window, and of the one before.
    pub began: [Sums; 2],
    /// `successes` at the last look.
    pub successes_at_look: AtomicU64,
    /// How fast it answered well, in this window and the one before.
    pub latencies: LatencyWindow,
    /// Requests whose answers are owed, by age. Raised and lowered by `balance::InFlight`.
    pub pending: Pending,
    /// Requests that waited for long, and were given up without an answer, since anything was heard of it.
    pub abandoned: AtomicU32,
    /// Requests that it lately let wait over a look while it answered others: that much of silence is usual.
    pub usually_waiting: AtomicU32,
    /// The most of that at the others since it was last heard itself.
    pub waiting_elsewhere: AtomicU32,
    /// When a request begun after its rest had a head that does not say yet how it ends, in microseconds after the
    /// endpoint's epoch; 0: none has.
    pub headed_at_us: AtomicU64,
    /// When its probe was first looked at, in the same way; 0: it has none.
    pub probed_at_us: AtomicU64,
    /// Why it was ejected last: a [`Reason`]; only good where it was ejected at all.
    pub reason: AtomicU8,
    /// Times it was ejected, a probe's failure included.
    pub ejected: AtomicU64,
    /// Told when it is found silent: who waits for an answer of it may go elsewhere.
    pub silenced: Notify,
}

/// Successes and failures.
#[derive(Debug, Default)]
pub struct Sums {
    /// As [`Seen::successes`] then.
    pub successes: AtomicU64,
    /// As [`Seen::failures`] then.
    pub failures: AtomicU64,
}

/// What an endpoint answered over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// Well.
    pub successes: u64,
    /// Not well, or not at all.
    pub failures: u64,
}

impl Results {
    /// Both.
    #[must_use]
    pub fn total(self) -> u64 {
        self.successes + self.failures
    }
}

impl Seen {
    /// What became of requests in this window.
    #[must_use]
    pub fn in_window(&self) -> Results {
        self.since(&self.began[0])
    }

    /// What became of requests in this window and the one before.
    #[must_use]
    pub fn lately(&self) -> Results {
        self.since(&self.began[1])
    }

    fn since(&self, began: &Sums) -> Results {
        let difference = |all: &AtomicU64, then: &AtomicU64| {
            all.load(Ordering::Relaxed).saturating_sub(then.load(Ordering::Relaxed))
        };
        Results {
            successes: difference(&self.successes, &began.successes),
            failures: difference(&self.failures, &began.failures),
        }
    }

    /// Begins a window.
    pub fn rotate(&self) {
        let [this, before] = &self.began;
        before.successes.store(this.successes.load(Ordering::Relaxed), Ordering::Relaxed);
        before.failures.store(this.failures.load(Ordering::Relaxed), Ordering::Relaxed);
        this.successes.store(self.successes.load(Ordering::Relaxed), Ordering::Relaxed);
        this.failures.store(self.failures.load(Ordering::Relaxed), Ordering::Relaxed);
        self.latencies.rotate();
    }

    /// Forgets what would speak for or against it, as after a rest.
    pub fn forget(&self) {
        self.consecutive_gateway.store(0, Ordering::Relaxed);
        self.consecutive_local.store(0, Ordering::Relaxed);
        self.headed_at_us.store(0, Ordering::Relaxed);
        self.probed_at_us.store(0, Ordering::Relaxed);
        for _window in &self.began {
            self.rotate();
        }
    }

    /// Why it was ejected last.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        Reason::ALL.get(usize::from(self.reason.load(Ordering::Relaxed))).copied()
    }
}

/// A cluster's part of outlier detection.
#[derive(Debug)]
pub struct OutlierRuntime {
    /// What the times below are counted from.
    pub epoch: Instant,
    /// Held by whoever ejects or lets in: the bound on what is ejected is exact.
    pub changing: Mutex<()>,
    /// When endpoints were last looked at, in microseconds after `epoch`.
    pub looked_at_us: AtomicU64,
    /// When a window was last judged, in microseconds after `epoch`.
    pub judged_at_us: AtomicU64,
    /// Ejections by reason.
    pub ejections: [AtomicU64; Reason::ALL.len()],
    /// Ejections that were due and not made, because too few endpoints would have been left, or none was any better.
    pub held_back: AtomicU64,
}

impl OutlierRuntime {
    /// Nothing seen yet. `now` is what times are counted from.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            changing: Mutex::new(()),
            looked_at_us: AtomicU64::new(0),
            judged_at_us: AtomicU64::new(0),
            ejections: Default::default(),
            held_back: AtomicU64::new(0),
        }
    }

    /// Ejections for that reason.
    #[must_use]
    pub fn ejected_for(&self, reason: Reason) -> u64 {
        self.ejections.get(reason as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}
