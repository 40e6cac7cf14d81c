//! The path of a request, as `pipeline/http.rs`, `attempts.rs`, `course.rs` and `hedge.rs` take it: the same decisions in
//! the same order, without anything between them.

use std::{sync::Arc, time::Duration};

use outrider::{
    balance::{self, Ask, InFlight, Pick, Tried},
    model::{Cluster, health::Standing, policy::Hedge},
    resilience::{
        circuit_breaker::{self, RequestSlot, RetrySlot},
        retry_budget,
    },
};

use super::{
    caller::Caller,
    invariants,
    mesh::Mesh,
    queue::{Event, Key},
    replica::{Seen, Stage},
    retries::Why,
};

/// One request in so many must not be done twice.
const UNSAFE_EVERY: u32 = 4;
/// One body in so many is too large to be kept.
const STREAMED_EVERY: u32 = 10;
/// One caller in so many does not wait for the answer.
const LEAVES_EVERY: u32 = 20;
/// Kinds of requests that are kept together, where they are.
const KINDS: u64 = 20;

/// A request that has not ended.
pub(super) struct Request {
    pub(super) caller: usize,
    pub(super) worker: usize,
    /// As it was when the request came.
    pub(super) cluster: Arc<Cluster>,
    pub(super) is_idempotent: bool,
    pub(super) is_replayable: bool,
    /// Of gRPC: how it ended is told at its end.
    pub(super) is_call: bool,
    pub(super) affinity: Option<u64>,
    pub(super) tried: Tried,
    /// The newest attempt, counted from 1.
    pub(super) attempt: u32,
    /// The answer's head has to be there by then.
    pub(super) deadline: Option<Duration>,
    /// The attempts that are being made: one, or two.
    pub(super) under_way: Vec<UnderWay>,
    /// Held while the newest attempt is a repetition.
    pub(super) slot: Option<RetrySlot>,
    pub(super) expires: Option<Key>,
    pub(super) retries: Option<Key>,
    pub(super) hedges: Option<Key>,
    leaves: Option<Key>,
    /// Counts it.
    _slot: RequestSlot,
}

/// An attempt, as its caller sees it.
pub(super) struct UnderWay {
    /// Its number on the network.
    pub(super) number: u64,
    pub(super) in_flight: InFlight,
    /// Its endpoint, in the ledger.
    pub(super) known: usize,
    pub(super) is_answered: bool,
    /// Whether it was to show that its endpoint is back.
    pub(super) is_probe: bool,
    /// Held while it is under way beside another.
    pub(super) slot: Option<RetrySlot>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A whole answer, with this status.
    Answered(u16),
    /// A head, but not the whole body.
    BrokenOff,
    /// Whoever made it went away.
    Left,
    /// Too many were under way.
    Overflow,
    /// The cluster has nobody to ask.
    NoEndpoint,
    /// No answer in time.
    Expired,
    /// An attempt failed, and this stood against another.
    Failed(Why),
}

impl Request {
    /// What is asked of balancing.
    fn ask(&self, may_probe: bool) -> Ask<'_> {
        Ask { tried: &self.tried, affinity: self.affinity, may_probe }
    }

    /// One of its attempts under way.
    pub(super) fn under_way(&mut self, attempt: u64) -> &mut UnderWay {
        let found = self.under_way.iter_mut().find(|under_way| under_way.number == attempt);
        found.expect("it is under way")
    }

    /// Whether there is a usable endpoint that it was not sent to.
    pub(super) fn is_elsewhere(&self, now: std::time::Instant) -> bool {
        self.cluster.endpoints.iter().any(|endpoint| {
            let standing = endpoint.runtime.standing(endpoint.settings.is_ready, now);
            !self.tried.contains(endpoint.address()) && matches!(standing, Standing::Usable | Standing::Due)
        })
    }
}

impl Mesh {
    /// A request that has not ended.
    pub(super) fn request(&mut self, number: u32) -> &mut Request {
        self.requests.get_mut(&number).expect("it has not ended")
    }

