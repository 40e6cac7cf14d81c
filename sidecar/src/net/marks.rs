//! What tells our connections apart from others', for the kernel's rules of interception.

use std::{io, net::SocketAddr, time::Duration};

use outrider_certs::program::at;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

use super::{
    Purpose,
    addresses::{canonical, has_ipv6},
    client_ports::ClientPorts,
    tcp::{Bound, set_options},
};

/// Ports that are tried for one connection: where half of them are in use, it fails once in 2^32.
const MAX_PORTS_TRIED: u32 = 32;

/// What tells our connections apart from others'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// `SO_MARK` of every connection that we make.
    pub mark: Option<u32>,
    /// DSCP of connections to the own app, 0..=63.
    pub app_dscp: Option<u8>,
    /// The port at which connections come in by transparent proxying, with the address that was dialled as their own.
    pub transparent_port: Option<u16>,
}

/// What this process may not do to its sockets.
#[derive(Debug, thiserror::Error)]
pub enum Forbidden {
    /// `SO_MARK`.
    #[error(
        "connections cannot be marked (SO_MARK: {0}): this takes CAP_NET_ADMIN, or CAP_NET_RAW since Linux 5.17, \
         in the process itself"
    )]
    Mark(#[source] io::Error),
    /// `IP_TRANSPARENT`.
    #[error(
        "connections cannot be taken and made with the addresses of others (IP_TRANSPARENT: {0}): this takes \
         CAP_NET_ADMIN or CAP_NET_RAW in the process itself"
    )]
    Transparent(#[source] io::Error),
}

impl Marks {
    /// Tries on sockets that are not used whether this process may do all this.
    ///
    /// # Errors
    /// [`Forbidden`].
    pub fn check(self) -> Result<(), Forbidden> {
        let domain = if has_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
        let socket = || Socket::new(domain, Type::STREAM, Some(Protocol::TCP));
        if let Some(mark) = self.mark {
            socket().and_then(|socket| socket.set_mark(mark)).map_err(Forbidden::Mark)?;
        }
        if self.transparent_port.is_some() {
            socket().and_then(|socket| set_transparent(&socket, domain)).map_err(Forbidden::Transparent)?;
        }
        Ok(())
    }

    /// A connection of the process itself, to whatever the data path has nothing to do with; gives up after `timeout`.
    ///
    /// # Errors
    /// As [`Net::connect`](super::Net::connect).
    pub async fn dial(self, to: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        let begun = self.begin(to, Purpose::Any, &ClientPorts::default())?;
        established(&begun, timeout).await?;
        Ok(begun)
    }

    /// Begins a connection: it is under way, and has its address at this end.
    pub(super) fn begin(
        self,
        to: SocketAddr,
        purpose: Purpose,
        ports: &ClientPorts,
    ) -> io::Result<TcpStream> {
        let to = canonical(to);
        let Purpose::AppFor(client) = purpose else {
            return started(self.socket(to, purpose)?, to);
        };
        let mut tries = 0;
        loop {
            let socket = self.socket(to, purpose)?;
            let bound = socket.bind(&SocketAddr::new(client, ports.next()).into());
            match bound.and_then(|()| started(socket, to)) {
                Err(error) if is_port_taken(&error) && tries < MAX_PORTS_TRIED => tries += 1,
                begun => return begun,
            }
        }
    }

    fn socket(self, to: SocketAddr, purpose: Purpose) -> io::Result<Socket> {
        let domain = Domain::for_address(to);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        if let (Purpose::App | Purpose::AppFor(_), Some(dscp)) = (purpose, self.app_dscp) {
            let class = u32::from(dscp) << 2;
            if domain == Domain::IPV4 { socket.set_tos_v4(class) } else { socket.set_tclass_v6(class) }?;
        }
        if let Purpose::AppFor(_) = purpose {
            set_transparent(&socket, domain)?;
            // A port may be that of several connections, as long as they lead to different addresses.
            socket.set_reuse_address(true)?;
        }
        Ok(socket)
    }

    /// As [`TcpNet::reserve`](super::TcpNet::reserve).
    ///
    /// # Errors
    /// As there, and where this port is one for transparent proxying and we may not have such.
    pub fn reserve(self, address: SocketAddr) -> io::Result<Bound> {
        at(address, |address| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            if address.is_ipv6() {
                // Whatever the system's default is.
                socket.set_only_v6(!address.ip().is_unspecified())?;
            }
            self.prepare(&socket, address)?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            Ok(Bound::new(socket))
        })
    }

    /// Makes a listening socket at that address, or one that will be, what the port is for.
    pub(super) fn prepare(self, socket: &Socket, address: SocketAddr) -> io::Result<()> {
        if self.transparent_port == Some(address.port()) {
            set_transparent(socket, Domain::for_address(address))?;
        }
        Ok(())
    }
}

/// Lets a socket have an address that is not the host's. On a socket of IPv6 it takes both, as it may be for both.
fn set_transparent(socket: &Socket, domain: Domain) -> io::Result<()> {
    socket.set_ip_transparent_v4(true)?;
    if domain == Domain::IPV6 { socket.set_ip_transparent_v6(true) } else { Ok(()) }
}

/// Whether there is a connection between that port and the other end already, or somebody has the port for himself.
fn is_port_taken(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL))
}

fn started(socket: Socket, to: SocketAddr) -> io::Result<TcpStream> {
    match socket.connect(&to.into()) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => {}
        connected => connected?,
    }
    TcpStream::from_std(socket.into())
}

/// Waits until a connection that was begun is there.
pub(super) async fn established(begun: &TcpStream, timeout: Duration) -> io::Result<()> {
    tokio::time::timeout(timeout, begun.writable())
        .await
        .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
    match begun.take_error()? {
        Some(error) => Err(error),
        None => set_options(begun),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_nobody_takes_fails_as_the_system_says() {
        let socket = Marks::default().reserve("127.0.0.1:0".parse().unwrap()).unwrap();
        let nobody = socket.local_addr();
        let begun = Marks::default().begin(nobody, Purpose::Any, &ClientPorts::default());
        // On loopback, the answer may be there at once.
        let error = match begun {
            Ok(begun) => established(&begun, Duration::from_secs(5)).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn an_address_of_ipv4_in_the_clothes_of_ipv6_is_dialled_as_ipv4() {
        let listener = Marks::default().reserve("127.0.0.1:0".parse().unwrap()).unwrap().listen().unwrap();
        let port = listener.local_addr().unwrap().port();
        let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{port}").parse().unwrap();
        let begun = Marks::default().begin(mapped, Purpose::Any, &ClientPorts::default()).unwrap();
        established(&begun, Duration::from_secs(5)).await.unwrap();
        assert!(begun.local_addr().unwrap().is_ipv4(), "else its DSCP would be that of IPv6");
    }
}
