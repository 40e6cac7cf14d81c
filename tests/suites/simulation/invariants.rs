//! What must hold after any run.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use http::{Method, StatusCode};
use outrider::model::{ClusterName, Endpoint};

use super::{
    faults::{Change, Fault},
    load::{Call, End},
    mesh::{Outcome, REPLICAS},
    watch,
};

/// For so long after a fault something may still fail of it: a dead connection is found out by pings.
const AFTERMATH: Duration = Duration::from_secs(45);
/// The longest rest before the second and last retry, with 20 ms for the way: with less time than that there may be none.
const LAST_REST: Duration = Duration::from_millis(70);
/// As configured by default.
const BUDGET_RATIO: f64 = 0.2;
const BUDGET_MIN_PER_SECOND: f64 = 10.0;
/// The budget looks at so many seconds, and its floor may be spent at once.
const BUDGET_WINDOW_SECONDS: f64 = 10.0;

/// Everything that holds while at least one replica can be reached.
pub(super) fn check(outcome: &Outcome) {
    assert!(outcome.calls.len() > 100, "only {} calls", outcome.calls.len());
    for call in &outcome.calls {
        assert!(has_cause(outcome, call), "{call}");
    }
    nothing_left(outcome);
    all_are_back(outcome);
    let seconds = BUDGET_WINDOW_SECONDS.max(outcome.calls.len() as f64 / super::LOAD.rate);
    let allowed = BUDGET_RATIO + BUDGET_MIN_PER_SECOND * seconds / outcome.calls.len() as f64;
    let extra = extra_load(outcome);
    assert!(extra <= allowed, "extra load of {extra}, allowed {allowed}");
}

/// Whether a request came to such an end as what happened explains.
fn has_cause(outcome: &Outcome, call: &Call) -> bool {
    match &call.end {
        End::Answered { status: StatusCode::OK, is_echo, .. } => {
            assert!(is_echo, "{call}: another request's bytes");
            true
        }
        // No replica at all could be asked, or too late: only faults do that, and only where there is a timeout.
        End::Answered { status: StatusCode::GATEWAY_TIMEOUT, replica, .. } if replica.is_empty() => {
            outcome.timeout.is_some() && around(outcome, call, |change| change.fault.delays())
        }
        // Whoever may have done it must not be asked again: the caller decides. And with the little time that a fault may
        // leave, nobody is asked again.
        End::Answered { status: StatusCode::SERVICE_UNAVAILABLE, replica, .. } if replica.is_empty() => {
            let is_late = |timeout| call.ended.saturating_sub(call.began) + LAST_REST >= timeout;
            call.method == Method::POST
                || (outcome.timeout.is_some_and(is_late)
                    && around(outcome, call, |change| change.fault.delays()))
        }
        // The app's own answer.
        End::Answered { status, replica, .. } => around(outcome, call, |change| {
            let is_it = REPLICAS[change.replica] == replica;
            is_it && matches!(change.fault, Fault::Errors(_, said) if said == status.as_u16())
        }),
        End::BrokenOff { replica } => around(outcome, call, |change| {
            REPLICAS[change.replica] == replica && change.fault.breaks_connections()
        }),
        End::Failed(_) | End::Lost => false,
    }
}

/// Whether such a fault lasted, or was just over, at some time of a request.
fn around(outcome: &Outcome, call: &Call, is_it: impl Fn(&Change) -> bool) -> bool {
    let begins = outcome.changes.iter().filter(|change| change.begins && is_it(change));
    begins.into_iter().any(|begin| {
        let is_end = |change: &&Change| {
            let is_same = (change.replica, change.fault) == (begin.replica, begin.fault);
            is_same && !change.begins && change.at >= begin.at
        };
        let end = outcome.changes.iter().find(is_end).map_or(Duration::MAX, |end| end.at);
        begin.at <= call.ended && call.began <= end.saturating_add(AFTERMATH)
    })
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

/// Every request from then on was answered as it should be.
pub(super) fn well_after(outcome: &Outcome, from: Duration) {
    let later: Vec<_> = outcome.calls.iter().filter(|call| call.began > from).collect();
    assert!(later.len() > 20, "only {} calls after {from:?}", later.len());
    for call in later {
        let is_well = matches!(call.end, End::Answered { status: StatusCode::OK, is_echo: true, .. });
        assert!(is_well, "{call}, made at {:?}", call.began);
    }
}

/// Whoever is listed and well is in use again. A network that does not send again what it lost keeps dead connections for
/// long: who was cut off by it is left out.
fn all_are_back(outcome: &Outcome) {
    let snapshot = outcome.web.snapshots.load();
    let orders = snapshot.cluster(&ClusterName::new("orders")).expect("it is configured");
    for (replica, address) in outcome.addresses.iter().enumerate() {
        let mut changes = outcome.changes.iter().filter(|change| change.replica == replica);
        let is_cut_off = changes.any(|change| change.fault.leaves_dead_connections());
        let endpoint = orders.endpoints.iter().find(|endpoint| endpoint.address() == *address);
        let is_out = endpoint.is_some_and(|endpoint| watch::is_ejected(endpoint));
        assert!(is_cut_off || !is_out, "{} is still ejected", REPLICAS[replica]);
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
