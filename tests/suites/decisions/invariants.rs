//! What must hold after every step, and at the end.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use outrider::{
    balance::{Ask, Pick, ewma, lineup},
    model::{
        Cluster, Endpoint, balance::Balance, health::Standing, lineup::Seat, outlier::Reason,
        policy::RetryBudget,
    },
    resilience::{
        outlier::Event,
        retry::{Processed, RetryFacts, Verdict},
    },
};

use super::{
    caller::Caller,
    ledger::Ledger,
    mesh::Mesh,
    plan::{CALM_FROM, LOAD},
    requests::Request,
};

/// So long after discovery's last word those are let in who are too many.
const SETTLED: Duration = Duration::from_secs(3);
/// Standard deviations by which chance alone makes no difference, in as many runs as there will ever be.
const SURE: f64 = 6.0;
/// How many times as long as the calm part a run is.
const WHOLE_RUN: f64 = LOAD.as_secs_f64() / (LOAD.as_secs_f64() - CALM_FROM.as_secs_f64());
/// With so many requests for each, an endpoint that is no dearer than the others was asked.
const ENOUGH: f64 = 20.0;

/// The counters say what is under way, and nothing is late.
pub(super) fn after_step(mesh: &Mesh) {
    for (index, caller) in mesh.callers.iter().enumerate() {
        let (ledger, cluster) = (&caller.ledger, caller.cluster());
        let in_flight = cluster.runtime.in_flight.load(Relaxed);
        assert_eq!(in_flight, ledger.in_flight, "requests of caller {index} in flight");
        let cap = cluster.settings.caps.max_requests;
        assert!(in_flight <= cap, "caller {index}: {in_flight} requests in flight, over the cap of {cap}");
        let repeats = cluster.runtime.repeats.active.load(Relaxed);
        assert_eq!(repeats, ledger.active, "retries of caller {index} under way");
        for known in &ledger.known {
            let runtime = &known.endpoint.runtime;
            let counted = (runtime.in_flight.load(Relaxed), runtime.unanswered.load(Relaxed));
            let so = (known.in_flight, known.unanswered);
            assert_eq!(counted, so, "attempts of caller {index} at {}", known.replica);
        }
    }
    none_late(mesh);
    mesh.callers.iter().for_each(|caller| ejected_within_bounds(mesh, caller));
}

/// Never too many are out of use because they are ejected, but for a moment after others have left.
fn ejected_within_bounds(mesh: &Mesh, caller: &Caller) {
    let (cluster, now) = (caller.cluster(), mesh.instant());
    let is_ejected = |endpoint: &&Arc<Endpoint>| endpoint.runtime.health.ejected_until_us.load(Relaxed) > 0;
    let Some(settings) = &cluster.settings.outlier else { return };
    if !cluster.endpoints.iter().any(|endpoint| is_ejected(&endpoint)) {
        return;
    }
    let usable = usable(cluster, now).count();
    let out = cluster.endpoints.len() - usable;
    let allowed = cluster.endpoints.len() * settings.max_ejected_percent as usize / 100;
    if out > allowed {
        let since = mesh.now - caller.discovered_at;
        let text = format!("{out} of {} are out of use, {allowed} may be", cluster.endpoints.len());
        // Those that discovery holds back may be more; then nobody else is.
        let resting = cluster.endpoints.iter().filter(is_ejected);
        let resting = resting.filter(|endpoint| standing(endpoint, now) != Standing::Unhealthy).count();
        assert!(since < SETTLED || resting == 0, "{text}, {since:?} after discovery's last word");
    } else {
        assert!(usable > 0, "the last one is ejected");
    }
}

/// An endpoint was ejected, or is back.
pub(super) fn told(mesh: &Mesh, caller: usize, event: &Event) {
    let (cluster, now) = (mesh.callers[caller].cluster(), mesh.instant());
    let settings = cluster.settings.outlier.as_ref().expect("somebody was judged by it");
    let out = cluster.endpoints.len() - usable(cluster, now).count();
    let allowed = cluster.endpoints.len() * settings.max_ejected_percent as usize / 100;
    match event {
        Event::Ejected { reason: Reason::Probe, .. } => {}
        // The rest of one that is ejected already may go on while others leave.
        Event::Ejected { reason: Reason::Silent, in_a_row: 2.., .. } => {}
        Event::Ejected { .. } => assert!(out <= allowed, "{out} out of use, {allowed} may be: {event:?}"),
        Event::Back { endpoint, .. } => {
            let back = cluster.endpoints.iter().find(|other| other.address() == *endpoint);
            let standing = standing(back.expect("it is listed"), now);
            assert_eq!(standing, Standing::Usable, "{event:?}");
        }
    }
}

