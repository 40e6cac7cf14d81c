//! A stream after its switch of protocols: bytes both ways, until both sides have ended or something cuts it.
//!
//! It holds what a request holds until its answer has ended: the place under the cluster's cap, the endpoint's load and
//! the record. The relay of a connection that left HTTP runs in that connection's task, so that it counts as open and
//! ends with the trust in its peer; that of a stream of HTTP/2 has a task of its own, and ends with its connection.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;

use super::{attempt::Held, worker::Worker};
use crate::{
    clock::Clock,
    connect::wire::DriverEnd,
    drain::{Phase, Watcher},
    model::{Cluster, flag::ResponseFlag, runtime::UpgradeCounts},
    net::{Net, Stream},
    relay::{
        copy,
        h2_stream::H2Stream,
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
    /// The app's side, or that of the next hop.
    pub(super) upstream: Far,
    /// Where it goes.
    pub(super) cluster: Arc<Cluster>,
    /// Counted when it is over.
    pub(super) record: RequestRecord,
    /// The endpoint's load, and a place on an HTTP/2 connection.
    pub(super) held: Held,
    /// The end of the request's body.
    pub(super) rest: Rest,
    /// The place under the cap.
    pub(super) slot: RequestSlot,
}

/// The caller's side.
#[derive(Debug)]
pub(super) enum Near<S> {
    /// A connection that has left HTTP, with what was read of it.
    Connection(S, Bytes),
    /// A stream of HTTP/2, once the caller has got the answer.
    Stream(OnUpgrade),
}

/// The upstream's side.
#[derive(Debug)]
pub(super) enum Far {
    /// A connection, once it has left HTTP.
    Connection(OnUpgrade),
    /// A stream of HTTP/2.
    Stream(H2Stream),
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
    /// Relays to the end.
    pub(super) async fn relay<N: Net, S: Stream>(
        self: Box<Self>,
        worker: Arc<Worker<N>>,
        watcher: Watcher,
        near: Near<S>,
    ) {
        let Self { upstream, cluster, mut record, mut held, rest: _rest, slot: _slot } = *self;
        let _active = Active::start(&cluster.runtime.upgrades, &worker.clock);
        let limit = cluster.settings.timeouts.stream_idle;
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        let all = &cluster.runtime.upgrades;
        let near = near_leg(near, Count { own: &sent, all: &all.sent_bytes });
        let far = far_leg(upstream, Count { own: &received, all: &all.received_bytes });
        let both = tokio::time::timeout(limit, async { tokio::try_join!(near, far) });
        let flag = match both.await.unwrap_or(Err(ResponseFlag::SI)) {
            Ok((near, far)) => carry::<N, S>((near, far), silent(&sent, &received, limit), watcher).await,
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

/// The caller's leg, once it has left HTTP.
async fn near_leg<S: Stream>(near: Near<S>, count: Count<'_>) -> Result<Leg<'_, S>, ResponseFlag> {
    match near {
        Near::Connection(connection, early) => Ok(Leg::connection(connection, early, count)),
        Near::Stream(stream) => {
            stream.await.map(|stream| Leg::upgraded(stream, count)).map_err(|_gone| ResponseFlag::DC)
        }
    }
}

/// The upstream's leg, once it has left HTTP.
async fn far_leg<S: Stream>(far: Far, count: Count<'_>) -> Result<Leg<'_, DriverEnd<S>>, ResponseFlag> {
    match far {
        Far::Stream(stream) => Ok(Leg::stream(stream, count)),
        Far::Connection(connection) => connection
            .await
            .map(|connection| Leg::upgraded(connection, count))
            .map_err(|_gone| ResponseFlag::UC),
    }
}

/// Relays until both directions have ended (`None`), or until something cuts the stream.
async fn carry<N: Net, S: Stream>(
    (mut near, mut far): (Leg<'_, S>, Leg<'_, DriverEnd<N::Stream>>),
    silence: impl Future<Output = ()>,
    mut watcher: Watcher,
) -> Option<ResponseFlag> {
    let cut = far.as_connection().map_or_else(Cut::never, DriverEnd::cut);
    let setup = copy::Setup { half_open: Some(copy::HALF_OPEN_LIMIT), ..copy::Setup::default() };
    let relayed = tokio::select! {
        biased;
        relayed = copy::plain(&mut near, &mut far, setup) => relayed,
        () = watcher.reached(Phase::Forced) => return Some(ResponseFlag::DR),
        () = cut => return Some(ResponseFlag::UC),
        () = silence => return Some(ResponseFlag::SI),
    };
    match relayed {
        Ok(_carried) => None,
        // What it runs over may have been cut off first.
        Err(_) if watcher.phase() == Phase::Forced => Some(ResponseFlag::DR),
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
