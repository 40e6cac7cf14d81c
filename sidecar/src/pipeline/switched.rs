//! A stream after its switch of protocols: bytes both ways, until both sides have ended or something cuts it.
//!
//! It holds what a request holds until its answer has ended: the place under the cluster's cap, the endpoint's load and
//! the record. The relay of a connection that left HTTP runs in that connection's task, so that it counts as open and
//! ends with the trust in its peer; that of a stream of HTTP/2 has a task of its own, and ends with its connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::upgrade::{OnUpgrade, Upgraded};

use super::{attempt::Held, worker::Worker};
use crate::{
    clock::Clock,
    connect::dial::Connection,
    drain::{Phase, Watcher},
    model::{Cluster, flag::ResponseFlag, runtime::UpgradeCounts},
    net::{Net, Stream},
    relay::{
        copy,
        leg::{Count, Leg},
        replay::Rest,
    },
    resilience::circuit_breaker::RequestSlot,
    telemetry::record::RequestRecord,
    tls::trust::Cut,
};

/// So often is a silent stream looked at within `stream_idle_timeout`: it ends at most one such part later.
const IDLE_LOOKS: u32 = 4;

/// A stream after its switch of protocols.
#[derive(Debug)]
pub(super) struct Switched {
    /// The caller's side, once it has got the answer.
    pub(super) downstream: OnUpgrade,
    /// The app's side, or that of the next hop.
    pub(super) upstream: OnUpgrade,
    /// Where it goes.
    pub(super) cluster: Arc<Cluster>,
    /// Counted when it is over.
    pub(super) record: RequestRecord,
    /// The endpoint's load, and a place on an HTTP/2 connection.
    pub(super) held: Held,
    /// The rest of the request's body: upstream leaves HTTP only when it has got all of it.
    pub(super) rest: Rest,
    /// The place under the cap.
    pub(super) slot: RequestSlot,
}

/// Counts a stream as active until dropped.
struct Active<'a> {
    counts: &'a UpgradeCounts,
    clock: &'a Clock,
    started: Instant,
}

impl<'a> Active<'a> {
    fn start(counts: &'a UpgradeCounts, clock: &'a Clock) -> Self {
        counts.total.fetch_add(1, Ordering::Relaxed);
        counts.active.fetch_add(1, Ordering::Relaxed);
        Self { counts, clock, started: clock.now() }
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        let lasted = self.clock.now().saturating_duration_since(self.started);
        let micros = u64::try_from(lasted.as_micros()).unwrap_or(u64::MAX);
        self.counts.duration_us.fetch_add(micros, Ordering::Relaxed);
        self.counts.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Switched {
    /// Relays to the end. `S` is what the caller's connection is made of, if that as a whole has left HTTP.
    pub(super) async fn relay<N: Net, S: Stream>(self: Box<Self>, worker: Arc<Worker<N>>, watcher: Watcher) {
        let Self { downstream, upstream, cluster, mut record, mut held, rest: _rest, slot: _slot } = *self;
        let _active = Active::start(&cluster.runtime.upgrades, &worker.clock);
        let idle = cluster.settings.timeouts.stream_idle;
        let flag = match both(downstream, upstream, idle).await {
            Ok((downstream, upstream)) => carry::<N, S>(&cluster, downstream, upstream, watcher).await,
            Err(flag) => Some(flag),
        };
        if let Some(flag) = flag {
            record.set_flag(flag);
            if flag == ResponseFlag::UC {
                held.in_flight.failed(worker.now());
            }
            tracing::debug!(cluster = %cluster.name(), flag = flag.letters(), "switched stream cut short");
        }
        record.finish();
    }
}

/// Both sides, once both have left HTTP.
async fn both(
    downstream: OnUpgrade,
    upstream: OnUpgrade,
    limit: Duration,
) -> Result<(Upgraded, Upgraded), ResponseFlag> {
    let downstream = async { downstream.await.map_err(|_gone| ResponseFlag::DC) };
    let upstream = async { upstream.await.map_err(|_gone| ResponseFlag::UC) };
    let both = async { tokio::try_join!(downstream, upstream) };
    tokio::time::timeout(limit, both).await.unwrap_or(Err(ResponseFlag::SI))
}

/// Relays until both directions have ended (`None`), or until something cuts the stream.
async fn carry<N: Net, S: Stream>(
    cluster: &Cluster,
    downstream: Upgraded,
    upstream: Upgraded,
    mut watcher: Watcher,
) -> Option<ResponseFlag> {
    let all = &cluster.runtime.upgrades;
    let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut near = Leg::<S>::new(downstream, Count { own: &sent, all: &all.sent_bytes });
    let mut far =
        Leg::<Connection<N::Stream>>::new(upstream, Count { own: &received, all: &all.received_bytes });
    let cut = far.connection().map_or_else(Cut::never, Connection::cut);
    let relayed = tokio::select! {
        biased;
        // Before the relay, which fails as well when what it runs over is cut off.
        () = watcher.reached(Phase::Forced) => return Some(ResponseFlag::DR),
        () = cut => return Some(ResponseFlag::UC),
        relayed = copy::plain(&mut near, &mut far) => relayed,
        () = silent(&sent, &received, cluster.settings.timeouts.stream_idle) => return Some(ResponseFlag::SI),
    };
    match relayed {
        Ok(_carried) => None,
        Err(_) if near.has_failed() => Some(ResponseFlag::DC),
        Err(_) if far.has_failed() => Some(ResponseFlag::UC),
        // Half-closed, and the other half did not move.
        Err(_) => Some(ResponseFlag::SI),
    }
}

/// Ends when neither direction has moved for `limit`.
async fn silent(sent: &AtomicU64, received: &AtomicU64, limit: Duration) {
    let moved = || (sent.load(Ordering::Relaxed), received.load(Ordering::Relaxed));
    let (mut seen, mut quiet) = (moved(), 0);
    while quiet < IDLE_LOOKS {
        tokio::time::sleep(limit / IDLE_LOOKS).await;
        let now = moved();
        quiet = if now == seen { quiet + 1 } else { 0 };
        seen = now;
    }
}
