//! The record of one request: made when it arrives, counted once when it is over, however it ends.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use outrider_certs::SpiffeId;

use super::{
    moved::Moved,
    observer::{Observer, Wanted},
    trail::{self, Attempt, MAX_ATTEMPTS, Reuse, Trail},
};
use crate::{
    clock::Clock,
    model::{
        edge::EdgeCounts,
        flag::ResponseFlag,
        runtime::{self, ClusterRuntime, ListenerRuntime},
    },
};

/// What is known so far of one request (or opaque stream). Counts itself when it is dropped: a request whose future
/// is cancelled before [`RequestRecord::finish`] counts as gone downstream ([`ResponseFlag::DC`]). Its trail goes to
/// whoever wants it then.
#[derive(Debug)]
pub struct RequestRecord {
    listener: Arc<ListenerRuntime>,
    observer: Arc<Observer>,
    clock: Clock,
    cluster: Option<Arc<ClusterRuntime>>,
    edge: Option<Arc<EdgeCounts>>,
    started: Instant,
    wanted: Wanted,
    noted: Option<ResponseFlag>,
    is_finished: bool,
    is_discarded: bool,
    moved: Arc<Moved>,
    /// Locked for a few stores at a time, by this worker's thread alone: attempts side by side write to it, too.
    trail: Mutex<Option<Box<Trail>>>,
}

impl RequestRecord {
    /// Begins a record of what came when the trail says.
    #[must_use]
    pub fn new(
        listener: Arc<ListenerRuntime>,
        observer: &Arc<Observer>,
        clock: &Clock,
        trail: Trail,
    ) -> Self {
        Self {
            listener,
            observer: Arc::clone(observer),
            clock: clock.clone(),
            cluster: None,
            edge: None,
            started: trail.started,
            wanted: Wanted::default(),
            noted: None,
            is_finished: false,
            is_discarded: false,
            moved: Arc::default(),
            trail: Mutex::new(Some(Box::new(trail))),
        }
    }

    /// When the request's head was read.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// So long after the request's arrival is that.
    #[must_use]
    pub fn after(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Writes to the trail.
    pub fn write(&self, write: impl FnOnce(&mut Trail)) {
        let mut trail = self.trail.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trail) = trail.as_mut() {
            write(trail);
        }
    }

    /// Says who wants the trail.
    pub fn want(&mut self, wanted: Wanted) {
        self.wanted = wanted;
    }

    /// Who wants the trail.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// Says which cluster it counts for. Without one, it counts as unrouted for its listener.
    pub fn routed(&mut self, cluster: Arc<ClusterRuntime>) {
        self.cluster = Some(cluster);
    }

    /// Says which edge it counts for.
    pub fn of_edge(&mut self, edge: Arc<EdgeCounts>) {
        self.edge = Some(edge);
    }

    /// Says that the response's head is there, from upstream or made by us; the time until then is what the latency
    /// histogram holds. Only the first call counts.
    pub fn head_received(&self, now: Instant) {
        let after = self.after(now);
        self.write(|trail| {
            trail.answered.get_or_insert(after);
        });
    }

    /// The same of a response that goes downstream with that status.
    pub fn answered(&self, status: u16, now: Instant) {
        let after = self.after(now);
        self.write(|trail| {
            trail.status = Some(status);
            trail.answered.get_or_insert(after);
        });
    }

    /// Where its bytes are counted.
    #[must_use]
    pub fn moved(&self) -> &Arc<Moved> {
        &self.moved
    }

