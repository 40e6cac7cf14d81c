//! Streams of peers on their way to the own app.

use std::{io, sync::Arc, time::Duration};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{Bare, carry, within};
use crate::{
    balance::{self, Tried},
    connect::{
        dial::{Connection, Speak},
        place::Target,
    },
    drain::Phase,
    model::{
        cluster::AppProtocol,
        flag::ResponseFlag,
        listener::{Asked, Protocol},
        settings::Limits,
    },
    net::{Net, Stream},
    pipeline::{attempt::connect_error, destination, door::Door, error::ProxyError, worker::Worker},
    relay::{
        copy::{End, Setup},
        frame::{Kind, MAX_EARLY_BYTES, StreamKind},
        session::Session,
    },
    resilience::circuit_breaker,
    telemetry::record::RequestRecord,
    tls::trust::Cut,
};

/// A kept connection without a stream is closed by its callee after this: longer than any caller keeps it, so that the
/// caller closes first.
const SESSION_IDLE: Duration = Duration::from_secs(3600);
/// Time for saying so.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for a caller to end a stream that was refused, after its first bytes. It has nothing else to do.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the streams of a peer's sidecar, one after the other, on one connection.
pub async fn inbound_framed<N, S>(worker: &Arc<Worker<N>>, door: &Door, stream: S, cut: Cut)
where
    N: Net,
    S: Stream,
{
    let mut session = Session::new(stream);
    let mut watcher = door.drain().watcher();
    let mut is_refused = false;
    loop {
        let frame = tokio::select! {
            biased;
            frame = tokio::time::timeout(SESSION_IDLE, session.next()) => frame,
            () = watcher.reached(Phase::Draining) => return close(session).await,
        };
        match frame {
            Ok(Ok(Some((Kind::Open, parameters)))) => {
                is_refused = false;
                match (StreamKind::read(&parameters), carries_http(worker, door)) {
                    (Ok(kind), true) => match Box::pin(within::serve(worker, door, session, kind)).await {
                        Some(back) => (session, is_refused) = (back.session, back.is_refused),
                        None => return,
                    },
                    (kind, _) => match inward_framed(worker, door, &mut session, (kind, &cut)).await {
                        After::Free => {}
                        After::Refused => is_refused = true,
                        After::Over => return,
                    },
                }
            }
            Ok(Ok(Some((kind, _)))) if is_refused => {
                let ended = tokio::time::timeout(REFUSED_TIMEOUT, end_refused(&mut session, kind)).await;
                if !matches!(ended, Ok(Ok(()))) {
                    return;
                }
                is_refused = false;
            }
            Err(_elapsed) => return close(session).await,
            Ok(Ok(_) | Err(_)) => return,
        }
    }
}

/// Whether all that comes in there is to be HTTP.
fn carries_http<N: Net>(worker: &Worker<N>, door: &Door) -> bool {
    let snapshot = door.load(&worker.snapshots);
    door.inbound(&snapshot).is_some_and(|inbound| inbound.protocol == Protocol::Http)
}

/// What a connection is good for after a stream.
enum After {
    /// The next one.
    Free,
    /// The next one; but first the caller may end the one that was refused.
    Refused,
    /// Nothing.
    Over,
}

/// Ends a connection without a stream. A caller whose next stream is on its way knows by this that it was not taken.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(session: Session<S>) {
    // A caller that does not take it learns from the connection's end.
    drop(tokio::time::timeout(CLOSE_TIMEOUT, session.into_stream().shutdown()).await);
}

/// Throws the first bytes of a refused stream away, from this frame up to the caller's [`Kind::Cancel`], and answers that.
async fn end_refused<S>(session: &mut Session<S>, first: Kind) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut kind, mut left) = (first, MAX_EARLY_BYTES);
    while kind != Kind::Cancel {
        left = match kind {
            Kind::Data => left.checked_sub(session.skip().await?),
            Kind::Fin => Some(left),
            Kind::Open | Kind::Accepted | Kind::Rst | Kind::NotProcessed | Kind::Cancel => None,
        }
        .ok_or(io::ErrorKind::InvalidData)?;
        kind = session.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?.0;
    }
    session.control(Kind::Fin, &[]).await
}

