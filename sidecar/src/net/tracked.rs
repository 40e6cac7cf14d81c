//! Connections that this process has made and still has: so that one that the kernel brings back to us is known as ours.
//!
//! Between two addresses with ports there is one connection at a time in a network namespace. While ours is there, nobody
//! else's can have the same two ends, and one that comes in with them is ours.
//!
//! # Invariants
//! - A connection is entered before the first thread waits for it, and taken out before its socket is closed: what is found
//!   here is never somebody else's.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{Purpose, Stream, Waiting, addresses::canonical};

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    from: SocketAddr,
    to: SocketAddr,
}

/// Connections that this process has made and still has; there are as many as it may have. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracker(Arc<Mutex<HashMap<Ends, Purpose>>>);

impl Tracker {
    /// Enters a connection that is under way. One in a client's name has not our address, and cannot come back to us.
    pub(super) fn enter(&self, begun: &TcpStream, to: SocketAddr, purpose: Purpose) -> Option<Entry> {
        let ends = match purpose {
            Purpose::Any | Purpose::App => {
                Ends { from: canonical(begun.local_addr().ok()?), to: canonical(to) }
            }
            Purpose::AppFor(_) => return None,
        };
        self.lock().insert(ends, purpose);
        Some(Entry { tracker: self.clone(), ends })
    }

    /// What a connection with these ends is for, if it is ours.
    pub(super) fn find(&self, from: SocketAddr, to: SocketAddr) -> Option<Purpose> {
        self.lock().get(&Ends { from, to }).copied()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ends, Purpose>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a connection out when dropped.
#[derive(Debug)]
pub(super) struct Entry {
    tracker: Tracker,
    ends: Ends,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.tracker.lock().remove(&self.ends);
    }
}

/// A connection of the operating system; one that we have made is known as such while it is there.
#[derive(Debug)]
pub struct Tracked {
    // Before the socket: fields are dropped in this order. Boxed, as most connections have none, and all take the room.
    _entry: Option<Box<Entry>>,
    socket: TcpStream,
}

impl Tracked {
    pub(super) fn new(socket: TcpStream, entry: Option<Entry>) -> Self {
        Self { _entry: entry.map(Box::new), socket }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

impl AsyncRead for Tracked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tracked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl Stream for Tracked {
    fn reset_on_close(&self) {
        self.socket.reset_on_close();
    }

    fn waiting(&self) -> Waiting {
        self.socket.waiting()
    }

    fn original_destination(&self) -> Option<SocketAddr> {
        self.socket.original_destination()
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.socket.local_address()
    }
}
