//! Live requests for those who watch: told when they end, off the data path.
//!
//! # Invariants
//! - Watchers, what waits for each of them, and what each is told in a second are bounded; what is left out is counted.
//! - Nobody waits for a watcher. One who does not read loses lines, not requests.
//! - What peers and apps wrote is escaped, and no query is told.

mod filter;
pub(crate) mod line;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Observer, trail::Trail};

pub use filter::{Filter, StatusFilter};

/// Those who may watch at a time.
pub const MAX_WATCHERS: usize = 4;
/// Lines in a second, unless the watcher says otherwise.
pub const PER_SECOND: u32 = 100;
/// The most that it may say.
pub const MAX_PER_SECOND: u32 = 1000;
/// Lines that wait for a watcher: of 4 KiB at most, as a rule of half of one.
const MAX_WAITING: usize = 256;

/// What a watcher wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Of which requests.
    pub filter: Filter,
    /// How many in all; `None`: no end.
    pub limit: Option<u64>,
    /// How many in a second, at most [`MAX_PER_SECOND`].
    pub per_second: u32,
}

/// What a watcher was not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// More than it wanted in a second.
    pub over_rate: u64,
    /// It did not read fast enough.
    pub unread: u64,
}

/// All who watch.
#[derive(Debug, Default)]
pub struct Taps(Mutex<Vec<Watcher>>);

#[derive(Debug)]
struct Watcher {
    wish: Wish,
    told: u64,
    /// When this second began, and how many it had.
    second: (Instant, u32),
    lines: mpsc::Sender<Bytes>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    over_rate: AtomicU64,
    unread: AtomicU64,
}

/// What a watcher reads. Dropping it ends the watch.
#[derive(Debug)]
pub struct Tap {
    lines: mpsc::Receiver<Bytes>,
    counts: Arc<Counts>,
    insight: Arc<super::Insight>,
    observer: Arc<Observer>,
}

impl Tap {
    /// Begins to watch; `None` if as many watch as may.
    #[must_use]
    pub fn new(
        insight: &Arc<super::Insight>,
        observer: &Arc<Observer>,
        wish: Wish,
        now: Instant,
    ) -> Option<Self> {
        let mut watchers = insight.taps.lock();
        watchers.retain(|watcher| !watcher.lines.is_closed());
        if watchers.len() >= MAX_WATCHERS {
            return None;
        }
        let (sender, lines) = mpsc::channel(MAX_WAITING);
        let counts = Arc::<Counts>::default();
        watchers.push(Watcher {
            wish,
            told: 0,
            second: (now, 0),
            lines: sender,
            counts: Arc::clone(&counts),
        });
        observer.taps.fetch_add(1, Ordering::Relaxed);
        Some(Self { lines, counts, insight: Arc::clone(insight), observer: Arc::clone(observer) })
    }

