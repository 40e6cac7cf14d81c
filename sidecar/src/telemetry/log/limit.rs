//! How often one message may be logged: a token bucket for each place in the code that logs.
//!
//! A place's first events always pass. What is held back is counted, and the count stands with the next that passes.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Level, Metadata, callsite::Identifier};

/// Places that have a bucket; the program has fewer. Those beyond share one, errors excepted: they all pass.
const MAX_PLACES: usize = 2048;

/// What a bucket holds, and how fast it fills up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    burst: u32,
    per_second: u32,
}

/// ERROR, WARN and INFO: what somebody reads.
const SHOWN: Rate = Rate { burst: 20, per_second: 2 };
/// DEBUG and TRACE tell of single connections and requests, to somebody who asked for it: enough to follow them, and not
/// so many that a flood of them stops the sidecar.
const ASKED_FOR: Rate = Rate { burst: 1000, per_second: 200 };

impl Rate {
    fn of(level: Level) -> Self {
        if level <= Level::INFO { SHOWN } else { ASKED_FOR }
    }

    /// Time for one more.
    fn pause(self) -> Duration {
        Duration::from_secs(1) / self.per_second
    }
}

/// The buckets of all places.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    of: HashMap<Identifier, Bucket>,
    shared: Option<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    /// Since when the next token has been on its way.
    since: Instant,
    suppressed: u64,
}

impl Limiter {
    /// Whether an event may be logged now; if so, how many like it were held back before.
    pub(super) fn admit(&self, event: &Metadata<'_>, now: Instant) -> Option<u64> {
        let rate = Rate::of(*event.level());
        let place = event.callsite();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.of.len() < MAX_PLACES || buckets.of.contains_key(&place) {
            return buckets.of.entry(place).or_insert_with(|| Bucket::full(rate, now)).admit(rate, now);
        }
        if *event.level() == Level::ERROR {
            return Some(0);
        }
        buckets.shared.get_or_insert_with(|| Bucket::full(rate, now)).admit(rate, now)
    }
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.burst, since: now, suppressed: 0 }
    }

    fn admit(&mut self, rate: Rate, now: Instant) -> Option<u64> {
        let pause = rate.pause();
        let waited = now.saturating_duration_since(self.since);
        let filled = u32::try_from(waited.as_nanos() / pause.as_nanos()).unwrap_or(u32::MAX);
        if filled >= rate.burst - self.tokens.min(rate.burst) {
            (self.tokens, self.since) = (rate.burst, now);
        } else {
            self.tokens += filled;
            self.since += pause * filled;
        }
        if self.tokens == 0 {
            self.suppressed += 1;
            return None;
        }
        self.tokens -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_two_a_second_and_what_was_held_back_is_counted() {
        let start = Instant::now();
        let mut bucket = Bucket::full(SHOWN, start);
        let passed = |bucket: &mut Bucket, at: u64, tries: u32| {
            let now = start + Duration::from_millis(at);
            (0..tries).filter_map(|_| bucket.admit(SHOWN, now)).collect::<Vec<_>>()
        };
        assert_eq!(passed(&mut bucket, 0, 100), [0; 20]);
        assert_eq!(passed(&mut bucket, 499, 5), [0; 0]);
        assert_eq!(passed(&mut bucket, 500, 5), [85]);
        assert_eq!(passed(&mut bucket, 1750, 5), [4, 0]);
        assert_eq!(passed(&mut bucket, 2000, 5), [3], "half a token was not lost");
        assert_eq!(passed(&mut bucket, 3_600_000, 100).len(), 20, "no more than a burst is saved up");
    }
}
