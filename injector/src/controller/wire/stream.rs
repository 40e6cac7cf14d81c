//! One conversation with a sidecar: what it wants, and what it is told, always the newest.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use outrider::{
    clock::Clock,
    discovery::controller::api::outrider_discovery_v1::{
        self as api, Heartbeat, Hello, Want, WatchRequest, WatchResponse, watch_request, watch_response,
    },
};
use outrider_certs::SpiffeId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::desk::{Desk, Subscription};
use crate::controller::{
    metrics::{End, Metrics},
    model::names::MAX_KEY_BYTES,
    subscriptions::{Refused, told::Told, told::message},
};

/// Largest message of a sidecar, in bytes.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// A message that is not taken for this long ends the stream: who is told nothing must know it.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two heartbeats.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// Time for the first message.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that a sidecar may send at once: twice as many as it may want, so that it can forget all and want others.
const BURST: u32 = 8192;
/// Time between two more of them: 200 a second.
const MESSAGE_EVERY: Duration = Duration::from_millis(5);
/// Messages that wait to be taken by a sidecar that is heard.
const MAX_WAITING: usize = 64;
/// Longest texts of a Hello, in bytes: a pod's name has at most 253.
const MAX_TEXT_BYTES: usize = 256;

/// What a stream's messages go to.
pub type Out = mpsc::Sender<Result<WatchResponse, Status>>;

/// One stream.
#[derive(Debug)]
pub struct Conversation {
    /// What is known, and who else asks.
    pub desk: Arc<Desk>,
    /// Who is at the other end.
    pub id: SpiffeId,
    /// Cancelled when the controller stops.
    pub stop: CancellationToken,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Deadlines go by it.
    pub clock: Clock,
}

/// Why a conversation ends, and what is still said.
type Ended = (End, Option<Status>);

impl Conversation {
    /// Talks until either side ends it. Returns why.
    pub async fn run(self, mut inbound: Streaming<WatchRequest>, out: Out) -> End {
        let (end, status) = self.talk(&mut inbound, &out).await;
        self.metrics.ended(end);
        tracing::debug!(id = %self.id, reason = end.as_str(), "a stream ended");
        if let Some(status) = status {
            // Without room for it, the connection's end has to say it.
            drop(out.try_send(Err(status)));
        }
        end
    }

    async fn talk(&self, inbound: &mut Streaming<WatchRequest>, out: &Out) -> Ended {
        let hello = tokio::select! {
            () = self.stop.cancelled() => return stopping(),
            hello = tokio::time::timeout(HELLO_TIMEOUT, inbound.message()) => hello,
        };
        let hello = match hello {
            Ok(Ok(Some(WatchRequest { message: Some(watch_request::Message::Hello(hello)) }))) => hello,
            Ok(Ok(Some(_))) => return invalid("the first message must be a Hello"),
            Ok(Ok(None) | Err(_)) => return (End::Peer, None),
            Err(_elapsed) => return invalid("no Hello in time"),
        };
        let subscription = match self.greet(&hello) {
            Ok(subscription) => subscription,
            Err(ended) => return ended,
        };
        tracing::debug!(id = %self.id, pod = hello.pod, version = hello.version, "a sidecar watches");
        let mut saying = Saying::new(Told::new(self.desk.epoch()), self.clock.now());
        loop {
            saying.refill(&subscription, self.clock.now());
            let step = self.step(&mut saying, &subscription, inbound, out).await;
            if let Err(ended) = step {
                return ended;
            }
        }
    }

    fn greet(&self, hello: &Hello) -> Result<Subscription, Ended> {
        if [&hello.pod, &hello.pod_uid, &hello.version].iter().any(|text| text.len() > MAX_TEXT_BYTES) {
            return Err(invalid("a text of the Hello is too long"));
        }
        self.desk.subscribe(&self.id, (&hello.pod, &hello.pod_uid)).map_err(|end| {
            let status = match end {
                End::Starting => Status::unavailable("the controller does not know the cluster yet"),
                End::Denied => Status::permission_denied("not the ID of a workload of Kubernetes"),
                End::Peer | End::Slow | End::Invalid | End::Limit | End::Stopping => {
                    Status::resource_exhausted("too many streams, of this identity or in all")
                }
            };
            (end, Some(status))
        })
    }

    fn hear(
        &self,
        request: WatchRequest,
        saying: &mut Saying,
        subscription: &Subscription,
    ) -> Result<(), Ended> {
        match request.message {
            Some(watch_request::Message::Want(want)) => self.want(want, saying, subscription),
            Some(watch_request::Message::Forget(forget)) => {
                subscription.forget(&forget.key);
                saying.told.forget(&forget.key);
                Ok(())
            }
            Some(watch_request::Message::Hello(_)) => Err(invalid("one Hello is enough")),
            // Of a newer sidecar: what is not known is not answered.
            None => Ok(()),
        }
    }

