//! A request body that can be sent again, as long as it is short.
//!
//! While an attempt reads the body, its frames are kept up to a limit. A later attempt gets the kept frames first
//! and then the rest. Past the limit the kept frames are dropped: the body streams on, and cannot be sent again.
//!
//! # Invariants
//! - Only the newest attempt reads, and those beside it: an older one gets an error, whatever it still wants.
//! - An attempt that would miss the body's beginning gets an error and never the rest.
//! - When the response has ended, so has the body: nothing keeps reading for an answer that is over.

mod shared;

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use self::shared::{Shared, Source};
use super::{
    activity::Activity,
    whole::{Coming, Whole},
};
use crate::model::authorization::Authorization;

/// Why a request body ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The downstream broke off.
    #[error("the downstream broke off its request body")]
    Downstream(#[source] hyper::Error),
    /// A newer attempt has taken the body over, or the response is over.
    #[error("the request body is not wanted any more")]
    Superseded,
}

/// The request's body, from which one attempt after the other takes its own. `None` for a request without a body.
#[derive(Debug)]
pub struct Replay(Option<Arc<Mutex<Shared>>>);

/// The rest of a body whose answer has begun. Dropping it ends the body: what the downstream still sends is not
/// read, and an upstream connection that waits for it is closed.
#[derive(Debug)]
pub struct Rest(Option<Arc<Mutex<Shared>>>);

impl Replay {
    /// Keeps up to `limit` bytes of `body`, in up to 256 frames. `rules` are those that have judged its head: what they look for
    /// there does not come in its trailers.
    #[must_use]
    pub fn new(body: Incoming, limit: usize, activity: Activity, rules: Option<Arc<Authorization>>) -> Self {
        let is_over = body.is_end_stream();
        Self::of(
            is_over,
            Shared { source: Some(Source { body, activity, rules }), limit, ..Shared::default() },
        )
    }

    /// A body that is there.
    #[must_use]
    pub fn whole(body: Whole) -> Self {
        let (is_over, Whole { bytes, trailers }) = (body.is_over(), body);
        let kept = if bytes.is_empty() { Vec::new() } else { vec![bytes] };
        Self::of(is_over, Shared { kept, trailers, ended: true, ..Shared::default() })
    }

    fn of(is_over: bool, shared: Shared) -> Self {
        Self((!is_over).then(|| Arc::new(Mutex::new(shared))))
    }

    /// A copy of the body, once all of it has gone on to the upstream: it is kept to its end then, also after an answer has
    /// begun. `None`: there is no body. To be asked for before the first attempt.
    #[must_use]
    pub fn copy(&mut self) -> Option<Coming> {
        self.0.as_ref().map(|shared| lock(shared).copies.add())
    }

    /// The body for the next attempt.
    #[must_use]
    pub fn attempt(&mut self) -> RequestBody {
        let Some(shared) = &self.0 else { return RequestBody::empty() };
        let attempt = lock(shared).supersede();
        RequestBody { shared: Some(Arc::clone(shared)), attempt, ..RequestBody::empty() }
    }

    /// The body for an attempt beside the one under way; `None` unless it has come to its end and all of it is kept:
    /// then reading takes nothing from anybody.
    #[must_use]
    pub fn beside(&self) -> Option<RequestBody> {
        let Some(shared) = &self.0 else { return Some(RequestBody::empty()) };
        let state = lock(shared);
        let is_kept = state.ended && !state.is_spent && !state.failed;
        let attempt = state.attempt;
        let body = || RequestBody { shared: Some(Arc::clone(shared)), attempt, ..RequestBody::empty() };
        is_kept.then(body)
    }

    /// Ends the attempt under way: it reads nothing more, so that what is decided on next stays true.
    pub fn supersede(&mut self) {
        if let Some(shared) = &self.0 {
            lock(shared).supersede();
        }
    }

    /// Whether another attempt would send the same body: nothing was dropped and the downstream has not failed.
    #[must_use]
    pub fn is_replayable(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| {
            let shared = lock(shared);
            !shared.is_spent && !shared.failed
        })
    }

    /// Whether the body has come to its end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| {
            let shared = lock(shared);
            shared.ended || shared.source.as_ref().is_none_or(|source| source.body.is_end_stream())
        })
    }

    /// Whether the downstream broke off its body: then nobody waits for an answer.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| lock(shared).failed)
    }

    /// An answer has begun, so there will be no other attempt: the one under way reads on, and nothing more is kept.
    #[must_use]
    pub fn answered(self) -> Rest {
        if let Some(shared) = &self.0 {
            lock(shared).is_answered = true;
        }
        Rest(self.0)
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            // Also when all has come: it may wait for room that an upstream never gives.
            lock(shared).supersede();
        }
    }
}

/// The body of one attempt.
#[derive(Debug)]
pub struct RequestBody {
    /// `None` for a request without a body.
    shared: Option<Arc<Mutex<Shared>>>,
    attempt: u32,
    /// Kept frames already sent by this attempt.
    next: usize,
    trailers_sent: bool,
    /// Without a downstream's body: what there is instead, until it is sent.
    own: Bytes,
}

