//! An HTTP/1 connection that two look at: hyper's driver reads and writes it, and the pool asks before it is used again
//! whether the peer has said anything meanwhile.
//!
//! hyper knows only what its driver has seen, and the driver sees only what the runtime has told it: a worker that is
//! busy asks the operating system for events once in a while. A peer that closes an unused connection in between would
//! get the next request, and nobody could say whether it took it. So the pool asks the operating system itself, which is
//! one system call for each use of a kept connection.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{dial::Connection, idle::Said};
use crate::{model::pool_counts::Closed, net::Stream, tls::trust::Cut};

/// A connection and who looks at it. The lock is never waited for: driver and pool are on one thread.
#[derive(Debug)]
pub struct Wire<S>(Mutex<Option<Connection<S>>>);

/// What the pool asks of a connection.
pub(super) trait Look: std::fmt::Debug + Send + Sync {
    /// What the peer has said, by the operating system's knowledge.
    fn said(&self) -> Said;
}

/// The driver's end. The connection is closed with it. Whoever makes an upgrade of the connection gets this from hyper.
#[derive(Debug)]
pub struct DriverEnd<S>(Arc<Wire<S>>);

impl<S: Stream> Wire<S> {
    /// Both ends of a connection.
    pub(super) fn split(connection: Connection<S>) -> (DriverEnd<S>, Arc<dyn Look>) {
        let wire = Arc::new(Self(Mutex::new(Some(connection))));
        (DriverEnd(Arc::clone(&wire)), wire)
    }
}

impl<S> Wire<S> {
    fn lock(&self) -> MutexGuard<'_, Option<Connection<S>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Stream> Look for Wire<S> {
    fn said(&self) -> Said {
        self.lock().as_ref().map_or(Said::End(Closed::Peer), Connection::said)
    }
}

impl<S> Drop for DriverEnd<S> {
    fn drop(&mut self) {
        let connection = self.0.lock().take();
        drop(connection);
    }
}

impl<S: Stream> DriverEnd<S> {
    /// Calls `f` with the connection, which is there as long as this is.
    fn with<T>(&self, f: impl FnOnce(Pin<&mut Connection<S>>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match self.0.lock().as_mut() {
            Some(connection) => f(Pin::new(connection)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl<S> DriverEnd<S> {
    /// As [`Connection::cut`].
    #[must_use]
    pub fn cut(&self) -> Cut {
        self.0.lock().as_ref().map_or_else(Cut::never, Connection::cut)
    }
}

impl<S: Stream> Stream for DriverEnd<S> {
    fn reset_on_close(&self) {
        if let Some(connection) = self.0.lock().as_ref() {
            connection.reset_on_close();
        }
    }
}

impl<S: Stream> AsyncRead for DriverEnd<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|connection| connection.poll_read(cx, buf))
    }
}

impl<S: Stream> AsyncWrite for DriverEnd<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|connection| connection.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|connection| connection.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|connection| connection.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|connection| connection.poll_shutdown(cx))
    }
}
