//! Who calls whom: counters per source, destination and route, outliving snapshots, bounded.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indexmap::IndexMap;

use super::{flag::ResponseFlag, log_histogram::LogHistogram};

/// Edges that are told apart; what goes beyond counts under [`OTHER`]. So many callers and routes has no service.
pub const MAX_EDGES: usize = 1024;
/// An edge that nobody holds and that counted nothing for so long gives its place up: else routes and callers that are
/// no more would take all places in time.
pub const UNUSED: Duration = Duration::from_secs(3600);
/// What stands for all names of an edge beyond the bound.
pub const OTHER: &str = "other";

/// Which way a request goes, seen from this sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the own app.
    Inbound,
    /// From the own app.
    Outbound,
}

impl Direction {
    /// As a label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// One edge. Every part comes from the configuration or is a verified peer's SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EdgeKey {
    /// Which way.
    pub direction: Direction,
    /// Who calls: outbound the own service, inbound a SPIFFE ID, or `unverified`.
    pub source: Arc<str>,
    /// Who is called: a cluster, the own app's (`inbound/…`) included.
    pub destination: Arc<str>,
    /// The route's name; empty if it is none's.
    pub route: Arc<str>,
}

/// Counters of one edge.
#[derive(Debug, Default)]
pub struct EdgeCounts {
    /// Requests (streams for TCP) ended, by status class 1xx to 5xx; index 0 is "no status".
    pub by_class: [AtomicU64; 6],
    /// Answers of our own and broken streams, by flag.
    pub by_flag: [AtomicU64; ResponseFlag::ALL.len()],
    /// Of all: those that failed. A flag, a status of 500 and more, or a gRPC status that says so.
    pub failed: AtomicU64,
    /// Attempts beyond the first.
    pub retries: AtomicU64,
    /// From the request's arrival to the response's head.
    pub latency: LogHistogram,
    /// Bytes of requests' bodies, or from callers.
    pub request_bytes: AtomicU64,
    /// Bytes of answers' bodies, or to callers.
    pub response_bytes: AtomicU64,
}

/// All edges of the process.
#[derive(Debug, Default)]
pub struct Edges {
    /// Read by whoever begins to count, and by scrapes side by side; written for a new edge.
    named: RwLock<IndexMap<EdgeKey, Named>>,
    /// Inbound and outbound.
    other: [Arc<EdgeCounts>; 2],
}

/// A named edge, and what [`Edges::tidy`] saw of it.
#[derive(Debug, Default)]
struct Named {
    counts: Arc<EdgeCounts>,
    /// What had ended when it was looked at, and since when that is so.
    seen: Option<(u64, Instant)>,
}

