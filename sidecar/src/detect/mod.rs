//! Detection: what a connection speaks, told from the first bytes of either end.
//!
//! ```text
//! client's bytes ──▶ client() ──▶ More │ Tls, Http2, Http1, Opaque
//! server's bytes ──▶ server() ──▶ More │ Http (wait for the client), Opaque
//! ```
//! Whoever reads calls again with *all* bytes so far until there is a decision. Nothing is kept in between: the answer
//! depends on the bytes and on nothing else, however they were cut. A decision never changes as more bytes come, and
//! it falls at the first byte that makes it certain, so no protocol that waits for an answer is kept waiting for what
//! it will not send. The one thing that cannot be known is whether a client whose bytes are still ambiguous
//! ([`Verdict::More`]) will send more: who waits for it must bound that wait, and then, or when the bytes end, take it
//! for [`Spoken::Opaque`]. (ZooKeeper's `ruok` has no end of line, and a Gopher client may send an empty one and wait.)
//!
//! To be wrong costs something in either direction. Opaque bytes taken for a request are answered with 400. A request taken
//! for opaque bytes still arrives, as it was sent: past everything that judges requests, and with whatever it says of its
//! caller. Hence a request line is known as widely as its standard lets a *recipient* read one, where no other protocol
//! begins so; each other rule is as strict as its standard lets a sender be.
//!
//! Where TLS is not terminated, [`ClientHello`] tells where the client wants to go, and in which protocol.

mod client;
mod client_hello;
mod server;

use std::time::Duration;

pub use crate::model::detection::Spoken;
pub use client::{MAX_BYTES, PREFACE, Verdict, client};
pub use client_hello::{ClientHello, ClientHelloError, MAX_CLIENT_HELLO_BYTES};
pub use server::{ServerVerdict, server};

/// Bytes of one side that may still become HTTP's, or a handshake, are taken for opaque ones if no more come within
/// this. Only a protocol whose first message is such a beginning, without an end of line, ever waits for it.
pub const MORE_WITHIN: Duration = Duration::from_millis(250);
