//! Retry budget: may anything be retried right now?
//!
//! Retries per request cannot bound the load of retries: when a cluster fails as a whole, "two retries" is three times
//! the load, on a service that is already down. A budget can. Over a sliding window of 10 s, of one cluster and all
//! its workers,
//!
//! ```text
//! retries ≤ ratio × requests + min_per_second × seconds of the window so far (1 to 10)
//! ```
//!
//! The second term is a floor for quiet times; all of it may be spent at once (100 retries in one second after ten
//! quiet ones, with 10 per second). Ratio 20 %, 10 per second and 10 s are the defaults of Gateway API GEP-3388 and
//! Linkerd; as in Linkerd (`tower::retry::budget::TpsBudget`) the two terms add up. Other than there, the floor grows
//! with the window after a start.
//!
//! # Invariants
//! - Only first attempts are requests: a retry never earns another.
//! - The bound holds over the counted window at the moment a retry is taken. Workers that race on the edge of a second
//!   may each take one beyond it.
//! - No lock, no allocation; ten loads and one compare-and-swap.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use crate::model::runtime::BudgetState;

/// Seconds that are looked at, the current one included; one slot each.
const WINDOW_SECONDS: u64 = 10;

/// Bits of each count in a slot. Counts saturate at about a million per second.
const COUNT_BITS: u32 = 20;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
/// Seconds are counted up to here and then from 0 (every 194 days): the most that fits the 24 bits left in a slot and
/// is a multiple of the window, so that a second finds its slot across the turn. What has lain in a slot for exactly
/// that long counts again, for at most 10 s.
const SECONDS: u64 = (1 << (64 - 2 * COUNT_BITS)) / WINDOW_SECONDS * WINDOW_SECONDS;

/// One slot, unpacked from `second << 40 | requests << 20 | retries`.
#[derive(Clone, Copy)]
struct Slot {
    second: u64,
    requests: u64,
    retries: u64,
}

impl Slot {
    fn unpack(packed: u64) -> Self {
        Self {
            second: packed >> (2 * COUNT_BITS),
            requests: (packed >> COUNT_BITS) & COUNT_MAX,
            retries: packed & COUNT_MAX,
        }
    }

    fn pack(self) -> u64 {
        let requests = self.requests.min(COUNT_MAX);
        let retries = self.retries.min(COUNT_MAX);
        (self.second << (2 * COUNT_BITS)) | (requests << COUNT_BITS) | retries
    }

    /// The slot to count in at `second`: this one, or an empty one if it stood for another time.
    fn at(self, second: u64) -> Self {
        if self.second == second { self } else { Self { second, requests: 0, retries: 0 } }
    }
}

/// Counts one request that was admitted (its first attempt).
pub fn record_request(state: &BudgetState, now: Instant) {
    let second = seconds_since_start(state, now) % SECONDS;
    if let Some(slot) = slot(state, second) {
        update(slot, |packed| {
            let current = Slot::unpack(packed).at(second);
            Some(Slot { requests: current.requests + 1, ..current })
        });
    }
}

/// Takes one retry from the budget, if there is one left.
///
/// `ratio` is 0.0..=1.0; the bound is the module's. `false`: it is spent; the caller passes on the failure that it
/// has and does not wait. `now` may go back by less than the window (workers read the clock one after the other).
#[must_use]
pub fn try_take(state: &BudgetState, ratio: f64, min_per_second: u32, now: Instant) -> bool {
    let since_start = seconds_since_start(state, now);
    let floor = u64::from(min_per_second) * (since_start + 1).min(WINDOW_SECONDS);
    let second = since_start % SECONDS;
    let Some(slot) = slot(state, second) else { return false };
    update(slot, |packed| {
        // Summed anew on every try: a retry that another worker took in the meantime is in this very slot.
        let (requests, retries) = totals(state, second);
        let is_within = (retries + 1) as f64 <= ratio * requests as f64 + floor as f64;
        let current = Slot::unpack(packed).at(second);
        is_within.then_some(Slot { retries: current.retries + 1, ..current })
    })
}

