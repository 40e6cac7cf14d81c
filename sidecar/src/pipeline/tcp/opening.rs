//! The way to an upstream: an endpoint is chosen, a connection had, and the stream taken there, or elsewhere.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{early::Early, outbound::Destination, parting::Parting};
use crate::{
    balance::InFlight,
    connect::{
        dial::{Connection, Speak},
        http_client::is_refusal,
        place::Target,
    },
    net::{Net, Stream},
    pipeline::{
        attempt::connect_error,
        attempts,
        course::{Course, Safety},
        error::ProxyError,
        failure, respond, trace, verdict,
        worker::Worker,
    },
    relay::{
        frame::{Kind, StreamKind},
        received::Broken,
        session::{Control, Session},
    },
    resilience::outcome::{self, Judgement},
    telemetry::{
        record::{Entry, RequestRecord},
        trail::{Attempt, Reuse},
    },
    tls::trust::Cut,
};

/// Why a sidecar refuses a stream that should not be taken elsewhere either.
const RATE_LIMITED: &[u8] = b"rate_limited";
/// How a peer's sidecar says that its rules do not allow a stream.
const NOT_AUTHORIZED: &[u8] = b"not_authorized";

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
    Destination { cluster, identity, speak, affinity, route: _, config: _ }: &Destination,
    opening: &mut Opening<'_, N::Stream>,
    record: &RequestRecord,
) -> Result<(Way<N::Stream>, InFlight), ProxyError> {
    let mut course = Course::new(cluster, &cluster.settings.policy.retry, 1).kept(*affinity);
    // Nothing of it has been seen by an app until a sidecar says so: it can go elsewhere. What may have been seen is
    // not known to be safe twice.
    let safety = Safety { is_idempotent: false, is_replayable: true };
    loop {
        let mut in_flight = course.pick(worker, Safety { is_idempotent: true, ..safety })?;
        let endpoint = Arc::clone(in_flight.endpoint());
        let target = Target { cluster, endpoint: &endpoint, identity: identity.as_ref() };
        let now = worker.now();
        let mut attempt = Attempt::new(endpoint.address(), record.after(now));
        (attempt.is_probe, attempt.span) = (in_flight.is_probe(), trace::of_stream(worker, record));
        let entry = record.attempt(attempt);
        let opened = open(worker, (target, *speak), opening, (now, entry)).await;
        let now = worker.now();
        let error = match opened {
            Ok(way) => {
                entry.answered(now, None, None);
                verdict::accepted(worker, cluster, (&mut in_flight, now));
                return Ok((way, in_flight));
            }
            Err(error) => error,
        };
        entry.failed(now, &respond::chain(&error));
        verdict::failed(worker, cluster, (&mut in_flight, now), &error);
        drop(in_flight);
        let Some(failure) = failure::of_error(&error) else { return Err(error) };
        let flag = Some(error.flag());
        entry.write(|attempt| (attempt.failure, attempt.flag) = (Some(failure.reason), flag));
        let repeated = course.repeat(worker, failure, safety, None);
        let Some(wait) = attempts::repeats(worker, repeated, entry) else { return Err(error) };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

async fn open<N: Net>(
    worker: &Arc<Worker<N>>,
    (target, speak): (Target<'_>, Speak),
    opening: &mut Opening<'_, N::Stream>,
    (now, entry): (Instant, Entry<'_>),
) -> Result<Way<N::Stream>, ProxyError> {
    let limit = target.cluster.settings.timeouts.connect;
    if let Some(kept) = worker.tcp_pool.take(target, now) {
        entry.connected(now, Reuse::Reused, kept.place().peer());
        match begin(worker, kept, opening, limit).await {
            // It was just being closed: that is no failure of the endpoint yet, a new connection tells.
            Begun::Closed => {}
            Begun::Broken(_) if !opening.early.has_sent_bytes() => {}
            // The way there is dead, and the other kept ones went the same way.
            Begun::Silent => {
                worker.tcp_pool.distrust(target);
                return Begun::Silent.judged(target, opening);
            }
            begun @ (Begun::Accepted(_)
            | Begun::Refused(_)
            | Begun::Limited
            | Begun::Denied
            | Begun::Broken(_)) => {
                return begun.judged(target, opening);
            }
        }
    }
    let connection = worker.tcp_pool.fresh(target, speak, now).await.map_err(|e| connect_error(e, target))?;
    entry.connected(worker.now(), Reuse::Fresh, connection.place().peer());
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
    /// Its app is not to be had, or not for this: what its reason says of it.
    Refused(Option<Judgement>),
    /// There were too many of late.
    Limited,
    /// Its rules do not allow it to us: nor would they at another endpoint.
    Denied,
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
            Self::Refused(said) => return Err(ProxyError::NotProcessed { endpoint, said }),
            Self::Denied => return Err(ProxyError::NotAuthorized),
            Self::Closed => return Err(ProxyError::NotProcessed { endpoint, said: None }),
            Self::Limited => {
                let cluster = target.cluster.name().clone();
                return Err(ProxyError::RateLimited { cluster, quota: None });
            }
            Self::Broken(error) => error,
            Self::Silent => io::ErrorKind::TimedOut.into(),
        };
        Err(if opening.early.has_sent_bytes() {
            ProxyError::Reset { endpoint, source: Arc::new(Broken::Opaque(source)) }
        } else {
            ProxyError::NotProcessed { endpoint, said: None }
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
        Ok(Ok(Some((Kind::NotProcessed, reason)))) => {
            if opening.early.has_sent() {
                // Where the next stream begins has to be agreed on first.
                parting.is_of_use = true;
            } else if let Some(session) = parting.take().filter(|_| is_whole) {
                worker.tcp_pool.give_back(session.into_stream(), worker.now());
            }
            match &*reason {
                RATE_LIMITED => Begun::Limited,
                NOT_AUTHORIZED => Begun::Denied,
                reason => Begun::Refused(outcome::of_reason(reason)),
            }
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
