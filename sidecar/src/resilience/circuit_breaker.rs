//! Circuit breaker: per-cluster caps on what is under way (in Envoy's sense; nothing here trips or heals).
//!
//! Over a cap the answer is no, at once: nothing is queued. A slot is held as long as the thing it counts exists, so
//! the counters are true also when a request is cancelled. Caps are exact over all workers.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::model::{Cluster, load::ALWAYS_ADMITTED, runtime::ClusterRuntime};

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
    /// The memory of the process, of which the cluster's requests are a part.
    #[error("this process is short of memory, and the cluster has requests in flight")]
    Memory,
}

/// Counts one request or stream of a cluster until dropped.
#[derive(Debug)]
#[must_use = "the request stops counting when this is dropped"]
pub struct RequestSlot {
    runtime: Arc<ClusterRuntime>,
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

/// Admits one more request or stream, of which only a few may go on while the process `is_short_of_memory`.
///
/// # Errors
/// [`Overflow::Requests`] if `max_requests` are under way, [`Overflow::Memory`].
pub fn admit_request(cluster: &Arc<Cluster>, is_short_of_memory: bool) -> Result<RequestSlot, Overflow> {
    if is_short_of_memory && cluster.runtime.in_flight.load(Ordering::Relaxed) >= ALWAYS_ADMITTED {
        return Err(Overflow::Memory);
    }
    if !raise(&cluster.runtime.in_flight, cluster.settings.caps.max_requests) {
        return Err(Overflow::Requests);
    }
    Ok(RequestSlot { runtime: Arc::clone(&cluster.runtime) })
}

/// Admits one more upstream connection. Ask before connecting: one that is being opened counts.
///
/// # Errors
/// [`Overflow::Connections`] if `max_connections` are open or being opened.
pub fn admit_connection(cluster: &Arc<Cluster>) -> Result<ConnectionSlot, Overflow> {
    if !raise(&cluster.runtime.connections, cluster.settings.caps.max_connections) {
        return Err(Overflow::Connections);
    }
    Ok(ConnectionSlot { runtime: Arc::clone(&cluster.runtime) })
}

/// Admits one more request or stream that waits for a connection.
///
/// # Errors
/// [`Overflow::Pending`] if `max_pending` wait.
pub fn admit_pending(cluster: &Arc<Cluster>) -> Result<PendingSlot, Overflow> {
    if !raise(&cluster.runtime.pending, cluster.settings.caps.max_pending) {
        return Err(Overflow::Pending);
    }
    Ok(PendingSlot { runtime: Arc::clone(&cluster.runtime) })
}

/// Raises a counter unless it is at its cap.
fn raise(counter: &AtomicU32, cap: u32) -> bool {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < cap).then(|| count + 1))
        .is_ok()
}

// Only slots lower these counters, each once what it raised: they cannot wrap.

impl Drop for RequestSlot {
    fn drop(&mut self) {
        self.runtime.in_flight.fetch_sub(1, Ordering::Relaxed);
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
        let caps = Caps { max_requests, max_connections, max_pending: 1 };
        let settings = ClusterSettings { caps, ..fixture::settings("orders") };
        Arc::new(fixture::cluster(settings, 1, Instant::now()))
    }

    #[test]
    fn the_cap_is_the_most_that_is_admitted_and_a_dropped_slot_makes_room() {
        let cluster = cluster(2, 1);
        let first = admit_request(&cluster, false).unwrap();
        let _second = admit_request(&cluster, false).unwrap();
        assert_eq!(admit_request(&cluster, false).unwrap_err(), Overflow::Requests);
        drop(first);
        assert!(admit_request(&cluster, false).is_ok());
    }

    #[test]
    fn requests_and_connections_have_caps_of_their_own() {
        let cluster = cluster(1, 1);
        let _request = admit_request(&cluster, false).unwrap();
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
    fn a_cap_of_zero_admits_nothing() {
        assert!(admit_request(&cluster(0, 0), false).is_err());
    }

    #[test]
    fn a_lowered_cap_refuses_until_enough_has_ended() {
        let before = cluster(3, 1);
        let slots = [admit_request(&before, false).unwrap(), admit_request(&before, false).unwrap()];
        let mut after = Cluster {
            settings: Arc::clone(&before.settings),
            limits: Arc::clone(&before.limits),
            endpoints: Vec::new(),
            runtime: Arc::clone(&before.runtime),
            public: None,
        };
        Arc::make_mut(&mut after.settings).caps.max_requests = 1;
        let after = Arc::new(after);
        assert!(admit_request(&after, false).is_err());
        drop(slots);
        assert!(admit_request(&after, false).is_ok());
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
                            (0..5).filter_map(|_| admit_request(&cluster, false).ok()).collect();
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
        let few: Vec<_> = (0..ALWAYS_ADMITTED).map(|_| admit_request(&cluster, true).unwrap()).collect();
        assert_eq!(admit_request(&cluster, true).unwrap_err(), Overflow::Memory);
        let _with_memory = admit_request(&cluster, false).unwrap();
        drop(few);
        assert!(admit_request(&cluster, true).is_ok());
    }
}
