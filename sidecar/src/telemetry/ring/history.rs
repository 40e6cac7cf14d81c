//! What counters grew by, bucket by bucket. Pure: `now` and what the counters say are arguments.

use std::{
    collections::VecDeque,
    hash::Hash,
    time::{Duration, Instant},
};

use indexmap::IndexMap;

use super::packed::Packed;

/// Length of a bucket.
pub const BUCKET: Duration = Duration::from_secs(10);
/// Buckets that are kept.
pub const BUCKETS: usize = 90;
/// Names with buckets of their own; what goes beyond is added up.
pub const MAX_NAMES: usize = 256;
/// Bytes of all buckets; over it, the oldest ones go. A hundred busy edges need a tenth.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// What the counters of some names grew by.
#[derive(Debug)]
pub(super) struct History<K> {
    /// Finished buckets, the newest last.
    spans: VecDeque<Span>,
    /// The number of the bucket under way, and when it began.
    number: u64,
    began: Instant,
    tracks: IndexMap<K, Track>,
    /// Whether there was no room for a name once.
    was_full: bool,
    /// The name for what goes beyond the bound.
    other: fn(&K) -> K,
}

/// When a bucket began. It ended where the next one began.
#[derive(Clone, Copy, Debug)]
struct Span {
    number: u64,
    began: Instant,
}

/// The buckets of one name.
#[derive(Debug, Default)]
struct Track {
    /// The counters at the end of the last bucket.
    seen: Vec<u64>,
    /// By the numbers of their buckets. A bucket in which nothing happened is not there.
    buckets: VecDeque<(u64, Packed)>,
}

impl<K: Clone + Eq + Hash> History<K> {
    pub(super) fn new(now: Instant, other: fn(&K) -> K) -> Self {
        Self {
            spans: VecDeque::new(),
            number: 0,
            began: now,
            tracks: IndexMap::new(),
            was_full: false,
            other,
        }
    }

    /// Ends the bucket under way. `readings` are all counters, row by row.
    pub(super) fn tick(&mut self, now: Instant, readings: Vec<(K, Vec<u64>)>) {
        let (rows, is_full) = self.bounded(readings);
        for (name, row) in &rows {
            let seen = self.seen(name, row);
            let packed = Packed::of(grown(row, seen));
            let track = self.tracks.entry(name.clone()).or_default();
            track.buckets.extend(packed.map(|packed| (self.number, packed)));
            track.seen.clone_from(row);
        }
        self.was_full |= is_full;
        self.spans.push_back(Span { number: self.number, began: self.began });
        while self.spans.len() > BUCKETS || (self.forget(&rows) > MAX_BYTES && !self.spans.is_empty()) {
            self.spans.pop_front();
        }
        self.number += 1;
        self.began = now;
    }

    /// Forgets buckets that are not kept any more, and names of which nothing is left; the bytes of those that are.
    fn forget(&mut self, present: &IndexMap<K, Vec<u64>>) -> usize {
        let oldest = self.spans.front().map_or(self.number + 1, |span| span.number);
        let mut bytes = 0;
        self.tracks.retain(|name, track| {
            while track.buckets.front().is_some_and(|(number, _)| *number < oldest) {
                track.buckets.pop_front();
            }
            bytes += track.buckets.iter().map(|(_, packed)| packed.bytes()).sum::<usize>();
            !track.buckets.is_empty() || present.contains_key(name)
        });
        bytes
    }

    /// What has been counted of a name already. Of one that is new, nothing: but one that gets room only now was a part of
    /// the others, and its counters have been counted there.
    fn seen<'a>(&'a self, name: &K, row: &'a [u64]) -> &'a [u64] {
        match self.tracks.get(name) {
            Some(track) => &track.seen,
            None if self.was_full => row,
            None => &[],
        }
    }

    /// What grew over the newest buckets that cover `window`, the one under way included; and how long that was.
    pub(super) fn read(
        &self,
        now: Instant,
        window: Duration,
        readings: Vec<(K, Vec<u64>)>,
    ) -> (Duration, Vec<(K, Vec<u64>)>) {
        let since = |began: Instant| now.saturating_duration_since(began);
        let mut first = Span { number: self.number, began: self.began };
        for span in self.spans.iter().rev() {
            if since(first.began) >= window {
                break;
            }
            first = *span;
        }
        let (mut rows, _) = self.bounded(readings);
        // Names that are gone may have had something in these buckets.
        for (name, track) in &self.tracks {
            rows.entry(name.clone()).or_insert_with(|| track.seen.clone());
        }
        let grown = rows.into_iter().map(|(name, row)| {
            let mut sums: Vec<u64> = grown(&row, self.seen(&name, &row)).collect();
            let buckets = self.tracks.get(&name).into_iter().flat_map(|track| &track.buckets);
            for (_, packed) in buckets.filter(|(number, _)| *number >= first.number) {
                packed.add_to(&mut sums);
            }
            (name, sums)
        });
        (since(first.began), grown.collect())
    }

    /// The rows by name, where names without room are one row; and whether there were such.
    fn bounded(&self, readings: Vec<(K, Vec<u64>)>) -> (IndexMap<K, Vec<u64>>, bool) {
        let mut room = MAX_NAMES.saturating_sub(self.tracks.len());
        let mut is_full = false;
        let mut rows: IndexMap<K, Vec<u64>> = IndexMap::with_capacity(readings.len().min(MAX_NAMES));
        for (name, row) in readings {
            let is_known = self.tracks.contains_key(&name);
            let name = if is_known || room > 0 { name } else { (self.other)(&name) };
            is_full |= !is_known && room == 0;
            room = room.saturating_sub(usize::from(!is_known));
            match rows.get_mut(&name) {
                Some(sums) => add(sums, &row),
                None => {
                    rows.insert(name, row);
                }
            }
        }
        (rows, is_full)
    }
}