impl Edges {
    /// The counters of an edge. Takes a lock: whoever counts keeps what it got, for as long as it may count, unless it is
    /// [beyond](Self::beyond) the bound: there may be room later.
    #[must_use]
    pub fn of(&self, key: &EdgeKey) -> Arc<EdgeCounts> {
        if let Some(edge) = self.named.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Arc::clone(&edge.counts);
        }
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        if named.len() >= MAX_EDGES && !named.contains_key(key) {
            return Arc::clone(self.beyond(key.direction));
        }
        Arc::clone(&named.entry(key.clone()).or_default().counts)
    }

    /// Whether these are the counters of an edge of its own.
    #[must_use]
    pub fn is_named(&self, counts: &Arc<EdgeCounts>) -> bool {
        !self.other.iter().any(|other| Arc::ptr_eq(other, counts))
    }

    /// All edges, in order of appearance; last what is beyond the bound, if there is something.
    #[must_use]
    pub fn read(&self) -> Vec<(EdgeKey, Arc<EdgeCounts>)> {
        let of = |(key, edge): (&EdgeKey, &Named)| (key.clone(), Arc::clone(&edge.counts));
        let named = self.named.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = named.iter().map(of).collect();
        drop(named);
        for direction in [Direction::Inbound, Direction::Outbound] {
            let counts = self.beyond(direction);
            if counts.ended() > 0 {
                let other: Arc<str> = Arc::from(OTHER);
                let (source, destination) = (Arc::clone(&other), Arc::clone(&other));
                all.push((EdgeKey { direction, source, destination, route: other }, Arc::clone(counts)));
            }
        }
        all
    }

    /// Edges that are told apart.
    #[must_use]
    pub fn count(&self) -> usize {
        self.named.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What is beyond the bound.
    #[must_use]
    pub fn beyond(&self, direction: Direction) -> &Arc<EdgeCounts> {
        let [inbound, outbound] = &self.other;
        match direction {
            Direction::Inbound => inbound,
            Direction::Outbound => outbound,
        }
    }

    /// Forgets edges that are [`UNUSED`]. To be called every minute or so.
    pub fn tidy(&self, now: Instant) {
        // Who holds an edge got it under this lock, and so would somebody new.
        self.named.write().unwrap_or_else(PoisonError::into_inner).retain(|_, edge| {
            let ended = edge.counts.ended();
            let is_held = Arc::strong_count(&edge.counts) > 1;
            match edge.seen {
                Some((seen, since)) if seen == ended && !is_held => {
                    now.saturating_duration_since(since) < UNUSED
                }
                _ => {
                    edge.seen = Some((ended, now));
                    true
                }
            }
        });
    }
}

impl EdgeCounts {
    /// Requests that ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.by_class.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(direction: Direction, number: usize) -> EdgeKey {
        let source = Arc::from(format!("spiffe://demo.outrider/caller-{number}"));
        EdgeKey { direction, source, destination: Arc::from("inbound/api"), route: Arc::from("") }
    }

    fn use_once(counts: &EdgeCounts) {
        counts.by_class[2].fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn edges_beyond_the_bound_count_together_by_direction() {
        let edges = Edges::default();
        for number in 0..MAX_EDGES + 500 {
            use_once(&edges.of(&key(Direction::Inbound, number)));
        }
        use_once(&edges.of(&key(Direction::Outbound, 0)));
        let read = edges.read();
        assert_eq!((edges.count(), read.len()), (MAX_EDGES, MAX_EDGES + 2));
        let ended: Vec<u64> = read[MAX_EDGES - 1..].iter().map(|(_, counts)| counts.ended()).collect();
        assert_eq!(ended, [1, 500, 1]);
        assert!(read[MAX_EDGES..].iter().all(|(key, _)| &*key.source == OTHER && &*key.route == OTHER));
        assert_eq!(edges.of(&key(Direction::Inbound, 3)).ended(), 1, "the first ones keep their names");
    }

    #[test]
    fn what_nobody_holds_and_nobody_used_for_an_hour_gives_its_place_up() {
        let (edges, start) = (Edges::default(), Instant::now());
        let held = edges.of(&key(Direction::Inbound, 0));
        let mut used = edges.of(&key(Direction::Inbound, 1));
        for number in 2..MAX_EDGES {
            use_once(&edges.of(&key(Direction::Inbound, number)));
        }
        drop(used);
        let mut now = start;
        while now < start + UNUSED {
            assert_eq!(edges.count(), MAX_EDGES, "after {:?}", now - start);
            used = edges.of(&key(Direction::Inbound, 1));
            use_once(&used);
            drop(used);
            edges.tidy(now);
            now += Duration::from_secs(60);
        }
        edges.tidy(now);
        let left: Vec<u64> = edges.read().iter().map(|(_, counts)| counts.ended()).collect();
        assert_eq!(left, [0, 60]);
        drop(held);
        edges.tidy(now + UNUSED - Duration::from_secs(61));
        assert_eq!(edges.count(), 2, "an hour after nobody held it");
        edges.tidy(now + UNUSED);
        assert_eq!(edges.count(), 0);
        assert_eq!(edges.of(&key(Direction::Inbound, 9)).ended(), 0);
    }
}