    /// An attempt begins.
    pub fn attempt(&self, attempt: Attempt) -> Entry<'_> {
        let mut index = None;
        self.write(|trail| {
            if trail.attempts.len() < MAX_ATTEMPTS {
                index = Some(trail.attempts.len());
                trail.attempts.push(attempt);
            }
        });
        Entry { record: self, index }
    }

    /// Why we answered, or what was odd. The first one stays: what follows is a consequence.
    pub fn set_flag(&self, flag: ResponseFlag) {
        self.write(|trail| {
            trail.flag.get_or_insert(flag);
        });
    }

    /// What was odd about a request that may have nothing to do with how it ends: counts if nothing else does.
    pub fn note(&mut self, flag: ResponseFlag) {
        self.noted = Some(flag);
    }

    /// Says that the response went downstream as a whole (or that the answer was our own and is done).
    pub fn finish(mut self) {
        self.is_finished = true;
    }

    /// Says that there was no request after all: nothing is counted.
    pub fn discard(mut self) {
        self.is_discarded = true;
    }

    /// Says that there may be no request after all: nothing is counted unless it turns out to [be one](Self::is_real).
    pub fn is_tentative(&mut self) {
        self.is_discarded = true;
    }

    /// Says that there is a request, where that was not known.
    pub fn is_real(&mut self) {
        self.is_discarded = false;
    }
}

/// One attempt in a trail, written to as it goes on. One that found no room there is written to nowhere.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    record: &'a RequestRecord,
    index: Option<usize>,
}

impl<'a> Entry<'a> {
    /// The record that it is in.
    #[must_use]
    pub fn record(&self) -> &'a RequestRecord {
        self.record
    }

    /// Its place among the attempts.
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        self.index
    }

    /// The attempt at that place.
    #[must_use]
    pub fn at(record: &'a RequestRecord, index: Option<usize>) -> Self {
        Self { record, index }
    }

    /// Writes to it.
    pub fn write(&self, write: impl FnOnce(&mut Attempt)) {
        if let Some(index) = self.index {
            self.record.write(|trail| {
                if let Some(attempt) = trail.attempts.get_mut(index) {
                    write(attempt);
                }
            });
        }
    }

    /// It has a connection, to whom is there. Of several the last counts.
    pub fn connected(&self, now: Instant, reuse: Reuse, peer: Option<&SpiffeId>) {
        let after = self.record.after(now);
        self.write(|attempt| {
            attempt.connected = Some((after, reuse));
            attempt.peer = peer.cloned();
        });
    }

    /// The head of its answer is there. `said`: why the far sidecar gave it, in bytes that it chose.
    pub fn answered(&self, now: Instant, status: Option<u16>, said: Option<&[u8]>) {
        let after = self.record.after(now);
        self.write(|attempt| {
            attempt.answered = Some(after);
            attempt.status = status;
            attempt.error = said.map(|said| trail::text(&String::from_utf8_lossy(said)));
        });
    }

    /// It has failed, for that reason in words.
    pub fn failed(&self, now: Instant, error: &str) {
        let after = self.record.after(now);
        self.write(|attempt| {
            attempt.ended.get_or_insert(after);
            attempt.error = Some(trail::text(error));
        });
    }

    /// It is over before the request is. Only the first call counts.
    pub fn ended(&self, now: Instant) {
        let after = self.record.after(now);
        self.write(|attempt| {
            attempt.ended.get_or_insert(after);
        });
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let trail = self.trail.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut trail) = trail.filter(|_| !self.is_discarded) else { return };
        trail.ended = self.clock.now().saturating_duration_since(self.started);
        if !self.is_finished {
            trail.flag.get_or_insert(ResponseFlag::DC);
        }
        trail.flag = trail.flag.or(self.noted);
        (trail.request_bytes, trail.response_bytes) = self.moved.bytes();
        // What was under way until now has ended with it.
        let ended = trail.ended;
        for attempt in &mut trail.attempts {
            attempt.ended.get_or_insert(ended);
        }
        if trail.is_mirror {
            // It counts as a copy and as nothing else.
            if self.wanted.is_sampled {
                self.observer.tell(trail, self.wanted);
            }
            return;
        }
        match (&self.cluster, trail.flag) {
            (Some(cluster), flag) => {
                cluster.counts.record(trail.status, flag);
                if let Some(latency) = trail.answered {
                    cluster.counts.latency.record(latency);
                }
            }
            (None, Some(flag)) => self.listener.count_unrouted(flag),
            // Answered whole, without a cluster and without a reason: the pipeline has no such path.
            (None, None) => {}
        }
        if let Some(edge) = &self.edge {
            count(edge, &trail);
        }
        self.observer.tell(trail, self.wanted);
    }
}

