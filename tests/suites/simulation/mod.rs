//! The whole mesh, simulated: real sidecars with real TLS on a network and a clock that one seed decides.
//!
//! Read in this order: [`mesh`] (who is there), [`faults`] (what goes wrong), [`invariants`] (what must hold all the
//! same), [`log`] (what two runs of one seed are compared by).
//!
//! `OUTRIDER_SIM_SEED=n` replays one seed and prints its log; `OUTRIDER_SIM_SEEDS=n` tries so many fresh ones.

mod faults;
mod identities;
mod invariants;
mod load;
mod log;
mod mesh;
mod net;
mod service;

use std::{panic, time::Duration};

use self::{
    faults::{Change, Fault},
    load::Load,
    mesh::{Outcome, Plan},
};

/// Seeds that every test run tries; `OUTRIDER_SIM_SEEDS` tries others.
const SEEDS: u64 = 10;
/// The load lasts so long, the faults lie within it.
const LOAD: Load = Load { rate: 60.0, duration: Duration::from_secs(6) };

/// The run that a seed stands for.
fn plan(seed: u64) -> Plan {
    let mut rng = fastrand::Rng::with_seed(seed);
    let changes = faults::plan(&mut rng, Duration::from_secs(1), LOAD.duration);
    Plan { seed, load: LOAD, changes, retry: "{}", idle: Duration::ZERO }
}

/// Runs a plan and checks it; whatever fails in it, the seed is told.
fn run(plan: &Plan, check: impl FnOnce(&Outcome)) -> Outcome {
    let seed = plan.seed;
    let checked = panic::AssertUnwindSafe(|| {
        let outcome = mesh::run(plan);
        check(&outcome);
        outcome
    });
    panic::catch_unwind(checked).unwrap_or_else(|cause| {
        eprintln!("simulation failed; replay with OUTRIDER_SIM_SEED={seed}");
        panic::resume_unwind(cause)
    })
}

#[expect(clippy::disallowed_methods, reason = "the knobs of this suite")]
fn knob(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn no_request_is_lost_whatever_happens_to_two_of_three_replicas() {
    let seeds: Vec<u64> = match (knob("OUTRIDER_SIM_SEED"), knob("OUTRIDER_SIM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (0..count).map(|_| fastrand::u64(..)).collect(),
        (None, None) => (0..SEEDS).collect(),
    };
    for seed in seeds {
        let outcome = run(&plan(seed), invariants::check);
        if knob("OUTRIDER_SIM_SEED").is_some() {
            outcome.log.iter().for_each(|line| println!("{line}"));
        }
    }
}

#[test]
fn a_seed_run_twice_decides_alike() {
    let [first, again, other] = [7, 7, 8].map(|seed| run(&plan(seed), |_| {}).log);
    let differs = first.iter().zip(&again).position(|(first, again)| first != again);
    if let Some(line) = differs {
        panic!("line {line} differs:\n  {}\n  {}", first[line], again[line]);
    }
    assert_eq!(first.len(), again.len());
    assert_ne!(first, other);
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
    let retry = "{budget_percent: 20, budget_min_per_second: 0}";
    let plan = Plan { changes: vec![crash(0), crash(1), crash(2)], retry, ..plan(12) };
    run(&plan, |outcome| {
        invariants::nothing_left(outcome);
        let extra = invariants::extra_load(outcome);
        assert!(extra <= 0.2, "extra load of {extra}");
        assert!(extra > 0.1, "the budget was hardly used: {extra}");
    });
}
