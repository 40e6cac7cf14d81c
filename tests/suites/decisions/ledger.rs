//! What one caller did, kept apart from the counters of the sidecar: every invariant about counts compares the two.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use outrider::model::{Endpoint, outlier::Reason};

/// Seconds over which the retry budget looks, as documented.
const BUDGET_SECONDS: usize = 10;

/// An endpoint that a caller knows, or knew.
#[derive(Debug)]
pub(super) struct Known {
    /// As the sidecar has it: one of its counters' owners.
    pub(super) endpoint: Arc<Endpoint>,
    /// Which replica it is.
    pub(super) replica: usize,
    /// Attempts under way.
    pub(super) in_flight: u32,
    /// Those whose head has not come.
    pub(super) unanswered: u32,
    /// Times it was chosen.
    pub(super) picks: u64,
    /// Times it had been chosen when everything was well again.
    pub(super) picks_before: u64,
    /// Times it had been chosen when the last request had come.
    pub(super) picks_at_end: u64,
}

impl Known {
    /// One that was not asked yet.
    pub(super) fn new(endpoint: Arc<Endpoint>, replica: usize) -> Self {
        Self { endpoint, replica, in_flight: 0, unanswered: 0, picks: 0, picks_before: 0, picks_at_end: 0 }
    }
}

/// What one caller did.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Endpoints, in the order of their appearance.
    pub(super) known: Vec<Known>,
    /// Who was ejected, when and why.
    pub(super) ejections: Vec<(Duration, SocketAddr, Reason)>,
    /// When each attempt was sent, to which replica, and whether it was a probe.
    pub(super) sent: Vec<(Duration, usize, bool)>,
    /// Requests under way.
    pub(super) in_flight: u32,
    /// Requests admitted.
    pub(super) admitted: u64,
    /// Retries and hedges that the budget gave.
    pub(super) retries: u64,
    /// Those that count as under way.
    pub(super) active: u32,
    /// Requests admitted, by the second.
    requests_by_second: Vec<u32>,
    /// Retries taken, by the second.
    retries_by_second: Vec<u32>,
}

impl Ledger {
    /// Everything is well again: from now on everybody is to have a share.
    pub(super) fn calm(&mut self) {
        self.known.iter_mut().for_each(|known| known.picks_before = known.picks);
    }

    /// The last request has come.
    pub(super) fn close(&mut self) {
        self.known.iter_mut().for_each(|known| known.picks_at_end = known.picks);
    }

    /// Notes an admitted request.
    pub(super) fn admitted(&mut self, at: Duration) {
        self.in_flight += 1;
        self.admitted += 1;
        count(&mut self.requests_by_second, at);
    }

    /// Notes a retry that was taken from the budget.
    pub(super) fn retried(&mut self, at: Duration) {
        self.retries += 1;
        count(&mut self.retries_by_second, at);
    }

    /// Whether the budget has a retry left, by all that happened.
    pub(super) fn has_budget(&self, at: Duration, ratio: f64, min_per_second: u32) -> bool {
        let second = at.as_secs() as usize;
        let recent = |counts: &[u32]| -> u32 {
            counts.iter().take(second + 1).skip((second + 1).saturating_sub(BUDGET_SECONDS)).sum()
        };
        let floor = min_per_second as usize * (second + 1).min(BUDGET_SECONDS);
        let (requests, retries) = (recent(&self.requests_by_second), recent(&self.retries_by_second));
        f64::from(retries + 1) <= ratio * f64::from(requests) + floor as f64
    }

    /// Where an endpoint stands here.
    pub(super) fn find(&self, endpoint: &Arc<Endpoint>) -> Option<usize> {
        self.known.iter().position(|known| Arc::ptr_eq(&known.endpoint.runtime, &endpoint.runtime))
    }
}

fn count(by_second: &mut Vec<u32>, at: Duration) {
    let second = at.as_secs() as usize;
    if by_second.len() <= second {
        by_second.resize(second + 1, 0);
    }
    by_second[second] += 1;
}
