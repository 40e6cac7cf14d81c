//! READ THIS FIRST: one request, stage by stage.
//!
//! ```text
//!   allowed → head → route → admit → (pick → connect → send)* → response
//!     403      400    404     503      503  UH/UF/ID/UC  504
//! ```
//! Anything that can say no says it with a [`ProxyError`]; [`handle`] turns that into an answer. Dropping the future
//! cancels the upstream attempt. No retry is made after a response head went downstream.

use std::{convert::Infallible, sync::Arc};

use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;

use super::{
    attempt::{Answer, Held},
    attempts::Attempts,
    door::Door,
    error::ProxyError,
    head,
    respond::{self, Audience},
    worker::Worker,
};
use crate::{
    drain::Phase,
    headers::{hop_by_hop, reserved},
    model::{Cluster, Listener, ListenerKind, Snapshot, flag::ResponseFlag, wire},
    net::Net,
    relay::{
        activity::Activity,
        body::{self, OnEnd, ResponseBody},
        replay::{Replay, Rest},
    },
    resilience::{
        circuit_breaker::{self, RequestSlot},
        retry_budget,
    },
    route,
    telemetry::record::RequestRecord,
};

/// Longest part of an authority that an error message repeats.
const MAX_SHOWN_AUTHORITY: usize = 100;

/// Answers one request: the upstream's answer, or our own. Never fails; a broken downstream just drops it.
///
/// # Errors
/// None: the type is what hyper asks for.
pub async fn handle<N: Net>(
    worker: Arc<Worker<N>>,
    door: Arc<Door>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    door.count_request();
    let mut record = RequestRecord::new(Arc::clone(door.counts()), worker.now());
    let is_grpc = respond::is_grpc(request.headers());
    let version = request.version();
    let unanswered = Unanswered { worker: &worker, door: &door, is_http2: version == Version::HTTP_2 };
    let carried = carry(&worker, &door, request, &mut record).await;
    std::mem::forget(unanswered);
    // On doubt about the framing, the two sides may disagree about where the next request begins; and whoever may not
    // call any more has no use for the connection.
    let is_last = matches!(carried, Err(ProxyError::BadRequest(_) | ProxyError::NotAllowed));
    let mut response = match carried {
        Ok(carried) => deliver(&worker, carried, record),
        Err(error) => {
            let response = respond::respond(&error, is_grpc, door.audience());
            record.set_flag(error.flag());
            record.set_status(response.status().as_u16());
            record.head_received(worker.now());
            record.finish();
            tracing::debug!(
                listener = door.accepted.name(),
                error = respond::chain(&error),
                "answered ourselves"
            );
            response
        }
    };
    let is_draining = door.drain().phase() >= Phase::Draining;
    if version < Version::HTTP_2 && (is_draining || is_last) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Counts a stream that its sender resets before there is an answer: this is dropped with the request's future.
struct Unanswered<'a, N: Net> {
    worker: &'a Worker<N>,
    door: &'a Door,
    is_http2: bool,
}

impl<N: Net> Drop for Unanswered<'_, N> {
    fn drop(&mut self) {
        if self.is_http2 {
            let max = self.door.load(&self.worker.snapshots).config.settings.limits.max_resets;
            self.door.resets.count(self.worker.now(), max);
        }
    }
}

/// A response on its way, with everything that lives as long as its body.
struct Carried {
    answer: Answer,
    rest: Rest,
    cluster: Arc<Cluster>,
    activity: Activity,
    slot: RequestSlot,
    audience: Audience,
}

