//! The called service as it is, whatever the callers think of it: what becomes of a request that is sent to it.

use std::time::Duration;

use super::plan::{Fault, ReplicaPlan};

/// A connection is refused, or an unknown peer found, after this.
const REFUSED_AFTER: Duration = Duration::from_millis(1);
/// The caller's `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A path that carries nothing is found out by pings on its connection after this.
const PINGED_AFTER: Duration = Duration::from_secs(10);
/// One answer in so many is a stream.
const STREAM_EVERY: u32 = 8;
/// Mean length of a stream.
const STREAM: Duration = Duration::from_millis(400);
/// Requests under way at which a replica takes twice as long.
const CAPACITY: f64 = 20.0;

/// What a caller sees of an attempt next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// No connection: nothing was written.
    NotConnected,
    /// Somebody else answered the handshake: nothing was written.
    Stranger,
    /// The other sidecar says that its app has not seen the request.
    Refused,
    /// The connection broke: the app may have seen it.
    Reset,
    /// No answer in the time that there was.
    TooLate,
    /// The head of an answer.
    Head(u16),
    /// The end of the answer's body.
    End,
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits for the head of an answer.
    Asked,
    /// It waits for the rest of the answer.
    Answering,
}

/// What happens to an attempt, and after which time; `None`: nothing, until its replica changes.
pub(super) type Fate = Option<(Duration, Seen)>;

/// One replica as it is.
#[derive(Debug)]
pub(super) struct Replica {
    /// What it was made from.
    pub(super) plan: ReplicaPlan,
    /// What is wrong with it.
    pub(super) fault: Option<Fault>,
    /// Requests that it works on.
    pub(super) load: u32,
}

impl Replica {
    /// One that is well.
    pub(super) fn new(plan: ReplicaPlan) -> Self {
        Self { plan, fault: None, load: 0 }
    }

    /// Whether discovery lists it, and if so as ready.
    pub(super) fn listed(&self) -> Option<bool> {
        match self.fault {
            Some(Fault::Withdrawn) => None,
            Some(Fault::Unready) => Some(false),
            _ => Some(true),
        }
    }

    /// What becomes of a request that `caller` sends now.
    pub(super) fn ask(&self, caller: usize, rng: &mut fastrand::Rng) -> Fate {
        match self.fault {
            Some(Fault::Crash) => Some((REFUSED_AFTER, Seen::NotConnected)),
            Some(Fault::Stranger) => Some((REFUSED_AFTER, Seen::Stranger)),
            Some(Fault::Stall) => None,
            Some(Fault::PowerLoss) => Some(Self::unreachable(rng)),
            Some(Fault::CutOff(cut_off)) if cut_off == caller => Some(Self::unreachable(rng)),
            Some(Fault::Refusals(percent)) if rng.u32(0..100) < percent => {
                Some((REFUSED_AFTER, Seen::Refused))
            }
            _ => Some(self.work(rng)),
        }
    }

    /// What becomes of an attempt that was under way when something changed; `None`: nothing that it would notice.
    pub(super) fn carry_on(&self, caller: usize, stage: Stage, rng: &mut fastrand::Rng) -> Option<Fate> {
        match self.fault {
            Some(Fault::Crash) => Some(Some((REFUSED_AFTER, Seen::Reset))),
            Some(Fault::Stall) => Some(None),
            Some(Fault::PowerLoss) => Some(Some((PINGED_AFTER, Seen::Reset))),
            Some(Fault::CutOff(cut_off)) if cut_off == caller => Some(Some((PINGED_AFTER, Seen::Reset))),
            // A stopped process goes on, and so do segments that were repeated until they came through.
            None => Some(Some(match stage {
                Stage::Asked => self.work(rng),
                Stage::Answering => self.rest(rng),
            })),
            _ => None,
        }
    }

    /// After which time the answer ends whose head has just been seen.
    pub(super) fn rest(&self, rng: &mut fastrand::Rng) -> (Duration, Seen) {
        let is_stream = rng.u32(0..STREAM_EVERY) == 0;
        let mean = if is_stream { STREAM } else { Duration::from_millis(1) };
        (exponential(mean, rng), Seen::End)
    }

    fn unreachable(rng: &mut fastrand::Rng) -> (Duration, Seen) {
        // By a connection of before, or by a new one.
        if rng.bool() { (PINGED_AFTER, Seen::Reset) } else { (CONNECT_TIMEOUT, Seen::NotConnected) }
    }

    fn work(&self, rng: &mut fastrand::Rng) -> (Duration, Seen) {
        let (slower, status) = match self.fault {
            Some(Fault::Slow(times)) => (f64::from(times), 200),
            Some(Fault::Errors(percent, status)) if rng.u32(0..100) < percent => (0.2, status),
            _ => (1.0, 200),
        };
        // Half of it is the same for all: no answer comes in no time.
        let mean = self.plan.latency.mul_f64(slower * (1.0 + f64::from(self.load) / CAPACITY));
        (mean / 2 + exponential(mean / 2, rng), Seen::Head(status))
    }
}

/// A time that knows nothing of how long it has been.
pub(super) fn exponential(mean: Duration, rng: &mut fastrand::Rng) -> Duration {
    mean.mul_f64(-(1.0 - rng.f64()).ln())
}
