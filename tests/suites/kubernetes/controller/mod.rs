//! The controller between an API server that has good and bad days and sidecars that do as they like.

mod bench;
mod bundle;
mod cluster;
mod program;
mod replica;
mod sidecar;
mod sidecars;
mod watches;
