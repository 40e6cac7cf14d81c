//! Routes of the Gateway API with a Service as their parent (GAMMA), as sidecars take them. Pure: no I/O, no clock.
//!
//! ```text
//!   HTTPRoute, GRPCRoute ──read──▶ rules in the words of a sidecar's file ──┐
//!   ReferenceGrant ──read──▶ who may refer to whom ─────────────────────────┼─book─▶ routes of a Service, for a caller
//!   Services (model) ───────────────────────────────────────────────────────┘   └──▶ status of a route
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`route`] | what is kept of a route |
//! | [`read`], [`mod@matches`], [`filters`], [`settings`] | an object of the API becomes that |
//! | [`judge`] | what a sidecar's own validator says of a rule |
//! | [`grant`] | ReferenceGrants |
//! | [`book`] | all routes and grants; what a change touches |
//! | [`attached`] | which routes hold for a port of a Service |
//! | [`translate`] | what is told of them |
//! | [`status`] | what is written to them |
//!
//! `docs/gateway-api.md` has every field. The API is read in version 1.4 (`gateway.networking.k8s.io/v1`; grants `v1beta1`).
//!
//! # Invariants
//! - A rule that cannot be told as it was meant is not told as something else: without its filters no request passes.
//! - What is told is what a sidecar takes: its own validator has seen each rule.
//! - A route of a namespace changes calls *to* Services of that namespace, or calls *from* it; no others.

pub mod attached;
pub mod book;
pub mod filters;
pub mod grant;
pub mod judge;
pub mod matches;
pub mod read;
pub mod route;
pub mod settings;
pub mod status;
#[cfg(test)]
mod tests;
pub mod translate;

/// By this name a status says who wrote it.
pub const CONTROLLER: &str = "outrider.io/controller";
