//! A request body that can be sent again, as long as it is short.
//!
//! While an attempt reads the body, its frames are kept up to a limit. A later attempt gets the kept frames first
//! and then the rest. Past the limit the kept frames are dropped: the body streams on, and cannot be sent again.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::activity::Activity;

/// Why a request body ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The downstream broke off.
    #[error("the downstream broke off its request body")]
    Downstream(#[source] hyper::Error),
    /// A newer attempt has taken the body over.
    #[error("a newer attempt took over the request body")]
    Superseded,
}

/// The request's body, from which one attempt after the other takes its own.
#[derive(Debug)]
pub struct Replay {
    shared: Arc<Mutex<Shared>>,
    is_empty: bool,
}

#[derive(Debug)]
struct Shared {
    body: Incoming,
    activity: Activity,
    /// Bytes that may be kept.
    limit: usize,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    /// The body has ended, orderly.
    ended: bool,
    /// More was read than may be kept; `kept` is empty.
    overflowed: bool,
    /// The body has failed.
    failed: bool,
    /// Which attempt may read; older ones are superseded.
    attempt: u32,
}

impl Replay {
    /// Keeps up to `limit` bytes of `body`.
    #[must_use]
    pub fn new(body: Incoming, limit: usize, activity: Activity) -> Self {
        let is_empty = body.is_end_stream();
        let shared = Shared {
            body,
            activity,
            limit,
            kept: Vec::new(),
            kept_bytes: 0,
            trailers: None,
            ended: is_empty,
            overflowed: false,
            failed: false,
            attempt: 0,
        };
        Self { shared: Arc::new(Mutex::new(shared)), is_empty }
    }

    /// The body for the next attempt; the one before it can read no more.
    #[must_use]
    pub fn attempt(&mut self) -> RequestBody {
        if self.is_empty {
            return RequestBody { shared: None, attempt: 0, next: 0, trailers_sent: false };
        }
        let mut shared = lock(&self.shared);
        shared.attempt += 1;
        let attempt = shared.attempt;
        drop(shared);
        RequestBody { shared: Some(Arc::clone(&self.shared)), attempt, next: 0, trailers_sent: false }
    }

    /// Whether another attempt would send the same body: nothing was dropped and the downstream has not failed.
    #[must_use]
    pub fn is_replayable(&self) -> bool {
        let shared = lock(&self.shared);
        !shared.overflowed && !shared.failed
    }

    /// Whether the downstream broke off its body: then nobody waits for an answer.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        lock(&self.shared).failed
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
}

impl RequestBody {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self { shared: None, attempt: 0, next: 0, trailers_sent: false }
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
        let Some(shared) = &this.shared else { return Poll::Ready(None) };
        let mut shared = lock(shared);
        if shared.attempt != this.attempt {
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
        let polled = std::task::ready!(shared.poll_more(cx));
        if !shared.overflowed {
            this.next = shared.kept.len();
        }
        this.trailers_sent = shared.trailers.is_some();
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        let Some(shared) = &self.shared else { return true };
        let shared = lock(shared);
        shared.ended && self.next >= shared.kept.len() && (self.trailers_sent || shared.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(shared) = &self.shared else { return SizeHint::with_exact(0) };
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
    /// The next frame that is not empty. Empty ones are left out: receivers allow only so many on a connection (h2: 100
    /// over its whole life), and ours carries the streams of many.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        while !self.ended {
            let frame = match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    self.failed = true;
                    return Poll::Ready(Some(Err(Error::Downstream(error))));
                }
                None => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
            };
            self.activity.touch();
            let mut is_empty = false;
            if let Some(data) = frame.data_ref() {
                // Known with the last frame, so that it goes on as the last and no empty one has to follow it.
                self.ended = self.body.is_end_stream();
                is_empty = data.is_empty();
                if !is_empty {
                    self.keep(data.clone());
                }
            } else if let Some(trailers) = frame.trailers_ref() {
                self.trailers = Some(trailers.clone());
                self.ended = true;
            }
            if !is_empty {
                return Poll::Ready(Some(Ok(frame)));
            }
        }
        Poll::Ready(None)
    }

    fn keep(&mut self, data: Bytes) {
        if self.overflowed {
            return;
        }
        self.kept_bytes = self.kept_bytes.saturating_add(data.len());
        if self.kept_bytes > self.limit {
            self.overflowed = true;
            self.kept = Vec::new();
        } else {
            self.kept.push(data);
        }
    }
}

fn lock(shared: &Arc<Mutex<Shared>>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
