//! One opaque stream, from the app to a peer or from a peer to the app.
//!
//! Read [`mod@outbound`] first. What the downstream says before the upstream has taken the stream is kept ([`early`]), so an
//! attempt that fails can be repeated at another endpoint. A stream whose first speaker is not known yet is
//! [`Undecided`].

mod bare;
mod early;
mod inbound;
mod look;
mod opening;
mod outbound;
mod parting;
mod route;
mod undecided;
mod within;

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

pub use self::{
    bare::Bare,
    inbound::{inbound_framed, inbound_plain},
    outbound::{Destination, outbound, outbound_to, refuse},
    undecided::{NotOpened, Undecided},
};
pub(super) use self::{
    opening::Way,
    outbound::{Opened, open_silent},
    route::{Known, Routing, hello},
};
use crate::{
    net::Stream,
    relay::{
        copy::{self, End, Setup},
        session::Session,
    },
};

/// Relays between an app and a peer's sidecar until both directions have ended, or until `cut`: the peer is no longer
/// trusted, or not allowed any more.
async fn carry<P, S>(
    plain: &mut P,
    session: &mut Session<S>,
    cut: impl Future<Output = ()>,
    setup: Setup,
) -> End
where
    P: Stream,
    S: AsyncRead + AsyncWrite + Unpin,
{
    tokio::select! {
        biased;
        () = cut => {
            // What the app has got is not all there was: it must not take it for that.
            plain.reset_on_close();
            End::FarReset
        }
        (end, _carried) = copy::framed(plain, session, setup) => end,
    }
}

/// Relays between an app and somebody without frames, as [`carry`].
async fn carry_bare<A, B>(a: &mut A, b: &mut B, cut: impl Future<Output = ()>, setup: Setup) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    tokio::select! {
        biased;
        () = cut => Err(io::ErrorKind::ConnectionReset.into()),
        relayed = copy::plain(a, b, setup) => relayed.map(drop),
    }
}
