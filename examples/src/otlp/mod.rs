//! Traces as a collector gets them (OTLP over gRPC), and one of them as a picture.
//!
//! [`receiver`] takes spans from sidecars and keeps a bounded sample of whole traces ([`traces`]); [`tree`] puts one
//! trace's spans in order, [`shares`] says where its time went, and [`waterfall`] draws it. The demo shows its own calls
//! so; the program `collector` does it for sidecars of whoever starts it.

pub mod collector;
pub mod receiver;
pub mod shares;
pub mod span;
pub mod traces;
pub mod tree;
pub mod waterfall;

#[cfg(test)]
pub(crate) mod made_up;
