//! An upstream's response body, whichever HTTP version it comes by.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// An upstream's message or stream broke off, in the words of the HTTP library or the system.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// On HTTP/1.
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    /// On HTTP/2. Not transparent: hyper looks for this very error among the causes, for the code of the reset that goes on.
    #[error("by HTTP/2")]
    Http2(#[from] h2::Error),
    /// An opaque stream, before it was accepted.
    #[error("of an opaque stream")]
    Opaque(#[source] std::io::Error),
}

/// The body.
#[derive(Debug)]
pub enum Received {
    /// By HTTP/1.
    Http1(Incoming),
    /// By HTTP/2. What is read makes room for more at once: it is held no longer than its way downstream takes.
    Http2(RecvStream),
    /// Taken out: what follows the head is no body.
    Taken,
}

impl Body for Received {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let stream = match &mut *self {
            Self::Http1(body) => return Pin::new(body).poll_frame(cx).map_err(Broken::Http1),
            Self::Http2(stream) => stream,
            Self::Taken => return Poll::Ready(None),
        };
        match ready!(stream.poll_data(cx)) {
            Some(Ok(data)) => {
                // Fails only for a stream that is gone, whose window nobody needs.
                let _released = stream.flow_control().release_capacity(data.len());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            // Also of a reset without an error: after a whole answer (RFC 9113 §8.1) h2 does not tell of it.
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => stream.poll_trailers(cx).map(|trailers| match trailers {
                Ok(Some(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Ok(None) => None,
                Err(error) => Some(Err(error.into())),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(stream) => stream.is_end_stream(),
            Self::Taken => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(stream) if stream.is_end_stream() => SizeHint::with_exact(0),
            Self::Http2(_) => SizeHint::default(),
            Self::Taken => SizeHint::with_exact(0),
        }
    }
}
