//! Copies of requests to other clusters, as rules ask for them (`mirror`): nobody gets their answers.
//!
//! ```text
//!   the request ──▶ draw ─────────▶ attempts ──▶ answer         neither waits for a copy, nor fails with one
//!                    └─▶ head ┐       │ body
//!                             └▶ copy ◀ when it is whole ──▶ one attempt ──▶ answer, thrown away
//! ```
//! A copy is the request as the rule changes it, without what is changed for one of the rule's clusters alone, made ready
//! anew for where it goes: what holds for any call to that cluster holds for it.
//!
//! # Invariants
//! - A copy has a task of its own, which nothing waits for, a drain neither.
//! - It is sent once, when all of the body is there. What is kept of a body is bounded, and so are copies in number and in
//!   time; over a bound the copy is dropped and counted. Those that wait for a body are bounded by the requests whose it is.
//! - A copy's time begins when it could be sent, so that an endpoint is never blamed for what the request took before.
//! - A request that wants to leave HTTP is not copied.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use http::request::Parts;
use http_body_util::BodyExt as _;

use super::{
    affinity, answer_head,
    attempt::Answer,
    attempts::Attempts,
    deadline::Deadline,
    door::Door,
    ending::Ending,
    error::ProxyError,
    head::{self, Edited},
    notes,
    respond::{self, Audience},
    trace::Baton,
    wish::Wish,
    worker::Worker,
};
use crate::{
    canonical::Care,
    connect::dial::Speak,
    drain,
    headers::{forwarded, grpc},
    model::{
        Cluster, Snapshot,
        mirror::{Dropped, Mirror},
        policy::Policy,
        trace::TracePlace,
    },
    net::Net,
    relay::{
        activity::Activity,
        body::{self, ResponseBody},
        replay::{Replay, Rest},
        whole::{Coming, Whole},
    },
    resilience::circuit_breaker::{self, CopySlot, RequestSlot},
    route::{self, Chosen},
    telemetry::{observer::Wanted, record::RequestRecord, trail::Traffic},
};

/// What is read of an answer, so that its connection can be used again; of a longer one the stream is reset, or an HTTP/1
/// connection closed.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The copies that were drawn for a request, and its head as it came.
pub(super) struct Drawn {
    head: Parts,
    /// Whom it is for.
    asked: String,
    /// The prefix of the path by which its rule was found.
    prefix: Option<Box<str>>,
    mirrors: Vec<Mirror>,
}

/// Draws the copies of a request that goes by what was chosen, before its head is changed. `None`: there are none.
pub(super) fn draw<N: Net>(
    worker: &Worker<N>,
    chosen: Chosen<'_>,
    (head, asked, wish): (&Parts, &str, Option<&Wish>),
) -> Option<Box<Drawn>> {
    let mirrors = chosen.policy.mirrors.as_deref().filter(|_| wish.is_none())?;
    let is_drawn = |mirror: &&Mirror| worker.with_rng(|rng| route::mirror::is_drawn(mirror, rng));
    let mirrors: Vec<Mirror> = mirrors.iter().filter(is_drawn).cloned().collect();
    if mirrors.is_empty() {
        return None;
    }
    let prefix = chosen.prefix.map(Into::into);
    Some(Box::new(Drawn { head: head.clone(), asked: asked.to_owned(), prefix, mirrors }))
}

/// What a copy has of the request itself: its head as it goes on, its record, and what is told of its trace.
type Original<'a> = (&'a Parts, &'a RequestRecord, Option<&'a Baton>);

/// Begins the copies that were drawn. Each waits for the body, of which `replay` keeps as much as for a retry.
pub(super) fn begin<N: Net>(
    drawn: Option<Box<Drawn>>,
    (worker, door): (&Arc<Worker<N>>, &Door),
    snapshot: &Arc<Snapshot>,
    original: Original<'_>,
    replay: &mut Replay,
) {
    let Some(drawn) = drawn else { return };
    for mirror in &drawn.mirrors {
        // There is none only where a configuration was not read by the rules.
        let Some(cluster) = snapshot.cluster(&mirror.cluster) else { continue };
        match drawn.copy((worker, door), (snapshot, cluster), mirror, original) {
            Ok(copy) => drain::spawn_background(copy.run(replay.copy())),
            Err(why) => cluster.runtime.mirrors.drop_one(why),
        }
    }
}

