//! What follows a failed attempt, as `pipeline/course.rs` and `hedge.rs` have it.

use std::{net::SocketAddr, time::Duration};

use outrider::{
    model::policy::Hedge,
    resilience::{
        backoff::{self, Advice, Before},
        circuit_breaker::{self, RetrySlot},
        retry::{self, Processed, RetryFacts, Verdict},
        retry_budget,
    },
};

use super::{
    caller::Caller,
    invariants,
    mesh::Mesh,
    queue::Event,
    replica::{Seen, Stage},
    requests::{End, Request},
};

/// What stood against another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The policy.
    Policy(Verdict),
    /// It would have come too late.
    Late,
    /// Too many were under way.
    Active,
    /// The budget was spent.
    Budget,
}

impl Why {
    fn label(self) -> &'static str {
        match self {
            Self::Policy(Verdict::TooMany) => "TooMany",
            Self::Policy(Verdict::NotSafe) => "NotSafe",
            Self::Policy(Verdict::NotReplayable) => "NotReplayable",
            Self::Policy(Verdict::Retry) => unreachable!("nothing stood against it"),
            Self::Late => "Late",
            Self::Active => "Active",
            Self::Budget => "Budget",
        }
    }
}

impl Request {
    fn facts(&self, processed: Processed) -> RetryFacts {
        RetryFacts {
            processed,
            is_idempotent: self.is_idempotent,
            is_replayable: self.is_replayable,
            attempt: self.attempt,
            max_retries: self.cluster.settings.policy.retry.max_retries,
            previous_attempts_upstream: 1,
        }
    }
}

impl Mesh {
    /// The head of an answer comes: it is delivered, or another attempt is made.
    pub(super) fn answer(&mut self, number: u32, attempt: u64, status: u16) {
        self.headed(number, attempt, status);
        let request = self.requests.get_mut(&number).expect("it has an attempt under way");
        let caller = &mut self.callers[request.caller];
        let is_call = request.is_call;
        let under_way = request.under_way(attempt);
        under_way.is_answered = true;
        caller.ledger.known[under_way.known].unanswered -= 1;
        // What a call of gRPC says is in its trailers: its head is a good one.
        if !is_call && request.cluster.settings.policy.retry.statuses.contains(status) {
            return self.fail(number, attempt, (Processed::Maybe, Some(status)));
        }
        self.deliver(number, attempt, status);
    }

    /// An attempt fails without an answer, or in the midst of one.
    pub(super) fn broken(&mut self, number: u32, attempt: u64, seen: Seen) {
        if self.attempts[&attempt].stage == Stage::Answering {
            self.ended(number, attempt, None);
            self.ends[number as usize] = None;
            return self.end(number, End::BrokenOff);
        }
        self.failed(number, attempt, seen);
        let processed = match seen {
            Seen::NotConnected | Seen::Stranger | Seen::Refused => Processed::No,
            Seen::Reset | Seen::TooLate | Seen::Head(_) | Seen::End => Processed::Maybe,
        };
        self.fail(number, attempt, (processed, None));
    }

    /// An attempt has had its time.
    pub(super) fn time_out(&mut self, attempt: u64) {
        let number = self.attempts[&attempt].request;
        self.note(format_args!("{number}: no answer in the time of an attempt"));
        self.broken(number, attempt, Seen::TooLate);
    }

    /// An attempt has failed, with an answer or without: makes another, or not.
    fn fail(&mut self, number: u32, attempt: u64, (processed, status): (Processed, Option<u16>)) {
        let request = self.requests.get_mut(&number).expect("it has not ended");
        if request.under_way.len() > 1 {
            // The other one may do better.
            return self.call_off(number, attempt);
        }
        self.queue.cancel(request.hedges.take());
        match self.repeat(number, processed) {
            Ok(wait) => {
                let key = self.queue.plan(self.now + wait, Event::Retries { request: number });
                self.request(number).retries = Some(key);
                self.call_off(number, attempt);
            }
            Err(why) => match status {
                Some(status) => {
                    self.note(format_args!("{number}: {why:?}"));
                    self.rare.push(why.label());
                    self.deliver(number, attempt, status);
                }
                None => self.end(number, End::Failed(why)),
            },
        }
    }