/// No request that has no answer is past its deadline.
fn none_late(mesh: &Mesh) {
    for (number, request) in &mesh.requests {
        let is_late = request.deadline.is_some_and(|deadline| deadline < mesh.now);
        assert!(!is_late, "{number} is past its deadline");
    }
}

/// A request was turned away: the cap is reached.
pub(super) fn overflow(mesh: &Mesh, caller: usize, cluster: &Cluster) {
    let in_flight = mesh.callers[caller].ledger.in_flight;
    let cap = cluster.settings.caps.max_requests;
    assert!(in_flight >= cap, "turned away with {in_flight} of {cap} requests in flight");
}

/// There is nobody to ask.
pub(super) fn no_endpoint(request: &Request, now: Instant) {
    let is_there = is_panic(&request.cluster, now) || usable(&request.cluster, now).next().is_some();
    assert!(request.cluster.endpoints.is_empty() || !is_there, "nobody was chosen");
}

fn standing(endpoint: &Endpoint, now: Instant) -> Standing {
    endpoint.runtime.standing(endpoint.settings.is_ready, now)
}

fn usable(cluster: &Cluster, now: Instant) -> impl Iterator<Item = &Arc<Endpoint>> {
    cluster.endpoints.iter().filter(move |endpoint| standing(endpoint, now) == Standing::Usable)
}

fn is_panic(cluster: &Cluster, now: Instant) -> bool {
    let percent = cluster.settings.balancing.panic_percent as usize;
    usable(cluster, now).count() * 100 < cluster.endpoints.len() * percent
}

/// An endpoint was chosen.
pub(super) fn picked(request: &Request, ask: &Ask<'_>, pick: &Pick, now: Instant) {
    let (cluster, chosen) = (&request.cluster, &pick.endpoint);
    let name = chosen.address();
    let is_among = cluster.endpoints.iter().any(|endpoint| Arc::ptr_eq(endpoint, chosen));
    assert!(is_among, "{name} is none of the cluster");
    let is_tried = |endpoint: &Arc<Endpoint>| ask.tried.contains(endpoint.address());
    if pick.probe.is_some() {
        assert_eq!(standing(chosen, now), Standing::Due, "the probe of {name}");
        assert!(!is_tried(chosen), "{name} is probed by a request that it has failed already");
        return;
    }
    let is_panic = is_panic(cluster, now);
    let is_usable = |endpoint: &Arc<Endpoint>| is_panic || standing(endpoint, now) == Standing::Usable;
    assert!(is_usable(chosen), "{name} was chosen, and is {:?}", standing(chosen, now));
    if is_tried(chosen) {
        let untried = cluster.endpoints.iter().find(|endpoint| is_usable(endpoint) && !is_tried(endpoint));
        assert!(untried.is_none(), "{name} again, before {untried:?}");
    }
}

/// A probe sets out: it is the only one, until it has an answer. (Of a call of gRPC its head, though that does not say yet
/// how it ends: another may go then.)
pub(super) fn probes(mesh: &Mesh, caller: usize, known: usize) {
    let requests = mesh.requests.values().filter(|request| request.caller == caller);
    let probes = requests.flat_map(|request| &request.under_way);
    let open = probes.filter(|probe| probe.is_probe && !probe.is_answered && probe.known == known).count();
    assert!(open <= 1, "{open} probes at once");
}

/// The last request has come, and everything has been well for long: so says everybody.
pub(super) fn all_are_back(mesh: &Mesh) {
    for caller in &mesh.callers {
        for endpoint in &caller.cluster().endpoints {
            let standing = standing(endpoint, mesh.instant());
            assert_eq!(standing, Standing::Usable, "{} is not back", endpoint.address());
        }
        let late = caller.ledger.ejections.iter().find(|(at, ..)| *at > CALM_FROM);
        assert!(late.is_none(), "ejected while everything is well: {late:?}");
    }
}

