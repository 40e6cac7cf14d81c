//! Since when a cluster has had no endpoint that may be asked, as those see it who wanted one; and what became of those who
//! waited for one.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Since when there has been nobody to ask. All workers share it.
#[derive(Debug)]
pub struct Starvation {
    epoch: Instant,
    /// In microseconds after the epoch, at least 1; 0: there is somebody, as far as anybody knows.
    since_us: AtomicU64,
    /// Requests and streams that waited until there was somebody.
    pub found: AtomicU64,
    /// Requests and streams that waited in vain. Those whose caller went away meanwhile are in neither.
    pub in_vain: AtomicU64,
}

impl Starvation {
    /// There is somebody.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let (found, in_vain) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { epoch: now, since_us: AtomicU64::new(0), found, in_vain }
    }

    /// There is nobody; how long that has been known.
    pub fn found_nobody(&self, now: Instant) -> Duration {
        let now_us =
            u64::try_from(now.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX).max(1);
        let begun = self.since_us.compare_exchange(0, now_us, Ordering::Relaxed, Ordering::Relaxed);
        Duration::from_micros(now_us.saturating_sub(begun.err().unwrap_or(now_us)))
    }

    /// Whether somebody found nobody, and nobody has found somebody since.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.since_us.load(Ordering::Relaxed) != 0
    }

    /// There is somebody.
    pub fn is_over(&self) {
        // As a rule there is nothing to write, and workers share the line.
        if self.is_known() {
            self.since_us.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_from_the_first_who_found_nobody_until_somebody_is_found() {
        let now = Instant::now();
        let starvation = Starvation::new(now);
        let second = Duration::from_secs(1);
        assert_eq!(starvation.found_nobody(now), Duration::ZERO, "at the epoch itself");
        assert_eq!(starvation.found_nobody(now + second), second - Duration::from_micros(1));
        starvation.is_over();
        assert!(!starvation.is_known());
        assert_eq!(starvation.found_nobody(now + 3 * second), Duration::ZERO);
        assert_eq!(starvation.found_nobody(now + 5 * second), 2 * second);
    }
}