/// One stream to the app, counted.
async fn inward_framed<N, S>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    session: &mut Session<S>,
    (kind, cut): (Result<StreamKind, &'static str>, &Cut),
) -> After
where
    N: Net,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut record = RequestRecord::new(Arc::clone(door.counts()), worker.now());
    let (kind, mut app) = match take(worker, door, kind, &mut record).await {
        Ok(taken) => taken,
        Err((flag, reason)) => {
            door.count_request();
            record.set_flag(flag);
            record.finish();
            let told = session.control(Kind::NotProcessed, reason.as_bytes()).await;
            return if told.is_ok() { After::Refused } else { After::Over };
        }
    };
    let flag = match session.accept(kind).await {
        Ok(()) => {
            let setup = Setup { half_open: app.half_open, ..Setup::default() };
            match carry(&mut app.connection, session, cut.clone(), setup).await {
                End::Cancelled { has_spoken } => {
                    record.discard();
                    if !has_spoken {
                        app.keep(worker).await;
                    }
                    return After::Free;
                }
                End::Orderly => None,
                End::PlainReset => Some(ResponseFlag::UC),
                End::FarReset => Some(ResponseFlag::DC),
                End::Stalled => Some(ResponseFlag::SI),
            }
        }
        Err(_gone) => Some(ResponseFlag::DC),
    };
    door.count_request();
    if let Some(flag) = flag {
        record.set_flag(flag);
    }
    record.finish();
    if flag.is_none() { After::Free } else { After::Over }
}

/// Takes a stream if its app is to be had, or says why not: for the record, and for the caller.
async fn take<N: Net>(
    worker: &Worker<N>,
    door: &Door,
    kind: Result<StreamKind, &'static str>,
    record: &mut RequestRecord,
) -> Result<(StreamKind, App<N::Stream>), (ResponseFlag, &'static str)> {
    let kind = kind.map_err(|reason| (ResponseFlag::DPE, reason))?;
    let app = Box::pin(to_app(worker, door, record)).await;
    app.map(|app| (kind, app)).map_err(|error| (error.flag(), error.reason()))
}

/// Serves the one stream of a standard peer's connection.
pub async fn inbound_plain<N: Net, S: Stream>(worker: &Worker<N>, door: &Door, stream: S, cut: Cut) {
    Bare::new(worker, door).carry(worker, door, stream, cut).await;
}

/// A connection to the own app, and what is held for it.
#[derive(Debug)]
pub(super) struct App<S> {
    pub(super) connection: Connection<S>,
    _slot: circuit_breaker::RequestSlot,
    pub(super) half_open: Option<Duration>,
    /// For what it may be of use after a stream on which nothing was said: HTTP/1, with these limits.
    http1: Option<Arc<Limits>>,
}

impl<S: Stream> App<S> {
    /// The caller has found out that it wants something else of this app, and HTTP before all.
    async fn keep<N: Net<Stream = S>>(self, worker: &Worker<N>) {
        if let Some(limits) = &self.http1 {
            worker.pool.adopt(self.connection, limits, worker.now()).await;
        }
    }
}

/// Connects to the own app; what that says is told in `record`.
pub(super) async fn to_app<N: Net>(
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
    let dialed = worker.tcp_pool.fresh(target, Speak::Tcp, now).await;
    let connection = dialed.map_err(|error| connect_error(error, target))?;
    record.head_received(worker.now());
    let may_be_http1 = door.inbound(&snapshot).is_some_and(|inbound| {
        inbound.protocol == Protocol::Detect && inbound.app_protocol != AppProtocol::Http2
    });
    let half_open = cluster.settings.timeouts.half_open;
    let http1 = may_be_http1.then(|| Arc::clone(&cluster.limits));
    Ok(App { connection, _slot: slot, half_open, http1 })
}
