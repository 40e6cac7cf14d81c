//! Requests that wait for their answers, by when they began: a long poll is not silence.
//!
//! ```text
//!   begun:   long ago │ before the last turn │ since then
//!             standing │        young          │  young       ◀── all of them wait
//! ```
//! The counts turn when the endpoint was heard since the last look, and stand still while it is silent: what is young
//! then was begun shortly before it fell silent, or later. What had already waited while it still answered others
//! is left out.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

const SLOTS: usize = 3;

/// Requests that wait, in slots by age.
#[derive(Debug, Default)]
pub struct Pending {
    /// Those that wait, by the slot they began in.
    waiting: [AtomicU32; SLOTS],
    /// Of these, those that were there already when the slot was taken into use again.
    standing: [AtomicU32; SLOTS],
    current: AtomicUsize,
}

/// The slot that a request began in: to be given back when it has its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u8);

impl Pending {
    /// Counts a request that begins to wait.
    #[must_use]
    pub fn begin(&self) -> Slot {
        let current = self.current.load(Ordering::Relaxed) % SLOTS;
        if let Some(count) = self.waiting.get(current) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        // There are three.
        Slot(current as u8)
    }

    /// It waits no more. Call it once for each.
    pub fn end(&self, Slot(slot): Slot) {
        if let Some(count) = self.waiting.get(usize::from(slot)) {
            count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).ok();
        }
    }

    /// Those that were begun since the turn before the last one.
    #[must_use]
    pub fn young(&self) -> u32 {
        let current = self.current.load(Ordering::Relaxed);
        self.fresh(current).saturating_add(self.fresh(current + SLOTS - 1))
    }

    /// Those that have waited since before the last turn and, with two turns more, would count as standing.
    #[must_use]
    pub fn waited(&self) -> u32 {
        let current = self.current.load(Ordering::Relaxed);
        self.fresh(current + 1).saturating_add(self.fresh(current + 2))
    }

    /// Turns: what begins from here on is in a slot of its own. One at a time may call it.
    pub fn turn(&self) {
        let next = (self.current.load(Ordering::Relaxed) + 1) % SLOTS;
        if let (Some(waiting), Some(standing)) = (self.waiting.get(next), self.standing.get(next)) {
            standing.store(waiting.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.current.store(next, Ordering::Relaxed);
    }

    /// Those of a slot that began since it was taken into use. Too few where one of the standing has ended meanwhile;
    /// but then something was heard.
    fn fresh(&self, slot: usize) -> u32 {
        let read = |counts: &[AtomicU32; SLOTS]| {
            counts.get(slot % SLOTS).map_or(0, |count| count.load(Ordering::Relaxed))
        };
        read(&self.waiting).saturating_sub(read(&self.standing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_over_two_turns_is_young_no_more() {
        let pending = Pending::default();
        let polls: Vec<_> = (0..3).map(|_| pending.begin()).collect();
        assert_eq!((pending.young(), pending.waited()), (3, 0));
        pending.turn();
        assert_eq!((pending.young(), pending.waited()), (3, 3));
        pending.turn();
        assert_eq!((pending.young(), pending.waited()), (0, 3));
        pending.turn();
        assert_eq!((pending.young(), pending.waited()), (0, 0), "they stand");
        let _quick = pending.begin();
        assert_eq!(pending.young(), 1);
        for poll in polls {
            pending.end(poll);
        }
        assert_eq!(pending.young(), 0, "something was heard: too few is no harm");
        pending.turn();
        let _next = pending.begin();
        assert!(pending.young() >= 1);
    }

    #[test]
    fn nothing_goes_below_zero() {
        let pending = Pending::default();
        let slot = pending.begin();
        pending.end(slot);
        pending.end(slot);
        assert_eq!(pending.young(), 0);
        assert_eq!(pending.begin(), slot);
        assert_eq!(pending.young(), 1);
    }
}
