//! The real network: TCP sockets of the operating system.
//!
//! Connections have keepalive, and a `TCP_USER_TIMEOUT` only where the configuration asks for it. Linux counts that one also while the other end lives,
//! acknowledges every probe and only does not read (measured with 4 s on Linux 6.18: `ETIMEDOUT` after 4.5 s; tcp(7):
//! "or buffered data may remain untransmitted (due to zero window size)"). A program that reads a database's answer
//! slowly would lose its connection by it. Without it, bytes that nobody acknowledges end a connection when the kernel
//! gives up repeating them (`net.ipv4.tcp_retries2`: about 15 minutes), for keepalive rests while there are such.
//! HTTP/2 between sidecars does not wait for that: its pings notice within seconds.
//!
//! What tells the two apart is in `TCP_INFO`, which no crate of ours reads without `unsafe`. The kernel itself can (Linux
//! 6.15, `net.ipv4.tcp_rto_max_ms`): with 5 s as the longest pause between repetitions, `tcp_retries2` is over after a minute,
//! and acknowledged probes of a reader that is only slow never are (measured on 6.18: the dead one ended after 63 s, the slow
//! one lived on). It is a setting of the network namespace, so the pod's owner's to make and not ours.

use std::{io, mem::MaybeUninit, net::SocketAddr, time::Duration};

use futures_util::FutureExt;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
};

use super::{
    BACKLOG, Listener, Net, Purpose, Stream, Waiting,
    addresses::{canonical, is_own},
    client_ports::ClientPorts,
    marks::{Marks, established},
};

/// A connection silent for so long is probed, so that one whose other end is gone does not stay for good. Shorter than
/// anything on the way forgets silent connections (cloud load balancers: 350 s).
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Time between unanswered probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// So many unanswered probes end the connection: 90 s after its last byte.
const KEEPALIVE_PROBES: u32 = 3;

/// TCP of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpNet;

/// A bound address where nobody is listened to yet.
#[derive(Debug)]
pub struct Bound(Socket);

impl TcpNet {
    /// Binds as [`Net::bind`], but does not listen yet: connections go to whoever else listens there.
    ///
    /// # Errors
    /// As [`Net::bind`].
    pub fn reserve(self, address: SocketAddr) -> io::Result<Bound> {
        Marks::default().reserve(address)
    }

    /// Whether somebody has that address already, be it one who shares it.
    ///
    /// # Errors
    /// As the operating system reports them, but for the address being in use.
    pub fn is_in_use(self, address: SocketAddr) -> io::Result<bool> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Connections that have ended do not count, listening sockets do.
        socket.set_reuse_address(true)?;
        match socket.bind(&address.into()) {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(true),
            Err(error) => Err(error),
        }
    }
}

impl Bound {
    pub(super) fn new(socket: Socket) -> Self {
        Self(socket)
    }

    #[cfg(test)]
    pub(super) fn local_addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }

    /// Connections come here from now on.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn listen(self) -> io::Result<TcpListener> {
        self.0.listen(i32::from(BACKLOG))?;
        TcpListener::from_std(self.0.into())
    }
}

impl Net for TcpNet {
    type Stream = TcpStream;
    type Listener = TcpListener;

    fn bind(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.reserve(address)?.listen()
    }

    async fn connect(
        &self,
        address: SocketAddr,
        purpose: Purpose,
        timeout: Duration,
    ) -> io::Result<TcpStream> {
        let begun = Marks::default().begin(address, purpose, &ClientPorts::default())?;
        established(&begun, timeout).await?;
        Ok(begun)
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        is_own(address)
    }
}

/// What every connection has, accepted or made.
///
/// # Errors
/// As the operating system reports them.
pub(super) fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

