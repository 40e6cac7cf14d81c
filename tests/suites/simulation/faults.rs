//! What goes wrong, and when.

use std::{fmt, time::Duration};

use super::mesh::REPLICAS;

/// One replica is never touched, so that there is always one that can be reached.
const VICTIMS: usize = REPLICAS.len() - 1;
/// Most faults of one replica.
const MAX_FAULTS: usize = 3;
/// Times that discovery which flaps drops a replica.
const MAX_FLAPS: usize = 8;
/// What a slow app adds.
const SLOW_APP_MS: std::ops::Range<u64> = 200..3000;
/// Latency of a slow link, one way.
const SLOW_MS: std::ops::Range<u64> = 50..400;

/// One thing that goes wrong between the caller and a replica, or with the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Segments get lost both ways; connections from before stay dead.
    Partition,
    /// Segments to the caller get lost, those to the replica do not.
    Deaf,
    /// Segments are delayed until it is over, as by a network that comes back.
    Silence,
    /// Segments take their time.
    SlowLink(Duration),
    /// The replica's processes end at once and start again later; its network says goodbye for it.
    Crash,
    /// The same, without a goodbye.
    PowerLoss,
    /// The replica drains and ends, and starts again later.
    Drain,
    /// Discovery drops the replica, which is well, and lists it again later.
    Withdrawal,
    /// The app takes requests and does not answer until it is over, as a process that was stopped.
    Stall,
    /// The app takes its time.
    SlowApp(Duration),
    /// The app answers so many percent of requests with this status.
    Errors(u32, u16),
}

impl Fault {
    /// Whether connections may break under an answer that has begun: nobody can save that one.
    pub(super) fn breaks_connections(self) -> bool {
        match self {
            // A drain that is not over when the fault is, is cut short.
            Self::Partition | Self::Deaf | Self::Crash | Self::PowerLoss | Self::Drain => true,
            Self::Silence
            | Self::SlowLink(_)
            | Self::Withdrawal
            | Self::Stall
            | Self::SlowApp(_)
            | Self::Errors(..) => false,
        }
    }

    /// Whether connections from before stay dead without either end being told.
    pub(super) fn leaves_dead_connections(self) -> bool {
        matches!(self, Self::Partition | Self::Deaf | Self::PowerLoss)
    }

    /// Whether an answer may come too late for a request's time.
    pub(super) fn delays(self) -> bool {
        match self {
            Self::Partition
            | Self::Deaf
            | Self::Silence
            | Self::SlowLink(_)
            | Self::Crash
            | Self::PowerLoss
            | Self::Drain
            | Self::Stall
            | Self::SlowApp(_) => true,
            Self::Withdrawal | Self::Errors(..) => false,
        }
    }
}

/// The beginning or the end of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// When, from the start of the simulation.
    pub(super) at: Duration,
    /// Whose: an index into [`REPLICAS`].
    pub(super) replica: usize,
    /// What.
    pub(super) fault: Fault,
    /// Whether it begins.
    pub(super) begins: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, name) = (if self.begins { "begins" } else { "ends" }, REPLICAS[self.replica]);
        write!(f, "{:?} of {name} {what}", self.fault)
    }
}

/// Faults of up to two replicas between `from` and `until`, in order of time. The faults of one replica follow each
/// other; those of two may overlap.
pub(super) fn plan(rng: &mut fastrand::Rng, from: Duration, until: Duration) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut replicas: Vec<usize> = (0..REPLICAS.len()).collect();
    rng.shuffle(&mut replicas);
    for replica in replicas.into_iter().take(VICTIMS) {
        // Discovery that flaps does nothing else.
        let flaps = rng.u32(0..10) == 0;
        let count = if flaps { MAX_FLAPS } else { rng.usize(1..=MAX_FAULTS) };
        let (from, until) = (from.as_millis() as u64, until.as_millis() as u64);
        let mut times: Vec<u64> = (0..2 * count).map(|_| rng.u64(from..until)).collect();
        times.sort_unstable();
        for times in times.chunks_exact(2) {
            let fault = if flaps { Fault::Withdrawal } else { any(rng) };
            changes.extend(lasting(replica, fault, [times[0], times[1]]));
        }
    }
    changes.sort_by_key(|change| change.at);
    changes
}

/// The same fault of all replicas, between two times in milliseconds.
pub(super) fn of_all(fault: Fault, times: [u64; 2]) -> Vec<Change> {
    let mut changes: Vec<_> =
        (0..REPLICAS.len()).flat_map(|replica| lasting(replica, fault, times)).collect();
    changes.sort_by_key(|change| change.at);
    changes
}

/// A fault from its beginning to its end, in milliseconds.
pub(super) fn lasting(replica: usize, fault: Fault, times: [u64; 2]) -> [Change; 2] {
    let change = |at, begins| Change { at: Duration::from_millis(at), replica, fault, begins };
    [change(times[0], true), change(times[1], false)]
}

pub(super) fn any(rng: &mut fastrand::Rng) -> Fault {
    match rng.u32(0..11) {
        0 => Fault::Partition,
        1 => Fault::Silence,
        2 => Fault::SlowLink(Duration::from_millis(rng.u64(SLOW_MS))),
        3 => Fault::Crash,
        4 => Fault::PowerLoss,
        5 => Fault::Drain,
        6 => Fault::Deaf,
        7 => Fault::Stall,
        8 => Fault::SlowApp(Duration::from_millis(rng.u64(SLOW_APP_MS))),
        9 => Fault::Errors(*rng.choice(&[10, 50, 100]).unwrap(), *rng.choice(&[500, 503]).unwrap()),
        _ => Fault::Withdrawal,
    }
}
