//! Where an app passes on only `x-request-id`: what came in with such an ID, so that what goes out with it joins its trace.
//!
//! # Invariants
//! - It never grows: what is new takes the place of what is oldest among the few that it may stand beside.
//! - What is older than [`LIFE`] is not found any more.
//! - IDs are known by a keyed hash only: whoever chooses them cannot choose where they stand.

use std::{
    hash::{BuildHasher, RandomState},
    num::{NonZeroU64, NonZeroU128},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::model::trace::{SpanId, TraceId};

/// For so long an ID is known after it came in. What an app does for a request it has mostly begun by then.
pub const LIFE: Duration = Duration::from_secs(60);
/// IDs that stand beside each other: one of them makes room for a new one.
const WAYS: usize = 4;
/// Of such groups, so many: with [`WAYS`] of 48 bytes, 768 KiB. A power of two.
const SETS: usize = 4096;
/// Groups that share a lock.
const SETS_OF_SHARD: usize = 64;

/// The trace of what came in, and our span of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stitch {
    /// The trace.
    pub trace: TraceId,
    /// The span of the request that came in.
    pub span: SpanId,
    /// Whether the trace's spans are wanted.
    pub is_sampled: bool,
}

/// IDs of requests that came in of late.
#[derive(Debug)]
pub struct Stitches {
    key: RandomState,
    /// What ages are counted from.
    epoch: Instant,
    shards: Box<[Mutex<Box<[Set]>>]>,
}

type Set = [Way; WAYS];

/// One ID, or room for one.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    hash: u64,
    /// Milliseconds after the epoch, from 1; 0: there is nothing here.
    at_ms: u64,
    /// Zero where there is nothing.
    trace: u128,
    span: u64,
    is_sampled: bool,
}

impl Stitches {
    /// Nothing known. `now` is what ages are counted from.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let shard = |_| Mutex::new(vec![[Way::default(); WAYS]; SETS_OF_SHARD].into_boxed_slice());
        let shards = (0..SETS / SETS_OF_SHARD).map(shard).collect();
        Self { key: RandomState::new(), epoch: now, shards }
    }

    /// Remembers what came in with that ID. Of several with the same, the newest counts.
    pub fn put(&self, id: &[u8], stitch: Stitch, now: Instant) {
        let (hash, at_ms) = (self.key.hash_one(id), self.at_ms(now));
        let new = Way {
            hash,
            at_ms,
            trace: stitch.trace.0.get(),
            span: stitch.span.0.get(),
            is_sampled: stitch.is_sampled,
        };
        self.with(hash, |set| {
            let same = set.iter().position(|way| way.at_ms > 0 && way.hash == hash);
            // Room is older than anything.
            let oldest = || set.iter().enumerate().min_by_key(|(_, way)| way.at_ms).map(|(place, _)| place);
            if let Some(way) = same.or_else(oldest).and_then(|place| set.get_mut(place)) {
                *way = new;
            }
        });
    }

    /// What came in with that ID, if it is known still.
    #[must_use]
    pub fn get(&self, id: &[u8], now: Instant) -> Option<Stitch> {
        let (hash, now_ms) = (self.key.hash_one(id), self.at_ms(now));
        let way = self.with(hash, |set| set.iter().find(|way| way.at_ms > 0 && way.hash == hash).copied())?;
        if u128::from(now_ms.saturating_sub(way.at_ms)) >= LIFE.as_millis() {
            return None;
        }
        let (trace, span) = (NonZeroU128::new(way.trace)?, NonZeroU64::new(way.span)?);
        Some(Stitch { trace: TraceId(trace), span: SpanId(span), is_sampled: way.is_sampled })
    }

    fn at_ms(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(age).unwrap_or(u64::MAX - 1) + 1
    }

    /// The group of that hash. Locked for a few loads and stores.
    fn with<T: Default>(&self, hash: u64, look: impl FnOnce(&mut Set) -> T) -> T {
        let place = hash as usize % SETS;
        let Some(shard) = self.shards.get(place / SETS_OF_SHARD) else { return T::default() };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.get_mut(place % SETS_OF_SHARD).map(look).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stitch(number: u64) -> Stitch {
        let id = NonZeroU64::new(number).unwrap();
        Stitch { trace: TraceId(id.into()), span: SpanId(id), is_sampled: number.is_multiple_of(2) }
    }

    #[test]
    fn what_came_in_is_found_by_its_id_and_only_by_that() {
        let now = Instant::now();
        let stitches = Stitches::new(now);
        assert_eq!(stitches.get(b"a", now), None);
        stitches.put(b"a", stitch(1), now);
        stitches.put(b"b", stitch(2), now);
        assert_eq!(stitches.get(b"a", now), Some(stitch(1)));
        assert_eq!(stitches.get(b"b", now), Some(stitch(2)));
        assert_eq!(stitches.get(b"", now), None);
        stitches.put(b"a", stitch(3), now);
        assert_eq!(stitches.get(b"a", now), Some(stitch(3)), "the newest");
    }

    #[test]
    fn what_is_old_is_not_found() {
        let now = Instant::now();
        let stitches = Stitches::new(now);
        stitches.put(b"a", stitch(1), now + Duration::from_secs(1));
        assert!(stitches.get(b"a", now + LIFE).is_some());
        assert!(stitches.get(b"a", now + LIFE + Duration::from_secs(1)).is_none());
        assert!(stitches.get(b"a", now).is_some(), "clocks of threads are not read in order");
    }

    #[test]
    fn it_never_grows_and_the_newest_stay() {
        let now = Instant::now();
        let stitches = Stitches::new(now);
        let count = (SETS * WAYS * 4) as u64;
        for id in 1..=count {
            stitches.put(&id.to_be_bytes(), stitch(id), now + Duration::from_millis(id / 64));
        }
        let later = now + Duration::from_millis(count / 64);
        let known = |ids: std::ops::RangeInclusive<u64>| {
            let all = ids.clone().count();
            let found = ids.filter(|id| stitches.get(&id.to_be_bytes(), later) == Some(stitch(*id)));
            found.count() as f64 / all as f64
        };
        let capacity = (SETS * WAYS) as u64;
        assert!(known(count - capacity / 8..=count) > 0.99, "the newest");
        assert!(known(1..=count) <= 0.25);
        assert!(known(1..=count) > 0.2, "all of it is used");
        assert!(size_of::<Way>() <= 48);
    }

    #[test]
    fn nobody_can_choose_where_an_id_stands() {
        let now = Instant::now();
        let places = |stitches: &Stitches| -> Vec<_> {
            (0..64_u64).map(|id| stitches.key.hash_one(id.to_be_bytes()) as usize % SETS).collect()
        };
        assert_ne!(places(&Stitches::new(now)), places(&Stitches::new(now)));
    }
}
