//! The attempts of one request: the retry loop. What may be repeated is [`Course`]'s to say.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use http::{
    HeaderValue, Request,
    request::Parts,
    uri::{PathAndQuery, Scheme},
};

use http_body::Body as _;

use super::{
    attempt::{self, Answer, Way},
    course::{Course, Safety},
    deadline::Deadline,
    error::ProxyError,
    failure::{self, Failure},
    form, notes, respond,
    trace::Baton,
    wish::Wish,
    worker::Worker,
};
use crate::{
    balance::InFlight,
    connect::{dial::Speak, place::Target},
    headers::framing::FramingError,
    model::{
        Cluster, Endpoint, Snapshot,
        health::Standing,
        policy::{Policy, RetryPolicy},
        retries::RetryReason,
        trace::SpanId,
        transport::Transport,
        wire,
    },
    net::Net,
    relay::{
        activity::Activity,
        replay::{Replay, RequestBody, Rest},
    },
    resilience::retry,
    telemetry::{
        record::{Entry, RequestRecord},
        trail::{self, NotRepeated, Step},
    },
};

/// So often it is asked whether a request may be taken back from an endpoint that rests.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The attempts of one request.
pub(super) struct Attempts<'a, N: Net> {
    /// Who makes them.
    pub(super) worker: &'a Worker<N>,
    /// What was true when the request came.
    pub(super) snapshot: &'a Arc<Snapshot>,
    /// Where they go.
    pub(super) cluster: &'a Arc<Cluster>,
    /// What holds for the request.
    pub(super) policy: &'a Policy,
    /// Whom the request is for.
    pub(super) authority: String,
    /// What is spoken upstream.
    pub(super) speak: Speak,
    /// The wish to switch protocols that is passed on.
    pub(super) wish: Option<&'a Wish>,
    /// What keeps it with one endpoint.
    pub(super) affinity: Option<u64>,
    /// Which attempt the hop before said this is, counted from 1.
    pub(super) previous_attempt: u32,
    /// By when there must be an answer.
    pub(super) deadline: Deadline,
    /// Where it is noted what became of each.
    pub(super) record: &'a RequestRecord,
    /// What each is told of the trace.
    pub(super) baton: Option<&'a Baton>,
}

/// An attempt's place in the trail, and its span.
pub(super) type Begun<'a> = (Entry<'a>, Option<SpanId>);

/// One attempt's outcome, and its place in the trail.
pub(super) type Outcome<'a> = (Result<Answer, ProxyError>, Entry<'a>);

