//! READ THIS FIRST: one request, stage by stage.
//!
//! ```text
//!   allowed → head → authorized → route → limit → admit → wait → (pick → connect → send)* → response
//!     403      400      403        404     429     503    503  UH   503  UF/ID/UC   504
//! ```
//! A request for a tunnel (CONNECT of the own app) goes by [`super::tunnel`], which opens a stream instead.
//!
//! Anything that can say no says it with a [`ProxyError`]; [`handle`] turns that into an answer. Dropping the future
//! cancels the upstream attempt. No retry is made after a response head went downstream.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Instant};

use http::{HeaderValue, Method, Request, Response, Version, header, request::Parts};
use hyper::body::Incoming;

use super::{
    affinity, answer_head,
    attempt::Answer,
    attempts::Attempts,
    deadline::Deadline,
    door::Door,
    ending::Ending,
    error::ProxyError,
    fault,
    gate::{self, LetIn},
    head::{self, Edited},
    live, mirror, notes, rate_limit, redirect, respond,
    switched::Switched,
    trace::{self, Baton},
    tunnel::{self, Tunnel},
    waiting,
    wish::{Switch, Wish},
    worker::Worker,
};
use crate::{
    drain::Phase,
    headers::{self, edits, grpc},
    model::{
        Cluster, Snapshot, edits::Edits, policy::Policy, rate_limit::Quota, telemetry::AccessLogSettings,
    },
    net::Net,
    relay::{
        activity::Activity,
        body::{self, ResponseBody},
        replay::{Replay, Rest},
    },
    resilience::{
        circuit_breaker::{self, RequestSlot},
        retry, retry_budget,
    },
    route,
    telemetry::{record::RequestRecord, trail::Traffic},
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
    let mut record = door.record(&worker, Traffic::Http, worker.now());
    let wish = Wish::of(&worker, &door, &mut request);
    // What follows the head may be meant for another protocol: it must not be taken for a request.
    let is_leaving = wish.is_some() || request.method() == Method::CONNECT;
    let is_grpc = !is_leaving && grpc::is_call(request.headers());
    let version = request.version();
    let is_tunnel = tunnel::is_asked(&door, &request);
    notes::asked(&record, &request, if is_grpc { Traffic::Grpc } else { Traffic::Http });
    let unanswered = Unanswered { worker: &worker, door: &door, is_http2: version == Version::HTTP_2 };
    let outcome = if is_tunnel {
        // Boxed, so that other requests do not keep the room.
        Box::pin(tunnel::open(&worker, &door, request, &mut record)).await.map(Outcome::Tunnel)
    } else {
        let (mut head, body) = request.into_parts();
        carry((&worker, &door), (&mut head, body), wish.as_deref(), &mut record).await
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
        Ok(Outcome::Redirect(response)) => {
            record.answered(response.status().as_u16(), worker.now());
            record.finish();
            response
        }
        Err(error) => {
            let response = respond::respond(&error, is_grpc, door.audience());
            notes::refused(&worker, &record, &error);
            if is_grpc {
                record.write(|trail| trail.grpc_status = Some(u16::from(error.grpc_status())));
            }
            record.answered(response.status().as_u16(), worker.now());
            record.finish();
            tracing::debug!(
                listener = door.accepted.name(),
                error = respond::chain(&error),
                "answered ourselves"
            );
            response
        }
    };
    let is_ending = door.drain().phase() >= Phase::Draining || door.is_old();
    if version < Version::HTTP_2 && !door.is_switched() && (is_ending || is_last) {
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
    /// Its caller is sent elsewhere.
    Redirect(Response<ResponseBody>),
}

/// A response on its way, with everything that lives as long as its body.
struct Carried {
    answer: Answer,
    rest: Rest,
    cluster: Arc<Cluster>,
    activity: Activity,
    slot: RequestSlot,
    /// When the answer must be over.
    end: Option<Instant>,
    /// What is told of its rate limits.
    quotas: Box<[Quota]>,
    /// What the route changes of it.
    edits: Option<Arc<Edits>>,
    /// It is to carry a cookie that leads to its endpoint.
    needs_cookie: bool,
    /// What the access log is to have of it.
    log: Option<Arc<AccessLogSettings>>,
    /// Its leave to go on, of a request from others.
    live: Option<live::Guard>,
}

/// Carries one request to an upstream and returns the answer: the stages in order.
async fn carry<N: Net>(
    (worker, door): (&Arc<Worker<N>>, &Door),
    (head, body): (&mut Parts, Incoming),
    wish: Option<&Wish>,
    record: &mut RequestRecord,
) -> Result<Outcome, ProxyError> {
    // One load for the whole request: a change in between must not pair an old route with a new cluster.
    let mut snapshot = door.load(&worker.snapshots);
    let mut baton = trace::begin((worker, door), &snapshot.config, Some(&head.headers), record);
    let LetIn { authority, found, by_rule, live } =
        gate::let_in((worker, door), &mut snapshot, (head, &body, wish), record).await?;
    let chosen = route::chosen(&found, head, by_rule.as_deref());
    let policy = chosen.policy;
    notes::routed((worker, door), &snapshot.config, (&found, chosen.route), record);
    // Before anything is held or counted for it: a refused one costs little, and earns no retries.
    let asked = head::asked(head, &body, wish);
    let quotas = rate_limit::admit((door, &snapshot), (&found, policy), asked, worker.now())?;
    if let Some(answer) = redirect::answer(chosen, (&snapshot, &found), (head, &authority), &quotas)? {
        return Ok(Outcome::Redirect(answer));
    }
    let slot = admit((worker, door), &found)?;
    let deadline = head::deadline(door, head, policy, record.started());
    if let Some(fault) = &policy.fault {
        // Boxed, so that other requests do not keep the room.
        Box::pin(fault::inject(worker, (&found, fault), &head.headers, deadline, record)).await?;
    }
    retry_budget::record_request(&found.runtime.retry_budget, worker.now());

    let newer = newer((worker, door), (&found, policy), (head, wish, deadline), record).await?;
    let (snapshot, cluster, chosen) = match &newer {
        Some(newer) => (&newer.0, &newer.1, route::chosen_again(&newer.1, head, by_rule.as_deref())),
        None => (&snapshot, &found, chosen),
    };
    if let Some(answer) = redirect::answer(chosen, (snapshot, cluster), (head, &authority), &quotas)? {
        return Ok(Outcome::Redirect(answer));
    }
    let policy = chosen.policy;
    let kept = affinity::of_request(cluster, door, snapshot, head);
    let copies = mirror::draw(worker, chosen, (head, &authority, wish));
    let edited = Edited::of(chosen, &authority);
    let previous_attempt =
        readdress((worker, door), (snapshot, cluster, &edited), head, baton.as_deref_mut(), record)?;
    let authority = head::addressed(authority, policy.edits.as_deref(), snapshot, cluster);
    let wish = wish.filter(|wish| wish.may_pass(worker, door, snapshot));
    let (speak, wish) = head::speak(door.inbound(snapshot), cluster, wish, head);
    let (mut replay, activity) = replay((worker, door), snapshot, (body, policy), record);
    mirror::begin(copies, (worker, door), snapshot, (head, record, baton.as_deref()), &mut replay);
    let attempts = Attempts {
        worker,
        snapshot,
        cluster,
        policy,
        authority,
        speak,
        wish,
        affinity: kept.key,
        previous_attempt,
        deadline,
        record,
        baton: baton.as_deref(),
    };
    let (answer, rest) = live::until(live.as_ref(), pin!(attempts.run(head, replay, &activity))).await?;
    deadline.overrun(answer.response.headers(), &cluster.settings.transport).map_or(Ok(()), Err)?;
    let (edits, needs_cookie) = (policy.edits.clone(), kept.needs_cookie);
    let (log, end) = (trace::log_of(&snapshot.config, record), deadline.end());
    let cluster = newer.map_or(found, |(_snapshot, cluster)| cluster);
    let carried =
        Carried { answer, rest, cluster, activity, slot, end, quotas, edits, needs_cookie, log, live };
    Ok(Outcome::Answer(carried))
}

/// A place among the cluster's requests.
fn admit<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    cluster: &Arc<Cluster>,
) -> Result<RequestSlot, ProxyError> {
    circuit_breaker::admit_request(cluster, door.load_of_caller(), worker.load.is_over())
        .map_err(|cap| ProxyError::Overflow { cluster: cluster.name().clone(), cap })
}

