//! The record of one request: made when it arrives, counted once when it is over, however it ends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::model::{
    flag::ResponseFlag,
    runtime::{ClusterRuntime, ListenerRuntime},
};

/// What is known so far of one request (or opaque stream). Counts itself when it is dropped: a request whose future
/// is cancelled before [`RequestRecord::finish`] counts as gone downstream ([`ResponseFlag::DC`]).
///
/// Two pointers and a few words; nothing is allocated, and no clock is read here.
#[derive(Debug)]
pub struct RequestRecord {
    listener: Arc<ListenerRuntime>,
    cluster: Option<Arc<ClusterRuntime>>,
    started: Instant,
    head_after: Option<Duration>,
    status: Option<u16>,
    flag: Option<ResponseFlag>,
    is_finished: bool,
    is_discarded: bool,
}

impl RequestRecord {
    /// Begins a record. `started` is when the request's head was read.
    #[must_use]
    pub fn new(listener: Arc<ListenerRuntime>, started: Instant) -> Self {
        Self {
            listener,
            cluster: None,
            started,
            head_after: None,
            status: None,
            flag: None,
            is_finished: false,
            is_discarded: false,
        }
    }

    /// When the request's head was read.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Says which cluster it counts for. Without one, it counts as unrouted for its listener.
    pub fn routed(&mut self, cluster: Arc<ClusterRuntime>) {
        self.cluster = Some(cluster);
    }

    /// Says that the response's head is there, from upstream or made by us; the time until then is what the latency
    /// histogram holds. Only the first call counts.
    pub fn head_received(&mut self, now: Instant) {
        self.head_after.get_or_insert(now.saturating_duration_since(self.started));
    }

    /// The status that goes downstream.
    pub fn set_status(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// Why we answered, or what was odd. The first one stays: what follows is a consequence.
    pub fn set_flag(&mut self, flag: ResponseFlag) {
        self.flag.get_or_insert(flag);
    }

    /// Says that the response went downstream as a whole (or that the answer was our own and is done).
    pub fn finish(mut self) {
        self.is_finished = true;
    }

    /// Says that there was no request after all: nothing is counted.
    pub fn discard(mut self) {
        self.is_discarded = true;
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if self.is_discarded {
            return;
        }
        if !self.is_finished {
            self.set_flag(ResponseFlag::DC);
        }
        match (&self.cluster, self.flag) {
            (Some(cluster), flag) => {
                cluster.counts.record(self.status, flag);
                if let Some(latency) = self.head_after {
                    cluster.counts.latency.record(latency);
                }
            }
            (None, Some(flag)) => self.listener.count_unrouted(flag),
            // Answered whole, without a cluster and without a reason: the pipeline has no such path.
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    fn counts(runtime: &ClusterRuntime, class: usize, flag: ResponseFlag) -> (u64, u64, u64) {
        let class = runtime.counts.by_class[class].load(Ordering::Relaxed);
        let flag = runtime.counts.by_flag[flag as usize].load(Ordering::Relaxed);
        (class, flag, runtime.counts.latency.read().count())
    }

    fn record(now: Instant) -> (RequestRecord, Arc<ClusterRuntime>, Arc<ListenerRuntime>) {
        let listener = Arc::new(ListenerRuntime::default());
        let cluster = Arc::new(ClusterRuntime::new(now));
        (RequestRecord::new(Arc::clone(&listener), now), cluster, listener)
    }

    #[test]
    fn a_finished_request_counts_once_with_its_latency() {
        let now = Instant::now();
        let (mut record, cluster, _) = record(now);
        record.routed(Arc::clone(&cluster));
        record.head_received(now + Duration::from_millis(3));
        record.head_received(now + Duration::from_secs(3));
        record.set_status(200);
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
        record.set_status(504);
        drop(record);
        assert_eq!(counts(&cluster, 5, ResponseFlag::UT), (1, 1, 0));
        assert_eq!(counts(&cluster, 5, ResponseFlag::DC).1, 0);
    }

    #[test]
    fn what_found_no_cluster_counts_for_the_listener() {
        let (mut record, _, listener) = record(Instant::now());
        record.set_flag(ResponseFlag::NR);
        record.set_status(404);
        record.finish();
        assert_eq!(listener.unrouted[ResponseFlag::NR as usize].load(Ordering::Relaxed), 1);
    }
}