impl<N: Net> Attempts<'_, N> {
    /// All attempts, within the request's deadline. By reference: a future holds what it is given by value twice.
    pub(super) async fn run(
        &self,
        head: &mut Parts,
        replay: Replay,
        activity: &Activity,
    ) -> Result<(Answer, Rest), ProxyError> {
        let expiry = self.deadline.expiry(activity, self.cluster.settings.timeouts.stream_idle);
        self.repeat(head, replay, std::pin::pin!(expiry)).await
    }

    async fn repeat(
        &self,
        head: &mut Parts,
        mut replay: Replay,
        mut expiry: Pin<&mut impl Future<Output = ProxyError>>,
    ) -> Result<(Answer, Rest), ProxyError> {
        let mut course = Course::new(self.cluster, self.retry(), self.previous_attempt).kept(self.affinity);
        loop {
            let in_flight = course.pick(self.worker, self.safety(head, &replay))?;
            let (entry, span) = self.begin(&in_flight, false);
            let request = self.request(head, replay.attempt(), (&course, span))?;
            let (outcome, entry) = match self.hedge_after(&course, &in_flight, (head, &replay)) {
                None => {
                    let endpoint = Arc::clone(in_flight.endpoint());
                    let ending = std::pin::pin!(async {
                        tokio::select! {
                            biased;
                            expired = expiry.as_mut() => expired,
                            error = self.silenced(&course, &endpoint, (head, &replay)) => error,
                        }
                    });
                    let attempt = (in_flight, request, entry);
                    (self.once(&endpoint, attempt, &replay, ending).await, entry)
                }
                // Boxed, so that other requests do not keep the room.
                Some(after) => {
                    let first = (in_flight, request, entry);
                    let ways = (&mut course, after);
                    Box::pin(self.hedged(ways, first, (head, &replay), expiry.as_mut())).await
                }
            };
            let Some(failure) = self.failure(&outcome, entry) else {
                self.note_end(&outcome);
                deliver(entry);
                return outcome.map(|answer| (answer, replay.answered()));
            };
            tracing::debug!(
                cluster = %self.cluster.name(), attempt = course.attempt(), reason = failure.reason.label(),
                failure = outcome.as_ref().err().map(|error| respond::chain(error)), "attempt failed"
            );
            if replay.has_failed() {
                return Err(ProxyError::Downstream);
            }
            let safety = self.safety(head, &replay);
            let repeated = course.repeat(self.worker, failure, safety, self.deadline.at());
            let Some(wait) = repeats(self.worker, repeated, entry) else {
                deliver(entry);
                return outcome.map(|answer| (answer, replay.answered()));
            };
            // Nothing has run since it was asked whether the body is whole: no attempt can spend it any more.
            replay.supersede();
            self.discard(outcome, entry);
            if !wait.is_zero() {
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(wait) => {}
                    expired = expiry.as_mut() => return Err(expired),
                }
            }
        }
    }

    /// Notes that an attempt begins.
    pub(super) fn begin(&self, in_flight: &InFlight, is_hedge: bool) -> Begun<'_> {
        let begun = self.record.after(in_flight.started());
        let span = self.baton.and_then(|baton| baton.attempt(self.worker));
        let attempt = trail::Attempt {
            span,
            is_hedge,
            is_probe: in_flight.is_probe(),
            ..trail::Attempt::new(in_flight.endpoint().address(), begun)
        };
        (self.record.attempt(attempt), span)
    }

    /// Notes of an outcome that is no failure of an endpoint's why nothing is repeated.
    fn note_end(&self, outcome: &Result<Answer, ProxyError>) {
        if let Err(ProxyError::Timeout { .. } | ProxyError::DeadlineExceeded { .. }) = outcome {
            notes::step(self.worker, self.record, Step::NotRepeated(NotRepeated::Deadline));
        }
    }

    /// The failure in an attempt's outcome, noted.
    pub(super) fn failure(&self, outcome: &Result<Answer, ProxyError>, entry: Entry<'_>) -> Option<Failure> {
        let failure = failure::of(outcome, &self.policy.retry, || self.worker.clock.wall())?;
        let flag = outcome.as_ref().err().map(ProxyError::flag);
        entry.write(|attempt| (attempt.failure, attempt.flag) = (Some(failure.reason), flag));
        Some(failure)
    }

    /// What may be repeated.
    fn retry(&self) -> &RetryPolicy {
        // An HTTP/1 connection gives back what it could not send, and that goes on a new one: nothing has to be kept.
        let has_back = self.cluster.settings.transport == Transport::App && self.speak == Speak::Http1;
        if has_back { &RetryPolicy::NONE } else { &self.policy.retry }
    }

    /// What is known of the request, as far as its repetition goes.
    pub(super) fn safety(&self, head: &Parts, replay: &Replay) -> Safety {
        let is_idempotent =
            retry::is_safe_twice(&head.method, self.policy.retry.methods, self.wish.is_some());
        Safety { is_idempotent, is_replayable: replay.is_replayable() }
    }

    /// One attempt, within its own time.
    pub(super) async fn once(
        &self,
        endpoint: &Arc<Endpoint>,
        (in_flight, request, entry): (InFlight, Box<Request<RequestBody>>, Entry<'_>),
        replay: &Replay,
        expiry: Pin<&mut impl Future<Output = ProxyError>>,
    ) -> Result<Answer, ProxyError> {
        let identity = self.snapshot.identity.as_ref();
        let target = Target { cluster: self.cluster, endpoint, identity };
        let way = Way { speak: self.speak, wish: self.wish, entry };
        let ending = async {
            tokio::select! {
                biased;
                expired = expiry => expired,
                limit = self.own_time(replay) => ProxyError::TryTimeout { endpoint: endpoint.address(), limit },
            }
        };
        let ending = std::pin::pin!(ending);
        let outcome = attempt::attempt(self.worker, (target, in_flight), way, request, ending).await;
        match outcome {
            // What follows the request would be taken for its body, or the other way round.
            Ok(answer) if answer.switch.is_some() && !replay.is_over() => Err(ProxyError::BadResponse {
                endpoint: endpoint.address(),
                source: FramingError::WrongSwitch,
            }),
            outcome => outcome,
        }
    }

    /// Ends when the endpoint is ejected for its silence and the attempt may be taken back from there: then it is granted
    /// already. What may not be repeated waits on; so does what nobody else could take.
    pub(super) async fn silenced(
        &self,
        course: &Course<'_>,
        endpoint: &Endpoint,
        (head, replay): (&Parts, &Replay),
    ) -> ProxyError {
        if !course.may_hedge(self.safety(head, replay)) {
            return std::future::pending().await;
        }
        let begun = self.worker.now();
        loop {
            endpoint.runtime.seen.silenced.notified().await;
            // Where the budget or the cap says no for now, it may not do so for long.
            while endpoint.runtime.standing(true, self.worker.now()) != Standing::Usable {
                if course.may_take_back(self.worker, self.safety(head, replay)) {
                    let limit = self.worker.now().saturating_duration_since(begun);
                    return ProxyError::TryTimeout { endpoint: endpoint.address(), limit };
                }
                // Boxed, so that other requests do not keep the room.
                Box::pin(tokio::time::sleep(ASK_AGAIN)).await;
            }
        }
    }

    /// Ends with the time of one attempt. While the request's body is still coming, the endpoint owes nothing: the time
    /// begins anew.
    async fn own_time(&self, replay: &Replay) -> Duration {
        let Some(limit) = self.policy.retry.per_try_timeout else { return std::future::pending().await };
        // Boxed, so that requests without such a time do not keep the room.
        let mut timer = Box::pin(tokio::time::sleep(limit));
        loop {
            timer.as_mut().await;
            if replay.is_over() {
                return limit;
            }
            let next = timer.deadline() + limit;
            timer.as_mut().reset(next);
        }
    }

    /// Lets go of an outcome that nobody will see. An answer's connection is kept if nothing more comes on it; else its
    /// stream is reset, or an HTTP/1 connection closed.
    pub(super) fn discard(&self, outcome: Result<Answer, ProxyError>, entry: Entry<'_>) {
        let Ok(mut answer) = outcome else { return };
        entry.ended(self.worker.now());
        if let Some(connection) = answer.held.http1.take_if(|_| answer.response.body().is_end_stream()) {
            self.worker.pool.give_back(connection, self.worker.now());
        }
    }

    /// The request of one attempt, in the form that the upstream's HTTP version asks for.
    pub(super) fn request(
        &self,
        head: &mut Parts,
        body: RequestBody,
        (course, span): (&Course<'_>, Option<SpanId>),
    ) -> Result<Box<Request<RequestBody>>, ProxyError> {
        let mut request = Box::new(Request::new(body));
        *request.method_mut() = head.method.clone();
        *request.headers_mut() =
            if course.is_last() { std::mem::take(&mut head.headers) } else { head.headers.clone() };
        if let Some(baton) = self.baton {
            baton.tell(request.headers_mut(), span);
        }
        let transport = &self.cluster.settings.transport;
        if transport.is_sidecar() {
            request.headers_mut().insert(wire::ATTEMPT, HeaderValue::from(course.attempt()));
        }
        self.deadline.tell(request.headers_mut(), transport, || self.worker.now())?;
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

/// Notes that the caller is given this attempt's outcome.
fn deliver(entry: Entry<'_>) {
    let index = entry.index().and_then(|index| u8::try_from(index).ok());
    entry.record().write(|trail| trail.delivered = index);
}

/// Notes whether a failed attempt is repeated, or why not; after which wait it is.
pub(super) fn repeats<N: Net>(
    worker: &Worker<N>,
    repeated: Result<(RetryReason, Duration), NotRepeated>,
    entry: Entry<'_>,
) -> Option<Duration> {
    match repeated {
        Ok((reason, wait)) => {
            if reason == RetryReason::Silent {
                entry.write(|attempt| attempt.failure = Some(reason));
                notes::step(worker, entry.record(), Step::TakenBack);
            }
            notes::step(worker, entry.record(), Step::Repeated(reason, wait));
            Some(wait)
        }
        Err(why) => {
            notes::step(worker, entry.record(), Step::NotRepeated(why));
            None
        }
    }
}
