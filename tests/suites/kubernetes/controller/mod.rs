//! The controller between an API server that has good and bad days and sidecars that do as they like.

mod bench;
mod bundle;
pub(super) mod cluster;
mod program;
pub(super) mod replica;
pub(super) mod sidecar;
mod sidecars;
mod watches;
