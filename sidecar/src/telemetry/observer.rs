//! Where trails go when their requests are over: to one task, off the data path.
//!
//! # Invariants
//! - The data path never waits: what the task cannot take is dropped and counted.
//! - A trail that nobody wants is not sent.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::sync::{Notify, mpsc};

use super::{
    access_log::RecordCounts, arriving::Arriving, export::Exports, stitches::Stitches, trail::Trail,
};
use crate::model::edge::Edges;

/// Trails on their way; more are dropped. A second's worth of failures at 4,000 a second: some 4 MiB, and 32 MiB at most,
/// as each is [cut](Trail::detach).
const MAX_WAITING: usize = 4096;
/// Of these places, so many are for trails that a trace or the access log is to have: a flood of refusals, which `explain`
/// alone wants, must not drop them.
const RESERVED: usize = MAX_WAITING / 2;
/// With so many places left or fewer, the task takes them in at once.
const FEW: usize = MAX_WAITING / 4 * 3;

/// Who wants a trail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its spans, for its trace is sampled.
    pub is_sampled: bool,
    /// Its spans if it fails.
    pub is_traced_on_error: bool,
    /// Its access log record.
    pub is_logged: bool,
    /// Its access log record if it fails.
    pub is_logged_on_error: bool,
}

/// What all workers tell of their requests.
#[derive(Debug)]
pub struct Observer {
    /// Who calls whom.
    pub edges: Edges,
    /// Those who watch live requests (`outrider tap`).
    pub taps: AtomicU32,
    /// Trails that were dropped because too many were on their way.
    pub dropped: AtomicU64,
    /// What became of what was to go to a collector.
    pub exports: Arc<Exports>,
    /// What became of records of the access log.
    pub records: Arc<RecordCounts>,
    /// What came in of late, by request ID; made when the first traced request does.
    stitches: OnceLock<Stitches>,
    /// Who else gets every trail.
    second: OnceLock<mpsc::Sender<Told>>,
    sender: mpsc::Sender<Told>,
    /// Somebody waits for what was sent.
    urgent: Arc<Notify>,
}

/// A trail, and who wants it.
#[derive(Debug)]
pub struct Told {
    /// The trail.
    pub trail: Box<Trail>,
    /// Who wants it.
    pub wanted: Wanted,
}

impl Observer {
    /// And where trails arrive.
    #[must_use]
    pub fn new() -> (Arc<Self>, Arriving) {
        let (sender, arriving) = mpsc::channel(MAX_WAITING);
        let urgent = Arc::new(Notify::new());
        let arriving = Arriving::new(arriving, Arc::clone(&urgent));
        let (taps, dropped, stitches) = (AtomicU32::new(0), AtomicU64::new(0), OnceLock::new());
        let (edges, second, exports) = (Edges::default(), OnceLock::new(), Arc::default());
        let records = Arc::default();
        let observer = Self { edges, taps, dropped, exports, records, stitches, second, sender, urgent };
        (Arc::new(observer), arriving)
    }

    /// What came in of late, by request ID: for what comes in. `now` is what ages are counted from.
    pub fn stitches(&self, now: Instant) -> &Stitches {
        self.stitches.get_or_init(|| Stitches::new(now))
    }

    /// The same for what goes out: there is nothing before something came in.
    #[must_use]
    pub fn known_stitches(&self) -> Option<&Stitches> {
        self.stitches.get()
    }

    /// Has every trail sent there as well, wanted or not, from now on: for tests. Only the first to ask gets them.
    #[must_use]
    pub fn subscribe(&self) -> mpsc::Receiver<Told> {
        let (sender, arriving) = mpsc::channel(MAX_WAITING);
        // One that is not taken ends at once.
        self.second.get_or_init(|| sender);
        arriving
    }

    /// Takes the trail of a request that is over; sends it on if somebody wants it. What failed, was refused or was repeated
    /// is always wanted: by `explain`.
    pub fn tell(&self, mut trail: Box<Trail>, wanted: Wanted) {
        if let Some(second) = self.second.get() {
            // Whoever asked may have had enough.
            second.try_send(Told { trail: trail.clone(), wanted }).ok();
        }
        let is_notable = trail.is_notable();
        let is_ordered =
            wanted.is_sampled || wanted.is_logged || (wanted.is_logged_on_error && trail.is_error());
        let is_awaited = is_notable || self.taps.load(Ordering::Relaxed) > 0;
        if !is_ordered && !is_awaited {
            return;
        }
        let room = self.sender.capacity();
        let has_room = is_ordered || room > RESERVED;
        if has_room {
            trail.detach();
        }
        if !has_room || self.sender.try_send(Told { trail, wanted }).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if is_awaited || room <= FEW {
            self.urgent.notify_one();
        }
    }
}