/// Carries one request to an upstream and returns the answer: the stages in order.
async fn carry<N: Net>(
    worker: &Worker<N>,
    door: &Door,
    request: Request<Incoming>,
    record: &mut RequestRecord,
) -> Result<Carried, ProxyError> {
    // One load for the whole request: a change in between must not pair an old route with a new cluster.
    let snapshot = door.load(&worker.snapshots);
    let (mut head, body) = request.into_parts();
    door.admit(&snapshot)?;
    let authority = head::judge(&head, &snapshot.config.settings.limits)?;
    let cluster = find_cluster(&snapshot, door.listener(&snapshot), &authority)?;
    record.routed(Arc::clone(&cluster.runtime));
    let slot = circuit_breaker::admit_request(&cluster, worker.load.is_over())
        .map_err(|cap| ProxyError::Overflow { cluster: cluster.name().clone(), cap })?;
    retry_budget::record_request(&cluster.runtime.retry_budget, worker.now());

    let previous_attempt = head::rewrite(worker, door, &snapshot, &cluster, &mut head);
    let speak = head::speak(door.listener(&snapshot), &cluster, &mut head);
    let activity = Activity::new(&worker.clock);
    let replay = Replay::new(body, cluster.settings.retry.replay_bytes, activity.clone());
    let authority = if authority.is_empty() { head::unnamed(&snapshot, &cluster) } else { authority };
    let attempts =
        Attempts { worker, snapshot: &snapshot, cluster: &cluster, authority, speak, previous_attempt };
    let (answer, rest) = attempts.run(head, replay, &activity).await?;
    Ok(Carried { answer, rest, cluster, activity, slot, audience: door.audience() })
}

fn find_cluster(
    snapshot: &Snapshot,
    listener: &Listener,
    authority: &str,
) -> Result<Arc<Cluster>, ProxyError> {
    let found = match &listener.kind {
        ListenerKind::OutboundHttp { default_cluster } => {
            route::find(snapshot, authority, default_cluster.as_ref())
        }
        ListenerKind::OutboundTcp { cluster } => snapshot.cluster(cluster),
        ListenerKind::Inbound(inbound) => snapshot.cluster(&inbound.app),
    };
    found.cloned().ok_or_else(|| ProxyError::NoRoute {
        authority: authority.chars().take(MAX_SHOWN_AUTHORITY).collect(),
    })
}

/// Makes an upstream's answer the downstream's.
fn deliver<N: Net>(
    worker: &Arc<Worker<N>>,
    carried: Carried,
    mut record: RequestRecord,
) -> Response<ResponseBody> {
    let Carried { answer, rest, cluster, activity, slot, audience } = carried;
    let (mut head, body) = answer.response.into_parts();
    hop_by_hop::strip_response(&mut head.headers);
    let is_sidecar = cluster.settings.transport.is_sidecar();
    let reason = reserved::take(&mut head.headers, wire::REASON);
    reserved::strip(&mut head.headers);
    // The far sidecar's reason explains its answer to the app here. Apps have none: their sidecars take it off.
    if let Some(reason) = reason.filter(|_| is_sidecar && audience == Audience::App) {
        head.headers.insert(wire::REASON, reason);
    }
    record.set_status(head.status.as_u16());
    record.head_received(worker.now());
    let ending = Ending {
        worker: Arc::clone(worker),
        record: Some(record),
        held: Some(answer.held),
        _rest: rest,
        _slot: slot,
    };
    let idle = cluster.settings.timeouts.stream_idle;
    let body = worker.streams.watch(body, activity, idle, Box::new(ending));
    head.version = Version::default();
    Response::from_parts(head, body)
}

/// What lives as long as a response's body.
struct Ending<N: Net> {
    worker: Arc<Worker<N>>,
    /// Dropped unfinished, it counts the downstream as gone.
    record: Option<RequestRecord>,
    held: Option<Held>,
    /// With the answer's end, nobody wants the rest of the request.
    _rest: Rest,
    _slot: RequestSlot,
}

impl<N: Net> OnEnd for Ending<N> {
    fn ended(&mut self, result: Result<(), &body::Error>) {
        let (Some(mut record), Some(mut held)) = (self.record.take(), self.held.take()) else { return };
        match result {
            Ok(()) => {
                if let Some((target, connection)) = held.http1 {
                    self.worker.pool.give_back(&target, connection, self.worker.now());
                }
            }
            Err(body::Error::Upstream(_)) => {
                held.in_flight.failed(self.worker.now());
                record.set_flag(ResponseFlag::UC);
            }
            Err(body::Error::Idle) => record.set_flag(ResponseFlag::SI),
        }
        record.finish();
    }
}