/// The request's body on its way, and when it moves.
fn replay<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    snapshot: &Snapshot,
    (body, policy): (Incoming, &Policy),
    record: &RequestRecord,
) -> (Replay, Activity) {
    let activity = Activity::new(&worker.clock, record.moved());
    let rules = door.inbound(snapshot).and(snapshot.config.settings.authorization.clone());
    (Replay::new(body, policy.retry.replay_bytes, activity.clone(), rules), activity)
}

/// Waits for somebody to ask, if there is nobody; then what is newer holds for the request as a whole.
async fn newer<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    (found, policy): (&Arc<Cluster>, &Policy),
    (head, wish, deadline): (&Parts, Option<&Wish>, Deadline),
    record: &RequestRecord,
) -> Result<Option<(Arc<Snapshot>, Arc<Cluster>)>, ProxyError> {
    let may_probe = policy.retry.max_retries > 0
        && retry::is_safe_twice(&head.method, policy.retry.methods, wish.is_some());
    if !waiting::is_needed(found, may_probe, worker.now()) {
        return Ok(None);
    }
    let waiting = waiting::wait(worker, found, may_probe, || door.load(&worker.snapshots));
    // Boxed, so that other requests do not keep the room.
    let newer = Box::pin(notes::waited(worker, record, deadline.bound(waiting))).await?;
    notes::under(record, &newer.0.config);
    head::check_scheme(head, door.listener(&newer.0), &newer.1)?;
    Ok(Some(newer))
}

