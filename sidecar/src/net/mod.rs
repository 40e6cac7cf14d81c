//! The network as a seam: real sockets in production, a simulated network in tests.
//!
//! Everything that opens or accepts a connection on the data path is generic over [`Net`], so a whole mesh
//! runs unchanged on virtual time (see `tests/suites/simulation/`). It is a type parameter and never a
//! cargo feature: the code under test is the code that ships.

/// Connections that may wait to be accepted, per listener. As large as Linux lets most hosts have
/// (`net.core.somaxconn`); the kernel cuts it down where the limit is lower, and lets one more wait than it was told.
pub const BACKLOG: u16 = 4096;

mod addresses;
mod client_ports;
mod descriptors;
mod handover;
mod marks;
pub mod reach;
mod tcp;
mod tracked;

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite};

pub use addresses::nonlocal_bind;
pub use descriptors::{descriptor_limit, raise_descriptor_limit};
pub use handover::{HandoverListener, HandoverNet, Offers};
pub use marks::{Forbidden, Marks};
pub use tcp::{Bound, TcpNet};
pub use tracked::Tracked;

/// A way to reach and to be reached.
pub trait Net: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// A connected byte stream.
    type Stream: Stream;
    /// A bound, listening socket.
    type Listener: Listener<Stream = Self::Stream>;

    /// Binds a listening socket that other processes and workers may share (`SO_REUSEPORT` where it exists),
    /// so that workers accept apart and a new sidecar can take over from an old one.
    ///
    /// # Errors
    /// As the operating system reports them: address in use by someone who does not share, no permission.
    fn bind(&self, address: SocketAddr) -> io::Result<Self::Listener>;

    /// Connects, giving up after `timeout`.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] after `timeout`, else as the operating system reports them.
    fn connect(
        &self,
        address: SocketAddr,
        purpose: Purpose,
        timeout: Duration,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Whether an address is the host's own, so that what is sent there stays here; its port does not matter. A network
    /// that cannot tell says no.
    fn is_own(&self, _address: SocketAddr) -> bool {
        false
    }

    /// What a connection between these ends is for, if it is one that this process has made and still has. A network that
    /// does not keep account knows of none.
    fn made(&self, _from: SocketAddr, _to: SocketAddr) -> Option<Purpose> {
        None
    }
}

/// What a connection is made for: the kernel's rules of interception treat it by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To anybody.
    Any,
    /// To the own app, past the rules that bring connections to the host's own address to us.
    App,
    /// The same, in the name of a client: the app sees its address.
    AppFor(IpAddr),
}

/// A connected byte stream of a [`Net`].
pub trait Stream: AsyncRead + AsyncWrite + std::fmt::Debug + Unpin + Send + 'static {
    /// Makes the next close of this stream a reset, so that an abort reaches the peer as an abort.
    fn reset_on_close(&self);

    /// What waits to be read, as the operating system knows it at this moment, whatever the runtime has been told yet.
    /// Reads nothing and wakes nobody. A stream that cannot tell says that nothing waits.
    fn waiting(&self) -> Waiting {
        Waiting::Nothing
    }

    /// Whether its other end has closed or reset it, whatever waits to be read before that end. Reads nothing and wakes
    /// nobody. A stream that cannot tell says no.
    fn has_ended(&self) -> bool {
        false
    }

    /// Ends the connection when bytes sent on it have been neither acknowledged nor taken for `limit`. Best effort.
    fn set_user_timeout(&self, limit: Duration) {
        let _unsupported = limit;
    }

    /// Whom its other end dialled before the kernel rewrote that; as the operating system knows it, and nobody else.
    /// `None` if nothing was rewritten, or if nobody knows. IPv4 is IPv4, also on a socket of IPv6.
    fn original_destination(&self) -> Option<SocketAddr> {
        None
    }

    /// Its address at this end.
    fn local_address(&self) -> Option<SocketAddr> {
        None
    }
}

/// What waits to be read on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing, and more may come.
    Nothing,
    /// Bytes.
    Bytes,
    /// The stream's end, or its failure.
    End,
}

impl<S: Stream + ?Sized> Stream for Box<S> {
    fn reset_on_close(&self) {
        (**self).reset_on_close();
    }

    fn waiting(&self) -> Waiting {
        (**self).waiting()
    }

    fn has_ended(&self) -> bool {
        (**self).has_ended()
    }

    fn original_destination(&self) -> Option<SocketAddr> {
        (**self).original_destination()
    }

    fn local_address(&self) -> Option<SocketAddr> {
        (**self).local_address()
    }
}

/// A listening socket of a [`Net`].
pub trait Listener: Send + Sync + 'static {
    /// What it accepts.
    type Stream: Stream;

    /// Waits for the next connection. Cancel-safe: a dropped call loses no connection.
    ///
    /// # Errors
    /// As the operating system reports them; the caller decides which of them end the listener (none should).
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// The next connection that waits already, without waiting for one; `None` if there is none. It asks the operating
    /// system each time: nothing that is known from before, or that a runtime's fairness withholds, counts.
    ///
    /// # Errors
    /// As [`Listener::accept`].
    fn accept_now(&self) -> io::Result<Option<(Self::Stream, SocketAddr)>>;

    /// The address it is bound to; the port is the real one where 0 was asked for.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}
