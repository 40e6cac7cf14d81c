//! The response's body on its way downstream, with what must live as long as it does.
//!
//! A downstream that takes nothing also asks for nothing, so a body cannot find out by itself that it is idle: the
//! worker's sweeper looks at all [`Streams`] under way and ends the idle ones.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use slab::Slab;

use super::{
    activity::Activity,
    received::{Broken, Received},
};
use crate::headers::trailers;

/// Why a response body ended early. The downstream sees a reset stream or a connection closed before the end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The upstream broke off.
    #[error("the upstream broke off its response body")]
    Upstream(#[source] Broken),
    /// Nothing moved for the stream's idle time.
    #[error("the stream was idle for too long")]
    Idle,
}

/// Told how a response body ended; whatever it holds (slots, records, leases) is released with it.
pub trait OnEnd: Send + 'static {
    /// The body has ended: whole, or with an error. Not called if the downstream dropped it.
    fn ended(&mut self, result: Result<(), &Error>);
}

/// The response bodies under way of one worker: as many as its requests in flight, which are capped.
#[derive(Clone, Debug, Default)]
pub struct Streams(Arc<Mutex<Slab<Arc<Live>>>>);

/// A response body: an upstream's, or a short one of our own.
pub enum ResponseBody {
    /// An upstream's.
    Upstream(Upstream),
    /// Our own.
    Local(Full<Bytes>),
}

/// An upstream's body, watched.
pub struct Upstream {
    live: Arc<Live>,
    /// Its place among the streams under way; `None` if it had ended before it began.
    place: Option<(Streams, usize)>,
}

struct Live {
    activity: Activity,
    /// Ends the stream when neither direction moves for so long.
    idle: Duration,
    state: Mutex<State>,
    /// Whoever waits for the body, to be woken when it is ended from outside.
    waiting: AtomicWaker,
}

enum State {
    Open {
        body: Received,
        on_end: Box<dyn OnEnd>,
    },
    /// Given out to its last frame, or failed.
    Ended,
    /// Ended for idleness, not yet told.
    Idle,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("activity", &self.activity).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Upstream(_) => f.write_str("ResponseBody::Upstream"),
            Self::Local(body) => f.debug_tuple("ResponseBody::Local").field(body).finish(),
        }
    }
}

impl Streams {
    /// Ends every stream in which nothing moved for its idle time, and lets go of what it holds upstream. Call it about
    /// once a second.
    pub fn sweep(&self, now: Instant) {
        let idle: Vec<_> = {
            let streams = lock(&self.0);
            streams.iter().filter(|(_, live)| live.is_idle(now)).map(|(_, live)| Arc::clone(live)).collect()
        };
        for live in idle {
            live.expire();
        }
    }

    /// A body of an upstream among these. `idle` ends the stream when neither direction moves for so long.
    #[must_use]
    pub fn watch(
        &self,
        body: Received,
        activity: Activity,
        idle: Duration,
        mut on_end: Box<dyn OnEnd>,
    ) -> ResponseBody {
        let is_over = body.is_end_stream();
        let state = if is_over {
            on_end.ended(Ok(()));
            State::Ended
        } else {
            State::Open { body, on_end }
        };
        let live = Arc::new(Live { activity, idle, state: Mutex::new(state), waiting: AtomicWaker::new() });
        let place = (!is_over).then(|| (self.clone(), lock(&self.0).insert(Arc::clone(&live))));
        ResponseBody::Upstream(Upstream { live, place })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some((streams, key)) = self.place.take() {
            drop(lock(&streams.0).try_remove(key));
        }
        // What the body holds goes with it, even if the sweeper is just looking at it.
        let state = std::mem::replace(&mut *lock(&self.live.state), State::Ended);
        drop(state);
    }
}

impl Live {
    fn is_idle(&self, now: Instant) -> bool {
        self.activity.idle_at(self.idle) <= now
    }

    fn expire(&self) {
        let state = std::mem::replace(&mut *lock(&self.state), State::Idle);
        match state {
            State::Open { body, mut on_end } => {
                on_end.ended(Err(&Error::Idle));
                drop(body);
                self.waiting.wake();
            }
            State::Ended => *lock(&self.state) = State::Ended,
            State::Idle => {}
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Arc<Error>>>> {
        self.waiting.register(cx.waker());
        let mut guard = lock(&self.state);
        let (outcome, frame) = match &mut *guard {
            State::Open { body, .. } => match std::task::ready!(poll_some(body, &self.activity, cx)) {
                Some(Ok(frame)) => {
                    // The last data frame may be the end: do not wait for one more poll that hyper need not make.
                    if !frame.is_trailers() && !body.is_end_stream() {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    (Ok(()), Some(frame))
                }
                Some(Err(error)) => (Err(Error::Upstream(error)), None),
                None => (Ok(()), None),
            },
            State::Ended => return Poll::Ready(None),
            State::Idle => {
                *guard = State::Ended;
                return Poll::Ready(Some(Err(Arc::new(Error::Idle))));
            }
        };
        let state = std::mem::replace(&mut *guard, State::Ended);
        drop(guard);
        if let State::Open { mut on_end, .. } = state {
            on_end.ended(outcome.as_ref().copied());
        }
        Poll::Ready(frame.map(Ok).or_else(|| outcome.err().map(|error| Err(Arc::new(error)))))
    }
}

/// The next frame that must go on: empty ones are left out, as `replay` does and for its reason.
fn poll_some(
    body: &mut Received,
    activity: &Activity,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
    loop {
        let polled = std::task::ready!(Pin::new(&mut *body).poll_frame(cx));
        activity.touch();
        match polled {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    trailers::clean(trailers);
                }
                let is_needless = frame.data_ref().is_some_and(Bytes::is_empty) && !body.is_end_stream();
                if !is_needless {
                    return Poll::Ready(Some(Ok(frame)));
                }
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        }
    }
}

impl ResponseBody {
    /// A short body of our own.
    #[must_use]
    pub fn local(text: impl Into<Bytes>) -> Self {
        Self::Local(Full::new(text.into()))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Arc<Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Arc<Error>>>> {
        match &mut *self {
            Self::Local(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Upstream(upstream) => upstream.live.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(body) => body.is_end_stream(),
            Self::Upstream(upstream) => match &*lock(&upstream.live.state) {
                State::Open { body, .. } => body.is_end_stream(),
                State::Ended => true,
                State::Idle => false,
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(body) => body.size_hint(),
            Self::Upstream(upstream) => match &*lock(&upstream.live.state) {
                State::Open { body, .. } => body.size_hint(),
                State::Ended | State::Idle => SizeHint::with_exact(0),
            },
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
