//! One opaque stream, from the app to a peer or from a peer to the app.
//!
//! The way to the upstream is opened before a byte is read from the downstream, so an attempt that fails can be
//! repeated at another endpoint whatever the stream would have carried.

mod bare;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite};

pub use bare::Bare;

use crate::{
    balance::{self, InFlight, Tried},
    connect::{dial::Connection, place::Target},
    drain::Phase,
    model::{Cluster, Identity, flag::ResponseFlag, listener::Asked},
    net::{Net, Stream},
    pipeline::{
        attempt::connect_error, attempts, destination, door::Door, error::ProxyError, respond, worker::Worker,
    },
    relay::{
        copy::{self, End},
        frame::Kind,
        session::Session,
    },
    resilience::{circuit_breaker, retry::RetryFacts, retry_budget},
    telemetry::record::RequestRecord,
    tls::trust::Cut,
};

/// A kept connection without a stream is closed by its callee after this: longer than any caller keeps it, so that the
/// caller closes first.
const SESSION_IDLE: Duration = Duration::from_secs(3600);
/// Session parameters of an ordinary opaque stream.
const OPAQUE: &[u8] = b"kind=opaque";

/// The way to an upstream.
enum Way<S> {
    /// To a sidecar: framed, reusable.
    Framed(Session<Connection<S>>, Cut),
    /// To a standard peer: bare bytes.
    Bare(Connection<S>),
}

/// Carries one stream of the own app to a cluster.
pub async fn outbound<N: Net>(worker: &Arc<Worker<N>>, door: &Door, stream: N::Stream) {
    let mut record = RequestRecord::new(Arc::clone(door.counts()), worker.now());
    if let Err(error) = outward(worker, door, stream, &mut record).await {
        record.set_flag(error.flag());
        tracing::debug!(listener = door.accepted.name(), error = respond::chain(&error), "stream refused");
    }
    record.finish();
}

async fn outward<N: Net>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    mut stream: N::Stream,
    record: &mut RequestRecord,
) -> Result<(), ProxyError> {
    // Boxed for its own time: a stream may last for days.
    let opened = Box::pin(async {
        let snapshot = door.load(&worker.snapshots);
        let cluster = &destination::find(worker, door, &snapshot, None)?;
        record.routed(Arc::clone(&cluster.runtime));
        let slot = circuit_breaker::admit_request(cluster, worker.load.is_over())
            .map_err(|cap| ProxyError::Overflow { cluster: cluster.name().clone(), cap })?;
        retry_budget::record_request(&cluster.runtime.retry_budget, worker.now());
        let (way, in_flight) = open_somewhere(worker, cluster, snapshot.identity.as_ref()).await?;
        Ok((way, in_flight, slot))
    })
    .await;
    let (way, mut in_flight, _slot) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            // The app is told as TCP tells it: there is nobody.
            stream.reset_on_close();
            return Err(error);
        }
    };
    in_flight.answered(worker.now());
    record.head_received(worker.now());
    match way {
        Way::Framed(mut session, cut) => match carry(&mut stream, &mut session, cut).await {
            End::Orderly => worker.tcp_pool.give_back(session.into_stream(), worker.now()),
            End::PlainReset => record.set_flag(ResponseFlag::DC),
            End::FarReset => record.set_flag(ResponseFlag::UC),
            End::Stalled => record.set_flag(ResponseFlag::SI),
        },
        Way::Bare(mut upstream) => {
            let cut = upstream.cut();
            if carry_bare(&mut stream, &mut upstream, cut).await.is_err() {
                stream.reset_on_close();
                record.set_flag(ResponseFlag::UC);
            }
        }
    }
    Ok(())
}

