//! Whole meshes of real processes: the programs as they ship, on loopback addresses of their own, ended by real
//! signals.
//!
//! ```text
//!   load ──▶ caller's sidecar ══mTLS══▶ sidecar of each replica ──▶ app
//! ```
//! The harness is in the first seven modules, the claims in the others. Nothing sleeps to wait for something: either a
//! condition is polled with a deadline, or the load is let go on for a number of requests.

#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests read clocks, spawn tasks, fail by panicking, and show logs when they do"
)]

mod ailing;
mod app;
pub(crate) mod authority;
mod load;
mod lying_ca;
pub(crate) mod mesh;
pub(crate) mod process;

mod chaos;
mod demo;
mod descriptors;
mod drain;
mod identity_file;
mod identity_life;
mod kill;
mod overlap;
mod reload;

use std::time::{Duration, Instant};

/// Time for anything that is waited for and should take far less; the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// Waits until `is_so`, and panics naming `what` if that takes too long.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Runs one claim on a runtime with a few threads, so that load and events do not wait for each other.
pub(crate) fn run(claim: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(claim);
}