impl RequestBody {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self { shared: None, attempt: 0, next: 0, trailers_sent: false, own: Bytes::new() }
    }

    /// A body of our own making.
    #[must_use]
    pub fn whole(bytes: Bytes) -> Self {
        Self { own: bytes, ..Self::empty() }
    }
}

impl RequestBody {
    /// Ready when nobody wants the body any more; for who waits for something else than the body meanwhile.
    pub fn poll_unwanted(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(shared) = &self.shared else { return Poll::Pending };
        let mut shared = lock(shared);
        if shared.attempt != self.attempt {
            return Poll::Ready(());
        }
        shared.wait(cx);
        Poll::Pending
    }
}

impl RequestBody {
    /// Whether this attempt has the body to its end, if it may read.
    fn has_all_of(&self, shared: &Shared) -> bool {
        shared.ended && self.next >= shared.kept.len() && (self.trailers_sent || shared.trailers.is_none())
    }

    /// The same for one that may not read any more. Of a spent body nobody can tell what an older one had of it.
    fn has_all_of_what_is_kept(&self, shared: &Shared) -> bool {
        let has_begun = self.next > 0 || self.trailers_sent;
        !shared.is_spent && has_begun && self.has_all_of(shared)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let Some(shared) = &this.shared else {
            let own = std::mem::take(&mut this.own);
            return Poll::Ready((!own.is_empty()).then(|| Ok(Frame::data(own))));
        };
        let mut shared = lock(shared);
        let is_old = shared.attempt != this.attempt && !this.has_all_of_what_is_kept(&shared);
        if is_old || (shared.is_spent && this.next == 0 && this.attempt > 1) {
            return Poll::Ready(Some(Err(Error::Superseded)));
        }
        if let Some(bytes) = shared.kept.get(this.next) {
            this.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(bytes.clone()))));
        }
        if shared.ended {
            let trailers = shared.trailers.clone().filter(|_| !this.trailers_sent);
            this.trailers_sent = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        if shared.is_answered && !shared.is_spent && shared.copies.is_empty() {
            shared.spend();
        }
        let polled = std::task::ready!(shared.poll_more(cx));
        // Of a spent body nothing is kept, and this attempt has its beginning behind it.
        this.next = shared.kept.len().max(1);
        this.trailers_sent = shared.trailers.is_some();
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        let Some(shared) = &self.shared else { return self.own.is_empty() };
        self.has_all_of(&lock(shared))
    }

    fn size_hint(&self) -> SizeHint {
        let Some(shared) = &self.shared else { return SizeHint::with_exact(self.own.len() as u64) };
        let shared = lock(shared);
        let unsent: u64 = shared.kept.iter().skip(self.next).map(|bytes| bytes.remaining() as u64).sum();
        let rest = shared.size_to_come(self.trailers_sent);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(unsent));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(unsent));
        }
        hint
    }
}

fn lock(shared: &Arc<Mutex<Shared>>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::task::{Wake, Waker};

    use http::{HeaderMap, HeaderValue, header::ETAG};

    use super::*;

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn body() -> Replay {
        let trailers = HeaderMap::from_iter([(ETAG, HeaderValue::from_static("a"))]);
        Replay::whole(Whole { bytes: Bytes::from_static(b"two apples"), trailers: Some(trailers) })
    }

    fn next(body: &mut RequestBody) -> Option<Result<Frame<Bytes>, Error>> {
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(next) => next,
            Poll::Pending => panic!("all of it is there"),
        }
    }

    #[test]
    fn a_body_that_is_there_comes_whole_to_each_attempt_and_with_its_trailers() {
        let mut replay = body();
        assert!(replay.is_over() && replay.is_replayable() && replay.beside().is_some());
        for _ in 0..2 {
            let mut body = replay.attempt();
            assert_eq!((body.size_hint().lower(), body.size_hint().exact()), (10, None), "trailers follow");
            assert_eq!(next(&mut body).unwrap().unwrap().into_data().unwrap(), "two apples");
            assert!(!body.is_end_stream());
            assert_eq!(next(&mut body).unwrap().unwrap().into_trailers().unwrap()[ETAG], "a");
            assert!(body.is_end_stream() && next(&mut body).is_none());
        }
        let mut bare = Replay::whole(Whole { bytes: Bytes::from_static(b"x"), trailers: None });
        assert_eq!(bare.attempt().size_hint().exact(), Some(1));
        let mut none = Replay::whole(Whole::default()).attempt();
        assert!(none.is_end_stream() && next(&mut none).is_none());
    }

    #[test]
    fn who_waits_for_room_when_the_answer_has_ended_waits_no_longer() {
        let (mut replay, woken) = (body(), Arc::new(Woken::default()));
        let mut waiting = replay.attempt();
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        assert!(waiting.poll_unwanted(&mut cx).is_pending());
        drop(replay.answered());
        assert_eq!(woken.0.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert!(waiting.poll_unwanted(&mut cx).is_ready());
        assert!(matches!(next(&mut waiting), Some(Err(Error::Superseded))));
    }

    #[test]
    fn who_has_all_of_it_when_the_answer_has_ended_is_not_told_otherwise() {
        let mut replay = body();
        let mut done = replay.attempt();
        while next(&mut done).is_some() {}
        drop(replay.answered());
        assert!(next(&mut done).is_none());
    }
}