/// What of the budget is used and left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Retries of the last ten seconds.
    pub used: u64,
    /// Whole retries that [`try_take`] would give now.
    pub left: u64,
}

/// What of the budget is used and left, for operators: what is taken meanwhile may be in it or not.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most 10 * 2^20 retries, and a cast of what is negative or no number gives 0"
)]
pub fn standing(state: &BudgetState, ratio: f64, min_per_second: u32, now: Instant) -> Standing {
    let since_start = seconds_since_start(state, now);
    let floor = u64::from(min_per_second) * (since_start + 1).min(WINDOW_SECONDS);
    let (requests, used) = totals(state, since_start % SECONDS);
    let allowed = (ratio * requests as f64 + floor as f64) as u64;
    Standing { used, left: allowed.saturating_sub(used) }
}

/// Requests and retries of the window that ends with `second`.
fn totals(state: &BudgetState, second: u64) -> (u64, u64) {
    state
        .slots
        .iter()
        .map(|slot| Slot::unpack(slot.load(Ordering::Relaxed)))
        .filter(|slot| (second + SECONDS).saturating_sub(slot.second) % SECONDS < WINDOW_SECONDS)
        .fold((0, 0), |(requests, retries), slot| (requests + slot.requests, retries + slot.retries))
}

fn seconds_since_start(state: &BudgetState, now: Instant) -> u64 {
    now.saturating_duration_since(state.epoch).as_secs()
}

fn slot(state: &BudgetState, second: u64) -> Option<&AtomicU64> {
    state.slots.get(usize::try_from(second % WINDOW_SECONDS).ok()?)
}

