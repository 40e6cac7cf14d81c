//! Connections that this process has made and still has: so that one that the kernel brings back to us is known as ours.
//!
//! Between two addresses with ports there is one connection at a time in a network namespace. While ours is there, nobody
//! else's can have the same two ends, and one that comes in with them is ours.
//!
//! # Invariants
//! - A connection is entered before anybody can look for it, and taken out before its socket is closed: what is found here
//!   is never somebody else's, and ours is always found.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{Purpose, Stream, Waiting, addresses::canonical};

/// Parts of the account, each with a lock of its own, which is held while a connection is begun: some 20 µs. Workers that
/// dial the same address, or what falls together with it, wait for each other.
const PARTS: usize = 32;

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    from: SocketAddr,
    to: SocketAddr,
}

type Part = HashMap<Ends, Purpose>;

/// Connections that this process has made and still has; there are as many as it may have. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracker(Arc<Parts>);

#[derive(Debug, Default)]
struct Parts {
    /// By where connections lead.
    parts: [Mutex<Part>; PARTS],
    hasher: RandomState,
}

impl Tracker {
    /// Begins a connection to `to`, and enters it. On loopback it is there at once, and somebody else may be told of it
    /// before we know which port it has: whoever looks for it waits until it is entered. One in a client's name has not our
    /// address, and cannot come back to us.
    ///
    /// # Errors
    /// Those of `begin`.
    pub(super) fn enter(
        &self,
        to: SocketAddr,
        purpose: Purpose,
        begin: impl FnOnce() -> io::Result<TcpStream>,
    ) -> io::Result<Tracked> {
        if matches!(purpose, Purpose::AppFor(_)) {
            return Ok(Tracked::new(begin()?));
        }
        let to = canonical(to);
        let mut part = self.part(to);
        let socket = begin()?;
        let ends = Ends { from: canonical(socket.local_addr()?), to };
        part.insert(ends, purpose);
        Ok(Tracked { _entry: Some(Box::new(Entry { tracker: self.clone(), ends })), socket })
    }

    /// What a connection with these ends is for, if it is ours.
    pub(super) fn find(&self, from: SocketAddr, to: SocketAddr) -> Option<Purpose> {
        self.part(to).get(&Ends { from, to }).copied()
    }

    fn part(&self, to: SocketAddr) -> MutexGuard<'_, Part> {
        let Parts { parts, hasher } = &*self.0;
        // The remainder is less than their number, which is not 0: there is one.
        let [first, ..] = parts;
        let index = usize::try_from(hasher.hash_one(to) % PARTS as u64).unwrap_or_default();
        parts.get(index).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a connection out when dropped.
#[derive(Debug)]
struct Entry {
    tracker: Tracker,
    ends: Ends,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.tracker.part(self.ends.to).remove(&self.ends);
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
    /// One that nobody looks for.
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { _entry: None, socket }
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

    fn set_user_timeout(&self, limit: Duration) {
        self.socket.set_user_timeout(limit);
    }

    fn waiting(&self) -> Waiting {
        self.socket.waiting()
    }

    fn has_ended(&self) -> bool {
        self.socket.has_ended()
    }

    fn original_destination(&self) -> Option<SocketAddr> {
        self.socket.original_destination()
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.socket.local_address()
    }
}
