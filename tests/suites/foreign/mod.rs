//! Outrider between programs that others wrote: whole meshes of real processes with a foreign client, a foreign app,
//! or both.
//!
//! ```text
//!   curl, h2load, grpcio … ──▶ caller's sidecar ══mTLS══▶ callee's sidecar ──▶ nginx, Node, Python …
//! ```
//! Programs come from the distribution, libraries from PyPI and npm in pinned versions; `.ci/foreign` installs both. A
//! claim whose programs are not here says so in one line and is skipped, or fails if `OUTRIDER_REQUIRE_FOREIGN=1`.
//!
//! The harness is in the first three modules; the scripts beside them are the apps and clients in other languages, each
//! serving several claims.

mod apps;
mod mesh;
pub(crate) mod programs;

mod curl;
mod grpc;
mod kubernetes;
mod languages;
mod load_tools;
mod many;
mod nginx;
mod opaque;
mod openssl;
mod prometheus;
mod proxy;
mod slow;
mod soak;
mod traces;
mod websocket;

/// Runs a claim that needs these programs (`curl`) and libraries (`python:grpc`, `node:ws`), or says why not.
fn claim(needs: &[&str], claim: impl AsyncFnOnce()) {
    if programs::are_here(needs) {
        crate::processes::run(claim());
    }
}
