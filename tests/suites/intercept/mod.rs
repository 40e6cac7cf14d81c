//! Interception by the kernel: apps that know nothing of the mesh, in network namespaces, with real rules.
//!
//! ```text
//!   ┌ web ──────────────────────────┐        ┌ users ────────────────────────┐
//!   │ curl ──kernel──▶ sidecar ═════╪══mTLS══╪═kernel══▶ sidecar ──▶ service │     a namespace each
//!   └───────────────────────────────┘   ┊    └───────────────────────────────┘
//!                                    wiretap
//! ```
//! [`pods`] is the harness: it drives `examples/pods/pods`, so that the example and the tests cannot differ. A cluster is
//! made per claim, in namespaces of its own, by root as by any user who may make namespaces. Where nobody may, a claim
//! says so and is skipped, or fails if `OUTRIDER_REQUIRE_PODS=1`.

mod pods;

mod calls;
mod dead_sidecar;
mod many;
mod own_calls;
mod strangers;
mod unknown;
