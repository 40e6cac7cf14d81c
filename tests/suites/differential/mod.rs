//! What a server saw is what the callee's sidecar decided on, or the request was refused: a committed corpus of malformed
//! and ambiguous requests, sent by every way, to servers that read differently.
//!
//! ```text
//!   bytes ──▶ caller's sidecar ══▶ callee's sidecar ──▶ a strict server; nginx, HAProxy, Node (strict, lenient),
//!     └────────── as a peer ═══════════▲                http.server, hypercorn
//! ```
//! Of each case the outcome is asserted as the file has it ([`corpus`]): so every change shows. For all of them together:
//! the servers saw as many requests as the sidecar decided on, in that order, with the same method, path, host and length
//! of the body. The strict server takes nothing that two readers could take differently.
//!
//! `UPDATE_CORPUS=1` (with `--test-threads=1`) writes into the files what came; what it changes is to be read.

mod corpus;
pub(crate) mod decoders;
mod frames;
mod http1;
mod http2;
mod outcome;
mod paths;
mod policies;
mod readers;
mod run;
mod strict;
mod ways;
