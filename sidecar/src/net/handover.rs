//! The real network of a process that may replace another: it takes the other's listening sockets over.
//!
//! ```text
//!   old process ── its listening sockets (SCM_RIGHTS) ──▶ new process
//!         ╲                                               ╱
//!          ╰────────── one queue of connections ─────────╯
//! ```
//! Two sockets that merely share a port (`SO_REUSEPORT`) have a queue each, and the close of one resets what the kernel
//! put into its queue after the last accept: measured, one connection in a hundred replacements at 450 new connections
//! per second, one in ten at 8,000. A socket that was taken over has one queue, which outlives the old process.
//!
//! # Invariants
//! - A socket is offered as long as it is accepted from, and no longer: else connections would wait in it for nobody.
//! - A socket is taken only if it listens at an address that we were about to bind, and only from our own user or root.
//! - Where nothing can be taken over, the address is bound as ever.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    os::fd::{AsFd, OwnedFd},
    os::unix::net::UnixStream as StdUnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use rustix::{
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg, sockopt,
    },
    process::geteuid,
};
use socket2::SockRef;
use tokio::{
    io::Interest,
    net::{TcpListener, UnixStream},
};

use super::{
    Listener, Net, Purpose, Tracked,
    addresses::{canonical, has_ipv6, is_own},
    client_ports::ClientPorts,
    marks::{Marks, established},
    tcp::set_options,
    tracked::Tracker,
};

/// Time for one socket to come over a Unix socket of the same machine.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Most sockets that are taken over: 512 listeners with 64 workers each would be more, and bind the rest anew.
const MAX_SOCKETS: usize = 4096;

/// The listening sockets that this process offers to the one that replaces it. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Offers(Arc<OffersInner>);

#[derive(Debug, Default)]
struct OffersInner {
    sockets: Mutex<BTreeMap<u64, OwnedFd>>,
    next: AtomicU64,
}

/// Withdraws an offer when dropped.
#[derive(Debug)]
struct Offer {
    offers: Offers,
    number: u64,
}

impl Offers {
    /// Offers another handle of a socket. One that cannot be made is not offered: the address is bound anew then.
    fn offer(&self, socket: &TcpListener) -> Offer {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        match socket.as_fd().try_clone_to_owned() {
            Ok(handle) => drop(lock(&self.0.sockets).insert(number, handle)),
            Err(error) => tracing::warn!(%error, "a listening socket cannot be offered to a successor"),
        }
        Offer { offers: self.clone(), number }
    }

    /// Sends every offered socket, each with one byte.
    ///
    /// # Errors
    /// As the operating system reports them, when no more handles can be made or the receiver is gone.
    pub async fn send(&self, receiver: &UnixStream) -> io::Result<()> {
        let sockets: io::Result<Vec<OwnedFd>> =
            lock(&self.0.sockets).values().map(OwnedFd::try_clone).collect();
        for socket in sockets? {
            receiver.async_io(Interest::WRITABLE, || send_one(receiver, &socket)).await?;
        }
        Ok(())
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        lock(&self.offers.0.sockets).remove(&self.number);
    }
}