impl Drawn {
    fn copy<N: Net>(
        &self,
        (worker, door): (&Arc<Worker<N>>, &Door),
        (snapshot, cluster): (&Arc<Snapshot>, &Arc<Cluster>),
        mirror: &Mirror,
        (original, whole, baton): Original<'_>,
    ) -> Result<Copy<N>, Dropped> {
        if worker.load.is_over() {
            return Err(Dropped::Overflow);
        }
        let mut head = self.head.clone();
        let bad = |_error| Dropped::BadRequest;
        head::check_scheme(&head, door.listener(snapshot), cluster).map_err(bad)?;
        let is_outside = cluster.settings.transport.is_outside();
        if !is_outside {
            head::check_single(&head).map_err(bad)?;
            head::respell(&mut head, Care::Plain).map_err(bad)?;
            // One that was made for the request is its copies', too.
            if forwarded::request_id(&head.headers).is_none()
                && let Some(id) = forwarded::request_id(&original.headers)
            {
                head.headers.insert(&forwarded::REQUEST_ID, id.clone());
            }
        }
        let affinity = affinity::of_request(cluster, door, snapshot, &head).key;
        let policy = Arc::clone(&mirror.policy);
        let edited =
            Edited { edits: policy.edits.as_deref(), prefix: self.prefix.as_deref(), asked: &self.asked };
        let previous_attempt =
            head::rewrite((worker, door), (snapshot, cluster), &edited, &mut head).map_err(bad)?;
        let record = record((worker, door), cluster, whole);
        let mut baton = baton.cloned().map(Box::new);
        if let Some(baton) = &mut baton {
            baton.dress(worker, (&mut head.headers, is_outside), &record);
        }
        let authority = head::addressed(self.asked.clone(), policy.edits.as_deref(), snapshot, cluster);
        let (speak, _none) = head::speak(None, cluster, None, &mut head);
        let deadline = Deadline::new(record.started(), &head, policy.request_timeout, None, false);
        Ok(Copy {
            worker: Arc::clone(worker),
            snapshot: Arc::clone(snapshot),
            cluster: Arc::clone(cluster),
            policy,
            head,
            authority,
            speak,
            affinity,
            previous_attempt,
            deadline,
            record,
            baton,
        })
    }
}

/// The record of a copy: wanted for its span alone, if the request's are.
fn record<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    cluster: &Cluster,
    original: &RequestRecord,
) -> RequestRecord {
    let mut record = door.record(worker, Traffic::Http, worker.now());
    let is_sampled = original.wanted().is_sampled;
    record.want(Wanted { is_sampled, ..Wanted::default() });
    original.write(|original| {
        record.write(|trail| {
            (trail.is_mirror, trail.cluster) = (true, Some(cluster.name().clone()));
            (trail.kind, trail.generation) = (original.kind, original.generation);
            if !is_sampled {
                return;
            }
            (trail.asked, trail.request_id) = (original.asked.clone(), original.request_id.clone());
            trail.route.clone_from(&original.route);
            trail.trace = original.trace.clone().map(|place| TracePlace {
                parent: place.own.or(place.parent),
                own: None,
                ..place
            });
        });
    });
    record
}

/// One copy.
struct Copy<N: Net> {
    worker: Arc<Worker<N>>,
    snapshot: Arc<Snapshot>,
    cluster: Arc<Cluster>,
    policy: Arc<Policy>,
    head: Parts,
    authority: String,
    speak: Speak,
    affinity: Option<u64>,
    previous_attempt: u32,
    /// By when all is over.
    deadline: Deadline,
    record: RequestRecord,
    baton: Option<Box<Baton>>,
}