    /// A request comes in.
    pub(super) fn arrive(&mut self, caller: usize) {
        let number = self.ends.len() as u32;
        self.ends.push(None);
        let now = self.instant();
        let cluster = Arc::clone(self.callers[caller].cluster());
        let Ok(slot) = circuit_breaker::admit_request(&cluster, None, false) else {
            invariants::overflow(self, caller, &cluster);
            self.ends[number as usize] = Some(End::Overflow);
            return self.note(format_args!("{number}: overflow"));
        };
        retry_budget::record_request(&cluster.runtime.retry_budget, now);
        let has_affinity = self.callers[caller].has_affinity;
        self.callers[caller].ledger.admitted(self.now);
        let rng = &mut self.rng;
        let leaves = rng.u32(0..LEAVES_EVERY) == 0;
        let leaves_at = self.now + Duration::from_millis(rng.u64(1..1000));
        let deadline = cluster.settings.policy.request_timeout.map(|limit| self.now + limit);
        let request = Request {
            caller,
            worker: rng.usize(0..self.callers[caller].workers.len()),
            is_idempotent: rng.u32(0..UNSAFE_EVERY) != 0,
            is_replayable: rng.u32(0..STREAMED_EVERY) != 0,
            is_call: rng.u32(0..100) < self.plan.calls_percent,
            affinity: has_affinity.then(|| rng.u64(0..KINDS)),
            cluster,
            tried: Tried::default(),
            attempt: 1,
            deadline,
            under_way: Vec::new(),
            slot: None,
            expires: deadline.map(|at| self.queue.plan(at, Event::Expires { request: number })),
            retries: None,
            hedges: None,
            leaves: leaves.then(|| self.queue.plan(leaves_at, Event::Leaves { request: number })),
            _slot: slot,
        };
        self.requests.insert(number, request);
        self.attempt(number);
    }

    /// Makes the newest attempt.
    pub(super) fn attempt(&mut self, number: u32) {
        let now = self.instant();
        let request = self.requests.get_mut(&number).expect("it has not ended");
        let Caller { workers, .. } = &mut self.callers[request.caller];
        let policy = &request.cluster.settings.policy.retry;
        let (max_retries, hedge) = (policy.max_retries, policy.hedge);
        let is_last = request.attempt > max_retries;
        let ask = request.ask(request.is_idempotent && request.is_replayable && !is_last);
        let Some(pick) = balance::pick(&request.cluster, ask, now, &mut workers[request.worker]) else {
            invariants::no_endpoint(request, now);
            return self.end(number, End::NoEndpoint);
        };
        invariants::picked(request, &ask, &pick, now);
        let may_hedge = request.is_idempotent && request.is_replayable && !is_last && pick.probe.is_none();
        self.set_out(number, pick, None);
        if let Hedge::After(after) = hedge
            && may_hedge
        {
            let key = self.queue.plan(self.now + after, Event::Hedges { request: number });
            self.request(number).hedges = Some(key);
        }
    }

    /// Chooses where a second attempt would go.
    pub(super) fn pick_beside(&mut self, number: u32) -> Option<Pick> {
        let now = self.instant();
        let request = self.requests.get_mut(&number).expect("it has not ended");
        let Caller { workers, .. } = &mut self.callers[request.caller];
        let ask = Ask { affinity: None, ..request.ask(false) };
        let pick = balance::pick(&request.cluster, ask, now, &mut workers[request.worker])?;
        invariants::picked(request, &ask, &pick, now);
        let known = self.callers[request.caller].ledger.find(&pick.endpoint).expect("it was listed once");
        let known = &mut self.callers[request.caller].ledger.known[known];
        if request.tried.contains(pick.endpoint.address()) {
            // Chosen, but not sent to.
            known.picks += 1;
            return None;
        }
        Some(pick)
    }

    /// Sends an attempt to the endpoint that was chosen.
    pub(super) fn set_out(&mut self, number: u32, pick: Pick, slot: Option<RetrySlot>) {
        let in_flight = InFlight::start(pick, self.instant());
        let endpoint = Arc::clone(in_flight.endpoint());
        let request = self.requests.get_mut(&number).expect("it has not ended");
        request.tried.insert(endpoint.address());
        let ledger = &mut self.callers[request.caller].ledger;
        let index = ledger.find(&endpoint).expect("it was listed once");
        let known = &mut ledger.known[index];
        known.picks += 1;
        known.in_flight += 1;
        known.unanswered += 1;
        let (caller, replica) = (request.caller, known.replica);
        ledger.sent.push((self.now, replica, in_flight.is_probe()));
        let limit = request.cluster.settings.policy.retry.per_try_timeout;
        let is_probe = in_flight.is_probe();
        let probe = if is_probe { ", a probe" } else { "" };
        self.note(format_args!("{number}: to {replica}{probe}"));
        let sent = self.send(number, caller, replica);
        let times = limit.map(|limit| self.queue.plan(self.now + limit, Event::Times { attempt: sent }));
        self.attempts.get_mut(&sent).expect("it was just sent").times = times;
        let under_way =
            UnderWay { number: sent, in_flight, known: index, is_answered: false, is_probe, slot };
        self.request(number).under_way.push(under_way);
        if is_probe {
            self.rare.push("a probe");
            invariants::probes(self, caller, index);
        }
    }

