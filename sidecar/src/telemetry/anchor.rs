//! Where the interval clock is on the wall clock, so that moments of one can be told in the other.

use std::time::{Duration, Instant, SystemTime};

use crate::clock::Clock;

/// Readings of which the tightest counts.
const READINGS: usize = 5;
/// How often the two are compared again.
const PERIOD: Duration = Duration::from_secs(60);
/// A difference that is left as it is: spans of one request that are made at different times stay together.
const TOLERATED: Duration = Duration::from_millis(1);

/// A moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    at: Instant,
    wall: SystemTime,
}

impl Anchor {
    /// The two clocks as they are now, read as close together as can be.
    #[must_use]
    pub fn now(clock: &Clock) -> Self {
        let reading = || {
            let before = clock.now();
            let wall = clock.wall();
            let width = clock.now().saturating_duration_since(before);
            (width, Self { at: before + width / 2, wall })
        };
        let tightest = (0..READINGS).map(|_| reading()).min_by_key(|(width, _)| *width);
        tightest.map_or_else(|| Self { at: clock.now(), wall: clock.wall() }, |(_, anchor)| anchor)
    }

    /// Compares again if it is time to. A wall clock that was set is followed from then on.
    pub fn refresh(&mut self, clock: &Clock) {
        if clock.now().saturating_duration_since(self.at) < PERIOD {
            return;
        }
        let now = Self::now(clock);
        let expected = self.wall(now.at);
        let apart = now.wall.duration_since(expected).unwrap_or_else(|earlier| earlier.duration());
        *self = if apart > TOLERATED { now } else { Self { at: now.at, wall: expected } };
    }

    /// What the wall clock showed at `at`.
    #[must_use]
    pub fn wall(&self, at: Instant) -> SystemTime {
        let moved = match at.checked_duration_since(self.at) {
            Some(after) => self.wall.checked_add(after),
            None => self.wall.checked_sub(self.at.saturating_duration_since(at)),
        };
        moved.unwrap_or(self.wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_keep_their_distances() {
        let clock = Clock::system();
        let anchor = Anchor::now(&clock);
        let (early, late) = (anchor.at - Duration::from_secs(3), anchor.at + Duration::from_micros(5));
        let apart = anchor.wall(late).duration_since(anchor.wall(early)).unwrap();
        assert_eq!(apart, Duration::from_micros(3_000_005));
        assert_eq!(anchor.wall(anchor.at), anchor.wall);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_was_set_is_followed_and_one_that_was_not_is_kept() {
        let clock = Clock::simulated(SystemTime::UNIX_EPOCH, 1);
        let first = Anchor::now(&clock);
        let mut set = Anchor { wall: first.wall + Duration::from_secs(5), ..first };
        let mut drifted = Anchor { wall: first.wall + Duration::from_micros(10), ..first };
        let moment = first.at;
        tokio::time::advance(PERIOD + Duration::from_secs(1)).await;
        set.refresh(&clock);
        drifted.refresh(&clock);
        assert_eq!(set.wall(moment), first.wall(moment), "followed");
        assert_eq!(drifted.wall(moment), first.wall(moment) + Duration::from_micros(10), "kept");
    }
}
