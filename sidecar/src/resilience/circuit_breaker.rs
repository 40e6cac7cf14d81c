//! Circuit breaker: per-cluster caps on what is under way (in Envoy's sense; nothing here trips or heals).
//!
//! Over a cap the answer is no, at once: nothing is queued. A slot is held as long as the thing it counts exists, so
//! the counters are true also when a request is cancelled. Caps are exact over all workers.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::model::{Cluster, load::ALWAYS_ADMITTED, mirror::MAX_COPIES, runtime::ClusterRuntime};

/// Which cap of a cluster was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overflow {
    /// `max_requests`.
    #[error("the cluster's cap on requests in flight is reached")]
    Requests,
    /// `max_connections`.
    #[error("the cluster's cap on connections is reached")]
    Connections,
    /// `max_pending`.
    #[error("the cluster's cap on requests that wait for a connection is reached")]
    Pending,
    /// `max_peer_percent` of `max_requests`.
    #[error("the caller has as many requests in flight as one may have")]
    Peer,
    /// The memory of the process, of which the cluster's requests are a part.
    #[error("this process is short of memory, and the cluster has requests in flight")]
    Memory,
}

impl Overflow {
    /// Every cap, in the order of their discriminants.
    pub const ALL: [Self; 5] = [Self::Requests, Self::Connections, Self::Pending, Self::Peer, Self::Memory];

    /// The cap as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Connections => "connections",
            Self::Pending => "pending",
            Self::Peer => "peer",
            Self::Memory => "memory",
        }
    }
}

/// Counts one request or stream of a cluster until dropped.
#[derive(Debug)]
#[must_use = "the request stops counting when this is dropped"]
pub struct RequestSlot {
    runtime: Arc<ClusterRuntime>,
    /// Its caller's count.
    caller: Option<Arc<AtomicU32>>,
}

/// Counts one upstream connection of a cluster until dropped.
#[derive(Debug)]
#[must_use = "the connection stops counting when this is dropped"]
pub struct ConnectionSlot {
    runtime: Arc<ClusterRuntime>,
}

/// Counts one request or stream that waits for a connection until dropped.
#[derive(Debug)]
#[must_use = "the wait stops counting when this is dropped"]
pub struct PendingSlot {
    runtime: Arc<ClusterRuntime>,
}

/// Counts one retry or hedge of a cluster until dropped.
#[derive(Debug)]
#[must_use = "the retry stops counting when this is dropped"]
pub struct RetrySlot {
    runtime: Arc<ClusterRuntime>,
}

/// Counts one copy of a request to a cluster until dropped.
#[derive(Debug)]
#[must_use = "the copy stops counting when this is dropped"]
pub struct CopySlot {
    runtime: Arc<ClusterRuntime>,
}

/// Admits one more request or stream, of which only a few may go on while the process `is_short_of_memory`. `caller` counts
/// those that its caller has under way.
///
/// # Errors
/// [`Overflow::Requests`] if `max_requests` are under way, [`Overflow::Peer`] if `max_per_peer` of this caller are,
/// [`Overflow::Memory`].
pub fn admit_request(
    cluster: &Arc<Cluster>,
    caller: Option<&Arc<AtomicU32>>,
    is_short_of_memory: bool,
) -> Result<RequestSlot, Overflow> {
    if is_short_of_memory && cluster.runtime.in_flight.load(Ordering::Relaxed) >= ALWAYS_ADMITTED {
        return Err(reached(&cluster.runtime, Overflow::Memory));
    }
    let caps = &cluster.settings.caps;
    if caller.is_some_and(|count| !raise(count, caps.max_per_peer)) {
        return Err(reached(&cluster.runtime, Overflow::Peer));
    }
    let caller = caller.cloned();
    if !raise(&cluster.runtime.in_flight, caps.max_requests) {
        lower(caller.as_deref());
        return Err(reached(&cluster.runtime, Overflow::Requests));
    }
    Ok(RequestSlot { runtime: Arc::clone(&cluster.runtime), caller })
}

/// Admits one more upstream connection. Ask before connecting: one that is being opened counts.
///
/// # Errors
/// [`Overflow::Connections`] if `max_connections` are open or being opened.
pub fn admit_connection(cluster: &Arc<Cluster>) -> Result<ConnectionSlot, Overflow> {
    if !raise(&cluster.runtime.connections, cluster.settings.caps.max_connections) {
        return Err(reached(&cluster.runtime, Overflow::Connections));
    }
    Ok(ConnectionSlot { runtime: Arc::clone(&cluster.runtime) })
}

