//! What outlier detection is told of each attempt, as `pipeline/verdict.rs` tells it, and what follows.

use std::sync::Arc;

use http::StatusCode;
use outrider::{
    balance::InFlight,
    model::outlier::Reason,
    resilience::{
        outcome::{self, Outcome},
        outlier::{self, Event, Report, Step},
    },
};

use super::{invariants, mesh::Mesh, replica::Seen};

/// What an attempt without an answer says of its endpoint.
pub(super) fn of_failure(seen: Seen) -> Outcome {
    match seen {
        Seen::NotConnected | Seen::Stranger => Outcome::Local,
        Seen::Refused | Seen::Reset => Outcome::Gateway,
        Seen::TooLate => Outcome::Late,
        Seen::Head(_) | Seen::End => unreachable!("that is an answer"),
    }
}

/// The status with which a call of gRPC ends where HTTP would have this one.
fn grpc_status(status: u16) -> &'static [u8] {
    match status {
        200 => b"0",
        500 => b"13",
        _ => b"14",
    }
}

impl Mesh {
    /// Tells of an answer's head.
    pub(super) fn headed(&mut self, number: u32, attempt: u64, status: u16) {
        let now = self.instant();
        let request = self.requests.get_mut(&number).expect("it has an attempt under way");
        let is_call = request.is_call;
        let in_flight = &mut request.under_way(attempt).in_flight;
        if is_call {
            in_flight.answered(now);
            return outlier::headed(in_flight.endpoint(), in_flight.started(), now);
        }
        let outcome = outcome::of_status(StatusCode::from_u16(status).unwrap(), false).outcome;
        if outlier::is_failing(in_flight.endpoint(), outcome) {
            in_flight.refused(now);
        } else {
            in_flight.answered(now);
        }
        self.report(number, attempt, (outcome, false));
    }

    /// Tells of an attempt that had no answer.
    pub(super) fn failed(&mut self, number: u32, attempt: u64, seen: Seen) {
        let now = self.instant();
        let in_flight = &mut self.request(number).under_way(attempt).in_flight;
        if seen == Seen::Refused {
            in_flight.refused(now);
        } else {
            in_flight.failed(now);
        }
        self.report(number, attempt, (of_failure(seen), false));
    }

    /// Tells how an answer ended.
    pub(super) fn ended(&mut self, number: u32, attempt: u64, status: Option<u16>) {
        let now = self.instant();
        let request = self.requests.get_mut(&number).expect("it has an attempt under way");
        let is_call = request.is_call;
        let in_flight = &mut request.under_way(attempt).in_flight;
        let outcome = match status {
            Some(_) if !is_call => return,
            Some(status) => outcome::of_grpc(grpc_status(status)).outcome,
            None => Outcome::Gateway,
        };
        if status.is_none() || outlier::is_failing(in_flight.endpoint(), outcome) {
            in_flight.failed(now);
        }
        self.report(number, attempt, (outcome, status.is_none() && !is_call));
    }

    /// Counts a result, and does what follows from it.
    fn report(&mut self, number: u32, attempt: u64, (outcome, is_late_end): (Outcome, bool)) {
        let now = self.instant();
        let request = self.requests.get_mut(&number).expect("it has an attempt under way");
        let (caller, worker, cluster) = (request.caller, request.worker, Arc::clone(&request.cluster));
        let in_flight: &InFlight = &request.under_way(attempt).in_flight;
        let Some(settings) = &cluster.settings.outlier else { return };
        let report =
            Report { outcome, started: in_flight.started(), latency: in_flight.latency(), is_late_end };
        let step = outlier::record(settings, in_flight.endpoint(), report);
        let runtime = Arc::clone(&in_flight.endpoint().runtime);
        if step == Step::None {
            return;
        }
        let caller_ = &mut self.callers[caller];
        let newest = Arc::clone(caller_.cluster());
        let Some(endpoint) = newest.endpoints.iter().find(|other| Arc::ptr_eq(&other.runtime, &runtime))
        else {
            return;
        };
        let event = outlier::take(&newest, endpoint, step, now, &mut caller_.workers[worker]);
        self.tell(caller, event.into_iter().collect());
    }

    /// One worker looks after its cluster.
    pub(super) fn look(&mut self, caller: usize, worker: usize) {
        let now = self.instant();
        let this = &mut self.callers[caller];
        let cluster = Arc::clone(this.cluster());
        let events = outlier::look(&cluster, now, &mut this.workers[worker]);
        self.tell(caller, events);
        self.callers[caller].looked_at = self.now;
    }

    fn tell(&mut self, caller: usize, events: Vec<Event>) {
        for event in events {
            self.note(format_args!("caller {caller}: {event:?}"));
            invariants::told(self, caller, &event);
            match event {
                Event::Ejected { endpoint, reason, .. } => {
                    self.callers[caller].ledger.ejections.push((self.now, endpoint, reason));
                    if reason == Reason::Silent {
                        self.take_back(caller, endpoint);
                    }
                }
                Event::Back { is_needed: true, .. } => self.rare.push("let in because it is needed"),
                Event::Back { .. } => {}
            }
        }
    }
}
