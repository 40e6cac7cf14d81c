//! What a run is made of: who calls whom, by which settings, and what goes wrong when. All of it follows from the seed.

use std::{fmt, time::Duration};

use outrider::model::balance::Balance;

/// Requests come for so long.
pub(super) const LOAD: Duration = Duration::from_secs(24);
/// Faults begin and end between these two times; the rest of the load finds everything well.
pub(super) const FAULTS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];
/// Whoever was unwell is as good as the others by then.
pub(super) const CALM_FROM: Duration = Duration::from_secs(15);
/// Most replicas of the called service.
const MAX_REPLICAS: usize = 8;
/// Most faults of one replica.
const MAX_FAULTS: usize = 3;
/// One run in so many has a time when no replica is well.
const TOTAL_EVERY: u32 = 6;
/// How long a new endpoint gets less, if it does.
const SLOW_START: Duration = Duration::from_secs(2);
/// The zones that there are.
const ZONES: [&str; 3] = ["a", "b", "c"];

/// What a run is made of.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Decides everything that is not said here.
    pub(super) seed: u64,
    /// The calling sidecars.
    pub(super) callers: Vec<CallerPlan>,
    /// The called service.
    pub(super) replicas: Vec<ReplicaPlan>,
    /// What every caller's configuration says of the called cluster, in YAML, beside name and endpoints.
    pub(super) cluster: String,
    /// How its endpoints share requests.
    pub(super) balance: Balance,
    /// With a smaller share of usable endpoints than this all are used.
    pub(super) panic_percent: u32,
    /// How long a new endpoint gets less.
    pub(super) slow_start: Option<Duration>,
    /// So many percent of requests are calls of gRPC.
    pub(super) calls_percent: u32,
    /// Requests per second and caller, on average.
    pub(super) rate: f64,
    /// What goes wrong, in order of time.
    pub(super) changes: Vec<Change>,
}

/// One calling sidecar.
#[derive(Clone, Debug)]
pub(super) struct CallerPlan {
    /// Threads, each with chances of its own.
    pub(super) workers: usize,
    /// Where it stands.
    pub(super) zone: Option<&'static str>,
}

/// One replica of the called service.
#[derive(Clone, Debug)]
pub(super) struct ReplicaPlan {
    /// Mean time to an answer while it is well.
    pub(super) latency: Duration,
    /// Its share beside the others'.
    pub(super) weight: u32,
    /// Where it stands.
    pub(super) zone: Option<&'static str>,
}

/// One thing that goes wrong with a replica.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// What it has under way is reset, and connections are refused.
    Crash,
    /// It is gone without a word: no answer to anything, not even to a connect.
    PowerLoss,
    /// It accepts and does not answer until it is over, as a process that was stopped.
    Stall,
    /// It takes so many times as long.
    Slow(u32),
    /// It answers so many percent of requests with this status.
    Errors(u32, u16),
    /// Its sidecar refuses so many percent of requests unprocessed.
    Refusals(u32),
    /// One caller cannot reach it.
    CutOff(usize),
    /// Discovery does not list it, though it is well.
    Withdrawn,
    /// Discovery says that it is not ready, though it is well.
    Unready,
    /// Somebody else is at its address.
    Stranger,
}

/// The beginning or the end of a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    /// When.
    pub(super) at: Duration,
    /// Whose: an index.
    pub(super) replica: usize,
    /// What.
    pub(super) fault: Fault,
    /// Whether it begins.
    pub(super) begins: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.begins { "begins" } else { "ends" };
        write!(f, "{:?} of {} {what}", self.fault, self.replica)
    }
}

impl Plan {
    /// The run that a seed stands for.
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let rng = &mut rng;
        let has_zones = rng.bool();
        let has_weights = rng.u32(0..3) == 0;
        let zone = |rng: &mut fastrand::Rng| has_zones.then(|| *rng.choice(&ZONES).unwrap());
        let callers: Vec<_> = (0..rng.usize(1..=3))
            .map(|_| CallerPlan { workers: rng.usize(1..=4), zone: zone(rng) })
            .collect();
        let latency = Duration::from_millis(rng.u64(2..30));
        let replicas: Vec<_> = (0..rng.usize(1..=MAX_REPLICAS))
            .map(|_| ReplicaPlan {
                latency: latency.mul_f64(0.8 + 0.4 * rng.f64()),
                weight: if has_weights { rng.u32(1..=5) } else { 1 },
                zone: zone(rng),
            })
            .collect();
        let changes = changes(rng, replicas.len(), callers.len());
        let algorithms =
            [Balance::PeakEwma, Balance::LeastRequest, Balance::RoundRobin, Balance::Random, Balance::Maglev];
        Self {
            seed,
            callers,
            replicas,
            cluster: cluster(rng),
            // Half of all runs have the default.
            balance: if rng.bool() { Balance::PeakEwma } else { *rng.choice(&algorithms).unwrap() },
            panic_percent: *rng.choice(&[50, 50, 0, 100]).unwrap(),
            slow_start: rng.bool().then_some(SLOW_START),
            calls_percent: *rng.choice(&[0, 0, 50, 100]).unwrap(),
            rate: *rng.choice(&[10.0, 20.0, 40.0]).unwrap(),
            changes,
        }
    }

    /// One of four replicas has a fault, from [`FAULTS`]' beginning to its end, and nothing else goes wrong.
    pub(super) fn of_one(seed: u64, fault: Fault) -> Self {
        let plan = Self::calm(seed);
        let replica = ReplicaPlan { latency: Duration::from_millis(10), weight: 1, zone: None };
        let change = |at, begins| Change { at, replica: 1, fault, begins };
        let changes = vec![change(FAULTS[0], true), change(FAULTS[1], false)];
        let callers = vec![CallerPlan { workers: 2, zone: None }];
        let cluster = "outlier_detection: {ejection_time: 1s, max_ejection_time: 2s}".to_owned();
        Self { callers, replicas: vec![replica; 4], changes, cluster, panic_percent: 50, rate: 60.0, ..plan }
    }

    /// The same, and nothing goes wrong, or is taken for it.
    pub(super) fn calm(seed: u64) -> Self {
        let plan = Self::new(seed);
        let cluster = plan.cluster.replace("hedge: 60ms", "hedge: none");
        Self { changes: Vec::new(), cluster, ..plan }
    }
}

