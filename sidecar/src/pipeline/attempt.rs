//! One try at one endpoint: the retry loop's body.

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use http::{Request, Response};

use super::{error::ProxyError, form, respond, worker::Worker};
use crate::{
    balance::InFlight,
    connect::{
        self,
        dial::Speak,
        http_client::{Http1, SendError},
        http2::StreamSlot,
        pool::{Lease, Target},
    },
    headers::framing,
    net::Net,
    relay::{
        received::{Broken, Received},
        replay::RequestBody,
    },
    resilience::{circuit_breaker, retry::Processed},
};

/// A response head, and what must live as long as its body.
#[derive(Debug)]
pub struct Answer {
    /// The response.
    pub response: Response<Received>,
    /// What the endpoint's sidecar says if it answered itself: whether its app has seen the request.
    pub processed: Option<Processed>,
    /// What is held for the response.
    pub held: Held,
}

/// What an attempt holds until its response has ended.
#[derive(Debug)]
pub struct Held {
    /// The endpoint's load.
    pub in_flight: InFlight,
    /// An HTTP/1 connection to give back, with whom it belongs to.
    pub http1: Option<(Target, Http1)>,
    /// A place on an HTTP/2 connection.
    _slot: Option<StreamSlot>,
}

/// Sends a request to one endpoint and waits for the response's head. Dropping the future cancels the attempt (HTTP/2:
/// the stream is reset; HTTP/1: the connection is closed). So does `expiry`, with its error as the outcome.
///
/// # Errors
/// [`ProxyError`] of this attempt; the caller decides whether to make another.
pub async fn attempt<N: Net>(
    worker: &Worker<N>,
    target: &Target,
    speak: Speak,
    request: Request<RequestBody>,
    expiry: Pin<&mut impl Future<Output = ProxyError>>,
) -> Result<Answer, ProxyError> {
    let mut in_flight = InFlight::start(&target.endpoint, worker.now());
    let sent = tokio::select! {
        biased;
        sent = send(worker, target, speak, request) => sent,
        expired = expiry => Err(expired),
    };
    let sent = sent.and_then(|sent| judge(target, sent));
    let now = worker.now();
    match sent {
        Ok((response, http1, slot)) => {
            let is_sidecar = target.cluster.settings.transport.is_sidecar();
            let processed = if is_sidecar { respond::processed(response.headers()) } else { None };
            // A sidecar whose app is down says so faster than any app answers: that must not attract requests.
            match processed {
                Some(_failure) => in_flight.failed(now),
                None => in_flight.answered(now),
            }
            let http1 = http1.map(|connection| (target.clone(), connection));
            Ok(Answer { response, processed, held: Held { in_flight, http1, _slot: slot } })
        }
        Err(error) => {
            if error.is_endpoints_fault() {
                in_flight.failed(now);
            }
            Err(error)
        }
    }
}

/// Refuses a response that the two sides might read differently. Its connection is not used again.
fn judge(target: &Target, (response, http1, slot): Sent) -> Result<Sent, ProxyError> {
    let (head, body) = response.into_parts();
    let (limits, endpoint) = (&target.cluster.limits, target.endpoint.address());
    if !framing::fits(&head.headers, 0, limits.header_count, limits.header_bytes) {
        return Err(ProxyError::ResponseHeadersTooLarge { endpoint });
    }
    framing::check_response(&head).map_err(|source| ProxyError::BadResponse { endpoint, source })?;
    Ok((Response::from_parts(head, body), http1, slot))
}

type Sent = (Response<Received>, Option<Http1>, Option<StreamSlot>);

async fn send<N: Net>(
    worker: &Worker<N>,
    target: &Target,
    speak: Speak,
    mut request: Request<RequestBody>,
) -> Result<Sent, ProxyError> {
    let endpoint = target.endpoint.address();
    let mut speak = speak;
    if speak == Speak::Either {
        // Boxed: once per endpoint, and no request needs its room otherwise.
        let learned = Box::pin(worker.negotiator.learn(target, &worker.pool, || worker.now())).await;
        speak = learned.map_err(|e| connect_error(e, target))?;
        if speak == Speak::Http2 {
            form::make_http2(&mut request)?;
        }
    }
    let lease = worker.pool.lease(target, speak).await.map_err(|e| connect_error(e, target))?;
    let unsent = match send_on(lease, request).await {
        Err(SendError::NotSent(request)) => request,
        Err(error) => return Err(send_error(error, endpoint)),
        Ok(sent) => return Ok(sent),
    };
    // The kept connection was just being closed and nothing of the request was written: that is no failure of the
    // endpoint yet, a new connection tells.
    let lease = worker.pool.fresh(target, speak).await.map_err(|e| connect_error(e, target))?;
    send_on(lease, *unsent).await.map_err(|error| send_error(error, endpoint))
}

async fn send_on(lease: Lease, request: Request<RequestBody>) -> Result<Sent, SendError> {
    match lease {
        Lease::Http1 { mut connection } => {
            let response = connection.send(request).await?;
            Ok((response, Some(connection), None))
        }
        Lease::Http2 { connection, slot } => {
            let response = connection.send(request).await?;
            Ok((response, None, Some(slot)))
        }
    }
}

/// Why no connection could be had, as an error of the request.
pub(super) fn connect_error(source: connect::Error, target: &Target) -> ProxyError {
    let endpoint = target.endpoint.address();
    if matches!(source, connect::Error::Overflow) {
        let cap = circuit_breaker::Overflow::Connections;
        ProxyError::Overflow { cluster: target.cluster.name().clone(), cap }
    } else if source.is_identity() {
        ProxyError::Identity { endpoint, source }
    } else {
        ProxyError::Connect { endpoint, source }
    }
}

fn send_error(error: SendError, endpoint: SocketAddr) -> ProxyError {
    match error {
        SendError::NotSent(_) | SendError::Refused => ProxyError::NotProcessed { endpoint },
        SendError::Reset(source) => ProxyError::Reset { endpoint, source: Arc::new(source) },
        SendError::Protocol(Broken::Http1(source)) if source.is_parse_too_large() => {
            ProxyError::ResponseHeadersTooLarge { endpoint }
        }
        SendError::Protocol(source) => ProxyError::Protocol { endpoint, source: Arc::new(source) },
        SendError::Downstream => ProxyError::Downstream,
    }
}
