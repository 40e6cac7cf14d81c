//! Connections that the kernel brought here: where they were to go is known, what they carry often is not.

mod authority;
mod exceptions;
mod inbound;
mod outbound;
mod race;

use std::net::SocketAddr;

pub(super) use inbound::inbound;
pub(super) use outbound::outbound;

use super::entrance::Accepted;
use crate::{
    model::{Snapshot, intercept::Mode},
    net::Stream,
};

/// Whom a connection's other end dialled; `None` if it dialled us, which nobody has any business to.
fn original<S: Stream>(stream: &S, accepted: &Accepted, snapshot: &Snapshot) -> Option<SocketAddr> {
    let listener = accepted.listener(snapshot);
    let local = stream.local_address();
    match listener.intercepts()? {
        // The kernel answers the same for a connection that nobody has redirected: its own address.
        Mode::Redirect => stream.original_destination().filter(|original| Some(*original) != local),
        Mode::Tproxy => local.filter(|local| local.port() != listener.address.port()),
    }
}
