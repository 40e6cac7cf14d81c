//! The last quarter of an hour of who calls whom, in buckets of ten seconds: so that `top` and `stat` need no server.
//!
//! # Invariants
//! - Memory is bounded: by buckets, by names, and in all; a bucket in which nothing happened takes none.
//! - Written by one task of the control side; whoever asks adds what has been counted since the last bucket.

mod history;
mod packed;
mod rows;

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use self::history::History;
use super::Observer;
use crate::{
    clock::Clock,
    model::{
        ClusterName, Snapshot,
        edge::{EdgeKey, Edges, OTHER},
        snapshot::Snapshots,
    },
};

pub use history::{BUCKET, BUCKETS, MAX_NAMES};
pub use rows::{ClusterWindow, EdgeWindow};

/// The longest window that can be asked for.
pub const KEPT: Duration = Duration::from_secs(900);

/// What counters grew by, lately.
#[derive(Debug)]
pub struct Ring(Mutex<Histories>);

#[derive(Debug)]
struct Histories {
    edges: History<EdgeKey>,
    clusters: History<ClusterName>,
}

/// What happened over some time.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// How long that was: at least what was asked for, unless there are no counters of that age.
    pub covered: Duration,
    /// By edge; those where nothing happened as well.
    pub edges: Vec<(EdgeKey, EdgeWindow)>,
    /// By cluster, as the edges.
    pub clusters: Vec<(ClusterName, ClusterWindow)>,
}

impl Ring {
    /// An empty one, that begins now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let clusters = History::new(now, |_| ClusterName::new(OTHER));
        Self(Mutex::new(Histories { edges: History::new(now, other_edge), clusters }))
    }

    /// Ends the bucket under way.
    pub fn tick(&self, now: Instant, edges: &Edges, snapshot: &Snapshot) {
        let (edges, clusters) = (edge_rows(edges), cluster_rows(snapshot));
        let mut histories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        histories.edges.tick(now, edges);
        histories.clusters.tick(now, clusters);
    }

    /// What happened over the last `window`, up to now; rounded up to whole buckets.
    #[must_use]
    pub fn read(&self, now: Instant, window: Duration, edges: &Edges, snapshot: &Snapshot) -> View {
        let histories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Read while nobody ends the bucket: else what it had would be missing.
        let (covered, edges) = histories.edges.read(now, window, edge_rows(edges));
        let (_, clusters) = histories.clusters.read(now, window, cluster_rows(snapshot));
        View {
            covered,
            edges: edges.into_iter().map(|(key, row)| (key, EdgeWindow::of(&row))).collect(),
            clusters: clusters.into_iter().map(|(name, row)| (name, ClusterWindow::of(&row))).collect(),
        }
    }
}

fn other_edge(key: &EdgeKey) -> EdgeKey {
    let name: Arc<str> = Arc::from(OTHER);
    EdgeKey {
        direction: key.direction,
        source: Arc::clone(&name),
        destination: Arc::clone(&name),
        route: name,
    }
}

fn edge_rows(edges: &Edges) -> Vec<(EdgeKey, Vec<u64>)> {
    edges.read().into_iter().map(|(key, counts)| (key, rows::edge(&counts))).collect()
}

fn cluster_rows(snapshot: &Snapshot) -> Vec<(ClusterName, Vec<u64>)> {
    let clusters = snapshot.clusters.iter();
    clusters.map(|(name, cluster)| (name.clone(), rows::cluster(&cluster.runtime))).collect()
}

/// Ends a bucket every ten seconds, for as long as there is somebody who could ask.
pub async fn keep(
    insight: Weak<super::Insight>,
    observer: Weak<Observer>,
    snapshots: Snapshots,
    clock: Clock,
) {
    loop {
        tokio::time::sleep(BUCKET).await;
        let (Some(insight), Some(observer)) = (insight.upgrade(), observer.upgrade()) else { return };
        insight.ring.tick(clock.now(), &observer.edges, &snapshots.load());
    }
}
