//! The course of one request's attempts, or of one stream's: where it was sent to, and whether it may be sent again.
//!
//! # Invariants
//! - An attempt is repeated only if what happened, the policy, the cap, the budget and the deadline all allow it.
//! - Every attempt goes to an endpoint not yet tried, as long as there is one.
//! - What is under way counts under `max_active` for as long as it is: a [`RetrySlot`] each.

use std::{
    sync::{Arc, OnceLock, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{error::ProxyError, failure::Failure, worker::Worker};
use crate::{
    balance::{self, Ask, InFlight, Tried},
    model::{Cluster, health::Standing, policy::RetryPolicy, retries::RetryReason, transport::Transport},
    net::Net,
    resilience::{
        backoff::{self, Advice, Before},
        circuit_breaker::{self, RetrySlot},
        retry::{self, Processed, RetryFacts, Verdict},
        retry_budget,
    },
    telemetry::trail::NotRepeated,
};

/// What is known of a request, as far as its repetition goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Safety {
    /// Whether doing it twice is as doing it once.
    pub(super) is_idempotent: bool,
    /// Whether we still hold all of its body.
    pub(super) is_replayable: bool,
}

/// The attempts so far.
#[derive(Debug)]
pub(super) struct Course<'a> {
    cluster: &'a Arc<Cluster>,
    policy: &'a RetryPolicy,
    /// Which attempt the hop before said this is, counted from 1.
    previous_attempt: u32,
    tried: Tried,
    /// What keeps it with one endpoint.
    affinity: Option<u64>,
    /// The newest attempt, counted from 1.
    attempt: u32,
    /// Held for the newest attempt if it is a repetition.
    slot: Option<RetrySlot>,
    /// What is granted for the attempt after the newest, which was taken back for it.
    granted: OnceLock<RetrySlot>,
}

/// A second attempt beside the newest one.
#[derive(Debug)]
pub(super) struct Second {
    /// Where it goes.
    pub(super) in_flight: InFlight,
    /// Held while it is under way.
    pub(super) slot: RetrySlot,
}

impl<'a> Course<'a> {
    /// Before the first attempt.
    pub(super) fn new(cluster: &'a Arc<Cluster>, policy: &'a RetryPolicy, previous_attempt: u32) -> Self {
        let tried = Tried::default();
        let granted = OnceLock::new();
        Self { cluster, policy, previous_attempt, affinity: None, tried, attempt: 1, slot: None, granted }
    }

    /// The same for what is to be kept with one endpoint.
    pub(super) fn kept(self, affinity: Option<u64>) -> Self {
        Self { affinity, ..self }
    }

    /// The newest attempt, counted from 1.
    pub(super) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether no attempt may follow the newest, whatever becomes of it.
    pub(super) fn is_last(&self) -> bool {
        self.attempt > self.policy.max_retries
    }

    /// Chooses where the newest attempt goes.
    pub(super) fn pick<N: Net>(
        &mut self,
        worker: &Worker<N>,
        safety: Safety,
    ) -> Result<InFlight, ProxyError> {
        let now = worker.now();
        let may_probe = safety.is_idempotent && safety.is_replayable && !self.is_last();
        let ask = Ask { tried: &self.tried, affinity: self.affinity, may_probe };
        let pick = worker
            .with_rng(|rng| balance::pick(self.cluster, ask, now, rng))
            .ok_or_else(|| ProxyError::no_endpoint(self.cluster, now))?;
        let in_flight = InFlight::start(pick, now);
        self.tried.insert(in_flight.endpoint().address());
        Ok(in_flight)
    }

    /// Whether the newest attempt may be followed by another: for which reason that is, and after which wait. Takes one
    /// retry from the budget, and counts it.
    ///
    /// # Errors
    /// Which of what happened, the policy, the cap, the budget and the deadline says no.
    pub(super) fn repeat<N: Net>(
        &mut self,
        worker: &Worker<N>,
        failure: Failure,
        safety: Safety,
        deadline: Option<Instant>,
    ) -> Result<(RetryReason, Duration), NotRepeated> {
        let now = worker.now();
        if let Some(slot) = self.granted.take() {
            let base = self.policy.backoff_base;
            let wait = worker.with_rng(|rng| backoff::delay(base, self.attempt, rng));
            self.go_on(slot, RetryReason::Silent);
            let is_late = deadline.is_some_and(|deadline| now + wait >= deadline);
            return Ok((RetryReason::Silent, if is_late { Duration::ZERO } else { wait }));
        }
        // A second connection to an app that is down tells nothing new, and its callers have others to ask.
        let is_app_down =
            failure.reason == RetryReason::Connect && self.cluster.settings.transport == Transport::App;
        if is_app_down {
            return Err(NotRepeated::AppDown);
        }
        self.may_retry(failure.processed, safety)?;
        let before = Before {
            advice: failure.advice,
            retry: self.attempt,
            is_unprocessed: failure.processed == Processed::No,
            is_elsewhere: self.is_elsewhere(now),
            base: self.policy.backoff_base,
            left: deadline.map(|deadline| deadline.saturating_duration_since(now)),
        };
        let wait = worker.with_rng(|rng| backoff::wait(before, rng)).ok_or(match failure.advice {
            Advice::None => NotRepeated::Deadline,
            Advice::Back(_) if before.is_elsewhere => NotRepeated::Deadline,
            Advice::Back(_) | Advice::Exactly(_) | Advice::Never => NotRepeated::Advised,
        })?;
        // What has failed is not under way any more.
        self.slot = None;
        let slot = self.take(now)?;
        self.go_on(slot, failure.reason);
        Ok((failure.reason, wait))
    }

