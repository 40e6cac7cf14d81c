//! Wall time as an argument.
//!
//! Certificates are judged and made at a time somebody hands in. This is the
//! one place of the crate that reads the system's clock; a test or a
//! simulation hands in another [`WallClock`].

use std::time::SystemTime;

/// Tells the wall time.
pub trait WallClock: Send + Sync + std::fmt::Debug {
    /// The time now. May jump in both directions, as wall clocks do.
    fn now(&self) -> SystemTime;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemWallClock;

impl WallClock for SystemWallClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else is handed")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// The time for measuring distances; stands still where tokio's clock does.
#[expect(clippy::disallowed_methods, reason = "the one reader of the monotonic clock")]
pub(crate) fn instant() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