/// What each number grew by. One that shrank is another counter of the same name: what it counted before is not known.
fn grown<'a>(row: &'a [u64], seen: &'a [u64]) -> impl Iterator<Item = u64> + use<'a> {
    let seen = seen.iter().copied().chain(std::iter::repeat(0));
    row.iter().zip(seen).map(|(now, before)| now.saturating_sub(before))
}

fn add(sums: &mut [u64], row: &[u64]) {
    for (sum, number) in sums.iter_mut().zip(row) {
        *sum = sum.saturating_add(*number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(_: &String) -> String {
        "other".to_owned()
    }

    fn row(name: &str, numbers: &[u64]) -> (String, Vec<u64>) {
        (name.to_owned(), numbers.to_vec())
    }

    fn sums(history: &History<String>, now: Instant, seconds: u64, rows: &[(String, Vec<u64>)]) -> Vec<u64> {
        let (_, read) = history.read(now, Duration::from_secs(seconds), rows.to_vec());
        read.into_iter().find(|(name, _)| name == "a").map(|(_, sums)| sums).unwrap_or_default()
    }

    #[test]
    fn a_window_is_what_grew_in_it_the_unfinished_bucket_included() {
        let start = Instant::now();
        let mut history = History::new(start, other);
        history.tick(start + BUCKET, vec![row("a", &[10, 1])]);
        history.tick(start + 2 * BUCKET, vec![row("a", &[15, 1])]);
        let now = start + 2 * BUCKET + Duration::from_secs(4);
        let rows = [row("a", &[17, 2])];
        assert_eq!(sums(&history, now, 1, &rows), [2, 1], "only what is under way");
        assert_eq!(sums(&history, now, 10, &rows), [7, 1], "and the last bucket");
        assert_eq!(sums(&history, now, 900, &rows), [17, 2], "everything");
        let (covered, _) = history.read(now, Duration::from_secs(10), rows.to_vec());
        assert_eq!(covered, Duration::from_secs(14));
        let (covered, _) = history.read(now, Duration::from_secs(900), rows.to_vec());
        assert_eq!(covered, Duration::from_secs(24), "no longer than there are counters");
    }

    #[test]
    fn buckets_are_forgotten_after_a_quarter_of_an_hour() {
        let start = Instant::now();
        let mut history = History::new(start, other);
        for tick in 1..=200 {
            history.tick(start + tick * BUCKET, vec![row("a", &[u64::from(tick)])]);
        }
        let now = start + 200 * BUCKET;
        assert_eq!(sums(&history, now, 10_000, &[row("a", &[200])]), [90]);
        assert_eq!(history.spans.len(), BUCKETS);
    }

    #[test]
    fn what_is_gone_is_told_as_long_as_it_has_buckets() {
        let start = Instant::now();
        let mut history = History::new(start, other);
        history.tick(start + BUCKET, vec![row("a", &[3])]);
        history.tick(start + 2 * BUCKET, vec![]);
        assert_eq!(sums(&history, start + 2 * BUCKET, 900, &[]), [3]);
        for tick in 3..=100 {
            history.tick(start + tick * BUCKET, vec![]);
        }
        assert!(history.tracks.is_empty());
    }

    #[test]
    fn a_counter_that_begins_again_does_not_count_twice() {
        let start = Instant::now();
        let mut history = History::new(start, other);
        history.tick(start + BUCKET, vec![row("a", &[100])]);
        history.tick(start + 2 * BUCKET, vec![row("a", &[4])]);
        history.tick(start + 3 * BUCKET, vec![row("a", &[6])]);
        assert_eq!(sums(&history, start + 3 * BUCKET, 20, &[row("a", &[6])]), [2]);
    }

    #[test]
    fn names_beyond_the_bound_are_one() {
        let start = Instant::now();
        let mut history = History::new(start, other);
        let rows = |count: u64| (0..1000).map(|name| row(&name.to_string(), &[count])).collect::<Vec<_>>();
        for tick in 1..=200 {
            history.tick(start + tick * BUCKET, rows(u64::from(tick)));
        }
        assert!(history.tracks.len() <= MAX_NAMES + 1, "{}", history.tracks.len());
        let (_, read) = history.read(start + 200 * BUCKET, Duration::from_secs(900), rows(200));
        let all: u64 = read.iter().filter_map(|(_, sums)| sums.first()).sum();
        assert_eq!(all, 1000 * BUCKETS as u64, "nothing is lost");
        let others = read.iter().find(|(name, _)| name == "other").unwrap();
        assert!(others.1[0] > 500 * BUCKETS as u64, "{others:?}");
    }

    #[test]
    fn memory_is_bounded_whatever_happens_and_silence_costs_nothing() {
        let start = Instant::now();
        let mut history = History::new(start, other);
        let rows = |tick: u64| {
            let busy = |name: u64| vec![tick << 32 | name; 200];
            (0..300).map(|name| (name.to_string(), busy(name))).collect::<Vec<_>>()
        };
        for tick in 1..=60 {
            history.tick(start + tick * BUCKET, rows(u64::from(tick)));
        }
        assert!(history.forget(&IndexMap::new()) <= MAX_BYTES);
        assert!(history.spans.len() > 1, "and it is enough for a while");
        let last = rows(60);
        for tick in 61..=160 {
            history.tick(start + tick * BUCKET, last.clone());
        }
        assert!(history.tracks.values().all(|track| track.buckets.is_empty()));
        assert_eq!(history.spans.len(), BUCKETS);
    }
}