fn send_one(receiver: &UnixStream, socket: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = [socket.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&sockets));
    sendmsg(receiver, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// TCP of the operating system, with sockets taken over from the process before.
#[derive(Clone, Debug)]
pub struct HandoverNet {
    /// Where the process before offers its sockets.
    predecessor: PathBuf,
    /// How many workers will bind each address.
    workers: NonZeroUsize,
    /// How our connections are told apart.
    marks: Marks,
    ports: Arc<ClientPorts>,
    /// Kept where connections may come back to us: where the kernel brings any to us at all.
    tracker: Option<Tracker>,
    /// What was taken over and is not in use yet; asked for when the first address is bound.
    taken: Arc<OnceLock<Mutex<Vec<std::net::TcpListener>>>>,
    offers: Offers,
}

impl HandoverNet {
    /// A network that asks at the Unix socket `predecessor` for sockets when it binds the first time.
    #[must_use]
    pub fn new(predecessor: PathBuf, workers: NonZeroUsize, marks: Marks) -> Self {
        Self {
            predecessor,
            workers,
            marks,
            ports: Arc::new(ClientPorts::starting(std::process::id())),
            tracker: (marks != Marks::default()).then(Tracker::default),
            taken: Arc::default(),
            offers: Offers::default(),
        }
    }

    /// What this process offers to its successor.
    #[must_use]
    pub fn offers(&self) -> &Offers {
        &self.offers
    }

    /// Call when everything is bound: gives up what was taken over and not used.
    pub fn finish(&self) {
        if let Some(taken) = self.taken.get() {
            lock(taken).clear();
        }
    }

    /// The sockets for one worker at `address`: one, and those of workers that there are no longer.
    fn take(&self, address: SocketAddr) -> Vec<std::net::TcpListener> {
        let mut taken = lock(self.taken.get_or_init(|| Mutex::new(receive(&self.predecessor))));
        // `[::]` is `0.0.0.0` where there is no IPv6, and there alone: else nobody would listen for IPv6.
        let is_any_of_ipv4 = address.ip() == Ipv6Addr::UNSPECIFIED && !has_ipv6();
        let is_it = |bound: SocketAddr| {
            bound == address
                || (is_any_of_ipv4 && bound == SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        };
        let is_there = |socket: &std::net::TcpListener| socket.local_addr().is_ok_and(is_it);
        let found = taken.iter().filter(|socket| is_there(socket)).count();
        let mut wanted = (found + 1).saturating_sub(self.workers.get()).max(1);
        taken
            .extract_if(.., |socket| {
                let takes = wanted > 0 && is_there(socket);
                wanted -= usize::from(takes);
                takes
            })
            .collect()
    }
}

impl Net for HandoverNet {
    type Stream = Tracked;
    type Listener = HandoverListener;

    fn bind(&self, address: SocketAddr) -> io::Result<HandoverListener> {
        let taken = self.take(address).into_iter().map(|socket| {
            // The process before may have had another use for the port.
            self.marks.prepare(&SockRef::from(&socket), address)?;
            TcpListener::from_std(socket)
        });
        let mut sockets = taken.collect::<io::Result<Vec<_>>>()?;
        if sockets.is_empty() {
            sockets.push(self.marks.reserve(address)?.listen()?);
        }
        let offers = sockets.iter().map(|socket| self.offers.offer(socket)).collect();
        Ok(HandoverListener { _offers: offers, sockets })
    }

    async fn connect(&self, address: SocketAddr, purpose: Purpose, timeout: Duration) -> io::Result<Tracked> {
        let begin = || self.marks.begin(address, purpose, &self.ports);
        let tracked = match &self.tracker {
            Some(tracker) => tracker.enter(address, purpose, begin)?,
            None => Tracked::new(begin()?),
        };
        established(tracked.socket(), timeout).await?;
        Ok(tracked)
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        is_own(address)
    }

    fn made(&self, from: SocketAddr, to: SocketAddr) -> Option<Purpose> {
        self.tracker.as_ref()?.find(from, to)
    }
}

/// One worker's listening sockets at one address; one but for a change of the number of workers.
#[derive(Debug)]
pub struct HandoverListener {
    /// Before the sockets: fields are dropped in this order, and a socket that nobody accepts from is not offered.
    _offers: Vec<Offer>,
    sockets: Vec<TcpListener>,
}

impl Listener for HandoverListener {
    type Stream = Tracked;

    async fn accept(&self) -> io::Result<(Tracked, SocketAddr)> {
        let (stream, peer) = poll_fn(|cx| {
            let ready = self.sockets.iter().find_map(|socket| match socket.poll_accept(cx) {
                Poll::Ready(accepted) => Some(accepted),
                Poll::Pending => None,
            });
            ready.map_or(Poll::Pending, Poll::Ready)
        })
        .await?;
        set_options(&stream)?;
        Ok((Tracked::new(stream), canonical(peer)))
    }

    fn accept_now(&self) -> io::Result<Option<(Tracked, SocketAddr)>> {
        for socket in &self.sockets {
            if let Some((stream, peer)) = socket.accept_now()? {
                return Ok(Some((Tracked::new(stream), peer)));
            }
        }
        Ok(None)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.sockets.first().ok_or(io::ErrorKind::NotConnected)?.local_addr()
    }
}

/// What the process at `predecessor` offers; nothing if there is none. Blocks, for a second at most after each socket.
fn receive(predecessor: &Path) -> Vec<std::net::TcpListener> {
    let mut received = Vec::new();
    match StdUnixStream::connect(predecessor) {
        Ok(stream) => {
            if let Err(error) = receive_all(&stream, &mut received) {
                tracing::warn!(%error, "not all listening sockets came over from the process before");
            }
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
        Err(error) => tracing::warn!(%error, "cannot ask the process before for its listening sockets"),
    }
    tracing::debug!(sockets = received.len(), "taken over from the process before");
    received
}

fn receive_all(stream: &StdUnixStream, received: &mut Vec<std::net::TcpListener>) -> io::Result<()> {
    let sender = sockopt::socket_peercred(stream)?.uid;
    if sender != geteuid() && !sender.is_root() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "they are offered by another user"));
    }
    stream.set_read_timeout(Some(RECEIVE_TIMEOUT))?;
    while received.len() < MAX_SOCKETS {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut into = [IoSliceMut::new(&mut byte)];
        if recvmsg(stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes == 0 {
            return Ok(());
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(sockets) = message {
                received.extend(sockets.filter(is_listening).map(std::net::TcpListener::from));
            }
        }
    }
    Ok(())
}

fn is_listening(socket: &OwnedFd) -> bool {
    sockopt::socket_acceptconn(socket).is_ok_and(|is_listening| is_listening)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
