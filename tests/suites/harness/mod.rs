//! What whole-mesh tests are made of: real sidecars in this process, on real sockets of the loopback, with real
//! certificates; apps and clients that behave as a script says; peers that are not who they should be.
//!
//! Nothing here waits by sleeping: [`eventually`] looks until a deadline, and every port is the system's choice.

#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "tests read clocks and start tasks as they like, and fail by panicking"
)]

pub(crate) mod api_server;
pub(crate) mod app;
pub(crate) mod body;
pub(crate) mod ca;
pub(crate) mod client;
pub(crate) mod controller;
pub(crate) mod mesh;
pub(crate) mod openssl;
pub(crate) mod peer;
pub(crate) mod raw_h2;
pub(crate) mod told;

use std::time::{Duration, Instant};

pub(crate) use app::{HttpApp, TcpApp};
pub(crate) use ca::{TestCa, TestLeaf};
pub(crate) use client::Client;
pub(crate) use mesh::{Sidecar, TestMesh};

/// How long anything that should happen soon may take. Generous: it is reached only by a failing test.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// An error of whatever kind.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Looks until `is_so`, and fails the test if that takes longer than [`SOON`].
pub(crate) async fn eventually(claim: &str, is_so: impl FnMut() -> bool) {
    assert!(within(SOON, is_so).await, "after {SOON:?} it is not so that {claim}");
}

/// Looks until `is_so`, for at most `limit`; returns whether it became so.
pub(crate) async fn within(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !is_so() {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}

/// Awaits `future`, and fails the test if that takes longer than [`SOON`].
pub(crate) async fn soon<F: Future>(claim: &str, future: F) -> F::Output {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_elapsed| panic!("not within {SOON:?}: {claim}"))
}
