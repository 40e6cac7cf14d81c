//! The whole mesh, simulated: real sidecars with real TLS on a network and a clock that one seed decides.
//!
//! Read in this order: [`mesh`] (who is there), [`faults`] (what goes wrong), [`reloads`] (what
//! changes all the time), [`watch`] (what must hold at every step), [`invariants`] (what must hold at the end), [`log`] (what two runs of one seed are compared by).
//!
//! `OUTRIDER_SIM_SEED=n` replays one seed and prints its log; `OUTRIDER_SIM_SEEDS=n` tries so many fresh ones.

mod faults;
mod identities;
mod invariants;
mod load;
mod log;
mod mesh;
mod names;
mod net;
mod reloads;
pub(super) mod seeds;
mod service;
mod watch;

use std::{cell::Cell, panic, sync::Once, time::Duration};

use self::{
    faults::{Change, Fault},
    load::Load,
    mesh::{Outcome, Plan},
    names::{NameChange, Says},
};

/// Seeds that every test run tries; `OUTRIDER_SIM_SEEDS` tries others.
const SEEDS: u64 = 40;
/// The load lasts so long, the faults lie within it.
const LOAD: Load = Load { rate: 60.0, duration: Duration::from_secs(9) };
/// From here on nothing goes wrong any more.
const FAULTS_END: Duration = Duration::from_secs(5);
/// Rests are short, so that whoever is well is back before the load ends.
const REST: &str = "ejection_time: 500ms, max_ejection_time: 1s, window: 2s";

/// So long after the last fault every request is answered again.
const RECOVERY: Duration = Duration::from_secs(1);
/// In every other run, requests are answered within this.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// Every sidecar gets another configuration so often, in every run: that must cost nothing.
const RELOAD_EVERY: Duration = Duration::from_millis(700);

/// The run that a seed stands for.
fn plan(seed: u64) -> Plan {
    let mut rng = fastrand::Rng::with_seed(seed);
    let changes = faults::plan(&mut rng, Duration::from_secs(1), FAULTS_END);
    // Every other run finds the replicas by name.
    let names = rng.bool().then(|| names::plan(&mut rng, Duration::from_millis(500), LOAD.duration));
    Plan {
        seed,
        load: LOAD,
        changes,
        names,
        policy: format!("retry: {{}}, outlier_detection: {{{REST}}}"),
        timeout: rng.bool().then_some(TIMEOUT),
        is_printed: seeds::is_replay(),
        idle: Duration::ZERO,
        reload_every: Some(RELOAD_EVERY),
    }
}

thread_local! {
    /// Panics on this thread. Most would go unseen: tokio keeps a task's panic for whoever joins it.
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
    PANICS.set(0);
}

/// Runs a plan and checks it.
fn run(plan: &Plan, check: impl FnOnce(&Outcome)) -> Outcome {
    count_panics();
    let outcome = mesh::run(plan);
    assert_eq!(PANICS.get(), 0, "a task panicked");
    check(&outcome);
    outcome
}

#[test]
fn no_request_is_lost_whatever_happens_to_two_of_three_replicas() {
    seeds::each(SEEDS, |seed| drop(run(&plan(seed), invariants::check)));
}

#[test]
fn replicas_that_were_all_unwell_at_once_are_asked_again_when_they_are_well() {
    seeds::each(SEEDS / 4, |seed| {
        let rng = &mut fastrand::Rng::with_seed(seed);
        // A network without retransmission leaves connections dead for long after it is back.
        let faults = std::iter::repeat_with(|| faults::any(rng));
        let fault = faults.into_iter().find(|fault| !fault.leaves_dead_connections()).unwrap();
        let plan = Plan { changes: faults::of_all(fault, [1500, 3500]), names: None, ..plan(seed) };
        run(&plan, |outcome| {
            invariants::nothing_left(outcome);
            invariants::well_after(outcome, Duration::from_millis(3500) + RECOVERY);
        });
    });
}

#[test]
fn a_seed_run_twice_decides_alike() {
    seeds::decide_alike([204, 206, 208], |seed| run(&plan(seed), |_| {}).log);
}