/// Admits one more request or stream that waits for a connection.
///
/// # Errors
/// [`Overflow::Pending`] if `max_pending` wait.
pub fn admit_pending(cluster: &Arc<Cluster>) -> Result<PendingSlot, Overflow> {
    if !raise(&cluster.runtime.pending, cluster.settings.caps.max_pending) {
        return Err(reached(&cluster.runtime, Overflow::Pending));
    }
    Ok(PendingSlot { runtime: Arc::clone(&cluster.runtime) })
}

/// Admits one more retry or hedge; `None` if `max_active` are under way.
#[must_use]
pub fn admit_retry(cluster: &Cluster) -> Option<RetrySlot> {
    let is_admitted = raise(&cluster.runtime.repeats.active, cluster.settings.retry_budget.max_active);
    is_admitted.then(|| RetrySlot { runtime: Arc::clone(&cluster.runtime) })
}

/// Admits one more copy of a request; `None` if [`MAX_COPIES`] are under way, or a quarter of `max_requests`, of
/// `max_pending`, or of `max_connections` where each `has_own_connection`: the rest is for those that somebody waits for.
#[must_use]
pub fn admit_copy(cluster: &Cluster, has_own_connection: bool) -> Option<CopySlot> {
    let caps = &cluster.settings.caps;
    let connections = if has_own_connection { caps.max_connections } else { u32::MAX };
    let cap = MAX_COPIES.min(caps.max_requests.min(caps.max_pending).min(connections).div_ceil(4));
    let is_admitted = raise(&cluster.runtime.mirrors.active, cap);
    is_admitted.then(|| CopySlot { runtime: Arc::clone(&cluster.runtime) })
}

/// Counts that a cap stood in the way.
fn reached(runtime: &ClusterRuntime, cap: Overflow) -> Overflow {
    if let Some(count) = runtime.overflows.get(cap as usize) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    cap
}

/// Raises a counter unless it is at its cap.
fn raise(counter: &AtomicU32, cap: u32) -> bool {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < cap).then(|| count + 1))
        .is_ok()
}

