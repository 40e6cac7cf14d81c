//! The way to an upstream: an endpoint is chosen, a connection had, and the stream taken there, or elsewhere.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{early::Early, outbound::Destination, parting::Parting};
use crate::{
    balance::{self, InFlight, Tried},
    connect::{
        dial::{Connection, Speak},
        http_client::is_refusal,
        place::Target,
    },
    net::{Net, Stream},
    pipeline::{attempt::connect_error, attempts, error::ProxyError, worker::Worker},
    relay::{
        frame::{Kind, StreamKind},
        received::Broken,
        session::{Control, Session},
    },
    resilience::retry::RetryFacts,
    tls::trust::Cut,
};

/// The way to an upstream.
#[derive(Debug)]
pub(in crate::pipeline) enum Way<S> {
    /// To a sidecar: framed, reusable.
    Framed(Session<Connection<S>>, Cut),
    /// To a standard peer: bare bytes.
    Bare(Connection<S>),
}

/// What is opened.
#[derive(Debug)]
pub(super) struct Opening<'a, S> {
    /// What it is at first.
    pub(super) kind: StreamKind,
    /// What goes with it.
    pub(super) early: Early<'a, S>,
}

/// Opens a stream at one endpoint after the other, as the cluster's policy and budget allow.
pub(super) async fn open_somewhere<N: Net>(
    worker: &Arc<Worker<N>>,
    Destination { cluster, identity, speak }: &Destination,
    opening: &mut Opening<'_, N::Stream>,
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
        let target = Target { cluster, endpoint: &endpoint, identity: identity.as_ref() };
        let mut in_flight = InFlight::start(&endpoint, now);
        let error = match open(worker, (target, *speak), opening, now).await {
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
    worker: &Arc<Worker<N>>,
    (target, speak): (Target<'_>, Speak),
    opening: &mut Opening<'_, N::Stream>,
    now: Instant,
) -> Result<Way<N::Stream>, ProxyError> {
    let limit = target.cluster.settings.timeouts.connect;
    if let Some(kept) = worker.tcp_pool.take(target, now) {
        match begin(worker, kept, opening, limit).await {
            // It was just being closed: that is no failure of the endpoint yet, a new connection tells.
            Begun::Closed => {}
            Begun::Broken(_) if !opening.early.has_sent_bytes() => {}
            // The way there is dead, and the other kept ones went the same way.
            Begun::Silent => {
                worker.tcp_pool.distrust(target);
                return Begun::Silent.judged(target, opening);
            }
            begun @ (Begun::Accepted(_) | Begun::Refused | Begun::Broken(_)) => {
                return begun.judged(target, opening);
            }
        }
    }
    let connection = worker.tcp_pool.fresh(target, speak, now).await.map_err(|e| connect_error(e, target))?;
    if !target.cluster.settings.transport.is_sidecar() {
        opening.early.rewind();
        return Ok(Way::Bare(connection));
    }
    begin(worker, connection, opening, limit).await.judged(target, opening)
}

/// How a peer's sidecar takes a stream.
enum Begun<S> {
    /// Its app is connected.
    Accepted(Way<S>),
    /// Its app is not to be had.
    Refused,
    /// It ended the connection without a word about the stream.
    Closed,
    /// The connection broke.
    Broken(io::Error),
    /// It said nothing within the connect timeout.
    Silent,
}

impl<S: Stream> Begun<S> {
    /// What that means for the attempt: whether the app may have seen some of the stream.
    fn judged(self, target: Target<'_>, opening: &Opening<'_, S>) -> Result<Way<S>, ProxyError> {
        let endpoint = target.endpoint.address();
        let source = match self {
            Self::Accepted(way) => return Ok(way),
            Self::Refused | Self::Closed => return Err(ProxyError::NotProcessed { endpoint }),
            Self::Broken(error) => error,
            Self::Silent => io::ErrorKind::TimedOut.into(),
        };
        Err(if opening.early.has_sent_bytes() {
            ProxyError::Reset { endpoint, source: Arc::new(Broken::Opaque(source)) }
        } else {
            ProxyError::NotProcessed { endpoint }
        })
    }
}

async fn begin<N: Net>(
    worker: &Arc<Worker<N>>,
    connection: Connection<N::Stream>,
    opening: &mut Opening<'_, N::Stream>,
    limit: Duration,
) -> Begun<N::Stream> {
    let cut = connection.cut();
    // An undecided stream may be given up while it is being opened, and its connection is worth keeping.
    let is_of_use = opening.kind == StreamKind::Undecided;
    let mut parting = Parting::new(worker, Session::new(connection), is_of_use);
    let Some(session) = &mut parting.session else { return Begun::Closed };
    let answer = tokio::time::timeout(limit, ask(session, opening)).await;
    let is_whole = !session.is_mid_frame();
    parting.is_of_use = false;
    match answer {
        Ok(Ok(Some((Kind::Accepted, _)))) if is_whole => match parting.take() {
            Some(session) => Begun::Accepted(Way::Framed(session, cut)),
            None => Begun::Closed,
        },
        Ok(Ok(Some((Kind::NotProcessed, _)))) => {
            if opening.early.has_sent() {
                // Where the next stream begins has to be agreed on first.
                parting.is_of_use = true;
            } else if let Some(session) = parting.take().filter(|_| is_whole) {
                worker.tcp_pool.give_back(session.into_stream(), worker.now());
            }
            Begun::Refused
        }
        Ok(Ok(None | Some((Kind::Rst, _)))) => Begun::Closed,
        Ok(Err(error)) if is_refusal(&error) => Begun::Closed,
        Ok(Ok(Some(_))) => Begun::Broken(io::ErrorKind::InvalidData.into()),
        Ok(Err(error)) => Begun::Broken(error),
        Err(_elapsed) => Begun::Silent,
    }
}

/// Sends `OPEN` with what the stream says so far, and behind it what more it says, until there is an answer.
async fn ask<S: Stream>(
    session: &mut Session<Connection<S>>,
    Opening { kind, early }: &mut Opening<'_, S>,
) -> io::Result<Option<Control>> {
    early.rewind();
    // Most of it has come while there was no connection yet: that saves a packet.
    early.hear_now();
    let (bytes, has_ended) = early.send();
    // What the peer has said stands, also if it does not hear us any more: it may have closed a kept connection.
    let mut is_heard = session.open(*kind, bytes, has_ended).await.is_ok();
    loop {
        tokio::select! {
            biased;
            answer = session.next() => return answer,
            () = early.hear(), if is_heard => {
                let (bytes, has_ended) = early.send();
                is_heard = session.early(bytes, has_ended).await.is_ok();
            }
        }
    }
}
