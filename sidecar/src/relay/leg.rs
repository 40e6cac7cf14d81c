//! One side of a stream that has left HTTP: a whole connection, or a stream of HTTP/2.
//!
//! Bytes that came with the head are read first. A leg that is dropped before both of its directions have ended is an
//! abort and tells so: a connection is reset, and so is a stream of our own client. Of a stream of hyper's server no more
//! can be told than that it is over: its end, and behind it a reset with `NO_ERROR`.
//!
//! # Resets that callers send
//! hyper reports `RST_STREAM` with `CANCEL` or `NO_ERROR` to a reader as an orderly end, and to a writer as an error.
//! So the writer is asked at every end of reading: what looked like the end of the stream may be an abort.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::h2_stream::H2Stream;
use crate::net::Stream;

/// Counts the bytes that come from a leg: of this stream, and of all streams.
#[derive(Clone, Copy, Debug)]
pub struct Count<'a> {
    /// This stream's.
    pub own: &'a AtomicU64,
    /// All streams'.
    pub all: &'a AtomicU64,
}

/// One side of a stream that has left HTTP.
#[derive(Debug)]
pub struct Leg<'a, S: Stream> {
    io: Io<S>,
    /// Read with the head.
    early: Bytes,
    count: Count<'a>,
    has_failed: bool,
    /// An end of reading was seen once: it is looked at again.
    is_ending: bool,
    has_ended: bool,
    is_shut: bool,
}

#[derive(Debug)]
enum Io<S> {
    Connection(S),
    /// A stream of hyper's server.
    Served(TokioIo<Upgraded>),
    /// A stream of our client.
    Http2(Box<H2Stream>),
}

impl<'a, S: Stream> Leg<'a, S> {
    /// A connection, of which these bytes have been read already.
    #[must_use]
    pub fn connection(connection: S, early: Bytes, count: Count<'a>) -> Self {
        Self::over(Io::Connection(connection), early, count)
    }

    /// What hyper gave up: a stream of its server, or a connection of its client.
    #[must_use]
    pub fn upgraded(upgraded: Upgraded, count: Count<'a>) -> Self {
        match upgraded.downcast::<TokioIo<S>>() {
            Ok(parts) => Self::connection(parts.io.into_inner(), parts.read_buf, count),
            Err(upgraded) => Self::over(Io::Served(TokioIo::new(upgraded)), Bytes::new(), count),
        }
    }

    /// A stream of our client.
    #[must_use]
    pub fn stream(stream: H2Stream, count: Count<'a>) -> Self {
        Self::over(Io::Http2(Box::new(stream)), Bytes::new(), count)
    }

    fn over(io: Io<S>, early: Bytes, count: Count<'a>) -> Self {
        // An empty part of a read buffer would keep the whole of it.
        let early = if early.is_empty() { Bytes::new() } else { early };
        Self { io, early, count, has_failed: false, is_ending: false, has_ended: false, is_shut: false }
    }

    /// The connection, if it is one of its own.
    #[must_use]
    pub fn as_connection(&self) -> Option<&S> {
        match &self.io {
            Io::Connection(connection) => Some(connection),
            Io::Served(_) | Io::Http2(_) => None,
        }
    }

    /// Whether reading or writing has failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Waits for the first `count` bytes, fewer if it ends before. They are read again.
    ///
    /// # Errors
    /// As the stream reports them.
    pub async fn first(&mut self, count: usize) -> io::Result<Bytes> {
        let mut first = Vec::with_capacity(count);
        while first.len() < count {
            let (before, mut chunk) = (first.len(), vec![0; count - first.len()]);
            let mut read = ReadBuf::new(&mut chunk);
            let polled = poll_fn(|cx| {
                let polled = self.poll_bytes(cx, &mut read);
                self.noted(polled)
            });
            polled.await?;
            first.extend_from_slice(read.filled());
            if first.len() == before {
                break;
            }
        }
        let first = Bytes::from(first);
        self.early = [&first[..], &self.early[..]].concat().into();
        Ok(first)
    }

    fn counted(&self, bytes: usize) {
        self.count.own.fetch_add(bytes as u64, Ordering::Relaxed);
        self.count.all.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn noted<T>(&mut self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = &polled {
            self.has_failed = true;
        }
        polled
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let bytes = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early.split_to(bytes));
            if !self.early.has_remaining() {
                // The read buffer that it was a part of need not stay.
                self.early = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        match &mut self.io {
            Io::Connection(connection) => Pin::new(connection).poll_read(cx, buf),
            Io::Http2(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Served(stream) => {
                let before = buf.filled().len();
                std::task::ready!(Pin::new(&mut *stream).poll_read(cx, buf))?;
                if buf.filled().len() > before || buf.remaining() == 0 {
                    return Poll::Ready(Ok(()));
                }
                if !self.is_ending {
                    // An abort is an end and a reset right behind it: let the connection's task read that, too.
                    self.is_ending = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                match Pin::new(stream).poll_flush(cx) {
                    Poll::Ready(Err(_reset)) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                    Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
                }
            }
        }
    }
}

impl<S: Stream> AsyncRead for Leg<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        let polled = self.poll_bytes(cx, buf);
        if let Poll::Ready(Ok(())) = &polled {
            let bytes = buf.filled().len() - before;
            self.counted(bytes);
            self.has_ended |= bytes == 0 && room > 0;
        }
        self.noted(polled)
    }
}

impl<S: Stream> AsyncWrite for Leg<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match &mut self.io {
            Io::Connection(connection) => Pin::new(connection).poll_write(cx, bytes),
            Io::Served(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::Http2(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        self.noted(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.io {
            Io::Connection(connection) => Pin::new(connection).poll_write_vectored(cx, slices),
            Io::Served(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Io::Http2(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        };
        self.noted(polled)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Connection(connection) => connection.is_write_vectored(),
            Io::Served(stream) => stream.is_write_vectored(),
            Io::Http2(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.io {
            Io::Connection(connection) => Pin::new(connection).poll_flush(cx),
            Io::Served(stream) => Pin::new(stream).poll_flush(cx),
            Io::Http2(stream) => Pin::new(stream).poll_flush(cx),
        };
        self.noted(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.io {
            Io::Connection(connection) => Pin::new(connection).poll_shutdown(cx),
            Io::Served(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Http2(stream) => Pin::new(stream).poll_shutdown(cx),
        };
        self.is_shut |= matches!(polled, Poll::Ready(Ok(())));
        self.noted(polled)
    }
}

impl<S: Stream> Drop for Leg<'_, S> {
    fn drop(&mut self) {
        if let (Io::Connection(connection), false) = (&self.io, self.has_ended && self.is_shut) {
            connection.reset_on_close();
        }
    }
}
