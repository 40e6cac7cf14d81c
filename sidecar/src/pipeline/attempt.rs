//! One try at one endpoint: the retry loop's body.

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Instant};

use bytes::Bytes;
use h2::SendStream;
use http::{HeaderValue, Request, Response};

use super::{
    error::ProxyError,
    form, respond,
    verdict::{self, Told},
    wish::{Switch, Wish},
    worker::Worker,
};
use crate::{
    balance::InFlight,
    connect::{
        self,
        dial::Speak,
        http_client::{Http1, SendError},
        http2::{Opened, StreamSlot},
        place::Target,
        pool::Lease,
    },
    headers::framing,
    model::wire,
    net::Net,
    relay::{
        received::{Broken, Received},
        replay::RequestBody,
    },
    resilience::retry::Processed,
    telemetry::{record::Entry, trail::Reuse},
};

/// What an attempt speaks, and what it wishes for.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    /// What is spoken.
    pub(super) speak: Speak,
    /// The request's wish to switch protocols.
    pub(super) wish: Option<&'a Wish>,
    /// Where it is noted how the attempt goes.
    pub(super) entry: Entry<'a>,
}

/// A response head, and what must live as long as its body.
#[derive(Debug)]
pub struct Answer {
    /// The response.
    pub response: Response<Received>,
    /// What the endpoint's sidecar says if it answered itself: whether its app has seen the request.
    pub processed: Option<Processed>,
    /// What is held for the response.
    pub held: Held,
    /// The switch of protocols that the response is about.
    pub(super) switch: Option<Box<Switch>>,
}

/// What an attempt holds until its response has ended.
#[derive(Debug)]
pub struct Held {
    /// The endpoint's load.
    pub in_flight: InFlight,
    /// Whether the head said how the request ended.
    pub(super) told: Told,
    /// An HTTP/1 connection to give back. Dropped earlier it ends with its response.
    pub http1: Option<Http1>,
    /// A place on an HTTP/2 connection.
    _slot: Option<StreamSlot>,
}

impl Held {
    /// For a way that is nothing of HTTP.
    pub(super) fn of(in_flight: InFlight) -> Self {
        Self { in_flight, told: Told::Yes, http1: None, _slot: None }
    }
}

/// Sends a request to one endpoint and waits for the response's head. Dropping the future cancels the attempt (HTTP/2:
/// the stream is reset; HTTP/1: the connection is closed). So does `expiry`, with its error as the outcome.
///
/// # Errors
/// [`ProxyError`] of this attempt; the caller decides whether to make another.
pub(super) async fn attempt<N: Net>(
    worker: &Worker<N>,
    (target, mut in_flight): (Target<'_>, InFlight),
    way: Way<'_>,
    request: Box<Request<RequestBody>>,
    expiry: Pin<&mut impl Future<Output = ProxyError>>,
) -> Result<Answer, ProxyError> {
    let now = worker.now();
    let mut awaited = Awaited { worker, in_flight: &mut in_flight, entry: way.entry, is_over: false };
    let sent = tokio::select! {
        biased;
        sent = send(worker, target, (way, now), request) => sent,
        expired = expiry => Err(expired),
    };
    awaited.is_over = true;
    drop(awaited);
    match sent.and_then(|sent| judge(target, way, sent)) {
        Ok((Sent { response, http1, slot, stream: _ }, switch)) => {
            let is_sidecar = target.cluster.settings.transport.is_sidecar();
            let processed = if is_sidecar { respond::processed(response.headers()) } else { None };
            let (now, status) = (worker.now(), response.status());
            let said = if is_sidecar && (processed.is_some() || status.as_u16() >= 400) {
                response.headers().get(wire::REASON)
            } else {
                None
            };
            way.entry.answered(now, Some(status.as_u16()), said.map(HeaderValue::as_bytes));
            let told = verdict::head(worker, target.cluster, (&mut in_flight, now), &response);
            // Nor is a connection kept that carried such a wish: whether both ends still speak HTTP there is not for us to
            // find out.
            let http1 = http1.filter(|_| way.wish.is_none());
            Ok(Answer { response, processed, held: Held { in_flight, told, http1, _slot: slot }, switch })
        }
        Err(error) => {
            let now = worker.now();
            way.entry.failed(now, &respond::chain(&error));
            verdict::failed(worker, target.cluster, (&mut in_flight, now), &error);
            Err(error)
        }
    }
}

/// An attempt whose answer is awaited. Dropped before it is over, nobody waits for it any more.
struct Awaited<'a, N: Net> {
    worker: &'a Worker<N>,
    in_flight: &'a mut InFlight,
    entry: Entry<'a>,
    is_over: bool,
}

impl<N: Net> Drop for Awaited<'_, N> {
    fn drop(&mut self) {
        if !self.is_over {
            let now = self.worker.now();
            self.entry.ended(now);
            self.in_flight.abandoned(now);
        }
    }
}

/// A response head as it came.
struct Sent {
    response: Response<Received>,
    http1: Option<Http1>,
    slot: Option<StreamSlot>,
    /// What goes to the upstream behind an extended CONNECT.
    stream: Option<SendStream<Bytes>>,
}

