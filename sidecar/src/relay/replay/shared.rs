//! What is known of a body that is on its way, for all of its attempts.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    super::{activity::Activity, whole::Copies},
    Error,
};
use crate::{headers::trailers, model::authorization::Authorization};

/// Frames that are kept at most: a body in tiny frames costs more than its bytes.
const MAX_KEPT_FRAMES: usize = 256;
/// Frames shorter than this are kept as copies, so that a few bytes do not hold a whole read buffer.
const MIN_SHARED_BYTES: usize = 1024;

/// Where a body comes from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) body: Incoming,
    pub(super) activity: Activity,
    /// Those that have judged the head.
    pub(super) rules: Option<Arc<Authorization>>,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    /// `None` of a body that was there from the beginning.
    pub(super) source: Option<Source>,
    /// Bytes that may be kept.
    pub(super) limit: usize,
    pub(super) kept: Vec<Bytes>,
    pub(super) kept_bytes: usize,
    pub(super) trailers: Option<HeaderMap>,
    /// The body has ended, orderly.
    pub(super) ended: bool,
    /// The body's beginning is not kept any more: no attempt can begin.
    pub(super) is_spent: bool,
    /// An answer has begun: nothing more is kept.
    pub(super) is_answered: bool,
    /// The body has failed.
    pub(super) failed: bool,
    /// Which attempt may read; older ones are superseded.
    pub(super) attempt: u32,
    /// The reading attempt, to be woken when it may not read any more.
    pub(super) reader: Option<Waker>,
    /// Those who want a copy of the body, once it is whole.
    pub(super) copies: Copies,
}

impl Shared {
    /// The number of the attempt that may read from here on.
    pub(super) fn supersede(&mut self) -> u32 {
        self.attempt += 1;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        self.attempt
    }

    /// Of what is not kept. Exact only where no trailers follow: a length that was told leaves no room for them in HTTP/1.
    pub(super) fn size_to_come(&self, trailers_sent: bool) -> SizeHint {
        match &self.source {
            Some(source) if !self.ended => source.body.size_hint(),
            Some(_) | None if self.trailers.is_some() && !trailers_sent => SizeHint::new(),
            Some(_) | None => SizeHint::with_exact(0),
        }
    }

    /// Whoever reads is woken when it may not read any more.
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        if !self.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            self.reader = Some(cx.waker().clone());
        }
    }

    /// The next frame that is not empty. Empty ones are left out: receivers allow only so many on a connection (h2: 100
    /// over its whole life), and ours carries the streams of many.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        while !self.ended {
            let Some(source) = &mut self.source else { break };
            let Poll::Ready(polled) = Pin::new(&mut source.body).poll_frame(cx) else {
                self.wait(cx);
                return Poll::Pending;
            };
            source.activity.touch();
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
                if let Some(source) = &self.source {
                    source.activity.from_caller(data.len());
                    // Known with the last frame, so that it goes on as the last and no empty one has to follow it.
                    self.ended = source.body.is_end_stream();
                }
                if data.is_empty() {
                    return None;
                }
                self.keep(&data);
                Some(Frame::data(data))
            }
            Err(frame) => {
                let mut trailers = frame.into_trailers().ok()?;
                trailers::clean(&mut trailers);
                if let Some(rules) = self.source.as_ref().and_then(|source| source.rules.as_ref()) {
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

    pub(super) fn spend(&mut self) {
        self.is_spent = true;
        self.kept = Vec::new();
        self.copies.refuse();
    }
}
