//! A request body that can be sent again, as long as it is short.
//!
//! While an attempt reads the body, its frames are kept up to a limit. A later attempt gets the kept frames first
//! and then the rest. Past the limit the kept frames are dropped: the body streams on, and cannot be sent again.
//!
//! # Invariants
//! - Only the newest attempt reads, and those beside it: an older one gets an error, whatever it still wants.
//! - An attempt that would miss the body's beginning gets an error and never the rest.
//! - When the response has ended, so has the body: nothing keeps reading for an answer that is over.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    activity::Activity,
    whole::{Coming, Copies, Whole},
};
use crate::{headers::trailers, model::authorization::Authorization};

/// Frames that are kept at most: a body in tiny frames costs more than its bytes.
const MAX_KEPT_FRAMES: usize = 256;
/// Frames shorter than this are kept as copies, so that a few bytes do not hold a whole read buffer.
const MIN_SHARED_BYTES: usize = 1024;

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

/// The request's body, from which one attempt after the other takes its own.
#[derive(Debug)]
pub struct Replay {
    /// `None` for a request without a downstream's body.
    shared: Option<Arc<Mutex<Shared>>>,
    /// What there is instead.
    own: Option<Box<Whole>>,
}

/// The rest of a body whose answer has begun. Dropping it ends the body: what the downstream still sends is not
/// read, and an upstream connection that waits for it is closed.
#[derive(Debug)]
pub struct Rest(Option<Arc<Mutex<Shared>>>);

#[derive(Debug)]
struct Shared {
    body: Incoming,
    activity: Activity,
    /// Those that have judged the head.
    rules: Option<Arc<Authorization>>,
    /// Bytes that may be kept.
    limit: usize,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    /// The body has ended, orderly.
    ended: bool,
    /// The body's beginning is not kept any more: no attempt can begin.
    is_spent: bool,
    /// An answer has begun: nothing more is kept.
    is_answered: bool,
    /// The body has failed.
    failed: bool,
    /// Which attempt may read; older ones are superseded.
    attempt: u32,
    /// The reading attempt, to be woken when it may not read any more.
    reader: Option<Waker>,
    /// Those who want a copy of the body, once it is whole.
    copies: Copies,
}

impl Replay {
    /// Keeps up to `limit` bytes of `body`, in up to 256 frames. `rules` are those that have judged its head: what they look for
    /// there does not come in its trailers.
    #[must_use]
    pub fn new(body: Incoming, limit: usize, activity: Activity, rules: Option<Arc<Authorization>>) -> Self {
        if body.is_end_stream() {
            return Self { shared: None, own: None };
        }
        let shared = Shared {
            body,
            activity,
            rules,
            limit,
            kept: Vec::new(),
            kept_bytes: 0,
            trailers: None,
            ended: false,
            is_spent: false,
            is_answered: false,
            failed: false,
            attempt: 0,
            reader: None,
            copies: Copies::default(),
        };
        Self { shared: Some(Arc::new(Mutex::new(shared))), own: None }
    }

    /// A body that is there.
    #[must_use]
    pub fn whole(body: Whole) -> Self {
        Self { shared: None, own: (!body.is_over()).then(|| Box::new(body)) }
    }

    /// A copy of the body, once all of it has gone on to the upstream: it is kept to its end then, also after an answer has
    /// begun. `None`: there is no body. To be asked for before the first attempt.
    #[must_use]
    pub fn copy(&mut self) -> Option<Coming> {
        self.shared.as_ref().map(|shared| lock(shared).copies.add())
    }

    /// The body for the next attempt.
    #[must_use]
    pub fn attempt(&mut self) -> RequestBody {
        let Some(shared) = &self.shared else { return self.own_body() };
        let attempt = lock(shared).supersede();
        RequestBody { shared: Some(Arc::clone(shared)), attempt, ..RequestBody::empty() }
    }

    /// The body for an attempt beside the one under way; `None` unless it has come to its end and all of it is kept:
    /// then reading takes nothing from anybody.
    #[must_use]
    pub fn beside(&self) -> Option<RequestBody> {
        let Some(shared) = &self.shared else { return Some(self.own_body()) };
        let state = lock(shared);
        let is_kept = state.ended && !state.is_spent && !state.failed;
        let attempt = state.attempt;
        let body = || RequestBody { shared: Some(Arc::clone(shared)), attempt, ..RequestBody::empty() };
        is_kept.then(body)
    }

    fn own_body(&self) -> RequestBody {
        RequestBody { own: self.own.clone(), ..RequestBody::empty() }
    }

    /// Ends the attempt under way: it reads nothing more, so that what is decided on next stays true.
    pub fn supersede(&mut self) {
        if let Some(shared) = &self.shared {
            lock(shared).supersede();
        }
    }

