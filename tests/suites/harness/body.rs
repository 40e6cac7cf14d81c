//! Bodies that are made and checked as they stream, so that their size costs no memory.

use std::{convert::Infallible, sync::LazyLock};

use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::mpsc;

use super::BoxError;

/// A body of any kind.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Byte `i` of the pattern is `i` modulo this: a prime, so that shifted or doubled chunks do not fit.
const PERIOD: usize = 251;
/// Largest chunk that is made at once.
const CHUNK: usize = 32 * 1024;

static PATTERN: LazyLock<Bytes> = LazyLock::new(|| (0..PERIOD + CHUNK).map(|i| (i % PERIOD) as u8).collect());

fn never<T>(never: Infallible) -> T {
    match never {}
}

/// No body.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(never).boxed_unsync()
}

/// A body that is there at once.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(never).boxed_unsync()
}

/// `size` bytes of the pattern, streamed without a known length, then `trailers`.
pub(crate) fn streamed(size: u64, trailers: Option<HeaderMap>) -> Body {
    let frames = stream::unfold((0, trailers), move |(at, trailers)| async move {
        if at == size {
            return trailers.map(|trailers| (Ok(Frame::trailers(trailers)), (at, None)));
        }
        let chunk = chunk(at, size);
        let next = at + chunk.len() as u64;
        Some((Ok(Frame::data(chunk)), (next, trailers)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// `size` bytes of the pattern with a content length.
pub(crate) fn sized(size: u64) -> Body {
    Sized { inner: streamed(size, None), left: size }.boxed_unsync()
}

/// A body whose frames the test sends one by one; it ends when the sender is dropped, and breaks off at an error.
pub(crate) fn channel() -> (mpsc::Sender<Result<Frame<Bytes>, BoxError>>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = stream::unfold(receiver, |mut receiver: mpsc::Receiver<_>| async move {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}

/// An incoming body as one to send on.
pub(crate) fn forward(body: Incoming) -> Body {
    body.map_err(BoxError::from).boxed_unsync()
}

fn chunk(at: u64, size: u64) -> Bytes {
    let start = (at % PERIOD as u64) as usize;
    let length = (size - at).min(CHUNK as u64) as usize;
    PATTERN.slice(start..start + length)
}

/// The pattern's first bytes.
pub(crate) fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % PERIOD) as u8).collect()
}

/// Checks bytes against the pattern as they come.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    /// Bytes that came.
    pub(crate) count: u64,
}

impl Checker {
    /// The next bytes.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(CHUNK) {
            let start = (self.count % PERIOD as u64) as usize;
            assert!(part == &PATTERN[start..start + part.len()], "wrong bytes after {}", self.count);
            self.count += part.len() as u64;
        }
    }
}

/// Reads a body of the pattern to its end; its size and trailers.
pub(crate) async fn check<B>(mut body: B) -> Result<(u64, Option<HeaderMap>), B::Error>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    let (mut checker, mut trailers) = (Checker::default(), None);
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => checker.take(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((checker.count, trailers))
}

/// Reads a body of whatever bytes to its end; how many.
pub(crate) async fn drain(mut body: Incoming) -> hyper::Result<u64> {
    let mut count = 0;
    while let Some(frame) = body.frame().await {
        count += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(count)
}

/// Reads a short body to its end.
pub(crate) async fn text(body: Incoming) -> String {
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

struct Sized {
    inner: Body,
    left: u64,
}

impl hyper::body::Body for Sized {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = std::pin::Pin::new(&mut self.inner).poll_frame(cx);
        if let std::task::Poll::Ready(Some(Ok(frame))) = &polled {
            self.left -= frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.left)
    }
}