/// Makes the head the next hop's, but for what each attempt tells of itself. Returns what [`head::rewrite`] does.
fn readdress<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    (snapshot, cluster, edited): (&Snapshot, &Cluster, &Edited<'_>),
    head: &mut Parts,
    baton: Option<&mut Baton>,
    record: &RequestRecord,
) -> Result<u32, ProxyError> {
    let previous_attempt = head::rewrite((worker, door), (snapshot, cluster), edited, head)?;
    notes::known_by(record, &head.headers);
    if let Some(baton) = baton {
        let is_outside = cluster.settings.transport.is_outside();
        baton.dress(worker, (&mut head.headers, is_outside), record);
    }
    Ok(previous_attempt)
}

/// Makes an upstream's answer the downstream's.
fn deliver<N: Net>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    mut carried: Carried,
    (wish, record): (Option<Box<Wish>>, RequestRecord),
    ends_in_status: bool,
) -> Response<ResponseBody> {
    let response = &mut carried.answer.response;
    answer_head::clean(response.headers_mut(), &carried.cluster, door.audience(), &record);
    let is_grpc = grpc::is_call(response.headers());
    // Before what we say ourselves, so that it cannot be taken off.
    if let Some(edits) = carried.edits.take() {
        edits::apply(response.headers_mut(), &edits.response);
    }
    if carried.needs_cookie {
        worker.with_rng(|rng| affinity::issue(&carried.cluster, &mut carried.answer, rng));
    }
    let response = &mut carried.answer.response;
    headers::rate_limit::tell(response.headers_mut(), &carried.quotas);
    *response.version_mut() = Version::default();
    if let Some(log) = &carried.log {
        notes::answered(&record, response.headers(), log);
    }
    let wish = match (wish, carried.answer.switch.take()) {
        (Some(wish), Some(switch)) => return switch_over(worker, door, carried, (*wish, *switch), record),
        (wish, _) => wish,
    };
    let Carried { answer, rest, cluster, activity, slot, end, live, .. } = carried;
    let (mut head, body) = answer.response.into_parts();
    record.answered(head.status.as_u16(), worker.now());
    if let Some(wish) = wish {
        head.status = wish.refusal(&mut head.headers, head.status);
    }
    if is_grpc {
        notes::grpc_status(&record, &head.headers);
    }
    let permit = live.as_ref().map(live::Guard::permit);
    let ending = Ending {
        worker: Arc::clone(worker),
        record: Some(record),
        held: Some(answer.held),
        cluster: Arc::clone(&cluster),
        is_grpc,
        ends_in_status: ends_in_status && is_grpc,
        _rest: rest,
        _slot: slot,
        _live: live,
    };
    let limits = body::Limits { idle: cluster.settings.timeouts.stream_idle, end, permit };
    let body = worker.streams.watch(body, activity, limits, Box::new(ending));
    Response::from_parts(head, body)
}

/// Tells the downstream of a switch that the upstream has made; what follows is relayed.
fn switch_over<N: Net>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    carried: Carried,
    (wish, switch): (Wish, Switch),
    record: RequestRecord,
) -> Response<ResponseBody> {
    let Carried { answer, rest, cluster, slot, live, .. } = carried;
    let mut response = answer.response.map(|_taken| ResponseBody::local(""));
    *response.status_mut() = wish.consent(response.headers_mut(), &switch);
    record.answered(response.status().as_u16(), worker.now());
    if let Some(live) = live.as_ref().filter(|_| wish.is_http1_only()) {
        live.becomes_bytes();
    }
    let (upstream, held) = (switch.upstream, answer.held);
    let switched = Box::new(Switched { upstream, cluster, record, held, rest, slot, live });
    let downstream = if wish.is_from_http1() { None } else { Some(wish.into_downstream()) };
    switched.start(worker, door, downstream);
    response
}