    /// Whether the newest attempt may be taken back from an endpoint that does not answer any more, to be made elsewhere.
    /// If so, one retry is taken from the cap and the budget, and [`repeat`](Self::repeat) will use it.
    pub(super) fn may_take_back<N: Net>(&self, worker: &Worker<N>, safety: Safety) -> bool {
        let now = worker.now();
        if !self.may_hedge(safety) || !self.is_elsewhere(now) {
            return false;
        }
        self.take(now).is_ok_and(|slot| self.granted.set(slot).is_ok())
    }

    fn go_on(&mut self, slot: RetrySlot, reason: RetryReason) {
        self.slot = Some(slot);
        self.attempt += 1;
        self.cluster.runtime.retries.fetch_add(1, Ordering::Relaxed);
        self.cluster.runtime.repeats.count(reason);
    }

    /// Whether a second attempt may be made beside the newest one.
    pub(super) fn may_hedge(&self, safety: Safety) -> bool {
        self.may_retry(Processed::Maybe, safety).is_ok()
    }

    /// Begins a second attempt beside the newest one, at an endpoint that is usable and was not tried: it is the newest
    /// then. `None` if there is none, or the policy, the cap or the budget say no.
    pub(super) fn hedge<N: Net>(&mut self, worker: &Worker<N>, safety: Safety) -> Option<Second> {
        let now = worker.now();
        if !self.may_hedge(safety) || !self.is_elsewhere(now) {
            return None;
        }
        let ask = Ask { affinity: self.affinity, ..Ask::plain(&self.tried) };
        let pick = worker.with_rng(|rng| balance::pick(self.cluster, ask, now, rng))?;
        if self.tried.contains(pick.endpoint.address()) {
            return None;
        }
        let slot = self.take(now).ok()?;
        self.cluster.runtime.repeats.hedges.fetch_add(1, Ordering::Relaxed);
        self.attempt += 1;
        self.tried.insert(pick.endpoint.address());
        Some(Second { in_flight: InFlight::start(pick, now), slot })
    }

    /// Counts that the answer of the second attempt is the one delivered.
    pub(super) fn hedge_won(&self) {
        self.cluster.runtime.repeats.hedges_won.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether what happened and the policy allow another attempt.
    fn may_retry(
        &self,
        processed: Processed,
        Safety { is_idempotent, is_replayable }: Safety,
    ) -> Result<(), NotRepeated> {
        let facts = RetryFacts {
            processed,
            is_idempotent,
            is_replayable,
            attempt: self.attempt,
            max_retries: self.policy.max_retries,
            previous_attempts_upstream: self.previous_attempt,
        };
        match retry::may_retry(facts) {
            Verdict::Retry => Ok(()),
            Verdict::NotSafe => Err(NotRepeated::NotIdempotent),
            Verdict::NotReplayable => Err(NotRepeated::BodyGone),
            Verdict::TooMany if self.is_last() => Err(NotRepeated::AttemptsUsedUp),
            Verdict::TooMany => Err(NotRepeated::HopBefore),
        }
    }

    /// Takes one retry or hedge from the cap and from the budget.
    fn take(&self, now: Instant) -> Result<RetrySlot, NotRepeated> {
        let (budget, runtime) = (&self.cluster.settings.retry_budget, &self.cluster.runtime);
        let Some(slot) = circuit_breaker::admit_retry(self.cluster) else {
            runtime.repeats.over_active.fetch_add(1, Ordering::Relaxed);
            return Err(NotRepeated::OverActive);
        };
        if !retry_budget::try_take(&runtime.retry_budget, budget.ratio, budget.min_per_second, now) {
            runtime.retries_over_budget.fetch_add(1, Ordering::Relaxed);
            return Err(NotRepeated::OverBudget);
        }
        Ok(slot)
    }

    /// Whether there is a usable endpoint that was not tried.
    fn is_elsewhere(&self, now: Instant) -> bool {
        self.cluster.endpoints.iter().any(|endpoint| {
            let standing = endpoint.runtime.standing(endpoint.settings.is_ready, now);
            !self.tried.contains(endpoint.address()) && matches!(standing, Standing::Usable | Standing::Due)
        })
    }
}