impl Stream for TcpStream {
    fn reset_on_close(&self) {
        // Best effort: if the option cannot be set, the peer sees an orderly close instead of a reset.
        if let Err(error) = SockRef::from(self).set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "connection will close instead of reset");
        }
    }

    fn set_user_timeout(&self, limit: Duration) {
        if let Err(error) = SockRef::from(self).set_tcp_user_timeout(Some(limit)) {
            tracing::debug!(%error, "connection without TCP_USER_TIMEOUT");
        }
    }

    fn waiting(&self) -> Waiting {
        match SockRef::from(self).peek(&mut [MaybeUninit::uninit()]) {
            Ok(0) => Waiting::End,
            Ok(_) => Waiting::Bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Waiting::Nothing,
            Err(_) => Waiting::End,
        }
    }

    fn has_ended(&self) -> bool {
        // Nobody who only looks at what can be read sees an end behind bytes; the kernel tells it aside (`EPOLLRDHUP`).
        self.ready(Interest::READABLE).now_or_never().is_some_and(|ready| match ready {
            Ok(ready) => ready.is_read_closed(),
            Err(_) => true,
        })
    }

    fn original_destination(&self) -> Option<SocketAddr> {
        let socket = SockRef::from(self);
        // The kernel knows connections of IPv4 as such, also on a socket of IPv6.
        let is_ipv4 = self.local_address()?.is_ipv4();
        let original = if is_ipv4 { socket.original_dst_v4() } else { socket.original_dst_v6() };
        original.ok()?.as_socket().map(canonical)
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.local_addr().ok().map(canonical)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        set_options(&stream)?;
        Ok((stream, canonical(peer)))
    }

    fn accept_now(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        let (socket, peer) = match SockRef::from(self).accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        socket.set_nonblocking(true)?;
        let stream = TcpStream::from_std(socket.into())?;
        set_options(&stream)?;
        let peer = peer.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Some((stream, canonical(peer))))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const ANY: &str = "127.0.0.1:0";
    const LIMIT: Duration = Duration::from_secs(5);

    fn assert_probed(stream: &TcpStream) {
        let socket = SockRef::from(stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
        assert_eq!(socket.tcp_user_timeout().unwrap(), None, "a slow reader would be cut");
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn connections_are_probed_whoever_made_them() {
        let listener = TcpNet.bind(ANY.parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        assert_probed(&TcpNet.connect(address, Purpose::Any, LIMIT).await.unwrap());
        assert_probed(&Listener::accept(&listener).await.unwrap().0);
        let _waiting = TcpNet.connect(address, Purpose::Any, LIMIT).await.unwrap();
        assert_probed(&listener.accept_now().unwrap().unwrap().0);
        assert!(listener.accept_now().unwrap().is_none());
    }

    #[tokio::test]
    async fn an_end_is_known_of_before_what_came_first_is_read() {
        let listener = TcpNet.bind(ANY.parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        for is_reset in [false, true] {
            let mut client = TcpNet.connect(address, Purpose::Any, LIMIT).await.unwrap();
            let (accepted, _peer) = Listener::accept(&listener).await.unwrap();
            client.write_all(b"a part of it").await.unwrap();
            accepted.readable().await.unwrap();
            assert!(!accepted.has_ended(), "reset: {is_reset}");
            if is_reset {
                client.reset_on_close();
            }
            drop(client);
            let ended = async {
                while !accepted.has_ended() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(LIMIT, ended).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_reserved_address_gets_no_connections_until_it_listens() {
        let free: SocketAddr = ANY.parse().unwrap();
        assert!(!TcpNet.is_in_use(free).unwrap());
        let first = TcpNet.bind(free).unwrap();
        let address = first.local_addr().unwrap();
        assert!(TcpNet.is_in_use(address).unwrap());
        let reserved = TcpNet.reserve(address).unwrap();
        let mut clients = Vec::new();
        for _ in 0..32 {
            clients.push(TcpNet.connect(address, Purpose::Any, LIMIT).await.unwrap());
            assert!(first.accept_now().unwrap().is_some(), "it went elsewhere");
        }
        drop(first);
        let second = reserved.listen().unwrap();
        clients.push(TcpNet.connect(address, Purpose::Any, LIMIT).await.unwrap());
        assert!(second.accept_now().unwrap().is_some());
    }
}
