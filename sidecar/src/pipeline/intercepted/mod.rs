//! Connections that the kernel brought here: where they were to go is known, what they carry often is not.

mod authority;
mod exceptions;
mod inbound;
mod outbound;
mod race;

use std::net::SocketAddr;

pub(super) use inbound::inbound;
pub(super) use outbound::outbound;

use super::{entrance::Accepted, worker::Worker};
use crate::{
    model::{
        Snapshot,
        intercept::Mode,
        runtime::{ListenerRuntime, Refusal},
    },
    net::{Net, Purpose, Stream},
};

/// Whom a connection from `address` was made to. One that dialled us is refused, for nobody has any business to; and so is
/// one of our own, which we would send on and get back for ever, if the kernel's rules do not leave us alone: `comes_back`
/// says which those are.
///
/// # Errors
/// [`Refusal::NotRedirected`], [`Refusal::Loop`].
fn original<N: Net>(
    worker: &Worker<N>,
    (stream, address): (&N::Stream, SocketAddr),
    (accepted, snapshot): (&Accepted, &Snapshot),
    comes_back: impl FnOnce(Purpose) -> bool,
) -> Result<SocketAddr, Refusal> {
    let listener = accepted.listener(snapshot);
    let local = stream.local_address();
    // The kernel answers the same for a connection that nobody has redirected: its own address.
    let redirected = || stream.original_destination().filter(|original| Some(*original) != local);
    let original = match listener.intercepts().ok_or(Refusal::NotRedirected)? {
        Mode::Redirect => redirected(),
        // What we send to ourselves as to any endpoint is redirected here, too.
        Mode::Tproxy => local.filter(|local| local.port() != listener.address.port()).or_else(redirected),
    };
    let original = original.ok_or(Refusal::NotRedirected)?;
    let made = worker.connector.dialer.net.made(address, original);
    if made.is_some_and(comes_back) { Err(Refusal::Loop) } else { Ok(original) }
}

/// Refuses a connection.
fn refuse<S: Stream>(stream: &S, counts: &ListenerRuntime, reason: Refusal) {
    let before = counts.refuse(reason);
    // There may be many: the 1st, 2nd, 4th, 8th … are enough to know.
    if reason == Refusal::Loop && (before + 1).is_power_of_two() {
        tracing::warn!(
            so_far = before + 1,
            "the kernel brings back to us what we send: its rules of interception do not leave this process's connections \
             alone; apply them again with this configuration (`outrider intercept apply`)"
        );
    }
    stream.reset_on_close();
}