async fn open_somewhere<N: Net>(
    worker: &Arc<Worker<N>>,
    cluster: &Arc<Cluster>,
    identity: Option<&Arc<Identity>>,
) -> Result<(Way<N::Stream>, InFlight), ProxyError> {
    let policy = &cluster.settings.retry;
    let mut tried = Tried::default();
    let mut attempt = 1;
    loop {
        let now = worker.now();
        let endpoint = worker
            .with_rng(|rng| balance::pick(cluster, &tried, now, rng))
            .ok_or_else(|| ProxyError::NoEndpoint { cluster: cluster.name().clone() })?;
        tried.insert(endpoint.address());
        let target = Target { cluster, endpoint: &endpoint, identity };
        let mut in_flight = InFlight::start(&endpoint, now);
        let error = match open(worker, target, now).await {
            Ok(way) => return Ok((way, in_flight)),
            Err(error) => error,
        };
        if error.is_endpoints_fault() {
            in_flight.failed(worker.now());
        }
        let Some(processed) = error.retry_class() else { return Err(error) };
        let facts = RetryFacts {
            processed,
            is_idempotent: false,
            is_replayable: true,
            attempt,
            max_retries: policy.max_retries,
            previous_attempts_upstream: 1,
        };
        if !attempts::may_repeat(cluster, facts, worker.now()) {
            return Err(error);
        }
        attempt += 1;
    }
}

async fn open<N: Net>(
    worker: &Worker<N>,
    target: Target<'_>,
    now: Instant,
) -> Result<Way<N::Stream>, ProxyError> {
    let limit = target.cluster.settings.timeouts.connect;
    if let Some(kept) = worker.tcp_pool.take(target, now) {
        match tokio::time::timeout(limit, begin(kept)).await {
            Ok(Begun::Accepted(session, cut)) => return Ok(Way::Framed(session, cut)),
            Ok(Begun::Refused(connection)) => return refused(worker, target, connection),
            // It was just being closed: that is no failure of the endpoint yet, a new connection tells.
            Ok(Begun::Broken) => {}
            // The way there is dead, and the other kept ones went the same way.
            Err(_elapsed) => {
                worker.tcp_pool.distrust(target);
                return Err(not_processed(target));
            }
        }
    }
    let connection = worker.tcp_pool.fresh(target, now).await.map_err(|e| connect_error(e, target))?;
    if !target.cluster.settings.transport.is_sidecar() {
        return Ok(Way::Bare(connection));
    }
    match tokio::time::timeout(limit, begin(connection)).await {
        Ok(Begun::Accepted(session, cut)) => Ok(Way::Framed(session, cut)),
        Ok(Begun::Refused(connection)) => refused(worker, target, connection),
        Ok(Begun::Broken) | Err(_) => Err(not_processed(target)),
    }
}

/// How a peer's sidecar takes a stream. No byte of the stream has been sent: unless it is accepted, the app there has not
/// seen it.
enum Begun<S> {
    Accepted(Session<Connection<S>>, Cut),
    /// Its app is not to be had; the connection is as good as before.
    Refused(Connection<S>),
    Broken,
}

async fn begin<S: Stream>(connection: Connection<S>) -> Begun<S> {
    let cut = connection.cut();
    let mut session = Session::new(connection);
    if session.control(Kind::Open, OPAQUE).await.is_err() {
        return Begun::Broken;
    }
    match session.next().await {
        Ok(Some((Kind::Accepted, _))) => Begun::Accepted(session, cut),
        Ok(Some((Kind::NotProcessed, _))) => Begun::Refused(session.into_stream()),
        Ok(Some(_) | None) | Err(_) => Begun::Broken,
    }
}

fn refused<N: Net>(
    worker: &Worker<N>,
    target: Target<'_>,
    connection: Connection<N::Stream>,
) -> Result<Way<N::Stream>, ProxyError> {
    worker.tcp_pool.give_back(connection, worker.now());
    Err(not_processed(target))
}

fn not_processed(target: Target<'_>) -> ProxyError {
    ProxyError::NotProcessed { endpoint: target.endpoint.address() }
}

/// Relays between an app and a peer's sidecar until both directions have ended, or until the peer is no longer trusted.
async fn carry<P, S>(plain: &mut P, session: &mut Session<S>, cut: Cut) -> End
where
    P: Stream,
    S: AsyncRead + AsyncWrite + Unpin,
{
    tokio::select! {
        biased;
        () = cut => {
            // What the app has got is not all there was: it must not take it for that.
            plain.reset_on_close();
            End::FarReset
        }
        (end, _carried) = copy::framed(plain, session) => end,
    }
}