#[test]
fn a_mesh_that_is_well_fails_nothing_and_repeats_nothing() {
    // Long enough for whatever a connection may do only so often.
    let load = Load { duration: Duration::from_secs(20), ..LOAD };
    run(&Plan { load, changes: Vec::new(), ..plan(9) }, |outcome| {
        invariants::nothing_failed(outcome);
        assert_eq!(invariants::extra_load(outcome), 0.0);
    });
}

/// What the DNS says after so many milliseconds.
fn says((at, says): (u64, Says)) -> NameChange {
    NameChange { at: Duration::from_millis(at), says }
}

/// A replica that discovery drops and lists again.
fn withdrawal((at, replica, begins): (u64, usize, bool)) -> Change {
    Change { at: Duration::from_millis(at), replica, fault: Fault::Withdrawal, begins }
}

#[test]
fn replicas_that_come_and_go_in_the_dns_cost_no_request_of_whatever_method() {
    let steps = [
        (1000, 0, true),
        (2000, 1, true),
        (2500, 0, false),
        (3000, 2, true),
        (4000, 1, false),
        (4500, 0, true),
        (5000, 2, false),
    ];
    let changes = steps.map(withdrawal).into();
    run(&Plan { changes, names: Some(Vec::new()), ..plan(13) }, |outcome| {
        invariants::nothing_failed(outcome);
        // Each came back once, to a life of its own.
        assert_eq!(outcome.endpoints.len(), 6);
        assert_eq!(invariants::listed(outcome), [false, true, true]);
    });
}

#[test]
fn a_dns_that_fails_in_every_way_costs_no_request_and_is_followed_again_afterwards() {
    let ways = [Says::Silence, Says::Half, Says::NoSuchName, Says::Failure];
    for way in ways {
        // One replica leaves while nobody can know it.
        let changes = vec![withdrawal((2500, 1, true))];
        let names = Some([(1000, way), (5000, Says::Truth)].map(says).into());
        let idle = Duration::from_secs(12);
        run(&Plan { changes, names, idle, ..plan(14) }, |outcome| {
            invariants::nothing_failed(outcome);
            assert_eq!(invariants::listed(outcome), [true, false, true], "{way:?}");
            invariants::no_connections(&outcome.endpoints[1]);
        });
    }
}

#[test]
fn a_rolling_restart_fails_nothing_of_whatever_method() {
    let drain = |replica: usize, at, begins| {
        let at = Duration::from_millis(1500 * replica as u64 + at);
        Change { at, replica, fault: Fault::Drain, begins }
    };
    let changes =
        (0..3).flat_map(|replica| [drain(replica, 1000, true), drain(replica, 2000, false)]).collect();
    run(&Plan { changes, ..plan(10) }, invariants::nothing_failed);
}

#[test]
fn a_replica_that_is_cut_off_for_good_costs_no_request_and_keeps_no_connection() {
    let cut = Change { at: Duration::from_secs(1), replica: 1, fault: Fault::Partition, begins: true };
    let plan = Plan { changes: vec![cut], idle: Duration::from_secs(45), ..plan(11) };
    run(&plan, |outcome| {
        invariants::check(outcome);
        invariants::no_connections(&outcome.endpoints[1]);
    });
}

#[test]
fn a_cluster_that_fails_as_a_whole_sees_no_more_than_the_budget_in_extra_load() {
    let crash = |replica| Change { at: Duration::from_secs(1), replica, fault: Fault::Crash, begins: true };
    let policy = "retry: {budget_percent: 20, budget_min_per_second: 0}".to_owned();
    let plan = Plan { changes: vec![crash(0), crash(1), crash(2)], policy, ..plan(12) };
    run(&plan, |outcome| {
        invariants::nothing_left(outcome);
        let extra = invariants::extra_load(outcome);
        assert!(extra <= 0.2, "extra load of {extra}");
        assert!(extra > 0.1, "the budget was hardly used: {extra}");
    });
}
