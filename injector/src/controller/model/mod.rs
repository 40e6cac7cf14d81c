//! The cluster as sidecars see it: objects in, answers out. Pure: no I/O, no clock.
//!
//! | module | what it holds |
//! |---|---|
//! | [`objects`] | what is kept of each object |
//! | [`cluster`] | all of them, by name and address; what a change touches |
//! | [`names`] | keys, and names as a resolver takes them |
//! | [`resolve`] | a key, asked in a namespace, leads to a target |
//! | [`value`] | what is told of a target |
//! | [`rounds`] | a set that is gone through in rounds |
//! | [`workload`] | what is told of a pod to itself |
//!
//! # Invariants
//! - A pod is believed to be at an address only if the slice and the pod say so, by UID.
//! - A Service with a pod in the mesh is reached by mutual TLS, and only its pods in the mesh are told.
//! - An address of a pod leads to that pod and to no other.

pub mod cluster;
pub mod names;
pub mod objects;
pub mod resolve;
pub mod rounds;
pub mod value;
pub mod workload;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
