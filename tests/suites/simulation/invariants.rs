//! What must hold after any run.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use http::{Method, StatusCode};
use outrider::model::{ClusterName, Endpoint};

use super::{
    faults::Change,
    load::End,
    mesh::{Outcome, REPLICAS},
};

/// As configured by default.
const BUDGET_RATIO: f64 = 0.2;
const BUDGET_MIN_PER_SECOND: f64 = 10.0;
/// The budget looks at so many seconds, and its floor may be spent at once.
const BUDGET_WINDOW_SECONDS: f64 = 10.0;

/// Everything that holds while at least one replica can be reached.
pub(super) fn check(outcome: &Outcome) {
    assert!(outcome.calls.len() > 100, "only {} calls", outcome.calls.len());
    for call in &outcome.calls {
        match (&call.end, &call.method) {
            (End::Answered { status: StatusCode::OK, is_echo, .. }, _) => {
                assert!(is_echo, "{call}: another request's bytes");
            }
            // Whoever may have done it must not be asked again: the caller decides.
            (End::Answered { status: StatusCode::SERVICE_UNAVAILABLE, .. }, &Method::POST) => {}
            (End::BrokenOff { replica }, _) => {
                let breaks = |change: &Change| {
                    REPLICAS[change.replica] == replica && change.fault.breaks_connections()
                };
                assert!(outcome.changes.iter().any(breaks), "{call}: nothing happened to {replica}");
            }
            _ => panic!("{call}"),
        }
    }
    nothing_left(outcome);
    let seconds = BUDGET_WINDOW_SECONDS.max(outcome.calls.len() as f64 / super::LOAD.rate);
    let allowed = BUDGET_RATIO + BUDGET_MIN_PER_SECOND * seconds / outcome.calls.len() as f64;
    let extra = extra_load(outcome);
    assert!(extra <= allowed, "extra load of {extra}, allowed {allowed}");
}

/// What holds while nothing happens that a peer does not announce: no request fails, of whatever method.
pub(super) fn nothing_failed(outcome: &Outcome) {
    check(outcome);
    for call in &outcome.calls {
        assert!(matches!(&call.end, End::Answered { status: StatusCode::OK, .. }), "{call}");
    }
}

/// What holds even if no replica can be reached: every request has one end, none is done twice that must not be, and
/// nothing is left of them.
pub(super) fn nothing_left(outcome: &Outcome) {
    let mut numbers: Vec<u32> = outcome.calls.iter().map(|call| call.number).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..numbers.len() as u32), "every request has one end");
    for call in &outcome.calls {
        assert_ne!(call.end, End::Lost, "{call}");
        let seen = outcome.seen.lock().unwrap().get(&call.number).copied().unwrap_or_default();
        assert!(call.method != Method::POST || seen <= 1, "{call}: seen by {seen} apps");
    }
    for app in outcome.replicas.iter().chain([&outcome.web]) {
        for (name, cluster) in &app.snapshots.load().clusters {
            assert_eq!(cluster.runtime.in_flight.load(Relaxed), 0, "{name}: requests in flight");
        }
    }
    for endpoint in &outcome.endpoints {
        let runtime = &endpoint.runtime;
        let loads = (runtime.in_flight.load(Relaxed), runtime.unanswered.load(Relaxed));
        assert_eq!(loads, (0, 0), "{}: attempts in flight", endpoint.address());
        if runtime.is_removed.load(Relaxed) {
            no_connections(endpoint);
        }
    }
}

/// Nothing is connected to this endpoint any more.
pub(super) fn no_connections(endpoint: &Arc<Endpoint>) {
    assert_eq!(endpoint.runtime.connections.load(Relaxed), 0, "{}: connections", endpoint.address());
}

/// Which replicas the caller knows in the end, in the order of their addresses.
pub(super) fn listed(outcome: &Outcome) -> [bool; REPLICAS.len()] {
    let snapshot = outcome.web.snapshots.load();
    let orders = snapshot.cluster(&ClusterName::new("orders")).expect("it is configured");
    let mut all: Vec<_> = outcome.endpoints.iter().map(|endpoint| endpoint.address()).collect();
    all.sort_unstable();
    all.dedup();
    let is_listed = |address| orders.endpoints.iter().any(|endpoint| endpoint.address() == address);
    std::array::from_fn(|index| is_listed(all[index]))
}

/// Attempts beyond the first, per request.
pub(super) fn extra_load(outcome: &Outcome) -> f64 {
    let picks: u64 = outcome.endpoints.iter().map(|endpoint| endpoint.runtime.picks.load(Relaxed)).sum();
    let requests = outcome.calls.len() as f64;
    let snapshot = outcome.web.snapshots.load();
    let orders = snapshot.cluster(&ClusterName::new("orders")).expect("it is configured");
    let retries = orders.runtime.retries.load(Relaxed);
    assert_eq!(
        picks,
        outcome.calls.len() as u64 + retries,
        "every attempt beyond the first is counted as a retry"
    );
    (picks as f64 - requests) / requests
}