    /// The next line, its end included; `None` when there were as many as wanted. Nothing is lost if it is dropped.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.lines.recv().await
    }

    /// What was left out so far.
    #[must_use]
    pub fn left_out(&self) -> LeftOut {
        LeftOut {
            over_rate: self.counts.over_rate.load(Ordering::Relaxed),
            unread: self.counts.unread.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.lines.close();
        self.insight.taps.lock().retain(|watcher| !watcher.lines.is_closed());
        self.observer.taps.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Taps {
    /// Tells all who want to know of a request that is over; `at`: when it came.
    pub fn tell(&self, trail: &Trail, now: Instant, at: impl FnOnce() -> SystemTime) {
        let mut watchers = self.lock();
        if watchers.is_empty() {
            return;
        }
        let mut line = None;
        let mut at = Some(at);
        watchers.retain_mut(|watcher| {
            if watcher.wants(trail, now) {
                if let Some(at) = at.take() {
                    line = Some(line::of(trail, at()));
                }
                watcher.tell(line.as_ref());
            }
            watcher.wish.limit.is_none_or(|limit| watcher.told < limit)
        });
    }

    /// Those who watch.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Watcher>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// Whether it is to be told now. Those over its rate are counted.
    fn wants(&mut self, trail: &Trail, now: Instant) -> bool {
        if !self.wish.filter.matches(trail) {
            return false;
        }
        if now.saturating_duration_since(self.second.0) >= Duration::from_secs(1) {
            self.second = (now, 0);
        }
        if self.second.1 >= self.wish.per_second.min(MAX_PER_SECOND) {
            self.counts.over_rate.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.second.1 += 1;
        true
    }

    fn tell(&mut self, line: Option<&Bytes>) {
        let Some(line) = line else { return };
        match self.lines.try_send(line.clone()) {
            Ok(()) => self.told += 1,
            Err(_full) => {
                self.counts.unread.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        telemetry::{Insight, fixture::trail},
    };

    struct Place {
        insight: Arc<Insight>,
        observer: Arc<Observer>,
        now: Instant,
    }

    impl Place {
        fn new() -> Self {
            let insight = Insight::new(&Clock::system());
            Self { insight, observer: Observer::new().0, now: Instant::now() }
        }

        fn tap(&self, wish: Wish) -> Option<Tap> {
            Tap::new(&self.insight, &self.observer, wish, self.now)
        }

        fn tell(&self, after_ms: u64) {
            let now = self.now + Duration::from_millis(after_ms);
            self.insight.taps.tell(&trail(), now, || SystemTime::UNIX_EPOCH);
        }
    }

    fn wish() -> Wish {
        Wish { filter: Filter::default(), limit: None, per_second: MAX_PER_SECOND }
    }

    fn waiting(tap: &mut Tap) -> usize {
        let mut count = 0;
        while tap.lines.try_recv().is_ok() {
            count += 1;
        }
        count
    }

    #[tokio::test]
    async fn a_tap_ends_with_its_limit_and_begins_only_where_there_is_room() {
        let place = Place::new();
        let mut tap = place.tap(Wish { limit: Some(2), ..wish() }).unwrap();
        for _ in 0..5 {
            place.tell(0);
        }
        assert!(tap.next().await.is_some() && tap.next().await.is_some());
        assert!(tap.next().await.is_none());
        let _others: Vec<_> = (0..MAX_WATCHERS).map(|_| place.tap(wish()).unwrap()).collect();
        assert!(place.tap(wish()).is_none());
        assert_eq!(place.observer.taps.load(Ordering::Relaxed), 5, "the ended one is still held");
        drop(tap);
        assert_eq!(place.observer.taps.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn who_watches_no_more_makes_room_and_nobody_is_watched_for() {
        let place = Place::new();
        for _ in 0..10 {
            drop((0..MAX_WATCHERS).map(|_| place.tap(wish()).unwrap()).collect::<Vec<_>>());
        }
        assert_eq!((place.insight.taps.watchers(), place.observer.taps.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn what_is_over_the_rate_is_left_out_and_counted() {
        let place = Place::new();
        let mut tap = place.tap(Wish { per_second: 3, ..wish() }).unwrap();
        for _ in 0..10 {
            place.tell(0);
        }
        place.tell(1000);
        assert_eq!(waiting(&mut tap), 4);
        assert_eq!(tap.left_out(), LeftOut { over_rate: 7, unread: 0 });
    }

    #[test]
    fn who_does_not_read_loses_lines_and_nobody_waits() {
        let place = Place::new();
        let mut tap = place.tap(wish()).unwrap();
        for _ in 0..MAX_WAITING + 10 {
            place.tell(0);
        }
        assert_eq!(tap.left_out(), LeftOut { over_rate: 0, unread: 10 });
        assert_eq!(waiting(&mut tap), MAX_WAITING);
    }

    #[test]
    fn only_what_matches_is_told() {
        let place = Place::new();
        let filter = Filter { cluster: Some("stock".to_owned()), ..Filter::default() };
        let mut tap = place.tap(Wish { filter, ..wish() }).unwrap();
        place.tell(0);
        assert_eq!((waiting(&mut tap), tap.left_out()), (0, LeftOut::default()));
    }
}
