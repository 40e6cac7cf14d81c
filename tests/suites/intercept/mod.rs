//! Connections that the kernel brings: real kernels, rules, sockets and programs, in network namespaces of the tests' own.
//!
//! It takes root, or a kernel that lets users make user namespaces, and the programs `unshare`, `ip`, `nft` and `curl`; a
//! claim that cannot be tried says so in one line and is skipped, or fails if `OUTRIDER_REQUIRE_FOREIGN=1`.
//!
//! Claims about one namespace run in a copy of the test program ([`namespace`]), some with sidecars in it
//! ([`sidecars`]). Claims about whole meshes have a cluster of pods each ([`pods`]), by the script of `examples/pods`, so
//! that the example and the tests cannot differ:
//!
//! ```text
//!   ┌ web ──────────────────────────┐        ┌ users ────────────────────────┐
//!   │ curl ──kernel──▶ sidecar ═════╪══mTLS══╪═kernel══▶ sidecar ──▶ service │     a namespace each
//!   └───────────────────────────────┘   ┊    └───────────────────────────────┘
//!                                    wiretap
//! ```

pub(crate) mod namespace;
mod pods;
mod sidecars;

mod gate;
mod loops;
mod program;
mod rules;
mod sockets;
mod starting;
mod tproxy;
mod traffic;

mod calls;
mod dead_sidecar;
mod many;
mod own_calls;
mod programs;
mod strangers;
mod unknown;