    /// Whether another attempt would send the same body: nothing was dropped and the downstream has not failed.
    #[must_use]
    pub fn is_replayable(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| {
            let shared = lock(shared);
            !shared.is_spent && !shared.failed
        })
    }

    /// Whether the body has come to its end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| {
            let shared = lock(shared);
            shared.ended || shared.body.is_end_stream()
        })
    }

    /// Whether the downstream broke off its body: then nobody waits for an answer.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| lock(shared).failed)
    }

    /// An answer has begun, so there will be no other attempt: the one under way reads on, and nothing more is kept.
    #[must_use]
    pub fn answered(self) -> Rest {
        if let Some(shared) = &self.shared {
            lock(shared).is_answered = true;
        }
        Rest(self.shared)
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            let mut shared = lock(shared);
            if !shared.ended {
                shared.supersede();
            }
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
    own: Option<Box<Whole>>,
}

impl RequestBody {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self { shared: None, attempt: 0, next: 0, trailers_sent: false, own: None }
    }

    /// A body of our own making.
    #[must_use]
    pub fn whole(bytes: Bytes) -> Self {
        let own = Whole { bytes, trailers: None };
        Self { own: (!own.bytes.is_empty()).then(|| Box::new(own)), ..Self::empty() }
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

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let Some(shared) = &this.shared else {
            return Poll::Ready(this.own.as_mut().and_then(|own| own.next()).map(Ok));
        };
        let mut shared = lock(shared);
        if shared.attempt != this.attempt || (shared.is_spent && this.next == 0 && this.attempt > 1) {
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
        let Some(shared) = &self.shared else { return self.own.as_ref().is_none_or(|own| own.is_over()) };
        let shared = lock(shared);
        shared.ended && self.next >= shared.kept.len() && (self.trailers_sent || shared.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(shared) = &self.shared else {
            return self.own.as_ref().map_or_else(|| SizeHint::with_exact(0), |own| own.size());
        };
        let shared = lock(shared);
        let unsent: u64 = shared.kept.iter().skip(self.next).map(|bytes| bytes.remaining() as u64).sum();
        let rest = if shared.ended { SizeHint::with_exact(0) } else { shared.body.size_hint() };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(unsent));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(unsent));
        }
        hint
    }
}

impl Shared {
    /// The number of the attempt that may read from here on.
    fn supersede(&mut self) -> u32 {
        self.attempt += 1;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        self.attempt
    }

    /// Whoever reads is woken when it may not read any more.
    fn wait(&mut self, cx: &Context<'_>) {
        if !self.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            self.reader = Some(cx.waker().clone());
        }
    }

    /// The next frame that is not empty. Empty ones are left out: receivers allow only so many on a connection (h2: 100
    /// over its whole life), and ours carries the streams of many.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        while !self.ended {
            let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(cx) else {
                self.wait(cx);
                return Poll::Pending;
            };
            let frame = match polled {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    self.failed = true;
                    return Poll::Ready(Some(Err(Error::Downstream(error))));
                }
                None => {
                    self.ended = true;
                    self.copies.give(&self.kept, None);
                    return Poll::Ready(None);
                }
            };
            self.activity.touch();
            let frame = self.take(frame);
            if self.ended {
                self.copies.give(&self.kept, self.trailers.as_ref());
            }
            if let Some(frame) = frame {
                return Poll::Ready(Some(Ok(frame)));
            }
        }
        Poll::Ready(None)
    }

    /// Takes note of a frame; `None` if it need not go on.
    fn take(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        match frame.into_data() {
            Ok(data) => {
                // Known with the last frame, so that it goes on as the last and no empty one has to follow it.
                self.ended = self.body.is_end_stream();
                if data.is_empty() {
                    return None;
                }
                self.activity.from_caller(data.len());
                self.keep(&data);
                Some(Frame::data(data))
            }
            Err(frame) => {
                let mut trailers = frame.into_trailers().ok()?;
                trailers::clean(&mut trailers);
                if let Some(rules) = &self.rules {
                    trailers::remove_judged(&mut trailers, rules.fields());
                }
                self.ended = true;
                self.trailers = Some(trailers.clone());
                Some(Frame::trailers(trailers))
            }
        }
    }

    fn keep(&mut self, data: &Bytes) {
        if self.is_spent {
            return;
        }
        self.kept_bytes = self.kept_bytes.saturating_add(data.len());
        if self.kept_bytes > self.limit || self.kept.len() >= MAX_KEPT_FRAMES {
            self.spend();
        } else if data.len() < MIN_SHARED_BYTES {
            self.kept.push(Bytes::copy_from_slice(data));
        } else {
            self.kept.push(data.clone());
        }
    }

    fn spend(&mut self) {
        self.is_spent = true;
        self.kept = Vec::new();
        self.copies.refuse();
    }
}

fn lock(shared: &Arc<Mutex<Shared>>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