impl<N: Net> Copy<N> {
    /// Sends it once `body` is there, if there is one.
    async fn run(mut self, body: Option<Coming>) {
        let whole = match body {
            None => Ok(Whole::default()),
            Some(body) => tokio::select! {
                biased;
                body = body => match body {
                    Ok(Some(whole)) => Ok(whole),
                    Ok(None) => Err(Dropped::TooLarge),
                    Err(_gone) => Err(Dropped::Incomplete),
                },
                _late = self.deadline.passed() => Err(Dropped::Incomplete),
            },
        };
        match whole.and_then(|whole| Ok((whole, self.admit()?))) {
            // Boxed, so that one that waits for its body does not keep the room.
            Ok((whole, (_place, slot))) => {
                self.deadline = self.deadline.beginning(self.worker.now());
                Box::pin(self.send(whole, slot)).await;
            }
            Err(why) => {
                self.cluster.runtime.mirrors.drop_one(why);
                self.record.discard();
            }
        }
    }

    /// Its place among the copies to its cluster, and among the cluster's requests.
    fn admit(&self) -> Result<(CopySlot, RequestSlot), Dropped> {
        let has_own_connection = self.speak != Speak::Http2;
        let place = circuit_breaker::admit_copy(&self.cluster, has_own_connection).ok_or(Dropped::TooMany)?;
        let slot = circuit_breaker::admit_request(&self.cluster, None, self.worker.load.is_over());
        Ok((place, slot.map_err(|_cap| Dropped::Overflow)?))
    }

    async fn send(mut self, whole: Whole, slot: RequestSlot) {
        let activity = Activity::new(&self.worker.clock, self.record.moved());
        let mut head = std::mem::replace(&mut self.head, http::Request::new(()).into_parts().0);
        let attempts = Attempts {
            worker: &self.worker,
            snapshot: &self.snapshot,
            cluster: &self.cluster,
            policy: &self.policy,
            authority: std::mem::take(&mut self.authority),
            speak: self.speak,
            wish: None,
            affinity: self.affinity,
            previous_attempt: self.previous_attempt,
            deadline: self.deadline,
            record: &self.record,
            baton: self.baton.as_deref(),
        };
        let outcome = attempts.run(&mut head, Replay::whole(whole), &activity).await;
        let transport = &self.cluster.settings.transport;
        let outcome = outcome.and_then(|(answer, rest)| {
            match self.deadline.overrun(answer.response.headers(), transport) {
                Some(error) => Err(error),
                None => Ok((answer, rest)),
            }
        });
        let counts = &self.cluster.runtime.mirrors;
        match outcome {
            Ok((answer, rest)) => {
                counts.sent.fetch_add(1, Ordering::Relaxed);
                self.read(answer, (rest, slot), activity).await;
            }
            Err(ProxyError::NoEndpoint { .. }) => self.fail(Dropped::NoEndpoint),
            Err(ProxyError::Overflow { .. }) => self.fail(Dropped::Overflow),
            Err(error) => {
                counts.sent.fetch_add(1, Ordering::Relaxed);
                counts.unanswered.fetch_add(1, Ordering::Relaxed);
                notes::refused(&self.worker, &self.record, &error);
                tracing::debug!(
                    cluster = %self.cluster.name(), error = respond::chain(&error), "a copy had no answer"
                );
                self.record.finish();
            }
        }
    }

    /// There was nobody to send it to.
    fn fail(self, why: Dropped) {
        self.cluster.runtime.mirrors.drop_one(why);
        self.record.discard();
    }

    /// Reads the answer to its end, for the connection's sake.
    async fn read(self, mut answer: Answer, (rest, slot): (Rest, RequestSlot), activity: Activity) {
        let response = &mut answer.response;
        answer_head::clean(response.headers_mut(), &self.cluster, Audience::App, &self.record);
        let (head, body) = answer.response.into_parts();
        self.record.answered(head.status.as_u16(), self.worker.now());
        let is_grpc = grpc::is_call(&head.headers);
        if is_grpc {
            notes::grpc_status(&self.record, &head.headers);
        }
        let idle = self.cluster.settings.timeouts.stream_idle;
        let ending = Ending {
            worker: Arc::clone(&self.worker),
            record: Some(self.record),
            held: Some(answer.held),
            cluster: self.cluster,
            is_grpc,
            ends_in_status: false,
            _rest: rest,
            _slot: slot,
            _live: None,
        };
        let limits = body::Limits { idle, end: self.deadline.at(), permit: None };
        throw_away(self.worker.streams.watch(body, activity, limits, Box::new(ending))).await;
    }
}

async fn throw_away(mut body: ResponseBody) {
    let mut left = MAX_ANSWER_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
