//! The mesh's own policies as objects of the cluster: `TrafficPolicy`, how a Service is called, and `AuthorizationPolicy`, who
//! may call pods. Pure: objects in, settings of sidecars and conditions out. `docs/policies.md` describes them.
//!
//! ```text
//!   object ──read──▶ typed, checked by the sidecar's own rules ──book──▶ what holds for a Service, for a pod
//!                        │                                          └──▶ conditions (status)
//!   config::rows ──schema──▶ CustomResourceDefinitions of the chart (a test keeps them equal)
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`keys`] | which keys of a sidecar's file a policy has |
//! | [`read`] | one object, as it is meant; or why it cannot be used |
//! | [`book`] | all of them, and what they come to together |
//! | [`kept`] | the objects themselves, and whose status is to be looked at |
//! | [`status`] | what an object is told of itself |
//! | [`schema`] | the CustomResourceDefinitions |
//!
//! # Invariants
//! - A policy acts in its own namespace alone.
//! - Nothing reaches a sidecar that its own checks would refuse.
//! - Rules only allow: an `AuthorizationPolicy` that cannot be used still selects its pods, and allows nobody.

pub mod book;
pub mod kept;
pub mod keys;
pub mod read;
pub mod schema;
pub mod status;

/// The group of both kinds.
pub const GROUP: &str = "outrider.io";
/// Their one version.
pub const VERSION: &str = "v1alpha1";
/// Who judges them, as their status names it.
pub const CONTROLLER: &str = "outrider.io/controller";

#[cfg(test)]
mod tests;
