//! Hedging: a second attempt elsewhere, beside a first one that is slow to answer. The first answer wins.
//!
//! Only for requests that are safe twice and whose body is over and kept, only where the policy asks for it, and within
//! the cap and the budget of retries. It is one of the `max_retries` attempts beyond the first.
//!
//! # Invariants
//! - At most two attempts of a request are under way, at two endpoints.
//! - A probe has no second one beside it: cancelled by that, it would have decided nothing, and the next request would be the
//!   probe of the same endpoint again.
//! - What the policy would repeat loses to any other outcome: it is given only if there is none.
//! - Whoever loses is cancelled, and counts neither as answered nor as failed; but what has waited for long in vain has
//!   waited for silence.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{Request, request::Parts};
use tokio::sync::Notify;

use super::{
    attempt::Answer,
    attempts::{Attempts, Outcome},
    course::{Course, Second},
    error::ProxyError,
    notes,
};
use crate::{
    balance::InFlight,
    model::{Endpoint, policy::Hedge},
    net::Net,
    relay::replay::{Replay, RequestBody},
    telemetry::{record::Entry, trail::Step},
};

/// Answers of an endpoint from which its p95 is taken; with fewer it is not hedged.
const MIN_ANSWERS: u64 = 20;

impl<N: Net> Attempts<'_, N> {
    /// When a second attempt is to be made beside the newest one; `None`: never.
    pub(super) fn hedge_after(
        &self,
        course: &Course<'_>,
        in_flight: &InFlight,
        (head, replay): (&Parts, &Replay),
    ) -> Option<Duration> {
        if in_flight.is_probe() {
            return None;
        }
        let after = match self.policy.retry.hedge {
            Hedge::Never => return None,
            Hedge::After(delay) => delay,
            Hedge::P95 => usual(in_flight)?,
        };
        course.may_hedge(self.safety(head, replay)).then_some(after)
    }

    /// One attempt, and a second one beside it if there is no answer `after` this time. `expiry` ends both.
    pub(super) async fn hedged<'b>(
        &'b self,
        (course, after): (&mut Course<'_>, Duration),
        (in_flight, request, entry): (InFlight, Box<Request<RequestBody>>, Entry<'b>),
        (head, replay): (&mut Parts, &Replay),
        expiry: Pin<&mut impl Future<Output = ProxyError>>,
    ) -> Outcome<'b> {
        let over = Over::default();
        let race = async {
            let endpoint = Arc::clone(in_flight.endpoint());
            let ending = std::pin::pin!(ended(&over, &endpoint, after));
            let mut first = std::pin::pin!(self.once(&endpoint, (in_flight, request, entry), replay, ending));
            tokio::select! {
                biased;
                outcome = first.as_mut() => return (outcome, entry),
                error = self.silenced(course, &endpoint, (head, replay)) => return (Err(error), entry),
                () = tokio::time::sleep(after) => {}
            }
            let Some((Second { in_flight, slot: _slot }, body)) = self.second(course, head, replay) else {
                let outcome = tokio::select! {
                    biased;
                    outcome = first.as_mut() => outcome,
                    error = self.silenced(course, &endpoint, (head, replay)) => Err(error),
                };
                return (outcome, entry);
            };
            let (beside, span) = self.begin(&in_flight, true);
            let elsewhere = Arc::clone(in_flight.endpoint());
            let ending = std::pin::pin!(ended(&over, &elsewhere, after));
            let request = match self.request(head, body, (course, span)) {
                Ok(request) => request,
                Err(error) => return (Err(error), beside),
            };
            let mut second =
                std::pin::pin!(self.once(&elsewhere, (in_flight, request, beside), replay, ending));
            let (outcome, is_second) = tokio::select! {
                biased;
                outcome = first.as_mut() => (outcome, false),
                outcome = second.as_mut() => (outcome, true),
            };
            let of = |is_second| if is_second { beside } else { entry };
            let (outcome, is_second) = if self.is_final(&outcome, of(is_second), &over) {
                (outcome, is_second)
            } else {
                self.discard(outcome, of(is_second));
                let endpoint = if is_second { &endpoint } else { &elsewhere };
                let outcome = tokio::select! {
                    biased;
                    outcome = first.as_mut(), if is_second => outcome,
                    outcome = second.as_mut(), if !is_second => outcome,
                    error = self.silenced(course, endpoint, (head, replay)) => Err(error),
                };
                (outcome, !is_second)
            };
            if is_second && outcome.is_ok() && self.failure(&outcome, beside).is_none() {
                course.hedge_won();
            }
            (outcome, of(is_second))
        };
        let mut race = std::pin::pin!(race);
        tokio::select! {
            biased;
            outcome = race.as_mut() => outcome,
            expired = expiry => {
                over.tell(&expired);
                let (outcome, entry) = race.await;
                (outcome.map_err(|_over| expired), entry)
            }
        }
    }

    /// Whether an outcome is not left for the other attempt's: it would not be repeated, and is not the end of both.
    fn is_final(&self, outcome: &Result<Answer, ProxyError>, entry: Entry<'_>, over: &Over) -> bool {
        self.failure(outcome, entry).is_none() && (outcome.is_ok() || !over.is_told())
    }

    /// Where the second attempt goes, and its body, if there may be one now.
    fn second(
        &self,
        course: &mut Course<'_>,
        head: &Parts,
        replay: &Replay,
    ) -> Option<(Second, RequestBody)> {
        let body = replay.beside()?;
        let second = course.hedge(self.worker, self.safety(head, replay))?;
        notes::step(self.worker, self.record, Step::Hedged);
        Some((second, body))
    }
}

/// The end of a request while its attempts are under way.
#[derive(Debug, Default)]
struct Over {
    told: Notify,
    by: OnceLock<ProxyError>,
}

impl Over {
    /// It has ended, by that: so that each endpoint is told of what it owed, and why nobody waits for it any more.
    fn tell(&self, expired: &ProxyError) {
        if let Some(expired) = same(expired) {
            self.by.get_or_init(|| expired);
        }
        self.told.notify_waiters();
    }

    /// Whether it has: then both attempts are to end by it before all is over.
    fn is_told(&self) -> bool {
        self.by.get().is_some()
    }
}

/// What the request's end means for an attempt: the same as if it were the only one. A caller who was impatient speaks against
/// nobody.
async fn ended(over: &Over, endpoint: &Endpoint, limit: Duration) -> ProxyError {
    over.told.notified().await;
    let by = over.by.get().and_then(same);
    by.unwrap_or_else(|| ProxyError::TryTimeout { endpoint: endpoint.address(), limit })
}

/// What ends a request that waits for an answer, once more.
fn same(expired: &ProxyError) -> Option<ProxyError> {
    if let ProxyError::Timeout { limit } = expired {
        Some(ProxyError::Timeout { limit: *limit })
    } else if let ProxyError::DeadlineExceeded { limit } = expired {
        Some(ProxyError::DeadlineExceeded { limit: *limit })
    } else if let ProxyError::Idle { limit } = expired {
        Some(ProxyError::Idle { limit: *limit })
    } else {
        None
    }
}

/// The time within which the endpoint has answered 95 % of its newest requests, if there were enough.
fn usual(in_flight: &InFlight) -> Option<Duration> {
    let latencies = &in_flight.endpoint().runtime.seen.latencies;
    latencies.quantile(0.95).filter(|_| latencies.count() >= MIN_ANSWERS)
}
