//! The attempts of one request: the retry loop.
//!
//! # Invariants
//! - An attempt is repeated only if what happened, the policy, the budget and the deadline all allow it.
//! - Every attempt goes to an endpoint not yet tried, as long as there is one.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use http::{
    HeaderValue, Request,
    request::Parts,
    uri::{PathAndQuery, Scheme},
};

use super::{
    attempt::{self, Answer, Way},
    error::ProxyError,
    form, respond,
    wish::Wish,
    worker::Worker,
};
use crate::{
    balance::{self, Tried},
    connect::{dial::Speak, place::Target},
    headers::framing::FramingError,
    model::{Cluster, Snapshot, wire},
    net::Net,
    relay::{
        activity::{Activity, IdleTimer},
        replay::{Replay, RequestBody, Rest},
    },
    resilience::{
        backoff,
        retry::{self, Processed, RetryFacts, Verdict},
        retry_budget,
    },
};

/// The attempts of one request.
pub(super) struct Attempts<'a, N: Net> {
    /// Who makes them.
    pub(super) worker: &'a Worker<N>,
    /// What was true when the request came.
    pub(super) snapshot: &'a Arc<Snapshot>,
    /// Where they go.
    pub(super) cluster: &'a Arc<Cluster>,
    /// Whom the request is for.
    pub(super) authority: String,
    /// What is spoken upstream.
    pub(super) speak: Speak,
    /// The wish to switch protocols that is passed on.
    pub(super) wish: Option<&'a Wish>,
    /// Which attempt the hop before said this is, counted from 1.
    pub(super) previous_attempt: u32,
}

impl<N: Net> Attempts<'_, N> {
    /// All attempts, within the cluster's timeouts.
    pub(super) async fn run(
        self,
        head: &mut Parts,
        replay: Replay,
        activity: &Activity,
    ) -> Result<(Answer, Rest), ProxyError> {
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
        head: &mut Parts,
        mut replay: Replay,
        mut expiry: Pin<&mut impl Future<Output = ProxyError>>,
    ) -> Result<(Answer, Rest), ProxyError> {
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
            let identity = self.snapshot.identity.as_ref();
            let target = Target { cluster: self.cluster, endpoint: &endpoint, identity };
            let request = self.request(head, replay.attempt(), attempt)?;
            let way = Way { speak: self.speak, wish: self.wish };
            let outcome = attempt::attempt(self.worker, target, way, request, expiry.as_mut()).await;
            // What follows the request would be taken for its body, or the other way round.
            let outcome = match outcome {
                Ok(answer) if answer.switch.is_some() && !replay.is_over() => {
                    let (endpoint, source) = (target.endpoint.address(), FramingError::WrongSwitch);
                    Err(ProxyError::BadResponse { endpoint, source })
                }
                outcome => outcome,
            };
            let class = match &outcome {
                Ok(answer) => answer.processed,
                Err(error) => error.retry_class(),
            };
            let Some(processed) = class else { return outcome.map(|answer| (answer, replay.answered())) };
            // Before it is decided whether the body can be sent again: an attempt that still reads might spend it.
            replay.supersede();
            if replay.has_failed() {
                return Err(ProxyError::Downstream);
            }
            let facts = RetryFacts {
                processed,
                // What follows a switch is not known to be.
                is_idempotent: self.wish.is_none() && retry::is_idempotent(&head.method),
                is_replayable: replay.is_replayable(),
                attempt,
                max_retries: policy.max_retries,
                previous_attempts_upstream: self.previous_attempt,
            };
            tracing::debug!(
                cluster = %self.cluster.name(), endpoint = %target.endpoint.address(), attempt,
                failure = outcome.as_ref().err().map(respond::chain), "attempt failed"
            );
            if !may_repeat(self.cluster, facts, self.worker.now()) {
                return outcome.map(|answer| (answer, replay.answered()));
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
        head: &mut Parts,
        body: RequestBody,
        attempt: u32,
    ) -> Result<Box<Request<RequestBody>>, ProxyError> {
        let mut request = Box::new(Request::new(body));
        *request.method_mut() = head.method.clone();
        let is_last = attempt > self.cluster.settings.retry.max_retries;
        *request.headers_mut() =
            if is_last { std::mem::take(&mut head.headers) } else { head.headers.clone() };
        let transport = &self.cluster.settings.transport;
        if transport.is_sidecar() {
            request.headers_mut().insert(wire::ATTEMPT, HeaderValue::from(attempt));
        }
        let path = head.uri.path_and_query().cloned();
        *request.uri_mut() = path.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
        match self.speak {
            Speak::Http2 => {
                let scheme = if transport.is_tls() { Scheme::HTTPS } else { Scheme::HTTP };
                form::for_http2(&mut request, &self.authority, scheme)?;
            }
            Speak::Http1 | Speak::Either | Speak::Tcp | Speak::OwnTls => {
                form::for_http1(&mut request, &self.authority)?;
            }
        }
        // Where it is not known yet what the server speaks, the attempt does it when it is.
        if let Some(wish) = self.wish
            && self.speak != Speak::Either
        {
            wish.dress(&mut request, self.speak);
        }
        Ok(request)
    }
}

/// Whether an attempt may be followed by another: if what happened, the policy and the budget allow it. Takes one
/// retry from the budget, and counts it.
pub(super) fn may_repeat(cluster: &Cluster, facts: RetryFacts, now: Instant) -> bool {
    if retry::may_retry(facts) != Verdict::Retry {
        return false;
    }
    let (policy, runtime) = (&cluster.settings.retry, &cluster.runtime);
    let (ratio, floor) = (policy.budget_ratio, policy.budget_min_per_second);
    let is_allowed = retry_budget::try_take(&runtime.retry_budget, ratio, floor, now);
    let count = if is_allowed { &runtime.retries } else { &runtime.retries_over_budget };
    count.fetch_add(1, Ordering::Relaxed);
    is_allowed
}