/// Counts a request that is over for its edge.
fn count(edge: &EdgeCounts, trail: &Trail) {
    let class = trail.status.map_or(0, runtime::class);
    let flag = trail.flag.and_then(|flag| edge.by_flag.get(flag as usize));
    for count in edge.by_class.get(class).into_iter().chain(flag) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    if trail.is_failed() {
        edge.failed.fetch_add(1, Ordering::Relaxed);
    }
    if let Some(latency) = trail.answered {
        edge.latency.record(latency);
    }
    for (count, of) in [
        (&edge.retries, u64::try_from(trail.attempts.len().saturating_sub(1)).unwrap_or_default()),
        (&edge.request_bytes, trail.request_bytes),
        (&edge.response_bytes, trail.response_bytes),
    ] {
        if of > 0 {
            count.fetch_add(of, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::edge::Direction,
        telemetry::trail::{Caller, Traffic},
    };

    fn counts(runtime: &ClusterRuntime, class: usize, flag: ResponseFlag) -> (u64, u64, u64) {
        let class = runtime.counts.by_class[class].load(Ordering::Relaxed);
        let flag = runtime.counts.by_flag[flag as usize].load(Ordering::Relaxed);
        (class, flag, runtime.counts.latency.read().count())
    }

    fn record(now: Instant) -> (RequestRecord, Arc<ClusterRuntime>, Arc<ListenerRuntime>) {
        let listener = Arc::new(ListenerRuntime::default());
        let cluster = Arc::new(ClusterRuntime::new(now));
        let trail = Trail::new(Traffic::Http, Direction::Outbound, Arc::from("out"), Caller::App, now);
        let (observer, _arriving) = Observer::new();
        let record = RequestRecord::new(Arc::clone(&listener), &observer, &Clock::system(), trail);
        (record, cluster, listener)
    }

    #[test]
    fn a_finished_request_counts_once_with_its_latency() {
        let now = Instant::now();
        let (mut record, cluster, _) = record(now);
        record.routed(Arc::clone(&cluster));
        record.head_received(now + Duration::from_millis(3));
        record.head_received(now + Duration::from_secs(3));
        record.write(|trail| trail.status = Some(200));
        record.finish();
        assert_eq!(counts(&cluster, 2, ResponseFlag::DC), (1, 0, 1));
        assert!((cluster.counts.latency.read().sum_seconds - 0.003).abs() < 1e-9);
    }

    #[test]
    fn a_cancelled_request_counts_as_gone_downstream() {
        let (mut record, cluster, _) = record(Instant::now());
        record.routed(Arc::clone(&cluster));
        drop(record);
        assert_eq!(counts(&cluster, 0, ResponseFlag::DC), (1, 1, 0));
    }

    #[test]
    fn the_first_reason_stays() {
        let (mut record, cluster, _) = record(Instant::now());
        record.routed(Arc::clone(&cluster));
        record.set_flag(ResponseFlag::UT);
        record.set_flag(ResponseFlag::UC);
        record.write(|trail| trail.status = Some(504));
        drop(record);
        assert_eq!(counts(&cluster, 5, ResponseFlag::UT), (1, 1, 0));
        assert_eq!(counts(&cluster, 5, ResponseFlag::DC).1, 0);
    }

    #[test]
    fn what_found_no_cluster_counts_for_the_listener() {
        let (record, _, listener) = record(Instant::now());
        record.set_flag(ResponseFlag::NR);
        record.write(|trail| trail.status = Some(404));
        record.finish();
        assert_eq!(listener.unrouted[ResponseFlag::NR as usize].load(Ordering::Relaxed), 1);
    }
}