    /// Whether the newest attempt may be followed by another, and after which wait.
    fn repeat(&mut self, number: u32, processed: Processed) -> Result<Duration, Why> {
        let now = self.instant();
        let request = self.requests.get_mut(&number).expect("it has not ended");
        let facts = request.facts(processed);
        let verdict = retry::may_retry(facts);
        invariants::judged(&facts, verdict);
        if verdict != Verdict::Retry {
            return Err(Why::Policy(verdict));
        }
        let left = request.deadline.map(|deadline| deadline.saturating_sub(self.now));
        let before = Before {
            advice: Advice::None,
            retry: request.attempt,
            is_unprocessed: processed == Processed::No,
            is_elsewhere: request.is_elsewhere(now),
            base: request.cluster.settings.policy.retry.backoff_base,
            left,
        };
        let Caller { workers, ledger, .. } = &mut self.callers[request.caller];
        let wait = backoff::wait(before, &mut workers[request.worker]).ok_or(Why::Late)?;
        ledger.active -= u32::from(request.slot.take().is_some());
        let slot = self.take(number)?;
        let request = self.request(number);
        request.slot = Some(slot);
        request.attempt += 1;
        Ok(wait)
    }

    /// A second attempt is made beside the one under way, if it may be.
    pub(super) fn hedge(&mut self, number: u32) {
        let now = self.instant();
        let request = self.request(number);
        request.hedges = None;
        let facts = request.facts(Processed::Maybe);
        if retry::may_retry(facts) != Verdict::Retry || !request.is_elsewhere(now) {
            return;
        }
        let Some(pick) = self.pick_beside(number) else { return };
        let Ok(slot) = self.take(number) else {
            // Chosen, but not sent to.
            let caller = self.request(number).caller;
            let ledger = &mut self.callers[caller].ledger;
            let known = ledger.find(&pick.endpoint).expect("it was listed once");
            ledger.known[known].picks += 1;
            return;
        };
        self.request(number).attempt += 1;
        self.note(format_args!("{number}: a second attempt"));
        self.rare.push("a second attempt");
        self.set_out(number, pick, Some(slot));
    }

    /// An endpoint was found silent: what waits for it is made elsewhere, as far as it may be repeated.
    pub(super) fn take_back(&mut self, caller: usize, endpoint: SocketAddr) {
        let waits = |request: &Request| {
            let [only] = request.under_way.as_slice() else { return None };
            let is_there = only.in_flight.endpoint().address() == endpoint;
            // One that is made twice anyway waits for both.
            let is_hedged = request.cluster.settings.policy.retry.hedge != Hedge::Never;
            let waits = request.caller == caller && is_there && !only.is_answered && !is_hedged;
            waits.then_some(only.number)
        };
        let waiting: Vec<_> =
            self.requests.iter().filter_map(|(number, request)| Some((*number, waits(request)?))).collect();
        let now = self.instant();
        for (number, attempt) in waiting {
            let request = self.request(number);
            let may_retry = retry::may_retry(request.facts(Processed::Maybe)) == Verdict::Retry;
            if !may_retry || !request.is_elsewhere(now) {
                continue;
            }
            let Ok(slot) = self.take(number) else { continue };
            self.failed(number, attempt, Seen::TooLate);
            let request = self.requests.get_mut(&number).expect("it has not ended");
            let Caller { workers, ledger, .. } = &mut self.callers[caller];
            ledger.active -= u32::from(request.slot.replace(slot).is_some());
            let base = request.cluster.settings.policy.retry.backoff_base;
            let wait = backoff::delay(base, request.attempt, &mut workers[request.worker]);
            let is_late = request.deadline.is_some_and(|deadline| self.now + wait >= deadline);
            let at = if is_late { self.now } else { self.now + wait };
            request.attempt += 1;
            request.retries = Some(self.queue.plan(at, Event::Retries { request: number }));
            self.call_off(number, attempt);
            self.note(format_args!("{number}: taken back"));
            self.rare.push("taken back");
        }
    }

    /// Takes one retry or hedge from the cap and from the budget.
    fn take(&mut self, number: u32) -> Result<RetrySlot, Why> {
        let now = self.instant();
        let request = self.requests.get_mut(&number).expect("it has not ended");
        let (budget, runtime) = (&request.cluster.settings.retry_budget, &request.cluster.runtime);
        let ledger = &mut self.callers[request.caller].ledger;
        let slot = circuit_breaker::admit_retry(&request.cluster);
        invariants::admitted(ledger, budget, slot.is_some());
        let slot = slot.ok_or(Why::Active)?;
        let (ratio, min) = (budget.ratio, budget.min_per_second);
        let is_allowed = retry_budget::try_take(&runtime.retry_budget, ratio, min, now);
        invariants::budgeted(ledger, self.now, budget, is_allowed);
        if !is_allowed {
            return Err(Why::Budget);
        }
        ledger.retried(self.now);
        ledger.active += 1;
        Ok(slot)
    }
}
