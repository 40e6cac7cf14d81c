//! The response's body on its way downstream, with what must live as long as it does.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use super::activity::{Activity, IdleTimer};

/// Why a response body ended early. The downstream sees a reset stream or a connection closed before the end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The upstream broke off.
    #[error("the upstream broke off its response body")]
    Upstream(#[source] hyper::Error),
    /// Nothing moved for the stream's idle time.
    #[error("the stream was idle for too long")]
    Idle,
}

/// Told how a response body ended; whatever it holds (slots, records, leases) is released with it.
pub trait OnEnd: Send + 'static {
    /// The body has ended: whole, or with an error. Not called if the downstream dropped it.
    fn ended(&mut self, result: Result<(), &Error>);
}

/// A response body: an upstream's, or a short one of our own.
pub enum ResponseBody {
    /// An upstream's.
    Upstream(Box<Upstream>),
    /// Our own.
    Local(Full<Bytes>),
}

/// An upstream's body, watched.
pub struct Upstream {
    body: Incoming,
    activity: Activity,
    idle: Option<IdleTimer>,
    on_end: Option<Box<dyn OnEnd>>,
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Upstream(_) => f.write_str("ResponseBody::Upstream"),
            Self::Local(body) => f.debug_tuple("ResponseBody::Local").field(body).finish(),
        }
    }
}

impl ResponseBody {
    /// Watches an upstream's body. `idle` ends the stream when neither direction moves.
    #[must_use]
    pub fn upstream(
        body: Incoming,
        activity: Activity,
        idle: Option<IdleTimer>,
        mut on_end: Box<dyn OnEnd>,
    ) -> Self {
        let on_end = if body.is_end_stream() {
            on_end.ended(Ok(()));
            None
        } else {
            Some(on_end)
        };
        Self::Upstream(Box::new(Upstream { body, activity, idle, on_end }))
    }

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
            Self::Upstream(upstream) => upstream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(body) => body.is_end_stream(),
            Self::Upstream(upstream) => upstream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(body) => body.size_hint(),
            Self::Upstream(upstream) => upstream.body.size_hint(),
        }
    }
}

impl Upstream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Arc<Error>>>> {
        let outcome = loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.activity.touch();
                    // The last data frame may be the end: do not wait for one more poll that hyper need not make.
                    if frame.is_trailers() || self.body.is_end_stream() {
                        self.end(Ok(()));
                    } else if frame.data_ref().is_some_and(Bytes::is_empty) {
                        // Left out, as `Replay` does and for its reason.
                        continue;
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Err(error))) => break Err(Error::Upstream(error)),
                Poll::Ready(None) => break Ok(()),
                Poll::Pending => match self.idle.as_mut().map(|idle| Pin::new(idle).poll(cx)) {
                    Some(Poll::Ready(())) => break Err(Error::Idle),
                    Some(Poll::Pending) | None => return Poll::Pending,
                },
            }
        };
        self.end(outcome.as_ref().copied());
        Poll::Ready(outcome.err().map(|error| Err(Arc::new(error))))
    }

    fn end(&mut self, result: Result<(), &Error>) {
        if let Some(mut on_end) = self.on_end.take() {
            on_end.ended(result);
        }
    }
}
