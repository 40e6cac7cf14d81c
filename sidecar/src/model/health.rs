//! Whether an endpoint may be asked: what was seen of it by those who asked, by health checks, and since when.
//!
//! Here is only the state; who writes it is named at each field.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    endpoint::{Endpoint, EndpointRuntime},
    health_check::CheckState,
};

/// What is known of an endpoint's health. Times are in microseconds after the endpoint's epoch.
#[derive(Debug, Default)]
pub struct Health {
    /// Ejected until then; 0: it is not. It stays as it is when the time has come: then one probe decides. Written by
    /// `resilience::outlier`.
    pub ejected_until_us: AtomicU64,
    /// Ejections in a row: what the length of the next one grows with. Written by `resilience::outlier`.
    pub ejections: AtomicU32,
    /// A request is under way that decides whether it is back from the ejection that ended then, as `ejected_until_us`; 0:
    /// none is. Taken by `balance`, released by who holds it.
    pub probed_for_us: AtomicU64,
    /// Said to be overloaded until then, and given less; 0: it is not. Written by `resilience::outlier`.
    pub overloaded_until_us: AtomicU64,
    /// When it was let in again, for a slow start; 0: it has been in since its epoch. Written by whoever lets it in.
    pub back_at_us: AtomicU64,
    /// What health checks say: a [`Checked`]. Written by `health`.
    pub checked: AtomicU8,
    /// What health checks have seen, for their next verdict and for operators. Written by `health`.
    pub checks: Mutex<CheckState>,
}

/// What health checks say of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Checked {
    /// Nothing: it was not checked, or not often enough yet.
    Unknown = 0,
    /// It is well.
    Healthy = 1,
    /// It is not.
    Unhealthy = 2,
}

impl Checked {
    /// The word for it in dumps.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How the endpoints of a cluster stand, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub listed: usize,
    /// Discovery says no.
    pub not_ready: usize,
    /// Health checks say no, and discovery does not.
    pub unhealthy: usize,
    /// Ejected, at rest or to be tried, and nothing else says no.
    pub ejected: usize,
}

impl Tally {
    /// Of these endpoints.
    #[must_use]
    pub fn of(endpoints: &[Arc<Endpoint>], now: Instant) -> Self {
        let mut tally = Self { listed: endpoints.len(), ..Self::default() };
        for endpoint in endpoints {
            let is_ready = endpoint.settings.is_ready;
            match endpoint.runtime.standing(is_ready, now) {
                Standing::Usable => {}
                Standing::Unhealthy if !is_ready => tally.not_ready += 1,
                Standing::Unhealthy => tally.unhealthy += 1,
                Standing::Resting(_) | Standing::Due => tally.ejected += 1,
            }
        }
        tally
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listed, not_ready, unhealthy, ejected } = self;
        if *listed == 0 {
            return f.write_str("none is listed");
        }
        write!(f, "of {listed}, {not_ready} not ready, {unhealthy} unhealthy, {ejected} ejected")
    }
}

/// Whether an endpoint may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Usable,
    /// It is ejected, and rests until then.
    Resting(Instant),
    /// It was ejected and has rested: one request may try it.
    Due,
    /// Health checks or discovery say no.
    Unhealthy,
}

impl Health {
    /// What health checks say.
    #[must_use]
    pub fn checked(&self) -> Checked {
        match self.checked.load(Ordering::Relaxed) {
            1 => Checked::Healthy,
            2 => Checked::Unhealthy,
            _ => Checked::Unknown,
        }
    }

    /// What health checks have seen.
    #[must_use]
    pub fn checks(&self) -> CheckState {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What health checks have seen does not count any more.
    pub fn forget_checks(&self) {
        *self.checks.lock().unwrap_or_else(PoisonError::into_inner) = CheckState::default();
    }

    /// Keeps what health checks say; whether that is news.
    pub fn set_checked(&self, checked: Checked) -> bool {
        self.checked.swap(checked as u8, Ordering::Relaxed) != checked as u8
    }
}

impl EndpointRuntime {
    /// Whether it may be asked, where discovery says whether it `is_ready`.
    #[must_use]
    pub fn standing(&self, is_ready: bool, now: Instant) -> Standing {
        if !is_ready || self.health.checked() == Checked::Unhealthy {
            return Standing::Unhealthy;
        }
        match self.health.ejected_until_us.load(Ordering::Acquire) {
            0 => Standing::Usable,
            until_us => {
                let until = self.epoch + Duration::from_micros(until_us);
                if now < until { Standing::Resting(until) } else { Standing::Due }
            }
        }
    }

    /// Takes the one probe of an endpoint that is [`Standing::Due`]: which ejection it is of, to be given back with it.
    /// `None`: somebody has it, or the endpoint is not ejected. A probe of an ejection before is none any more.
    #[must_use]
    pub fn take_probe(&self) -> Option<u64> {
        let until_us = self.health.ejected_until_us.load(Ordering::Acquire);
        let before = self.health.probed_for_us.load(Ordering::Acquire);
        if until_us == 0 || before == until_us {
            return None;
        }
        let probed = &self.health.probed_for_us;
        probed
            .compare_exchange(before, until_us, Ordering::AcqRel, Ordering::Acquire)
            .ok()
            .map(|_before| until_us)
    }

    /// Gives the probe of that ejection back, whatever became of it.
    pub fn release_probe(&self, of_us: u64) {
        self.health.probed_for_us.compare_exchange(of_us, 0, Ordering::AcqRel, Ordering::Relaxed).ok();
    }

    /// Whether a probe is under way.
    #[must_use]
    pub fn is_probed(&self) -> bool {
        let probed_for_us = self.health.probed_for_us.load(Ordering::Acquire);
        probed_for_us != 0 && probed_for_us == self.health.ejected_until_us.load(Ordering::Acquire)
    }
}