/// A cluster's settings.
fn cluster(rng: &mut fastrand::Rng) -> String {
    let mut any = |choices: &[&'static str]| *rng.choice(choices).unwrap();
    let timeout = any(&["none", "700ms", "3s"]);
    let max_requests = any(&["1024", "1024", "30", "8"]);
    let budget = any(&["20, budget_min_per_second: 10", "20, budget_min_per_second: 0"]);
    let max_retries = any(&["0", "1", "2", "2", "4"]);
    let max_active = any(&["1024", "1024", "2"]);
    let per_try_timeout = any(&["none", "none", "300ms"]);
    // A second attempt is one of `max_retries`: beside 0 it is a fault.
    let hedge = Some(any(&["none", "none", "60ms"])).filter(|_| max_retries != "0").unwrap_or("none");
    let retry = format!(
        "max_retries: {max_retries}, budget_percent: {budget}, max_active: {max_active}, \
         per_try_timeout: {per_try_timeout}, hedge: {hedge}, backoff_base: {}",
        any(&["25ms", "25ms", "300ms"]),
    );
    let outlier = format!(
        "ejection_time: {}, max_ejection_time: 2s, window: {}, max_ejected_percent: {}",
        any(&["500ms", "1s"]),
        any(&["10s", "3s"]),
        any(&["50", "50", "50", "30", "0"]),
    );
    format!(
        "request_timeout: {timeout}, max_requests: {max_requests}, connect_timeout: 1s, retry: {{{retry}}}, \
         outlier_detection: {{{outlier}}}"
    )
}

/// Faults in order of time. Those of one replica follow each other; those of several may overlap.
fn changes(rng: &mut fastrand::Rng, replicas: usize, callers: usize) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut change = |at: u64, replica, fault, begins| {
        changes.push(Change { at: Duration::from_millis(at), replica, fault, begins });
    };
    let [from, until] = FAULTS.map(|at| at.as_millis() as u64);
    // All at once, over before each gets faults of its own.
    let from = if rng.u32(0..TOTAL_EVERY) == 0 {
        let (fault, over) = (any(rng, callers), from + rng.u64(500..3000));
        for replica in 0..replicas {
            change(from + rng.u64(0..50), replica, fault, true);
            change(over + rng.u64(0..50), replica, fault, false);
        }
        over + 50
    } else {
        from
    };
    for replica in 0..replicas {
        // Half of the replicas of a run have none.
        let count = if rng.bool() { rng.usize(1..=MAX_FAULTS) } else { 0 };
        // Discovery that flaps does it often.
        let (count, is_flapping) = if rng.u32(0..12) == 0 { (8, true) } else { (count, false) };
        let mut times: Vec<u64> = (0..2 * count).map(|_| rng.u64(from..until)).collect();
        times.sort_unstable();
        for times in times.chunks_exact(2) {
            let fault = if is_flapping { Fault::Withdrawn } else { any(rng, callers) };
            change(times[0], replica, fault, true);
            change(times[1], replica, fault, false);
        }
    }
    // Stable: the beginning of a fault stays before its end.
    changes.sort_by_key(|change| change.at);
    changes
}

fn any(rng: &mut fastrand::Rng, callers: usize) -> Fault {
    match rng.u32(0..10) {
        0 => Fault::Crash,
        1 => Fault::PowerLoss,
        2 => Fault::Stall,
        3 => Fault::Slow(rng.u32(5..100)),
        4 => Fault::Errors(100, 503),
        5 => Fault::Errors(rng.u32(5..60), *rng.choice(&[500, 502, 503]).unwrap()),
        6 => Fault::Refusals(rng.u32(5..=100)),
        7 => Fault::CutOff(rng.usize(0..callers)),
        8 => *rng.choice(&[Fault::Withdrawn, Fault::Unready]).unwrap(),
        _ => Fault::Stranger,
    }
}
