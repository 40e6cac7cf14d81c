//! The decisions, simulated: callers with several workers, the endpoints they call and everything that goes wrong, on a
//! clock that is a number. No socket, no thread, no runtime: a run takes milliseconds, so there are many.
//!
//! Whole meshes on virtual time are `simulation`'s; here everything that *decides* is the real thing (`publish::build`,
//! `balance`, `resilience`), and what is around it is [`requests`], which asks in the pipeline's order.
//!
//! Read in this order: [`plan`] (who is there, what goes wrong), [`replica`] (what becomes of a request), [`requests`]
//! and [`retries`] (who asks what), [`invariants`] (what must hold after every step), [`ledger`] (what that is compared with).
//!
//! `OUTRIDER_SIM_SEED=n` replays one seed and prints its log; `OUTRIDER_SIM_SEEDS=n` tries so many fresh ones.

mod caller;
mod invariants;
mod ledger;
mod mesh;
mod plan;
mod queue;
mod replica;
mod requests;
mod retries;
mod verdicts;

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use outrider::model::balance::Balance;

use self::{
    mesh::{Log, Mesh},
    plan::{FAULTS, Fault, LOAD, Plan},
    requests::End,
};
use super::simulation::seeds;

/// So long after an endpoint gives no good answer any more it gets nothing but probes.
const NOTICED: Duration = Duration::from_secs(4);
/// Where speed decides, so few come that those who find out are never enough in a row: but no more than these.
const STRAYS: usize = 5;
/// So long after it is well again it has its share again.
const RETURNED: Duration = Duration::from_secs(5);
/// Seeds that every test run tries; `OUTRIDER_SIM_SEEDS` tries others.
const SEEDS: u64 = 1000;

/// Runs a plan.
fn run(plan: &Plan) -> Mesh {
    Mesh::run(plan, if seeds::is_replay() { Log::Printed } else { Log::None })
}

#[test]
fn every_decision_holds_what_it_promises_whatever_happens() {
    let happened = Mutex::new(BTreeMap::<String, usize>::new());
    seeds::each(SEEDS, |seed| {
        let mesh = run(&Plan::new(seed));
        let mut happened = happened.lock().unwrap();
        for what in mesh.happened() {
            *happened.entry(what).or_default() += 1;
        }
    });
    let happened = happened.into_inner().unwrap();
    println!("{happened:#?}");
    // What never happens shows nothing.
    let expected = [
        "Answered",
        "BrokenOff",
        "Left",
        "Overflow",
        "NoEndpoint",
        "Expired",
        "NotSafe",
        "NotReplayable",
        "TooMany",
        "Late",
        "Active",
        "Budget",
        "a probe",
        "a second attempt",
        "GatewayFailures",
        "LocalFailures",
        "SuccessRate",
        "FailurePercent",
        "Slow",
        "Silent",
        "Probe",
        "let in because it is needed",
        "taken back",
    ];
    let missing: Vec<_> =
        expected.iter().filter(|what| !happened.keys().any(|key| key.contains(**what))).collect();
    assert!(missing.is_empty() || !seeds::are_usual(), "never happened: {missing:?}");
}

#[test]
fn where_nothing_goes_wrong_nothing_fails_and_nothing_is_repeated() {
    seeds::each(SEEDS / 10, |seed| {
        let mesh = run(&Plan::calm(seed));
        for (number, end) in mesh.ends.iter().enumerate() {
            let is_well = matches!(end, Some(End::Answered(200) | End::Left | End::Overflow));
            assert!(is_well, "{number}: {end:?}");
        }
        let ejections = mesh.callers.iter().flat_map(|caller| &caller.ledger.ejections).collect::<Vec<_>>();
        assert!(ejections.is_empty(), "{ejections:?}");
        let retries: u64 = mesh.callers.iter().map(|caller| caller.ledger.retries).sum();
        assert_eq!(retries, 0);
    });
}

#[test]
fn whoever_gives_no_good_answer_is_left_alone_within_seconds_and_asked_again_when_it_is_well() {
    let faults = [Fault::Crash, Fault::PowerLoss, Fault::Stall, Fault::Errors(100, 503), Fault::Stranger];
    seeds::each(SEEDS / 10, |seed| {
        let fault = faults[seed as usize % faults.len()];
        let mesh = run(&Plan::of_one(seed, fault));
        let sent = || mesh.callers[0].ledger.sent.iter().filter(|(_, replica, _)| *replica == 1);
        let is_in = |at: Duration, from: Duration, until: Duration| from <= at && at < until;
        let late = sent().filter(|(at, _, is_probe)| !is_probe && is_in(*at, FAULTS[0] + NOTICED, FAULTS[1]));
        let late = late.count();
        assert!(late <= STRAYS, "{fault:?}: {late} requests, long after it began");
        let again = sent().filter(|(at, ..)| is_in(*at, FAULTS[1] + RETURNED, LOAD)).count();
        // By speed, so few requests find out that nothing comes that it is not ejected; what they waited for is
        // remembered for a minute.
        let is_silent = matches!(fault, Fault::PowerLoss | Fault::Stall);
        let is_dear = is_silent && mesh.plan.balance == Balance::PeakEwma;
        assert!(is_dear || again > 20, "{fault:?}: asked {again} times again");
    });
}

#[test]
fn a_seed_run_twice_decides_alike() {
    let log = |seed| match Mesh::run(&Plan::new(seed), Log::Kept(Vec::new())).log {
        Log::Kept(lines) => lines,
        Log::None | Log::Printed => unreachable!("it was to be kept"),
    };
    seeds::decide_alike([3, 5, 7], log);
}
