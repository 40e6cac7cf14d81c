//! The only place here that reads the clock and starts tasks.

use std::{future::Future, time::Instant};

use tokio::task::JoinHandle;

/// The time now, for intervals.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one reader of the clock in this crate")]
pub fn now() -> Instant {
    Instant::now()
}

/// Starts a task on the current runtime; it ends with the runtime at the latest.
#[expect(clippy::disallowed_methods, reason = "the one place in this crate that starts tasks")]
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(task)
}
