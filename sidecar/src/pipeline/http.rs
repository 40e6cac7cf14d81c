//! READ THIS FIRST: one request, stage by stage.
//!
//! ```text
//!   head → route → admit → (pick → connect → send)* → response
//!    400    404     503      503  UH/UF/ID/UC  504
//! ```
//! Anything that can say no says it with a [`ProxyError`]; [`handle`] turns that into an answer. Dropping the future
//! cancels the upstream attempt. No retry is made after a response head went downstream.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
};

use http::{HeaderValue, Method, Request, Response, Uri, Version, header, request::Parts, uri::Scheme};
use hyper::body::Incoming;

use super::{
    attempt::{self, Answer, Held},
    door::{Door, From},
    error::ProxyError,
    respond::{self, Audience},
    worker::Worker,
};
use crate::{
    balance::{self, Tried},
    connect::{
        dial::{self, Speak},
        pool::Target,
    },
    drain::Phase,
    headers::{cookie, forwarded, framing, hop_by_hop, reserved},
    model::{
        Cluster, ListenerKind, Snapshot,
        cluster::{AppProtocol, PeerKind, Transport},
        flag::ResponseFlag,
        wire,
    },
    net::Net,
    relay::{
        activity::{Activity, IdleTimer},
        body::{self, OnEnd, ResponseBody},
        replay::{Replay, RequestBody},
    },
    resilience::{
        backoff,
        circuit_breaker::{self, RequestSlot},
        retry::{self, Processed, RetryFacts, Verdict},
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
    let mut record = RequestRecord::new(Arc::clone(&door.counts), worker.now());
    let is_grpc = respond::is_grpc(request.headers());
    let version = request.version();
    let carried = carry(&worker, &door, request, &mut record).await;
    // On doubt about the framing, the two sides may disagree about where the next request begins.
    let is_in_doubt = matches!(carried, Err(ProxyError::BadRequest(_)));
    let mut response = match carried {
        Ok(carried) => deliver(&worker, carried, record),
        Err(error) => {
            let response = respond::respond(&error, is_grpc, door.audience());
            record.set_flag(error.flag());
            record.set_status(response.status().as_u16());
            record.head_received(worker.now());
            record.finish();
            tracing::debug!(listener = %door.listener.name, error = respond::chain(&error), "answered ourselves");
            response
        }
    };
    let is_draining = worker.drains.of(&door.listener).phase() >= Phase::Draining;
    if version < Version::HTTP_2 && (is_draining || is_in_doubt) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// A response on its way, with everything that lives as long as its body.
struct Carried {
    answer: Answer,
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
    let snapshot = worker.snapshots.load();
    let (mut head, body) = request.into_parts();
    let authority = judge_head(&head, worker.settings.bootstrap.limits.header_count)?;
    let cluster = find_cluster(&snapshot, door, &authority)?;
    record.routed(Arc::clone(&cluster.runtime));
    let slot = circuit_breaker::admit_request(&cluster)
        .map_err(|cap| ProxyError::Overflow { cluster: cluster.name().clone(), cap })?;
    retry_budget::record_request(&cluster.runtime.retry_budget, worker.now());

    let previous_attempt = rewrite_head(worker, door, &snapshot, &mut head);
    let speak = speak(door, &cluster, &mut head);
    let activity = Activity::new(&worker.clock);
    let replay = Replay::new(body, cluster.settings.retry.replay_bytes, activity.clone());
    if speak == Speak::Http1 {
        cookie::join(&mut head.headers);
    }
    let authority = if authority.is_empty() { unnamed(worker, &cluster) } else { authority };
    let attempts =
        Attempts { worker, snapshot: &snapshot, cluster: &cluster, authority, speak, previous_attempt };
    let answer = attempts.run(head, replay, &activity).await?;
    Ok(Carried { answer, cluster, activity, slot, audience: door.audience() })
}

fn judge_head(head: &Parts, header_count: usize) -> Result<String, ProxyError> {
    let bad = |error: framing::FramingError| ProxyError::BadRequest(error.to_string());
    framing::check_request(head, header_count).map_err(bad)?;
    if head.method == Method::CONNECT {
        return Err(ProxyError::Unsupported("CONNECT"));
    }
    framing::authority(head).map(str::to_owned).map_err(bad)
}

/// An HTTP/1.0 request may name no host, but the next hop must: the service it goes to is as much as is known.
fn unnamed<N: Net>(worker: &Worker<N>, cluster: &Cluster) -> String {
    match cluster.settings.transport {
        Transport::App => worker.settings.bootstrap.service.clone(),
        Transport::Mesh(_) => cluster.name().to_string(),
    }
}

fn find_cluster(snapshot: &Snapshot, door: &Door, authority: &str) -> Result<Arc<Cluster>, ProxyError> {
    let found = match &door.listener.kind {
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

/// Makes the head what the next hop may see. Returns which attempt the hop before said this is, counted from 1.
fn rewrite_head<N: Net>(worker: &Worker<N>, door: &Door, snapshot: &Snapshot, head: &mut Parts) -> u32 {
    let headers = &mut head.headers;
    hop_by_hop::strip_request(headers);
    // Answered hop by hop: hyper sends 100 Continue as soon as we read the body.
    headers.remove(header::EXPECT);
    match (&door.from, &snapshot.identity) {
        (From::Peer { peer, address, is_sidecar, .. }, Some(own)) => {
            let attempt = if *is_sidecar { reserved::take(headers, wire::ATTEMPT) } else { None };
            let version = if *is_sidecar { reserved::take(headers, wire::APP_VERSION) } else { None };
            reserved::strip(headers);
            // Kept until `speak` has read it.
            if let Some(version) = version {
                headers.insert(wire::APP_VERSION, version);
            }
            worker.with_rng(|rng| forwarded::inbound(headers, peer.id(), own.svid.id(), *address, rng));
            attempt.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(1)
        }
        (From::App | From::Peer { .. }, _) => {
            reserved::strip(headers);
            worker.with_rng(|rng| forwarded::outbound(headers, rng));
            1
        }
    }
}

/// What to speak upstream. The far side restores what the calling app spoke.
fn speak(door: &Door, cluster: &Cluster, head: &mut Parts) -> Speak {
    let app_version = reserved::take(&mut head.headers, wire::APP_VERSION);
    match (&door.listener.kind, cluster.settings.transport) {
        (_, Transport::Mesh(peer)) => {
            if peer == PeerKind::Outrider {
                head.headers.insert(wire::APP_VERSION, version_label(head.version));
            }
            dial::mesh_http(peer)
        }
        (ListenerKind::Inbound(inbound), Transport::App) => match inbound.app_protocol {
            AppProtocol::Http1 => Speak::Http1,
            AppProtocol::Http2 => Speak::Http2,
            AppProtocol::Auto => {
                let was_http2 = match app_version {
                    Some(version) => version == "2",
                    None => head.version == Version::HTTP_2,
                };
                if was_http2 { Speak::Http2 } else { Speak::Http1 }
            }
        },
        (ListenerKind::OutboundHttp { .. } | ListenerKind::OutboundTcp { .. }, Transport::App) => {
            Speak::Http1
        }
    }
}

fn version_label(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    })
}

/// The attempts of one request.
struct Attempts<'a, N: Net> {
    worker: &'a Worker<N>,
    snapshot: &'a Arc<Snapshot>,
    cluster: &'a Arc<Cluster>,
    authority: String,
    speak: Speak,
    previous_attempt: u32,
}

impl<N: Net> Attempts<'_, N> {
    /// All attempts, within the cluster's timeouts.
    async fn run(self, head: Parts, replay: Replay, activity: &Activity) -> Result<Answer, ProxyError> {
        let timeouts = &self.cluster.settings.timeouts;
        let (idle, limit) = (timeouts.stream_idle, timeouts.request);
        let idle_timer = IdleTimer::new(activity.clone(), idle);
        let expiry = async {
            let deadline = async {
                match limit {
                    Some(limit) => {
                        tokio::time::sleep(limit).await;
                        limit
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                limit = deadline => ProxyError::Timeout { limit },
                () = idle_timer => ProxyError::Idle { limit: idle },
            }
        };
        self.repeat(head, replay, std::pin::pin!(expiry)).await
    }

    async fn repeat(
        self,
        head: Parts,
        mut replay: Replay,
        mut expiry: Pin<&mut impl Future<Output = ProxyError>>,
    ) -> Result<Answer, ProxyError> {
        let policy = &self.cluster.settings.retry;
        let mut tried = Tried::default();
        let mut attempt = 1;
        loop {
            let now = self.worker.now();
            let endpoint = self
                .worker
                .with_rng(|rng| balance::pick(self.cluster, &tried, now, rng))
                .ok_or_else(|| ProxyError::NoEndpoint { cluster: self.cluster.name().clone() })?;
            tried.insert(endpoint.address());
            let target = Target {
                cluster: Arc::clone(self.cluster),
                endpoint,
                identity: self.snapshot.identity.clone(),
            };
            let request = self.request(&head, replay.attempt(), attempt)?;
            let outcome = attempt::attempt(self.worker, &target, self.speak, request, expiry.as_mut()).await;
            let class = match &outcome {
                Ok(answer) => answer.processed,
                Err(error) => error.retry_class(),
            };
            let Some(processed) = class else { return outcome };
            if replay.has_failed() {
                return Err(ProxyError::Downstream);
            }
            let facts = RetryFacts {
                processed,
                is_idempotent: retry::is_idempotent(&head.method),
                is_replayable: replay.is_replayable(),
                attempt,
                max_retries: policy.max_retries,
                previous_attempts_upstream: self.previous_attempt,
            };
            tracing::debug!(
                cluster = %self.cluster.name(), endpoint = %target.endpoint.address(), attempt,
                failure = outcome.as_ref().err().map(respond::chain), "attempt failed"
            );
            if !self.may_repeat(facts) {
                return outcome;
            }
            drop(outcome);
            tokio::select! {
                biased;
                () = self.back_off(processed, attempt) => {}
                expired = expiry.as_mut() => return Err(expired),
            }
            attempt += 1;
        }
    }

    fn may_repeat(&self, facts: RetryFacts) -> bool {
        if retry::may_retry(facts) != Verdict::Retry {
            return false;
        }
        let (policy, runtime) = (&self.cluster.settings.retry, &self.cluster.runtime);
        let is_allowed = retry_budget::try_take(
            &runtime.retry_budget,
            policy.budget_ratio,
            policy.budget_min_per_second,
            self.worker.now(),
        );
        let count = if is_allowed { &runtime.retries } else { &runtime.retries_over_budget };
        count.fetch_add(1, Ordering::Relaxed);
        is_allowed
    }

    /// The first repetition of what was certainly not processed goes elsewhere at once: nothing is overloaded by it.
    async fn back_off(&self, processed: Processed, attempt: u32) {
        if processed == Processed::No && attempt == 1 {
            return;
        }
        let base = self.cluster.settings.retry.backoff_base;
        let delay = self.worker.with_rng(|rng| backoff::delay(base, attempt, rng));
        tokio::time::sleep(delay).await;
    }

    /// The request of one attempt, in the form that the upstream's HTTP version asks for.
    fn request(
        &self,
        head: &Parts,
        body: RequestBody,
        attempt: u32,
    ) -> Result<Request<RequestBody>, ProxyError> {
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.headers_mut() = head.headers.clone();
        let transport = self.cluster.settings.transport;
        if transport == Transport::Mesh(PeerKind::Outrider) {
            request.headers_mut().insert(wire::ATTEMPT, HeaderValue::from(attempt));
        }
        let path = head.uri.path_and_query().cloned();
        let bad = |error: &dyn std::fmt::Display| ProxyError::BadRequest(error.to_string());
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")));
        if self.speak == Speak::Http2 {
            request.headers_mut().remove(header::HOST);
            uri.scheme = Some(if transport == Transport::App { Scheme::HTTP } else { Scheme::HTTPS });
            uri.authority = Some(self.authority.parse().map_err(|error| bad(&error))?);
            *request.version_mut() = Version::HTTP_2;
        } else {
            let host = HeaderValue::from_str(&self.authority).map_err(|error| bad(&error))?;
            request.headers_mut().insert(header::HOST, host);
        }
        *request.uri_mut() = Uri::from_parts(uri).map_err(|error| bad(&error))?;
        Ok(request)
    }
}

/// Makes an upstream's answer the downstream's.
fn deliver<N: Net>(
    worker: &Arc<Worker<N>>,
    carried: Carried,
    mut record: RequestRecord,
) -> Response<ResponseBody> {
    let Carried { answer, cluster, activity, slot, audience } = carried;
    let (mut head, body) = answer.response.into_parts();
    hop_by_hop::strip_response(&mut head.headers);
    let reason = answer.processed.and_then(|_own_answer| reserved::take(&mut head.headers, wire::REASON));
    reserved::strip(&mut head.headers);
    // The far sidecar's reason explains its answer to the app here.
    if let Some(reason) = reason.filter(|_| audience == Audience::App) {
        head.headers.insert(wire::REASON, reason);
    }
    record.set_status(head.status.as_u16());
    record.head_received(worker.now());
    let ending =
        Ending { worker: Arc::clone(worker), record: Some(record), held: Some(answer.held), _slot: slot };
    let idle = IdleTimer::new(activity.clone(), cluster.settings.timeouts.stream_idle);
    let body = ResponseBody::upstream(body, activity, Some(idle), Box::new(ending));
    head.version = Version::default();
    Response::from_parts(head, body)
}

/// What lives as long as a response's body.
struct Ending<N: Net> {
    worker: Arc<Worker<N>>,
    /// Dropped unfinished, it counts the downstream as gone.
    record: Option<RequestRecord>,
    held: Option<Held>,
    _slot: RequestSlot,
}

impl<N: Net> OnEnd for Ending<N> {
    fn ended(&mut self, result: Result<(), &body::Error>) {
        let Some(mut record) = self.record.take() else { return };
        match result {
            Ok(()) => {
                let http1 = self.held.take().and_then(|held| held.http1);
                if let Some((target, connection)) = http1 {
                    self.worker.pool.give_back(&target, connection, self.worker.now());
                }
            }
            Err(body::Error::Upstream(_)) => record.set_flag(ResponseFlag::UC),
            Err(body::Error::Idle) => record.set_flag(ResponseFlag::SI),
        }
        record.finish();
    }
}
