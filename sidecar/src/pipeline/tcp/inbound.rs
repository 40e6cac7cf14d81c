//! Streams of peers on their way to the own app.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{
    Bare, carry,
    look::{Found, look},
    within::{self, Back},
};
use crate::{
    balance::{self, Ask, Pick, Tried},
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
    pipeline::{
        attempt::connect_error,
        authorize, destination,
        door::Door,
        error::ProxyError,
        http_connection::Wire,
        live, notes,
        rate_limit::{self, Charge},
        respond, trace,
        worker::Worker,
    },
    relay::{
        copy::{Counted, End, Setup},
        frame::{Kind, MAX_EARLY_BYTES, StreamKind},
        session::Session,
    },
    resilience::circuit_breaker,
    telemetry::{
        record::RequestRecord,
        trail::{Attempt, Reuse, Traffic},
    },
    tls::trust::Cut,
};

/// A kept connection without a stream is closed by its callee after this: longer than any caller keeps it, so that the
/// caller closes first.
const SESSION_IDLE: Duration = Duration::from_secs(3600);
/// Time for saying so.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for a caller to end a stream that was refused, after its first bytes. It has nothing else to do.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a stream was cut off that began as bytes and became a request.
const LATE_REQUEST: &str = "late_request";

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
                let back = match (StreamKind::read(&parameters), protocol(worker, door)) {
                    (Ok(kind), Protocol::Http) => Box::pin(within::serve(worker, door, session, kind)).await,
                    (kind, protocol) => {
                        let looks = protocol == Protocol::Detect;
                        match inward_framed(worker, door, &mut session, (kind, looks, &cut)).await {
                            After::Free => Some(Back { session, is_refused: false }),
                            After::Refused => Some(Back { session, is_refused: true }),
                            After::Over => None,
                            After::Http(wire, first) => {
                                Box::pin(within::requests(worker, door, session, (first, wire))).await
                            }
                        }
                    }
                };
                match back {
                    Some(back) => (session, is_refused) = (back.session, back.is_refused),
                    None => return,
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

/// What streams that come in there are to be: where this caller may have requests answered and no bytes carried, HTTP.
fn protocol<N: Net>(worker: &Worker<N>, door: &Door) -> Protocol {
    let snapshot = door.load(&worker.snapshots);
    match door.inbound(&snapshot).map_or(Protocol::Http, |inbound| inbound.protocol) {
        Protocol::Detect if authorize::is_for_requests(door, &snapshot) => Protocol::Http,
        protocol @ (Protocol::Detect | Protocol::Http | Protocol::Tcp) => protocol,
    }
}

/// What a connection is good for after a stream.
enum After {
    /// The next one.
    Free,
    /// The next one; but first the caller may end the one that was refused.
    Refused,
    /// Nothing.
    Over,
    /// It carries requests that begin with this, and nothing else has been done about them.
    Http(Wire, Bytes),
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
    (kind, looks, cut): (Result<StreamKind, &'static str>, bool, &Cut),
) -> After
where
    N: Net,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut record = door.record(worker, Traffic::Stream, worker.now());
    // Before it is admitted: whatever changes from here on ends it.
    let live = live::stream(worker, door);
    let (kind, mut app) = match take(worker, door, kind, &mut record).await {
        Ok(taken) => taken,
        Err(reason) => {
            door.count_request();
            record.finish();
            let told = session.control(Kind::NotProcessed, reason.as_bytes()).await;
            return if told.is_ok() { After::Refused } else { After::Over };
        }
    };
    let flag = match session.accept(kind).await {
        Ok(()) => {
            let (down, up) = match found(worker, (door, looks), &mut app, (session, live.as_ref())).await {
                // Nothing of it passes, if it may not go on.
                Found::Opaque { caller, app, passed } => {
                    record.moved().from_caller(passed);
                    (caller, app)
                }
                Found::Http(wire, first, has_spoken) => {
                    record.discard();
                    app.needless(worker, has_spoken).await;
                    return After::Http(wire, first);
                }
                Found::Late => return late(door, session, app, record).await,
            };
            let has_said = !up.bytes.is_empty();
            let count = Some(Counted::SecondCalls(Arc::clone(record.moved())));
            let setup = Setup { up, down, half_open: app.half_open, count };
            let cut = async {
                live::either(cut.clone(), live::revoked(live.as_ref())).await;
            };
            match carry(&mut app.connection, session, cut, setup).await {
                End::Cancelled { has_spoken } => {
                    record.discard();
                    app.needless(worker, has_spoken || has_said).await;
                    return After::Free;
                }
                End::Orderly => None,
                End::PlainReset => Some(ResponseFlag::UC),
                End::FarReset if live::is_revoked(live.as_ref()) => Some(denied(session, &record).await),
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

/// Aborts a stream that may not go on.
async fn denied<S>(session: &mut Session<S>, record: &RequestRecord) -> ResponseFlag
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    record.write(|trail| trail.reason = Some(live::REASON.into()));
    abort(session).await;
    ResponseFlag::RBAC
}

/// Tells the caller of an abort, if that can be said: in the middle of a frame its connection's end says it.
async fn abort<S: AsyncRead + AsyncWrite + Unpin>(session: &mut Session<S>) {
    if !session.is_mid_frame() {
        drop(tokio::time::timeout(CLOSE_TIMEOUT, session.control(Kind::Rst, &[])).await);
    }
}

/// What a stream that was accepted carries; counted. Nothing, if it may not go on, or is
/// not looked at.
async fn found<N, S>(
    worker: &Worker<N>,
    (door, looks): (&Door, bool),
    app: &mut App<N::Stream>,
    (session, live): (&mut Session<S>, Option<&live::Guard>),
) -> Found
where
    N: Net,
    S: AsyncRead + AsyncWrite + Unpin,
{
    if !looks {
        return Found::default();
    }
    let begun = worker.now();
    // Boxed for its own time: a stream may last for days.
    let looking = Box::pin(look(&mut app.connection, session, || worker.now()));
    let Some((found, spoken, how)) = live::either(looking, live::revoked(live)).await else {
        return Found::default();
    };
    // One that its caller has no use for was no stream.
    if !session.is_cancelled() {
        door.counts().detections.record(Some(spoken), how, worker.now().saturating_duration_since(begun));
    }
    found
}

/// Aborts a stream that has become a request too late to be served as one.
async fn late<A, S>(door: &Door, session: &mut Session<S>, app: App<A>, record: RequestRecord) -> After
where
    A: Stream,
    S: AsyncRead + AsyncWrite + Unpin,
{
    app.connection.reset_on_close();
    door.count_request();
    record.set_flag(ResponseFlag::DPE);
    record.write(|trail| trail.reason = Some(LATE_REQUEST.into()));
    record.finish();
    tracing::debug!(listener = door.accepted.name(), "a request that came as bytes was cut off");
    abort(session).await;
    After::Over
}

/// Takes a stream if its app is to be had, or says why not: for the record, and for the caller.
async fn take<N: Net>(
    worker: &Worker<N>,
    door: &Door,
    kind: Result<StreamKind, &'static str>,
    record: &mut RequestRecord,
) -> Result<(StreamKind, App<N::Stream>), &'static str> {
    let kind = kind.inspect_err(|reason| {
        record.set_flag(ResponseFlag::DPE);
        record.write(|trail| trail.reason = Some((*reason).into()));
    })?;
    let app = Box::pin(to_app(worker, door, record, kind)).await;
    app.map(|app| (kind, app)).map_err(|error| {
        notes::refused(worker, record, &error);
        error.reason()
    })
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
    charge: Option<Charge>,
}

impl<S: Stream> App<S> {
    /// No stream has been carried to it: none is charged for.
    pub(super) fn unused<N: Net<Stream = S>>(mut self, worker: &Worker<N>) -> Self {
        if let Some(charge) = self.charge.take() {
            charge.give_back(worker.now());
        }
        self
    }

    /// There is no stream for it: somebody wants something else of this app, and HTTP before all. Whether it has said
    /// something, which that must not get.
    async fn needless<N: Net<Stream = S>>(self, worker: &Worker<N>, has_spoken: bool) {
        let app = self.unused(worker);
        if let Some(limits) = app.http1.filter(|_| !has_spoken) {
            worker.pool.adopt(app.connection, &limits, worker.now()).await;
        }
    }
}

/// Connects to the own app; what that says is told in `record`.
pub(super) async fn to_app<N: Net>(
    worker: &Worker<N>,
    door: &Door,
    record: &mut RequestRecord,
    kind: StreamKind,
) -> Result<App<N::Stream>, ProxyError> {
    let snapshot = door.load(&worker.snapshots);
    drop(trace::begin((worker, door), &snapshot.config, None, record));
    {
        let successor = door.accepted.successor(&worker.snapshots);
        let rules = successor.as_ref().unwrap_or(&snapshot);
        door.admit(rules, Asked::Bytes, || worker.clock.wall())?;
        authorize::stream(door, rules, kind, record)?;
    }
    let cluster = &destination::find(worker, door, &snapshot, None)?;
    let name = cluster.name();
    notes::routed((worker, door), &snapshot.config, (cluster, None), record);
    let charge = rate_limit::admit_stream(door, cluster, worker.now())?;
    let slot = circuit_breaker::admit_request(cluster, door.load_of_caller(), worker.load.is_over())
        .map_err(|cap| ProxyError::Overflow { cluster: name.clone(), cap })?;
    let now = worker.now();
    let Pick { endpoint, .. } = worker
        .with_rng(|rng| balance::pick(cluster, Ask::plain(&Tried::default()), now, rng))
        .ok_or_else(|| ProxyError::no_endpoint(cluster, now))?;
    let target = Target { cluster, endpoint: &endpoint, identity: None };
    // One that came before was for an app that speaks first: nothing was sent, and this is no repetition.
    record.write(|trail| (trail.attempts, trail.answered) = Default::default());
    let entry = record.attempt(Attempt::new(endpoint.address(), record.after(now)));
    let dialed = worker.tcp_pool.fresh(target, Speak::Tcp, now).await;
    let connection = dialed.map_err(|error| {
        let error = connect_error(error, target);
        entry.failed(worker.now(), &respond::chain(&error));
        error
    })?;
    let open = worker.now();
    entry.connected(open, Reuse::Fresh, None);
    entry.answered(open, None, None);
    record.head_received(open);
    let may_be_http1 = door.inbound(&snapshot).is_some_and(|inbound| {
        inbound.protocol == Protocol::Detect && inbound.app_protocol != AppProtocol::Http2
    });
    let half_open = cluster.settings.timeouts.half_open;
    let http1 = may_be_http1.then(|| Arc::clone(&cluster.limits));
    Ok(App { connection, _slot: slot, half_open, http1, charge })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::explain;

    #[test]
    fn why_a_stream_was_cut_off_or_not_understood_has_a_remedy() {
        let unread = [&b"kind"[..], b"kind=new"].map(|parameters| StreamKind::read(parameters).unwrap_err());
        for reason in [LATE_REQUEST, live::REASON].into_iter().chain(unread) {
            assert!(explain::of_reason(reason).is_some(), "{reason}");
        }
    }
}
