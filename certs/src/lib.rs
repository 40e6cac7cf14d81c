//! SPIFFE identities, SVIDs and trust bundles, and a small CA.
//!
//! Read in this order:
//!
//! | module | what it holds | from |
//! |---|---|---|
//! | [`spiffe_id`] | names: parsed once, valid for ever | SPIFFE-ID §2 |
//! | [`svid`] | one's own identity: chain, key, ID | X509-SVID §2-§4 |
//! | [`trust_bundle`] | the roots of a trust domain | Trust Domain and Bundle §4 |
//! | [`verify`] | a chain off the network becomes a [`verify::Peer`], or not | X509-SVID §5 |
//! | [`rustls_verify`] | the same, as verifiers for TLS | – |
//! | [`request`], [`join_token`], [`client`] | how a workload gets its SVID | Istio's CA service |
//! | [`files`] | what is kept on disk: whole or not at all, and private | – |
//! | [`program`] | what programs that serve have in common | – |
//! | [`ca`] | the CA itself; `outrider-ca` is a thin program around it | – |
//!
//! # Invariants
//! - An ID is judged by the bundle of its own trust domain alone.
//! - What a certificate says comes from what the caller has *proved*, never
//!   from what it asked for.
//! - Nothing off the network makes this crate panic or hold unbounded memory.
//! - Time comes in as an argument or a [`clock::WallClock`].

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may read clocks"))]

pub mod api;
pub mod ca;
pub mod certificate;
pub mod cli;
pub mod client;
pub mod clock;
pub mod files;
pub mod join_token;
pub mod pem;
pub mod program;
pub mod request;
pub mod rustls_verify;
pub mod spiffe_id;
pub mod svid;
#[cfg(test)]
mod testing;
pub mod trust_bundle;
pub mod verify;

pub use spiffe_id::{SpiffeId, TrustDomain};
pub use svid::X509Svid;
pub use trust_bundle::{TrustBundle, TrustBundles};
pub use verify::Peer;
