//! One connection as somebody would make it, and where it arrives.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
    time::Duration,
};

use rustix::{process::Uid, thread::set_thread_res_uid};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket};

use crate::model::intercept::APP_DSCP;

/// How long a connection within the namespace may take: it has no network on its way, only a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(1);
/// Connections that wait to be accepted: a probe's one, and those that apps make meanwhile.
const BACKLOG: i32 = 64;

/// Who makes a connection, and what it looks like to the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Caller {
    /// The user; `None` for the one that we are.
    pub(super) uid: Option<u32>,
    /// `SO_MARK`.
    pub(super) mark: Option<u32>,
    /// As a connection to the own app.
    pub(super) is_to_app: bool,
    /// From this address, which is not the namespace's.
    pub(super) from: Option<IpAddr>,
}

impl Caller {
    fn socket(self, destination: SocketAddr) -> io::Result<TcpSocket> {
        let socket = new_socket(self.uid, Domain::for_address(destination))?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        if self.is_to_app {
            let class = u32::from(APP_DSCP) << 2;
            if destination.is_ipv4() { socket.set_tos_v4(class) } else { socket.set_tclass_v6(class) }?;
        }
        if let Some(from) = self.from {
            if from.is_ipv4() {
                socket.set_ip_transparent_v4(true)
            } else {
                socket.set_ip_transparent_v6(true)
            }?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.set_nonblocking(true)?;
        Ok(TcpSocket::from_std_stream(socket.into()))
    }
}

/// A socket that is a user's. The kernel goes by who made it, so a thread becomes that user, and ends.
fn new_socket(uid: Option<u32>, domain: Domain) -> io::Result<Socket> {
    let new = move || Socket::new(domain, Type::STREAM, Some(Protocol::TCP));
    let Some(uid) = uid else { return new() };
    let made = thread::spawn(move || {
        set_thread_res_uid(None, Some(Uid::from_raw(uid)), None)?;
        new()
    });
    made.join().unwrap_or_else(|_panic| Err(io::Error::other("a thread panicked")))
}

/// A port at which connections should arrive.
#[derive(Debug)]
pub(super) enum Door {
    /// We listen there.
    Ours(TcpListener),
    /// Somebody else does: a sidecar.
    Taken,
}

impl Door {
    /// Listens on a port of every address, if nobody does.
    pub(super) fn at(port: u16) -> io::Result<Self> {
        let is_in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        let opened = listen((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|error| {
            // There may be no IPv6.
            if is_in_use(&error) { Err(error) } else { listen((Ipv4Addr::UNSPECIFIED, port).into()) }
        });
        match opened {
            Ok(listener) => Ok(Self::Ours(listener)),
            Err(error) if is_in_use(&error) => Ok(Self::Taken),
            Err(error) => Err(error),
        }
    }

    /// Listens on a free port of one address. Returns where.
    pub(super) fn on(address: IpAddr) -> io::Result<(Self, SocketAddr)> {
        let listener = listen((address, 0).into())?;
        let at = listener.local_addr()?;
        Ok((Self::Ours(listener), at))
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Connections of an earlier check do not keep the port; whoever listens does.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Makes a connection; it must arrive at `door`, in time, and be for `destination` there. Where a sidecar listens, who does
/// not tell, it must only come about.
pub(super) async fn arrives(caller: Caller, destination: SocketAddr, door: &Door) -> Result<(), String> {
    let socket = caller.socket(destination).map_err(|error| match caller.uid {
        Some(uid) => {
            format!(
                "a socket of user {uid} cannot be made ({error}): it takes CAP_SETUID, and a user namespace that has that \
                 user; where there is one user only, `own: mark` tells us apart"
            )
        }
        None => format!("a socket for it cannot be made: {error}"),
    })?;
    let connecting = tokio::time::timeout(PATIENCE, socket.connect(destination)).await;
    let stream = match connecting {
        Err(_elapsed) => return Err("it was not made in a second".to_owned()),
        Ok(Err(error)) => return Err(format!("it failed: {error}")),
        Ok(Ok(stream)) => stream,
    };
    let Door::Ours(listener) = door else { return Ok(()) };
    let own = stream.local_addr().map_err(|error| error.to_string())?;
    match tokio::time::timeout(PATIENCE, accept(listener, own)).await {
        Err(_elapsed) => Err("it arrived elsewhere".to_owned()),
        Ok(Err(error)) => Err(format!("accepting it failed: {error}")),
        Ok(Ok(found)) if found == destination => Ok(()),
        Ok(Ok(found)) => Err(format!("it arrived as if for {found}")),
    }
}

/// Accepts the connection from `peer`; returns what it was made for. Others are closed.
async fn accept(listener: &TcpListener, peer: SocketAddr) -> io::Result<SocketAddr> {
    loop {
        let (stream, from) = listener.accept().await?;
        if plain(from) != plain(peer) {
            continue;
        }
        let local = plain(stream.local_addr()?);
        let socket = SockRef::from(&stream);
        let original = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
        // A kernel that follows no connection knows of none.
        return Ok(original.ok().and_then(|address| address.as_socket()).map_or(local, plain));
    }
}

/// An IPv4 address that is written as one of IPv6, as IPv4; without a zone.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