/// Refuses a response that the two sides might read differently. Its connection is not used again.
fn judge(
    target: Target<'_>,
    way: Way<'_>,
    mut sent: Sent,
) -> Result<(Sent, Option<Box<Switch>>), ProxyError> {
    let (limits, endpoint) = (&target.cluster.limits, target.endpoint.address());
    let bad = |source| ProxyError::BadResponse { endpoint, source };
    let (head, body) = sent.response.into_parts();
    if !framing::fits(&head.headers, 0, limits.header_count, limits.header_bytes) {
        return Err(ProxyError::ResponseHeadersTooLarge { endpoint });
    }
    let checked = match way.wish {
        Some(_) => framing::check_switch(&head),
        None => framing::check_response(&head),
    };
    checked.map_err(bad)?;
    sent.response = Response::from_parts(head, body);
    let is_sidecar = target.cluster.settings.transport.is_sidecar();
    let switch = match way.wish {
        Some(wish) => wish.settle(sent.stream.take(), is_sidecar, &mut sent.response).map_err(bad)?,
        None => None,
    };
    Ok((sent, switch))
}

async fn send<N: Net>(
    worker: &Worker<N>,
    target: Target<'_>,
    (way, now): (Way<'_>, Instant),
    mut request: Box<Request<RequestBody>>,
) -> Result<Sent, ProxyError> {
    let endpoint = target.endpoint.address();
    let mut way = way;
    if way.speak == Speak::Either {
        // Boxed, so that other requests do not keep the room.
        let learned = Box::pin(worker.negotiator.learn(target, &worker.pool, || worker.now())).await;
        way.speak = learned.map_err(|e| connect_error(e, target))?;
        if way.speak == Speak::Http2 {
            form::make_http2(&mut request)?;
        }
        if let Some(wish) = way.wish {
            wish.dress(&mut request, way.speak);
        }
    }
    let lease = worker.pool.lease(target, way.speak, now).await.map_err(|e| connect_error(e, target))?;
    connected(worker, &lease, way.entry, now);
    let unsent = match send_on(lease, way, request).await? {
        Err(SendError::NotSent(request)) => request,
        Err(error) => return Err(send_error(error, endpoint)),
        Ok(sent) => return Ok(sent),
    };
    // The kept connection was just being closed and nothing of the request was written: that is no failure of the
    // endpoint yet, a new connection tells.
    // Boxed, as it is rare.
    Box::pin(async {
        let lease = worker.pool.fresh(target, way.speak, now).await.map_err(|e| connect_error(e, target))?;
        connected(worker, &lease, way.entry, now);
        send_on(lease, way, unsent).await?.map_err(|error| send_error(error, endpoint))
    })
    .await
}

/// Notes that there is a connection. `now` is when one was asked for: one that was there already took no time.
fn connected<N: Net>(worker: &Worker<N>, lease: &Lease, entry: Entry<'_>, now: Instant) {
    let (at, reuse) = if lease.is_reused() { (now, Reuse::Reused) } else { (worker.now(), Reuse::Fresh) };
    entry.connected(at, reuse, lease.peer());
}

async fn send_on(
    lease: Lease,
    way: Way<'_>,
    request: Box<Request<RequestBody>>,
) -> Result<Result<Sent, SendError>, ProxyError> {
    let sent = match lease {
        Lease::Http1 { mut connection, .. } => match connection.send(request).await {
            Ok(response) => Ok(Sent { response, http1: Some(connection), slot: None, stream: None }),
            Err(error) => Err(error),
        },
        Lease::Http2 { connection, slot, .. } if way.wish.is_some() => {
            if !connection.is_extended() {
                return Err(ProxyError::Unsupported("WebSocket over the endpoint's HTTP/2 (RFC 8441)"));
            }
            // Boxed, so that ordinary requests do not keep the room.
            let opened = Box::pin(connection.open(request)).await;
            opened.map(|Opened { response, stream }| Sent {
                response,
                http1: None,
                slot: Some(slot),
                stream: Some(stream),
            })
        }
        Lease::Http2 { connection, slot, .. } => {
            let sent = connection.send(request).await;
            sent.map(|response| Sent { response, http1: None, slot: Some(slot), stream: None })
        }
    };
    Ok(sent)
}

/// Why no connection could be had, as an error of the request.
pub(super) fn connect_error(source: connect::Error, target: Target<'_>) -> ProxyError {
    let endpoint = target.endpoint.address();
    if let connect::Error::Overflow(cap) = source {
        ProxyError::Overflow { cluster: target.cluster.name().clone(), cap }
    } else if source.is_identity() {
        ProxyError::Identity { endpoint, source }
    } else {
        ProxyError::Connect { endpoint, source }
    }
}

fn send_error(error: SendError, endpoint: SocketAddr) -> ProxyError {
    match error {
        SendError::NotSent(_) | SendError::Refused => ProxyError::NotProcessed { endpoint, said: None },
        SendError::Reset(source) => ProxyError::Reset { endpoint, source: Arc::new(source) },
        SendError::Protocol(Broken::Http1(source)) if source.is_parse_too_large() => {
            ProxyError::ResponseHeadersTooLarge { endpoint }
        }
        SendError::Protocol(source) => ProxyError::Protocol { endpoint, source: Arc::new(source) },
        SendError::Downstream => ProxyError::Downstream,
    }
}
