//! Headers: what of a message's head may pass, and what we add to it.
//!
//! Where a head comes in, in this order:
//!
//! ```text
//! framing::check_…   is it one message, and for one host?     no: 400 (from downstream), 502 (from upstream)
//! reserved::take     what a verified peer's sidecar tells us   (inbound from `peer: outrider` only)
//! reserved::strip    nobody else speaks in our name, nor in a name that some readers take for ours
//! hop_by_hop::strip  what was meant for this connection ends with it
//! edits::apply       what the route changes
//! forwarded::…       what we know of the caller replaces what it claims
//! trace::…           its place in its trace, if traces are made
//! ```
//! An `Upgrade` or 101 that is to be honoured has to be read (`upgrade`) before `hop_by_hop` removes it.

pub mod cookie;
pub mod edits;
#[cfg(test)]
pub(crate) mod fixture;
pub mod forwarded;
pub mod framing;
pub mod grpc;
pub mod hop_by_hop;
mod list;
pub mod pushback;
pub mod rate_limit;
pub mod reserved;
pub mod retry_after;
pub mod timeout;
pub mod trace;
pub mod trailers;
pub mod upgrade;
pub mod websocket;