/// A failed attempt was judged.
pub(super) fn judged(facts: &RetryFacts, verdict: Verdict) {
    let may_harm = facts.processed == Processed::Maybe && !facts.is_idempotent;
    let is_spent = facts.attempt > facts.max_retries;
    let expected = !may_harm && facts.is_replayable && !is_spent;
    assert_eq!(verdict == Verdict::Retry, expected, "{facts:?}");
}

/// The cap on retries under way was asked.
pub(super) fn admitted(ledger: &Ledger, budget: &RetryBudget, is_admitted: bool) {
    assert_eq!(is_admitted, ledger.active < budget.max_active, "{} retries under way", ledger.active);
}

/// The budget was asked.
pub(super) fn budgeted(ledger: &Ledger, now: Duration, budget: &RetryBudget, is_allowed: bool) {
    let has_budget = ledger.has_budget(now, budget.ratio, budget.min_per_second);
    assert_eq!(is_allowed, has_budget, "the retry budget, after {now:?}");
}

/// Everything is over: nothing is left, and everybody has had a share.
pub(super) fn at_end(mesh: &Mesh) {
    assert!(mesh.requests.is_empty() && mesh.attempts.is_empty(), "something is still under way");
    for (number, end) in mesh.ends.iter().enumerate() {
        assert!(end.is_some(), "{number} has no end");
    }
    for caller in &mesh.callers {
        nothing_left(caller);
        nobody_starves(mesh, caller);
    }
}

/// The counters are back at zero, and what they count for good is what happened.
fn nothing_left(caller: &Caller) {
    let (ledger, runtime) = (&caller.ledger, &caller.cluster().runtime);
    assert_eq!(ledger.in_flight, 0);
    assert_eq!(runtime.pending.load(Relaxed), 0, "requests wait");
    assert!(
        ledger.sent.len() as u64 <= ledger.admitted + ledger.retries,
        "attempts that nobody asked the budget for"
    );
    for known in &ledger.known {
        let runtime = &known.endpoint.runtime;
        assert_eq!((known.in_flight, known.unanswered), (0, 0), "{}", known.replica);
        assert_eq!(runtime.picks.load(Relaxed), known.picks, "picks of {}", known.replica);
        assert!(!runtime.is_probed(), "a probe of {} never ended", known.replica);
    }
}

/// Since everything is well, everybody had a share: as large as it should be where nothing but weights and zones say so,
/// and some where speed and load do too.
fn nobody_starves(mesh: &Mesh, caller: &Caller) {
    let (ledger, cluster) = (&caller.ledger, caller.cluster());
    let now = mesh.instant() - (mesh.now - LOAD);
    let lineup = lineup::build(cluster, now);
    let whole: f64 = lineup.seats.iter().map(|seat| seat.share).sum();
    let known = |seat: &Seat| {
        let endpoint = &cluster.endpoints[seat.endpoint as usize];
        &ledger.known[ledger.find(endpoint).expect("it is listed")]
    };
    let picks = |seat: &Seat| (known(seat).picks_at_end - known(seat).picks_before) as f64;
    let all: f64 = lineup.seats.iter().map(picks).sum();
    let cost = |seat: &Seat| {
        ewma::cost_of(&known(seat).endpoint.runtime, seat.share / whole, lineup.assumed_us, now)
    };
    for seat in &lineup.seats {
        let (had, due) = (picks(seat), all * seat.share / whole);
        let chance = SURE * due.sqrt() + 2.0;
        let text = format!("{} was asked {had} of {all} times, {due:.1} is its share", known(seat).replica);
        match mesh.plan.balance {
            Balance::RoundRobin | Balance::Random => assert!((had - due).abs() <= chance, "{text}"),
            Balance::LeastRequest => assert!(had >= due / 4.0 - chance, "{text}"),
            Balance::PeakEwma => {
                // Whoever has always been well has always had some.
                let is_blameless =
                    mesh.plan.changes.iter().all(|change| change.replica != known(seat).replica);
                let (in_all, whole_run) = (known(seat).picks_at_end as f64, due * WHOLE_RUN);
                assert!(!is_blameless || in_all >= whole_run / 10.0 - chance, "{text}; {in_all} in all");
                let cheaper = lineup.seats.iter().filter(|other| cost(other) < cost(seat)).count();
                let is_dear = 2 * cheaper >= lineup.seats.len();
                assert!(had > 0.0 || is_dear || due < ENOUGH, "{text}");
            }
            // A kind of requests is one endpoint's.
            Balance::Maglev => {}
        }
    }
}
