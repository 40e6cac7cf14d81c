//! A stream in frames as a connection of its own, for whoever serves connections.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Session, Sink, Source};
use crate::net::Stream;

/// The stream under way, as long as it is served. Its shutdown sends FIN. The session underneath stays, and is had again by
/// [`Lent::back`] when this is gone.
///
/// Whoever writes goes on with the rest of what was not taken: a frame says beforehand how long it is.
#[derive(Debug)]
pub struct Duplex<S>(Arc<Mutex<Inner<S>>>);

/// Whoever lends a session gets it back by this.
#[derive(Debug)]
pub struct Lent<S>(Arc<Mutex<Inner<S>>>);

/// A session that was lent, and how far its stream has come.
#[derive(Debug)]
pub struct Inner<S> {
    /// The session.
    pub session: Session<S>,
    /// The peer's end has been read.
    pub has_ended: bool,
    /// Ours has been sent.
    pub is_shut: bool,
    /// It was to end as an abort.
    pub is_aborted: bool,
}

impl<S> Duplex<S> {
    /// The stream that is under way on `session`.
    #[must_use]
    pub fn new(session: Session<S>) -> (Self, Lent<S>) {
        let inner =
            Arc::new(Mutex::new(Inner { session, has_ended: false, is_shut: false, is_aborted: false }));
        (Self(Arc::clone(&inner)), Lent(inner))
    }

    /// Never waits: one task serves the stream, and whoever lent it waits for that one.
    fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Lent<S> {
    /// The session, and what is known of the stream; `None` while it is still served.
    #[must_use]
    pub fn back(self) -> Option<Inner<S>> {
        Arc::into_inner(self.0).map(|inner| inner.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Duplex<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        if inner.has_ended || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut Source(&mut inner.session)).poll_read(cx, buf))?;
        inner.has_ended = buf.filled().len() == before;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Duplex<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        if inner.is_shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        Pin::new(&mut Sink(&mut inner.session)).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut Sink(&mut self.lock().session)).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        if !inner.is_shut {
            ready!(Pin::new(&mut Sink(&mut inner.session)).poll_shutdown(cx))?;
            inner.is_shut = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> Stream for Duplex<S> {
    /// Whoever gets the session back does it.
    fn reset_on_close(&self) {
        self.lock().is_aborted = true;
    }
}