fn lower(count: Option<&AtomicU32>) {
    if let Some(count) = count {
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

// Only slots lower these counters, each once what it raised: they cannot wrap.

impl Drop for RequestSlot {
    fn drop(&mut self) {
        self.runtime.in_flight.fetch_sub(1, Ordering::Relaxed);
        lower(self.caller.as_deref());
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.runtime.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for PendingSlot {
    fn drop(&mut self) {
        self.runtime.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for RetrySlot {
    fn drop(&mut self) {
        self.runtime.repeats.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for CopySlot {
    fn drop(&mut self) {
        self.runtime.mirrors.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionSlot {
    /// Whether the cap still has room for the connection that this counts: a reload may have lowered it.
    #[must_use]
    pub fn is_within(&self, cluster: &Cluster) -> bool {
        self.runtime.connections.load(Ordering::Relaxed) <= cluster.settings.caps.max_connections
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread, time::Instant};

    use super::*;
    use crate::model::{ClusterSettings, cluster::Caps, fixture};

    fn cluster(max_requests: u32, max_connections: u32) -> Arc<Cluster> {
        let caps = Caps { max_requests, max_per_peer: max_requests, max_connections, max_pending: 1 };
        let settings = ClusterSettings { caps, ..fixture::settings("orders") };
        Arc::new(fixture::cluster(settings, 1, Instant::now()))
    }

    #[test]
    fn the_cap_is_the_most_that_is_admitted_and_a_dropped_slot_makes_room() {
        let cluster = cluster(2, 1);
        let first = admit_request(&cluster, None, false).unwrap();
        let _second = admit_request(&cluster, None, false).unwrap();
        assert_eq!(admit_request(&cluster, None, false).unwrap_err(), Overflow::Requests);
        let counted = |cap: Overflow| cluster.runtime.overflows[cap as usize].load(Ordering::Relaxed);
        assert_eq!(Overflow::ALL.map(counted), [1, 0, 0, 0, 0]);
        drop(first);
        assert!(admit_request(&cluster, None, false).is_ok());
    }

    #[test]
    fn requests_and_connections_have_caps_of_their_own() {
        let cluster = cluster(1, 1);
        let _request = admit_request(&cluster, None, false).unwrap();
        let connection = admit_connection(&cluster).unwrap();
        assert_eq!(admit_connection(&cluster).unwrap_err(), Overflow::Connections);
        drop(connection);
        assert!(admit_connection(&cluster).is_ok());
        assert_eq!(cluster.runtime.in_flight.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn so_many_may_wait_and_a_wait_that_is_over_makes_room() {
        let cluster = cluster(1, 1);
        let waiting = admit_pending(&cluster).unwrap();
        assert_eq!(admit_pending(&cluster).unwrap_err(), Overflow::Pending);
        drop(waiting);
        assert!(admit_pending(&cluster).is_ok());
    }

    #[test]
    fn so_many_retries_may_be_under_way() {
        let mut cluster = cluster(1, 1);
        let settings = &mut Arc::get_mut(&mut cluster).unwrap().settings;
        Arc::make_mut(settings).retry_budget.max_active = 2;
        let first = admit_retry(&cluster).unwrap();
        let _second = admit_retry(&cluster).unwrap();
        assert!(admit_retry(&cluster).is_none());
        drop(first);
        assert!(admit_retry(&cluster).is_some());
    }

    #[test]
    fn copies_leave_the_most_of_a_cluster_to_requests() {
        let with = |max_requests, max_pending, max_connections| {
            let mut cluster = cluster(max_requests, max_connections);
            Arc::make_mut(&mut Arc::get_mut(&mut cluster).unwrap().settings).caps.max_pending = max_pending;
            cluster
        };
        let most = |cluster: &Cluster, has_own_connection| {
            std::iter::from_fn(|| admit_copy(cluster, has_own_connection)).collect::<Vec<CopySlot>>().len()
        };
        const LARGE: u32 = 100_000;
        let few = with(8, LARGE, LARGE);
        let first = admit_copy(&few, false).unwrap();
        assert_eq!(most(&few, false), 1);
        drop(first);
        assert_eq!(most(&few, false), 2);
        assert_eq!(most(&with(LARGE, LARGE, LARGE), true), MAX_COPIES as usize);
        assert_eq!(most(&with(LARGE, 9, LARGE), false), 3, "who waits for a connection");
        let narrow = with(LARGE, LARGE, 64);
        assert_eq!((most(&narrow, true), most(&narrow, false)), (16, MAX_COPIES as usize), "HTTP/1, HTTP/2");
    }

    #[test]
    fn a_cap_of_zero_admits_nothing() {
        assert!(admit_request(&cluster(0, 0), None, false).is_err());
    }

    #[test]
    fn a_lowered_cap_refuses_until_enough_has_ended() {
        let before = cluster(3, 1);
        let slots =
            [admit_request(&before, None, false).unwrap(), admit_request(&before, None, false).unwrap()];
        let (settings, limits) = (Arc::clone(&before.settings), Arc::clone(&before.limits));
        let mut after = Cluster::new(settings, limits, Vec::new(), Arc::clone(&before.runtime));
        Arc::make_mut(&mut after.settings).caps.max_requests = 1;
        let after = Arc::new(after);
        assert!(admit_request(&after, None, false).is_err());
        drop(slots);
        assert!(admit_request(&after, None, false).is_ok());
    }

    #[test]
    fn the_cap_holds_when_threads_race() {
        let cluster = cluster(10, 1);
        let start = Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..2_000 {
                        let slots: Vec<_> =
                            (0..5).filter_map(|_| admit_request(&cluster, None, false).ok()).collect();
                        assert!(cluster.runtime.in_flight.load(Ordering::Relaxed) <= 10);
                        drop(slots);
                    }
                });
            }
        });
        assert_eq!(cluster.runtime.in_flight.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn short_of_memory_a_few_go_on_and_the_rest_hears_so() {
        let cluster = cluster(1024, 1);
        let few: Vec<_> =
            (0..ALWAYS_ADMITTED).map(|_| admit_request(&cluster, None, true).unwrap()).collect();
        assert_eq!(admit_request(&cluster, None, true).unwrap_err(), Overflow::Memory);
        let _with_memory = admit_request(&cluster, None, false).unwrap();
        drop(few);
        assert!(admit_request(&cluster, None, true).is_ok());
    }

    #[test]
    fn a_caller_has_its_share_and_leaves_the_rest_to_others() {
        let mut cluster = cluster(4, 1);
        let settings = &mut Arc::get_mut(&mut cluster).unwrap().settings;
        Arc::make_mut(settings).caps.max_per_peer = 3;
        let (greedy, other): (Arc<AtomicU32>, Arc<AtomicU32>) = Default::default();
        let held: Vec<_> = (0..3).map(|_| admit_request(&cluster, Some(&greedy), false).unwrap()).collect();
        assert_eq!(admit_request(&cluster, Some(&greedy), false).unwrap_err(), Overflow::Peer);
        let _last = admit_request(&cluster, Some(&other), false).unwrap();
        assert_eq!(admit_request(&cluster, Some(&other), false).unwrap_err(), Overflow::Requests);
        assert_eq!(other.load(Ordering::Relaxed), 1, "who was refused holds nothing");
        drop(held);
        assert_eq!(greedy.load(Ordering::Relaxed), 0);
        assert!(admit_request(&cluster, Some(&greedy), false).is_ok());
    }
}
