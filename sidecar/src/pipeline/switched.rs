//! A stream after its switch of protocols: bytes both ways, until both sides have ended or something cuts it.
//!
//! It holds what a request holds until its answer has ended: the place under the cluster's cap, the endpoint's load and
//! the record. The relay of a connection that left HTTP runs in that connection's task, so that it counts as open and
//! ends with the trust in its peer; that of a stream of HTTP/2 has a task of its own, and ends with its connection.

use std::{
    future::{Future, ready},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;

use super::{attempt::Held, door::Door, live, tunnel, worker::Worker};
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
    /// The leave to go on, of a request from others.
    pub(super) live: Option<live::Guard>,
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
    /// What was never HTTP.
    Opaque(Opaque),
}

/// The upstream's side of a tunnel.
#[derive(Debug)]
pub(super) struct Opaque {
    /// Its bytes.
    pub(super) stream: Box<dyn Stream>,
    /// The end of the trust in who is there.
    pub(super) cut: Cut,
    /// Nothing may go there but TLS of the caller's own.
    pub(super) is_own_tls: bool,
    /// Told when the stream is over and nobody has it any more.
    pub(super) after: Option<Box<dyn After>>,
}

/// What is to be done after a stream.
pub(super) trait After: std::fmt::Debug + Send {
    /// The stream is over.
    fn ended(self: Box<Self>);
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
    /// Begins when the caller has got its answer. `downstream` is the caller's stream of HTTP/2; without it, the whole
    /// connection of `door` leaves HTTP, whose task relays then.
    pub(super) fn start<N: Net>(
        self: Box<Self>,
        worker: &Arc<Worker<N>>,
        door: &Door,
        downstream: Option<OnUpgrade>,
    ) {
        match downstream {
            None => door.switch(self),
            Some(stream) => {
                let (drain, near) = (door.drain(), Near::<N::Stream>::Stream(stream));
                drain.spawn(self.relay(Arc::clone(worker), drain.watcher(), near));
            }
        }
    }

    /// Relays to the end.
    pub(super) async fn relay<N: Net, S: Stream>(
        self: Box<Self>,
        worker: Arc<Worker<N>>,
        watcher: Watcher,
        near: Near<S>,
    ) {
        let Self { upstream, cluster, record, mut held, rest: _rest, slot: _slot, live } = *self;
        let _active = Active::start(&cluster.runtime.upgrades, &worker.clock);
        let limit = cluster.settings.timeouts.stream_idle;
        let moved = Arc::clone(record.moved());
        let (sent, received) = (&moved.request_bytes, &moved.response_bytes);
        let all = &cluster.runtime.upgrades;
        let near = near_leg(near, Count { own: sent, all: &all.sent_bytes });
        let count = Count { own: received, all: &all.received_bytes };
        let half_open = cluster.settings.timeouts.half_open;
        let cut_short = async {
            tokio::select! {
                biased;
                () = live::revoked(live.as_ref()) => ResponseFlag::RBAC,
                () = silent(sent, received, limit) => ResponseFlag::SI,
            }
        };
        let bounds = (limit, cut_short, watcher, half_open);
        let ended = match upstream {
            Far::Connection(connection) => over(near, far_connection::<N>(connection, count), bounds).await,
            Far::Stream(stream) => {
                let leg = Leg::<DriverEnd<N::Stream>>::stream(stream, count);
                let far = FarLeg { leg, cut: Cut::never(), is_own_tls: false };
                over(near, ready(Ok(far)), bounds).await
            }
            Far::Opaque(Opaque { stream, cut, is_own_tls, after }) => {
                let leg = Leg::connection(stream, Bytes::new(), count);
                let ended = over(near, ready(Ok(FarLeg { leg, cut, is_own_tls })), bounds).await;
                if let Some(after) = after {
                    after.ended();
                }
                ended
            }
        };
        if let Err(flag) = ended {
            record.set_flag(flag);
            if flag == ResponseFlag::RBAC {
                record.write(|trail| trail.reason = Some(live::REASON.into()));
            }
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

/// The upstream's leg, and what there is to know of it.
struct FarLeg<'a, F: Stream> {
    leg: Leg<'a, F>,
    cut: Cut,
    is_own_tls: bool,
}

/// The leg of an upstream's connection, once it has left HTTP.
async fn far_connection<N: Net>(
    connection: OnUpgrade,
    count: Count<'_>,
) -> Result<FarLeg<'_, DriverEnd<N::Stream>>, ResponseFlag> {
    let upgraded = connection.await.map_err(|_gone| ResponseFlag::UC)?;
    let leg: Leg<'_, DriverEnd<N::Stream>> = Leg::upgraded(upgraded, count);
    let cut = leg.as_connection().map_or_else(Cut::never, DriverEnd::cut);
    Ok(FarLeg { leg, cut, is_own_tls: false })
}

/// Waits until both sides have left HTTP, and relays.
async fn over<'a, S: Stream, F: Stream>(
    near: impl Future<Output = Result<Leg<'a, S>, ResponseFlag>>,
    far: impl Future<Output = Result<FarLeg<'a, F>, ResponseFlag>>,
    (limit, cut_short, watcher, half_open): (
        Duration,
        impl Future<Output = ResponseFlag>,
        Watcher,
        Option<Duration>,
    ),
) -> Result<(), ResponseFlag> {
    let both = tokio::time::timeout(limit, async { tokio::try_join!(near, far) });
    let (near, far) = both.await.unwrap_or(Err(ResponseFlag::SI))?;
    carry(near, far, cut_short, watcher, half_open).await
}

/// Relays until both directions have ended, or until something cuts the stream.
async fn carry<S: Stream, F: Stream>(
    mut near: Leg<'_, S>,
    far: FarLeg<'_, F>,
    cut_short: impl Future<Output = ResponseFlag>,
    mut watcher: Watcher,
    half_open: Option<Duration>,
) -> Result<(), ResponseFlag> {
    let FarLeg { leg: mut far, cut, is_own_tls } = far;
    let relayed = async {
        if is_own_tls && !tunnel::is_tls(&near.first(tunnel::TLS_START_BYTES).await?) {
            return Ok(Err(ResponseFlag::DPE));
        }
        let setup = copy::Setup { half_open, ..copy::Setup::default() };
        copy::plain(&mut near, &mut far, setup).await.map(|_carried| Ok(()))
    };
    let relayed = tokio::select! {
        biased;
        relayed = relayed => relayed,
        () = watcher.reached(Phase::Forced) => return Err(ResponseFlag::DR),
        () = cut => return Err(ResponseFlag::UC),
        flag = cut_short => return Err(flag),
    };
    match relayed {
        Ok(ended) => ended,
        // What it runs over may have been cut off first.
        Err(_) if watcher.phase() == Phase::Forced => Err(ResponseFlag::DR),
        Err(_) if near.has_failed() => Err(ResponseFlag::DC),
        Err(_) if far.has_failed() => Err(ResponseFlag::UC),
        // Half-closed, and the other half did not move.
        Err(_) => Err(ResponseFlag::SI),
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