/// Whether `change` agreed to a change, which then was made.
fn update(slot: &AtomicU64, change: impl Fn(u64) -> Option<Slot>) -> bool {
    slot.fetch_update(Ordering::AcqRel, Ordering::Acquire, |packed| change(packed).map(Slot::pack)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use proptest::prelude::*;

    use super::*;

    fn state() -> BudgetState {
        BudgetState { slots: Default::default(), epoch: Instant::now() }
    }

    fn after(state: &BudgetState, seconds: u64) -> Instant {
        state.epoch + Duration::from_secs(seconds)
    }

    fn take_all(state: &BudgetState, ratio: f64, min_per_second: u32, now: Instant) -> usize {
        (0..10_000).take_while(|_| try_take(state, ratio, min_per_second, now)).count()
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_retried() {
        let state = state();
        for _ in 0..100 {
            record_request(&state, after(&state, 3));
        }
        assert_eq!(take_all(&state, 0.2, 0, after(&state, 3)), 20);
    }

    #[test]
    fn the_floor_grows_with_the_window_to_ten_seconds_worth() {
        for (second, allowed) in [(0, 10), (1, 20), (9, 100), (10, 100), (1_000, 100)] {
            let state = state();
            assert_eq!(take_all(&state, 0.2, 10, after(&state, second)), allowed, "in second {second}");
        }
    }

    #[test]
    fn what_is_left_can_be_taken_and_no_more() {
        let state = state();
        let now = after(&state, 3);
        for _ in 0..57 {
            record_request(&state, now);
        }
        assert_eq!(standing(&state, 0.2, 0, now), Standing { used: 0, left: 11 });
        assert!(try_take(&state, 0.2, 0, now));
        assert_eq!(standing(&state, 0.2, 0, now), Standing { used: 1, left: 10 });
        assert_eq!(take_all(&state, 0.2, 0, now), 10);
        assert_eq!(standing(&state, 0.2, 0, now), Standing { used: 11, left: 0 });
        assert_eq!(standing(&state, 0.1, 0, now).left, 0, "a smaller one is overspent");
        assert_eq!(standing(&state, 0.2, 5, after(&state, 30)), Standing { used: 0, left: 50 });
    }

    #[test]
    fn less_than_one_whole_retry_is_none() {
        let state = state();
        for _ in 0..4 {
            record_request(&state, after(&state, 0));
        }
        assert!(!try_take(&state, 0.2, 0, after(&state, 0)));
        record_request(&state, after(&state, 0));
        assert!(try_take(&state, 0.2, 0, after(&state, 0)));
    }

    #[test]
    fn a_budget_of_nothing_allows_nothing() {
        let state = state();
        record_request(&state, after(&state, 0));
        assert!(!try_take(&state, 0.0, 0, after(&state, 0)));
        assert!(!try_take(&state, f64::NAN, 10, after(&state, 0)));
    }

    #[test]
    fn requests_and_retries_leave_the_window_after_ten_seconds() {
        let state = state();
        for _ in 0..10 {
            record_request(&state, after(&state, 5));
        }
        assert_eq!(take_all(&state, 0.2, 0, after(&state, 14)), 2);
        for _ in 0..10 {
            record_request(&state, after(&state, 15));
        }
        // The ten old requests are gone, the two retries made in second 14 still count.
        assert_eq!(take_all(&state, 0.2, 0, after(&state, 15)), 0);
        for _ in 0..10 {
            record_request(&state, after(&state, 24));
        }
        assert_eq!(take_all(&state, 0.2, 0, after(&state, 24)), 4);
    }

    #[test]
    fn it_works_on_when_its_seconds_start_over() {
        let state = state();
        let end = SECONDS;
        for second in end - 4..=end + 5 {
            for _ in 0..10 {
                record_request(&state, after(&state, second));
            }
        }
        assert_eq!(take_all(&state, 0.2, 0, after(&state, end + 5)), 20);
        assert_eq!(take_all(&state, 0.2, 0, after(&state, end + 100)), 0);
    }

    #[test]
    fn counts_saturate_and_never_touch_their_neighbours() {
        let full = Slot { second: 7, requests: COUNT_MAX + 5, retries: COUNT_MAX + 1 };
        let read = Slot::unpack(full.pack());
        assert_eq!((read.second, read.requests, read.retries), (7, COUNT_MAX, COUNT_MAX));
    }

    #[test]
    fn racing_threads_do_not_overspend() {
        let state = state();
        let now = after(&state, 2);
        for _ in 0..1_000 {
            record_request(&state, now);
        }
        let taken: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| take_all(&state, 0.2, 0, now))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 200);
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Request,
        Retry,
        Wait(u64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            8 => Just(Event::Request),
            4 => Just(Event::Retry),
            2 => (0_u64..3_000).prop_map(Event::Wait),
            1 => (0_u64..30_000).prop_map(Event::Wait),
        ];
        proptest::collection::vec(event, 0..400)
    }

    proptest! {
        /// The model keeps every event and counts those of the last ten seconds.
        #[test]
        fn it_decides_as_a_list_of_all_events_would(
            events in events(),
            start in prop_oneof![Just(0), Just(SECONDS - 20)],
            ratio in prop_oneof![Just(0.0), Just(0.2), 0.0..=1.0],
            min_per_second in 0_u32..3,
        ) {
            let state = state();
            let mut now_ms = start * 1_000;
            let (mut requests, mut retries) = (Vec::new(), Vec::new());
            for event in events {
                let second = now_ms / 1_000;
                let now = state.epoch + Duration::from_millis(now_ms);
                let recent = |seconds: &[u64]| seconds.iter().filter(|at| *at + 10 > second).count() as f64;
                match event {
                    Event::Wait(ms) => now_ms += ms,
                    Event::Request => {
                        record_request(&state, now);
                        requests.push(second);
                    }
                    Event::Retry => {
                        let floor = f64::from(min_per_second) * (second + 1).min(10) as f64;
                        let allowed = recent(&retries) + 1.0 <= ratio * recent(&requests) + floor;
                        prop_assert_eq!(try_take(&state, ratio, min_per_second, now), allowed);
                        if allowed {
                            retries.push(second);
                        }
                    }
                }
            }
        }
    }
}
