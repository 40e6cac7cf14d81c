//! READ THIS FIRST: one request, stage by stage.
//!
//! ```text
//!   allowed → head → route → admit → (pick → connect → send)* → response
//!     403      400    404     503      503  UH/UF/ID/UC  504
//! ```
//! A request for a tunnel (CONNECT of the own app) goes by [`super::tunnel`], which opens a stream instead.
//!
//! Anything that can say no says it with a [`ProxyError`]; [`handle`] turns that into an answer. Dropping the future
//! cancels the upstream attempt. No retry is made after a response head went downstream.

use std::{convert::Infallible, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use hyper::body::Incoming;

use super::{
    attempt::{Answer, Held},
    attempts::Attempts,
    destination,
    door::Door,
    error::ProxyError,
    head,
    respond::{self, Audience},
    switched::Switched,
    tunnel::{self, Tunnel},
    wish::{Switch, Wish},
    worker::Worker,
};
use crate::{
    connect::dial::Speak,
    drain::Phase,
    headers::{hop_by_hop, reserved},
    model::{Cluster, flag::ResponseFlag, wire},
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
    telemetry::record::RequestRecord,
};

/// Answers one request: the upstream's answer, or our own. Never fails; a broken downstream just drops it.
///
/// # Errors
/// None: the type is what hyper asks for.
pub async fn handle<N: Net>(
    worker: Arc<Worker<N>>,
    door: Arc<Door>,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    door.count_request();
    let mut record = RequestRecord::new(Arc::clone(door.counts()), worker.now());
    let wish = Wish::of(&worker, &door, &mut request);
    // What follows the head may be meant for another protocol: it must not be taken for a request.
    let is_leaving = wish.is_some() || request.method() == Method::CONNECT;
    let is_grpc = !is_leaving && respond::is_grpc(request.headers());
    let version = request.version();
    let unanswered = Unanswered { worker: &worker, door: &door, is_http2: version == Version::HTTP_2 };
    let outcome = if tunnel::is_asked(&door, &request) {
        // Boxed, so that other requests do not keep the room.
        Box::pin(tunnel::open(&worker, &door, request, &mut record)).await.map(Outcome::Tunnel)
    } else {
        carry(&worker, &door, request, wish.as_deref(), &mut record).await.map(Outcome::Answer)
    };
    std::mem::forget(unanswered);
    // On doubt about the framing, the two sides may disagree about where the next request begins; and whoever may not
    // call any more has no use for the connection.
    let is_last = is_leaving || matches!(outcome, Err(ProxyError::BadRequest(_) | ProxyError::NotAllowed));
    let mut response = match outcome {
        Ok(Outcome::Tunnel(tunnel)) => tunnel.begin(&worker, &door, record),
        Ok(Outcome::Answer(carried)) => {
            // In HTTP/1, trailers would end the body as if it were whole.
            let ends_in_status = is_grpc && version == Version::HTTP_2;
            deliver(&worker, &door, carried, (wish, record), ends_in_status)
        }
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
    if version < Version::HTTP_2 && !door.is_switched() && (is_draining || is_last) {
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

/// What a request has come to.
enum Outcome {
    Answer(Carried),
    Tunnel(Tunnel),
}

/// A response on its way, with everything that lives as long as its body.
struct Carried {
    answer: Answer,
    rest: Rest,
    cluster: Arc<Cluster>,
    activity: Activity,
    slot: RequestSlot,
}

/// Carries one request to an upstream and returns the answer: the stages in order.
async fn carry<N: Net>(
    worker: &Worker<N>,
    door: &Door,
    request: Request<Incoming>,
    wish: Option<&Wish>,
    record: &mut RequestRecord,
) -> Result<Carried, ProxyError> {
    // One load for the whole request: a change in between must not pair an old route with a new cluster.
    let snapshot = door.load(&worker.snapshots);
    let (mut head, body) = request.into_parts();
    door.admit(&snapshot, head::asked(&head, &body, wish), || worker.clock.wall())?;
    let authority = head::judge(&head, wish, &snapshot.config.settings.limits)?;
    let cluster = destination::find(worker, door, &snapshot, Some(&authority))?;
    head::check_scheme(&head, door.listener(&snapshot), &cluster)?;
    record.routed(Arc::clone(&cluster.runtime));
    let slot = circuit_breaker::admit_request(&cluster, worker.load.is_over())
        .map_err(|cap| ProxyError::Overflow { cluster: cluster.name().clone(), cap })?;
    retry_budget::record_request(&cluster.runtime.retry_budget, worker.now());

    let previous_attempt = head::rewrite(worker, door, &snapshot, &cluster, &mut head);
    let speak = head::speak(door.inbound(&snapshot), &cluster, wish, &mut head);
    // RFC 9110 §7.8: a wish may be ignored. Where the next hop has no form for it, this is an ordinary request.
    let wish = wish.filter(|wish| speak == Speak::Http1 || !wish.is_http1_only());
    let activity = Activity::new(&worker.clock);
    let replay = Replay::new(body, cluster.settings.retry.replay_bytes, activity.clone());
    let authority = if authority.is_empty() { head::unnamed(&snapshot, &cluster) } else { authority };
    let attempts =
        Attempts { worker, snapshot: &snapshot, cluster: &cluster, authority, speak, wish, previous_attempt };
    let (answer, rest) = attempts.run(&mut head, replay, &activity).await?;
    Ok(Carried { answer, rest, cluster, activity, slot })
}

/// Makes an upstream's answer the downstream's.
fn deliver<N: Net>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    mut carried: Carried,
    (wish, mut record): (Option<Box<Wish>>, RequestRecord),
    ends_in_status: bool,
) -> Response<ResponseBody> {
    let response = &mut carried.answer.response;
    clean(response.headers_mut(), &carried.cluster, door.audience());
    *response.version_mut() = Version::default();
    let wish = match (wish, carried.answer.switch.take()) {
        (Some(wish), Some(switch)) => return switch_over(worker, door, carried, (*wish, *switch), record),
        (wish, _) => wish,
    };
    let Carried { answer, rest, cluster, activity, slot } = carried;
    let (mut head, body) = answer.response.into_parts();
    record.set_status(head.status.as_u16());
    record.head_received(worker.now());
    if let Some(wish) = wish {
        head.status = wish.refusal(&mut head.headers, head.status);
    }
    let ending = Ending {
        worker: Arc::clone(worker),
        record: Some(record),
        held: Some(answer.held),
        ends_in_status: ends_in_status && respond::is_grpc(&head.headers),
        _rest: rest,
        _slot: slot,
    };
    let idle = cluster.settings.timeouts.stream_idle;
    let body = worker.streams.watch(body, activity, idle, Box::new(ending));
    Response::from_parts(head, body)
}

/// Tells the downstream of a switch that the upstream has made; what follows is relayed.
fn switch_over<N: Net>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    carried: Carried,
    (wish, switch): (Wish, Switch),
    mut record: RequestRecord,
) -> Response<ResponseBody> {
    let Carried { answer, rest, cluster, activity: _, slot } = carried;
    let mut response = answer.response.map(|_taken| ResponseBody::local(""));
    *response.status_mut() = wish.consent(response.headers_mut(), &switch);
    record.set_status(response.status().as_u16());
    record.head_received(worker.now());
    let (upstream, held) = (switch.upstream, answer.held);
    let switched = Box::new(Switched { upstream, cluster, record, held, rest, slot });
    let downstream = if wish.is_from_http1() { None } else { Some(wish.into_downstream()) };
    switched.start(worker, door, downstream);
    response
}

/// Takes off an answer's head what was meant for us.
fn clean(headers: &mut HeaderMap, cluster: &Cluster, audience: Audience) {
    hop_by_hop::strip_response(headers);
    let is_sidecar = cluster.settings.transport.is_sidecar();
    let reason = reserved::take(headers, wire::REASON);
    reserved::strip(headers);
    // The far sidecar's reason explains its answer to the app here. Apps have none: their sidecars take it off.
    if let Some(reason) = reason.filter(|_| is_sidecar && audience == Audience::App) {
        headers.insert(wire::REASON, reason);
    }
}

/// What lives as long as a response's body.
struct Ending<N: Net> {
    worker: Arc<Worker<N>>,
    /// Dropped unfinished, it counts the downstream as gone.
    record: Option<RequestRecord>,
    held: Option<Held>,
    /// Whether an answer that breaks off ends with a gRPC status: a call over a lost connection is `UNAVAILABLE`, and
    /// of a reset gRPC's clients make something else.
    ends_in_status: bool,
    /// With the answer's end, nobody wants the rest of the request.
    _rest: Rest,
    _slot: RequestSlot,
}

impl<N: Net> OnEnd for Ending<N> {
    fn ended(&mut self, result: Result<(), &body::Error>) -> Option<HeaderMap> {
        let (Some(mut record), Some(mut held)) = (self.record.take(), self.held.take()) else { return None };
        match result {
            Ok(()) => {
                if let Some(connection) = held.http1 {
                    self.worker.pool.give_back(connection, self.worker.now());
                }
            }
            Err(body::Error::Upstream(_)) => {
                held.in_flight.failed(self.worker.now());
                record.set_flag(ResponseFlag::UC);
            }
            Err(body::Error::Idle) => record.set_flag(ResponseFlag::SI),
        }
        record.finish();
        result.err().filter(|_| self.ends_in_status).and_then(respond::broken_off)
    }
}