/// Relays between an app and somebody without frames, as [`carry`].
async fn carry_bare<A, B>(a: &mut A, b: &mut B, cut: impl Future<Output = ()>) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    tokio::select! {
        biased;
        () = cut => Err(io::ErrorKind::ConnectionReset.into()),
        relayed = copy::plain(a, b) => relayed.map(drop),
    }
}

/// Serves the streams of a peer's sidecar, one after the other, on one connection.
pub async fn inbound_framed<N, S>(worker: &Arc<Worker<N>>, door: &Door, stream: S, cut: Cut)
where
    N: Net,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut session = Session::new(stream);
    let mut watcher = door.drain().watcher();
    loop {
        let opened = tokio::select! {
            biased;
            opened = tokio::time::timeout(SESSION_IDLE, session.next()) => opened,
            () = watcher.reached(Phase::Draining) => return,
        };
        match opened {
            Ok(Ok(Some((Kind::Open, _parameters)))) => {}
            Ok(Ok(_) | Err(_)) | Err(_) => return,
        }
        door.count_request();
        let mut record = RequestRecord::new(Arc::clone(door.counts()), worker.now());
        let is_reusable = inward_framed(worker, door, &mut session, cut.clone(), &mut record).await;
        record.finish();
        if !is_reusable {
            return;
        }
    }
}

/// One stream to the app; tells whether the connection can carry another.
async fn inward_framed<N, S>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    session: &mut Session<S>,
    cut: Cut,
    record: &mut RequestRecord,
) -> bool
where
    N: Net,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut app = match Box::pin(to_app(worker, door, record)).await {
        Ok(app) => app,
        Err(error) => {
            record.set_flag(error.flag());
            return session.control(Kind::NotProcessed, error.reason().as_bytes()).await.is_ok();
        }
    };
    if session.control(Kind::Accepted, &[]).await.is_err() {
        record.set_flag(ResponseFlag::DC);
        return false;
    }
    match carry(&mut app.connection, session, cut).await {
        End::Orderly => true,
        End::PlainReset => {
            record.set_flag(ResponseFlag::UC);
            false
        }
        End::FarReset => {
            record.set_flag(ResponseFlag::DC);
            false
        }
        End::Stalled => {
            record.set_flag(ResponseFlag::SI);
            false
        }
    }
}

/// Serves the one stream of a standard peer's connection.
pub async fn inbound_plain<N: Net, S: Stream>(worker: &Worker<N>, door: &Door, stream: S, cut: Cut) {
    Bare::new(worker, door).carry(worker, door, stream, cut).await;
}

/// A connection to the own app, and what is held for it.
#[derive(Debug)]
struct App<S> {
    connection: Connection<S>,
    _slot: circuit_breaker::RequestSlot,
}

async fn to_app<N: Net>(
    worker: &Worker<N>,
    door: &Door,
    record: &mut RequestRecord,
) -> Result<App<N::Stream>, ProxyError> {
    let snapshot = door.load(&worker.snapshots);
    door.admit(&snapshot, Asked::Bytes, || worker.clock.wall())?;
    let cluster = &destination::find(worker, door, &snapshot, None)?;
    let name = cluster.name();
    record.routed(Arc::clone(&cluster.runtime));
    let slot = circuit_breaker::admit_request(cluster, worker.load.is_over())
        .map_err(|cap| ProxyError::Overflow { cluster: name.clone(), cap })?;
    let now = worker.now();
    let endpoint = worker
        .with_rng(|rng| balance::pick(cluster, &Tried::default(), now, rng))
        .ok_or_else(|| ProxyError::NoEndpoint { cluster: name.clone() })?;
    let target = Target { cluster, endpoint: &endpoint, identity: None };
    let dialed = worker.tcp_pool.fresh(target, now).await;
    let connection = dialed.map_err(|error| connect_error(error, target))?;
    record.head_received(worker.now());
    Ok(App { connection, _slot: slot })
}
