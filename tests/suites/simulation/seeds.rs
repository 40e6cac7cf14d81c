//! Which seeds a test run tries, for every simulation of these suites.

use std::{
    panic,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

/// Threads that runs of a test share.
const THREADS: usize = 2;

/// A number from the environment.
#[expect(clippy::disallowed_methods, reason = "the knobs of these suites")]
fn knob(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Whether somebody wants to read what one seed does.
pub(in super::super) fn is_replay() -> bool {
    knob("OUTRIDER_SIM_SEED").is_some()
}

/// Whether it is the seeds of every test run.
pub(in super::super) fn are_usual() -> bool {
    knob("OUTRIDER_SIM_SEED").or(knob("OUTRIDER_SIM_SEEDS")).is_none()
}

/// The first `count` seeds; the one of `OUTRIDER_SIM_SEED`, or as many fresh ones as `OUTRIDER_SIM_SEEDS` says.
fn seeds(count: u64) -> Vec<u64> {
    match (knob("OUTRIDER_SIM_SEED"), knob("OUTRIDER_SIM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (0..count).map(|_| fastrand::u64(..)).collect(),
        (None, None) => (0..count).collect(),
    }
}

/// Runs each seed twice: the same seed decides alike, and another does not.
pub(in super::super) fn decide_alike(seeds: [u64; 3], log: impl Fn(u64) -> Vec<String>) {
    let logs = seeds.map(|seed| {
        let (first, again) = (log(seed), log(seed));
        let differs = first.iter().zip(&again).find(|(first, again)| first != again);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.len(), again.len(), "seed {seed}");
        first
    });
    assert_ne!(logs[0], logs[1]);
    assert_ne!(logs[1], logs[2]);
}

/// Runs every seed of this test run, on some threads; the first that fails ends the test.
pub(in super::super) fn each(count: u64, run: impl Fn(u64) + Sync) {
    let (seeds, next) = (seeds(count), AtomicUsize::new(0));
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Relaxed)) {
            let run = panic::AssertUnwindSafe(|| run(*seed));
            if let Err(cause) = panic::catch_unwind(run) {
                eprintln!("simulation failed; replay with OUTRIDER_SIM_SEED={seed}");
                // The others need not go on.
                next.store(seeds.len(), Relaxed);
                panic::resume_unwind(cause);
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for ended in threads.into_iter().map(thread::ScopedJoinHandle::join) {
            ended.unwrap_or_else(|cause| panic::resume_unwind(cause));
        }
    });
}
