//! What has moved of one request or stream: written as it passes, read when it is over.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes both ways, and when the newest of them passed. Of HTTP these are the bytes of bodies.
#[derive(Debug, Default)]
pub struct Moved {
    /// When something moved last, in microseconds after a start that whoever writes it knows.
    pub last_us: AtomicU64,
    /// Bytes from the caller.
    pub request_bytes: AtomicU64,
    /// Bytes to the caller.
    pub response_bytes: AtomicU64,
}

impl Moved {
    /// Counts bytes from the caller.
    pub fn from_caller(&self, bytes: usize) {
        self.request_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes to the caller.
    pub fn to_caller(&self, bytes: usize) {
        self.response_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes so far: from the caller, and to it.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.request_bytes.load(Ordering::Relaxed), self.response_bytes.load(Ordering::Relaxed))
    }
}
