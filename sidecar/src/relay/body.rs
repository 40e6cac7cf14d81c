//! The response's body on its way downstream, with what must live as long as it does.
//!
//! A downstream that takes nothing also asks for nothing, so a body cannot find out by itself that it is idle: the
//! worker's sweeper looks at all [`Streams`] under way and ends the idle ones, and those whose time is over.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use slab::Slab;
use tokio::time::Sleep;

use super::{
    activity::Activity,
    permit::Permit,
    received::{Broken, Received},
};
use crate::headers::trailers;

/// Why a response body ended early. The downstream sees a reset stream or a connection closed before the end, unless
/// trailers can tell it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The upstream broke off.
    #[error("the upstream broke off its response body")]
    Upstream(#[source] Broken),
    /// Nothing moved for the stream's idle time.
    #[error("the stream was idle for too long")]
    Idle,
    /// It was to be over by now.
    #[error("the stream's deadline passed")]
    Deadline,
    /// Whoever gets it may not any more.
    #[error("its caller may not ask for this any more")]
    NoLongerAllowed,
}

/// What ends a response body that does not end by itself.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Neither direction moves for so long.
    pub idle: Duration,
    /// Then it must be over; `None`: whenever it is. To a downstream that takes what comes this is exact, any other is
    /// found by the sweeper.
    pub end: Option<Instant>,
    /// The leave of whoever gets it; `None`: nobody takes that away.
    pub permit: Option<Permit>,
}

/// Told how a response body ended; whatever it holds (slots, records, leases) is released with it.
pub trait OnEnd: Send + 'static {
    /// The body has ended: whole, or with an error. Not called if the downstream dropped it.
    ///
    /// `trailers` are the upstream's. After an error, returns trailers that tell the downstream what happened, where its
    /// protocol has such; they take the place of the reset.
    fn ended(&mut self, result: Result<(), &Error>, trailers: Option<&HeaderMap>) -> Option<HeaderMap>;
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
    /// Until it must be over.
    end: Option<Pin<Box<Sleep>>>,
}

struct Live {
    activity: Activity,
    limits: Limits,
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
    /// Ended from outside for this reason, not yet told; with the trailers that tell it, if any.
    Cut(Cut, Option<Box<HeaderMap>>),
}

/// Why a stream is ended from outside.
#[derive(Clone, Copy)]
enum Cut {
    Idle,
    Deadline,
    NoLongerAllowed,
}

impl From<Cut> for Error {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Idle => Self::Idle,
            Cut::Deadline => Self::Deadline,
            Cut::NoLongerAllowed => Self::NoLongerAllowed,
        }
    }
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
    /// Ends every stream in which nothing moved for its idle time, whose time is over, or which is allowed no more, and lets go of what it holds
    /// upstream. Call it about once a second.
    pub fn sweep(&self, now: Instant) {
        let over: Vec<_> = {
            let streams = lock(&self.0);
            let over = |(_, live): (usize, &Arc<Live>)| Some((live.is_over(now)?, Arc::clone(live)));
            streams.iter().filter_map(over).collect()
        };
        for (why, live) in over {
            live.cut(why);
        }
    }

    /// A body of an upstream among these, within its limits.
    #[must_use]
    pub fn watch(
        &self,
        body: Received,
        activity: Activity,
        limits: Limits,
        mut on_end: Box<dyn OnEnd>,
    ) -> ResponseBody {
        let is_over = body.is_end_stream();
        let state = if is_over {
            on_end.ended(Ok(()), None);
            State::Ended
        } else {
            State::Open { body, on_end }
        };
        let end = limits.end.filter(|_| !is_over);
        let live = Arc::new(Live { activity, limits, state: Mutex::new(state), waiting: AtomicWaker::new() });
        let place = (!is_over).then(|| (self.clone(), lock(&self.0).insert(Arc::clone(&live))));
        let end = end.map(|end| Box::pin(tokio::time::sleep_until(end.into())));
        ResponseBody::Upstream(Upstream { live, place, end })
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
    fn is_over(&self, now: Instant) -> Option<Cut> {
        if self.limits.permit.as_ref().is_some_and(Permit::is_revoked) {
            return Some(Cut::NoLongerAllowed);
        }
        if self.limits.end.is_some_and(|end| end <= now) {
            return Some(Cut::Deadline);
        }
        (self.activity.idle_at(self.limits.idle) <= now).then_some(Cut::Idle)
    }

    fn cut(&self, why: Cut) {
        let mut guard = lock(&self.state);
        if !matches!(*guard, State::Open { .. }) {
            return;
        }
        let state = std::mem::replace(&mut *guard, State::Cut(why, None));
        drop(guard);
        if let State::Open { body, mut on_end } = state {
            let trailers = on_end.ended(Err(&why.into()), None);
            drop(body);
            let mut guard = lock(&self.state);
            if let State::Cut(_, told) = &mut *guard {
                *told = trailers.map(Box::new);
            }
            drop(guard);
            self.waiting.wake();
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
            State::Cut(why, trailers) => {
                let (why, trailers) = (*why, trailers.take());
                *guard = State::Ended;
                let told = trailers.map(|trailers| Frame::trailers(*trailers));
                return Poll::Ready(Some(told.ok_or_else(|| Arc::new(why.into()))));
            }
        };
        let state = std::mem::replace(&mut *guard, State::Ended);
        drop(guard);
        let trailers = match state {
            State::Open { mut on_end, .. } => {
                on_end.ended(outcome.as_ref().copied(), frame.as_ref().and_then(Frame::trailers_ref))
            }
            State::Ended | State::Cut(..) => None,
        };
        let told = trailers.filter(|_| outcome.is_err()).map(Frame::trailers);
        Poll::Ready(frame.or(told).map(Ok).or_else(|| outcome.err().map(|error| Err(Arc::new(error)))))
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
                activity.to_caller(frame.data_ref().map_or(0, Bytes::len));
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
            Self::Upstream(upstream) => {
                if let Some(end) = &mut upstream.end
                    && end.as_mut().poll(cx).is_ready()
                {
                    upstream.end = None;
                    upstream.live.cut(Cut::Deadline);
                }
                upstream.live.poll(cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(body) => body.is_end_stream(),
            Self::Upstream(upstream) => match &*lock(&upstream.live.state) {
                State::Open { body, .. } => body.is_end_stream(),
                State::Ended => true,
                State::Cut(..) => false,
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(body) => body.size_hint(),
            Self::Upstream(upstream) => match &*lock(&upstream.live.state) {
                State::Open { body, .. } => body.size_hint(),
                State::Ended | State::Cut(..) => SizeHint::with_exact(0),
            },
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
