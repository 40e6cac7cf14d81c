//! What the run showed, and whether what was promised was kept.

use serde::Serialize;

use super::{
    WARM_UP,
    measure::Cost,
    scenario::{Promise, Scenario},
    sidecar::Proxy,
};

/// What the budget allows: a share of the requests, and some per second, both over a window of ten seconds that may be
/// spent at once; and a little for the edges of the measurement.
const BUDGET_SHARE: f64 = 0.2;
const BUDGET_PER_SECOND: f64 = 10.0;
const BUDGET_WINDOW_S: f64 = 10.0;
const EDGES_PERCENT: f64 = 2.0;
/// Once somebody is back, the mesh must work again within this.
const BACK_WITHIN_S: f64 = 5.0;

/// The report, as `chaos.json` holds it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The command that made it.
    pub command: String,
    /// Requests per second.
    pub rate: u32,
    /// One entry per scenario and proxy, in the order in which they were run.
    pub runs: Vec<Run>,
    /// What could not be run on this machine, and why.
    pub skipped: Vec<Skipped>,
    /// Promises of ours that were not kept.
    pub broken: Vec<String>,
}

/// One scenario behind one kind of sidecar.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// What was done.
    pub title: &'static str,
    /// Whose sidecars.
    pub proxy: Proxy,
    /// What came of it.
    #[serde(flatten)]
    pub cost: Cost,
}

/// A scenario that was not run.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    /// Its name.
    pub scenario: &'static str,
    /// Why.
    pub why: String,
}

/// What of a promise was not kept; `None`: all of it was.
#[must_use]
pub fn broken(scenario: &Scenario, cost: &Cost, rate: u32) -> Option<String> {
    let what = match scenario.promise {
        Promise::NoFailures if cost.failed > 0 => {
            format!("{} of {} requests failed", cost.failed, cost.requests)
        }
        Promise::Recovers if cost.recovered_s.is_none_or(|seconds| seconds > BACK_WITHIN_S) => {
            let seconds =
                cost.recovered_s.map_or("never".to_owned(), |seconds| format!("after {seconds:.1} s"));
            format!("works again {seconds}, not within {BACK_WITHIN_S} s")
        }
        Promise::Budget if cost.extra_load_percent > most_extra(cost, rate) => {
            let most = most_extra(cost, rate);
            format!("{:.1} % extra load, {most:.1} % allowed", cost.extra_load_percent)
        }
        Promise::NoFailures | Promise::Recovers | Promise::Budget => return None,
    };
    Some(format!("{}: {what}", scenario.name))
}

/// The most extra load that the budget lets through in that span, in percent: it was filled by what came before.
fn most_extra(cost: &Cost, rate: u32) -> f64 {
    let (from, to) = cost.fault_s;
    let (span, all) = (to - from, to + WARM_UP.as_secs_f64());
    let windows = (span / BUDGET_WINDOW_S).ceil() * BUDGET_WINDOW_S;
    // The floor counts from the sidecar's start, some time before the load's.
    let retries = BUDGET_SHARE * f64::from(rate) * all.min(windows) + BUDGET_PER_SECOND * windows;
    retries / (f64::from(rate) * span) * 100.0 + EDGES_PERCENT
}

#[cfg(test)]
mod tests {
    use super::{super::scenario, *};
    use crate::chaos::measure::Quantiles;

    fn cost() -> Cost {
        let none = Quantiles { p50_ms: None, p99_ms: None };
        Cost {
            requests: 100,
            failed: 0,
            failures: Vec::new(),
            extra_load_percent: 0.0,
            before: none,
            during: none,
            after: none,
            recovered_s: Some(1.0),
            disturbed_s: 1.0,
            fault_s: (4.0, 12.0),
            series: Vec::new(),
        }
    }

    fn verdict(promise: Promise, change: impl FnOnce(&mut Cost)) -> Option<String> {
        let mut cost = cost();
        change(&mut cost);
        let scenario =
            scenario::ALL.iter().find(|scenario| scenario.promise == promise).expect("there is one");
        broken(scenario, &cost, 300)
    }

    #[test]
    fn each_promise_is_broken_by_what_it_is_about() {
        assert_eq!(verdict(Promise::NoFailures, |cost| cost.extra_load_percent = 90.0), None);
        assert!(verdict(Promise::NoFailures, |cost| cost.failed = 1).is_some());
        assert_eq!(verdict(Promise::Recovers, |cost| cost.failed = 50), None);
        assert!(verdict(Promise::Recovers, |cost| cost.recovered_s = None).is_some());
        assert!(verdict(Promise::Recovers, |cost| cost.recovered_s = Some(6.0)).is_some());
        assert_eq!(
            verdict(Promise::Budget, |cost| (cost.failed, cost.extra_load_percent) = (90, 29.0)),
            None
        );
        assert!(verdict(Promise::Budget, |cost| cost.extra_load_percent = 32.0).is_some());
    }
}
