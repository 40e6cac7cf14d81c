//! What goes wrong, and when.

use std::{fmt, time::Duration};

use super::mesh::REPLICAS;

/// One replica is never touched, so that there is always one that can be reached.
const VICTIMS: usize = REPLICAS.len() - 1;
/// Most faults of one replica.
const MAX_FAULTS: usize = 3;
/// Latency of a slow link, one way.
const SLOW_MS: std::ops::Range<u64> = 50..400;

/// One thing that goes wrong between the caller and a replica, or with the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Segments get lost both ways; connections from before stay dead.
    Partition,
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
}

impl Fault {
    /// Whether connections may break under an answer that has begun: nobody can save that one.
    pub(super) fn breaks_connections(self) -> bool {
        match self {
            // A drain that is not over when the fault is, is cut short.
            Self::Partition | Self::Crash | Self::PowerLoss | Self::Drain => true,
            Self::Silence | Self::SlowLink(_) | Self::Withdrawal => false,
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
        let count = rng.usize(1..=MAX_FAULTS);
        let (from, until) = (from.as_millis() as u64, until.as_millis() as u64);
        let mut times: Vec<u64> = (0..2 * count).map(|_| rng.u64(from..until)).collect();
        times.sort_unstable();
        for times in times.chunks_exact(2) {
            let fault = any(rng);
            changes.extend([(times[0], true), (times[1], false)].map(|(at, begins)| Change {
                at: Duration::from_millis(at),
                replica,
                fault,
                begins,
            }));
        }
    }
    changes.sort_by_key(|change| change.at);
    changes
}

fn any(rng: &mut fastrand::Rng) -> Fault {
    match rng.u32(0..7) {
        0 => Fault::Partition,
        1 => Fault::Silence,
        2 => Fault::SlowLink(Duration::from_millis(rng.u64(SLOW_MS))),
        3 => Fault::Crash,
        4 => Fault::PowerLoss,
        5 => Fault::Drain,
        _ => Fault::Withdrawal,
    }
}