    /// An attempt comes further.
    pub(super) fn go(&mut self, attempt: u64) {
        let Some(seen) = self.attempts[&attempt].seen else { return };
        let number = self.attempts[&attempt].request;
        self.note(format_args!("{number}: {seen:?}"));
        match seen {
            Seen::Head(status) => self.answer(number, attempt, status),
            Seen::End => {
                let head = self.ends[number as usize].take().expect("an answer begins with a head");
                let End::Answered(status) = head else { unreachable!("it was answered") };
                self.ended(number, attempt, Some(status));
                self.end(number, head);
            }
            Seen::NotConnected | Seen::Stranger | Seen::Refused | Seen::Reset | Seen::TooLate => {
                self.broken(number, attempt, seen);
            }
        }
    }

    /// The head of an answer is delivered, and whoever else was asked is called off.
    pub(super) fn deliver(&mut self, number: u32, attempt: u64, status: u16) {
        let others: Vec<u64> = self
            .request(number)
            .under_way
            .iter()
            .map(|other| other.number)
            .filter(|n| *n != attempt)
            .collect();
        for other in others {
            self.call_off(number, other);
        }
        let request = self.requests.get_mut(&number).expect("it has not ended");
        for key in [request.expires.take(), request.hedges.take()] {
            self.queue.cancel(key);
        }
        request.deadline = None;
        let slots = [request.slot.take(), request.under_way[0].slot.take()];
        self.callers[request.caller].ledger.active -= slots.iter().flatten().count() as u32;
        self.ends[number as usize] = Some(End::Answered(status));
        let going = self.attempts.get_mut(&attempt).expect("it has just answered");
        going.stage = Stage::Answering;
        self.queue.cancel(going.times.take());
        let rest = self.replicas[self.attempts[&attempt].replica].rest(&mut self.rng);
        self.fate(attempt, Some(rest));
    }

    /// No answer in time.
    pub(super) fn expire(&mut self, number: u32) {
        let waiting: Vec<u64> = self.request(number).under_way.iter().map(|other| other.number).collect();
        for attempt in waiting {
            self.failed(number, attempt, Seen::TooLate);
        }
        self.end(number, End::Expired);
    }

    /// An attempt is over for its caller.
    pub(super) fn call_off(&mut self, number: u32, attempt: u64) {
        let request = self.requests.get_mut(&number).expect("it has not ended");
        let place = request.under_way.iter().position(|under_way| under_way.number == attempt);
        let under_way = request.under_way.remove(place.expect("it is under way"));
        let ledger = &mut self.callers[request.caller].ledger;
        let known = &mut ledger.known[under_way.known];
        known.in_flight -= 1;
        known.unanswered -= u32::from(!under_way.is_answered);
        ledger.active -= u32::from(under_way.slot.is_some());
        self.forget(attempt);
    }

    /// A request has come to its end.
    pub(super) fn end(&mut self, number: u32, end: End) {
        self.note(format_args!("{number}: {end:?}"));
        while let Some(under_way) = self.request(number).under_way.first() {
            let attempt = under_way.number;
            self.call_off(number, attempt);
        }
        let request = self.requests.remove(&number).expect("it ends once");
        for key in [request.expires, request.leaves, request.retries, request.hedges] {
            self.queue.cancel(key);
        }
        let ledger = &mut self.callers[request.caller].ledger;
        ledger.active -= u32::from(request.slot.is_some());
        ledger.in_flight -= 1;
        // Who goes away after the head has the head.
        self.ends[number as usize].get_or_insert(end);
    }
}
