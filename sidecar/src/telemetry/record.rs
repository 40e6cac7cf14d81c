//! What is remembered of one request until it ends, and counted then: once, also when its future is cancelled.

use std::{sync::Arc, time::Instant};

use crate::model::{flag::ResponseFlag, runtime::ClusterRuntime};

/// One request or opaque stream under way. Dropping it counts it.
#[derive(Debug)]
pub struct RequestRecord {
    started: Instant,
    cluster: Option<Arc<ClusterRuntime>>,
    status: Option<u16>,
    flag: Option<ResponseFlag>,
    /// Whether it came to its end; if not, the downstream went away.
    is_ended: bool,
}

impl RequestRecord {
    /// A request that arrived at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { started: now, cluster: None, status: None, flag: None, is_ended: false }
    }

    /// It goes to this cluster. A request that never gets so far is counted nowhere but at its listener.
    pub fn routed(&mut self, cluster: &Arc<ClusterRuntime>) {
        self.cluster = Some(Arc::clone(cluster));
    }

    /// When it arrived.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The response's head goes downstream now.
    pub fn head_received(&mut self, status: u16, now: Instant) {
        self.status = Some(status);
        self.connected(now);
    }

    /// The way to the upstream is open: what opaque streams have instead of a head.
    pub fn connected(&mut self, now: Instant) {
        if let Some(cluster) = &self.cluster {
            cluster.counts.latency.record(now.saturating_duration_since(self.started));
        }
    }

    /// Something was odd, or we answered ourselves.
    pub fn set_flag(&mut self, flag: ResponseFlag) {
        self.flag = Some(flag);
    }

    /// It came to its end: nothing more is expected of it.
    pub fn ended(&mut self) {
        self.is_ended = true;
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let flag = if self.is_ended { self.flag } else { self.flag.or(Some(ResponseFlag::DC)) };
        if let Some(cluster) = &self.cluster {
            cluster.counts.record(self.status, flag);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn a_cancelled_request_counts_as_gone_downstream() {
        let now = Instant::now();
        let cluster = Arc::new(ClusterRuntime::new(now));
        let mut record = RequestRecord::new(now);
        record.routed(&cluster);
        drop(record);
        let by_flag = &cluster.counts.by_flag[ResponseFlag::DC as usize];
        assert_eq!(by_flag.load(Ordering::Relaxed), 1);
        assert_eq!(cluster.counts.by_class[0].load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_finished_request_counts_once_under_its_status() {
        let now = Instant::now();
        let cluster = Arc::new(ClusterRuntime::new(now));
        let mut record = RequestRecord::new(now);
        record.routed(&cluster);
        record.head_received(200, now);
        record.ended();
        drop(record);
        assert_eq!(cluster.counts.by_class[2].load(Ordering::Relaxed), 1);
        assert!(cluster.counts.by_flag.iter().all(|count| count.load(Ordering::Relaxed) == 0));
    }
}
