//! What a running sidecar can be asked: who called whom lately, what goes on now, and why something failed.

use std::sync::Arc;

use super::{explain::Explained, ring::Ring, tap::Taps, trail::Trail};
use crate::clock::Clock;

/// What is kept for those who ask. All of it is bounded; nothing of it is on a request's path.
#[derive(Debug)]
pub struct Insight {
    /// What counters grew by, lately.
    pub ring: Ring,
    /// Those who watch live requests.
    pub taps: Taps,
    /// Requests that failed or were repeated.
    pub explained: Explained,
    clock: Clock,
}

impl Insight {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(clock: &Clock) -> Arc<Self> {
        Arc::new(Self {
            ring: Ring::new(clock.now()),
            taps: Taps::default(),
            explained: Explained::default(),
            clock: clock.clone(),
        })
    }

    /// Takes the trail of a request that is over, after all others who want it: tells who watches, and keeps it if it
    /// failed or was repeated.
    pub fn take(&self, trail: Box<Trail>) {
        let now = self.clock.now();
        self.taps.tell(&trail, now, || self.clock.wall() - now.saturating_duration_since(trail.started));
        if Explained::wants(&trail) {
            self.explained.keep(trail);
        }
    }
}