    fn want(&self, want: Want, saying: &mut Saying, subscription: &Subscription) -> Result<(), Ended> {
        if want.key.len() > MAX_KEY_BYTES {
            return Err(invalid("a key is too long"));
        }
        saying.told.resume(&want.key, want.epoch, want.generation);
        let refused = match subscription.want(&want.key) {
            Ok(()) => return Ok(()),
            Err(Refused::Key) => return Err(invalid("a key is neither IP:port nor host:port")),
            Err(refused) => refused,
        };
        // The first is worth a word, and then one of so many.
        if self.metrics.wants_refused.inc().is_multiple_of(1000) {
            tracing::warn!(id = %self.id, reason = %refused, "a destination is not told to a sidecar");
        }
        saying.told.forget(&want.key);
        let refused = message(watch_response::Message::Refused(api::Refused { key: want.key }));
        if saying.next.is_empty() {
            saying.progress = self.clock.now();
        }
        saying.next.push_back(refused);
        Ok(())
    }

    /// Waits for whatever comes first, and does it.
    async fn step(
        &self,
        saying: &mut Saying,
        subscription: &Subscription,
        inbound: &mut Streaming<WatchRequest>,
        out: &Out,
    ) -> Result<(), Ended> {
        let has_more = !saying.next.is_empty();
        // Who asks faster than it may, or does not hear what it is told, waits; so do its messages, in the transport.
        let may_speak = saying.next.len() < MAX_WAITING;
        let heard_from = saying.allowance.next(self.clock.now());
        let hearing = async {
            until(heard_from).await;
            inbound.message().await
        };
        tokio::select! {
            () = self.stop.cancelled() => Err(stopping()),
            permit = out.reserve(), if has_more => {
                let permit = permit.map_err(|_closed| (End::Peer, None))?;
                if let Some(next) = saying.next.pop_front() {
                    permit.send(Ok(next));
                    self.metrics.messages.inc();
                }
                saying.progress = self.clock.now();
                Ok(())
            }
            () = until(saying.progress + WRITE_DEADLINE), if has_more => Err((End::Slow, None)),
            request = hearing, if may_speak => match request {
                Ok(Some(request)) => {
                    saying.allowance.take(self.clock.now());
                    self.hear(request, saying, subscription)
                }
                // Half closed: it wants nothing more, and may still listen.
                Ok(None) | Err(_) => Err((End::Peer, None)),
            },
            () = subscription.woken(), if !has_more => Ok(()),
            () = out.closed() => Err((End::Peer, None)),
            () = until(saying.progress + HEARTBEAT), if !has_more => {
                saying.say(message(watch_response::Message::Heartbeat(Heartbeat {})), self.clock.now());
                Ok(())
            }
        }
    }
}

/// What is being said.
struct Saying {
    told: Told,
    allowance: Allowance,
    /// What one change takes to say; the next is looked at when this is gone.
    next: VecDeque<WatchResponse>,
    /// When the last message was taken, or the first of `next` began to wait.
    progress: Instant,
}

impl Saying {
    /// Begins with a heartbeat, so that the other end knows at once that it is heard.
    fn new(told: Told, now: Instant) -> Self {
        let next = VecDeque::from([message(watch_response::Message::Heartbeat(Heartbeat {}))]);
        Self { told, allowance: Allowance::new(now), next, progress: now }
    }

    fn say(&mut self, response: WatchResponse, now: Instant) {
        self.next.push_back(response);
        self.progress = now;
    }

    fn refill(&mut self, subscription: &Subscription, now: Instant) {
        while self.next.is_empty() {
            let Some(change) = subscription.next_change() else { return };
            self.next.extend(self.told.say(change));
            self.progress = now;
        }
    }
}

/// What a sidecar may say: so much at once, and then so much a second. Pure.
#[derive(Debug)]
struct Allowance {
    left: u32,
    /// When it was counted last.
    since: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: BURST, since: now }
    }

    /// From when on a message may be heard.
    fn next(&self, now: Instant) -> Instant {
        if self.left > 0 { now } else { self.since + MESSAGE_EVERY }
    }

    /// A message was heard.
    fn take(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.since).as_micros() / MESSAGE_EVERY.as_micros();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if gained > 0 {
            self.left = self.left.saturating_add(gained).min(BURST);
            self.since = now;
        }
        self.left = self.left.saturating_sub(1);
    }
}

fn invalid(why: &'static str) -> Ended {
    (End::Invalid, Some(Status::invalid_argument(why)))
}

fn stopping() -> Ended {
    (End::Stopping, Some(Status::unavailable("this controller stops: ask another")))
}

async fn until(deadline: Instant) {
    tokio::time::sleep_until(tokio::time::Instant::from_std(deadline)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_may_say_much_at_once_and_then_so_much_a_second() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        for _ in 0..BURST {
            assert_eq!(allowance.next(start), start);
            allowance.take(start);
        }
        assert_eq!(allowance.next(start), start + MESSAGE_EVERY);
        let mut now = start;
        for _ in 0..200 {
            now = allowance.next(now).max(now);
            allowance.take(now);
        }
        assert_eq!(now - start, 200 * MESSAGE_EVERY, "200 in a second");
        let later = now + Duration::from_secs(10);
        allowance.take(later);
        assert_eq!(allowance.left, 1999);
        allowance.take(later + Duration::from_secs(3600));
        assert_eq!(allowance.left, BURST - 1, "never more at once");
    }
}
