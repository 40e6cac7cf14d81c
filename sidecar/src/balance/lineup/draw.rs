//! How a seat is drawn: what can be worked out beforehand, so that drawing takes constant time.

use crate::model::{
    balance::Balance,
    lineup::{AliasSlot, Draw, Lineup, Seat},
};

/// 2³², as a float and whole.
const WHOLE: f64 = 4_294_967_296.0;

/// Makes the average share 1, and works out how seats are drawn.
pub(super) fn new(balance: Balance, seats: &mut [Seat]) -> Draw {
    let count = seats.len() as f64;
    let sum: f64 = seats.iter().map(|seat| seat.share).sum();
    let first = seats.first().map(|seat| seat.share);
    // Written as they are, not compared within a margin: equal ones were worked out alike.
    let is_even = seats.iter().all(|seat| Some(seat.share) == first);
    for seat in seats.iter_mut() {
        seat.share = if is_even { 1.0 } else { seat.share * count / sum };
    }
    match balance {
        _ if is_even => Draw::Even,
        Balance::RoundRobin => Draw::Turns(turns(seats)),
        Balance::PeakEwma | Balance::LeastRequest | Balance::Random | Balance::Maglev => {
            Draw::Alias(alias(seats))
        }
    }
}

/// Vose's alias method: each slot is of one seat up to a point, and of one other beyond.
fn alias(seats: &[Seat]) -> Box<[AliasSlot]> {
    let mut slots: Box<[AliasSlot]> =
        (0_u32..).zip(seats).map(|(other, _)| AliasSlot { own: 1 << 32, other }).collect();
    let mut shares: Vec<f64> = seats.iter().map(|seat| seat.share).collect();
    let share = |shares: &[f64], seat: u32| shares.get(seat as usize).copied().unwrap_or(1.0);
    let (mut small, mut large): (Vec<u32>, Vec<u32>) =
        (0_u32..).zip(seats).map(|(index, _)| index).partition(|index| share(&shares, *index) < 1.0);
    // What is left when one of the two is empty is 1 but for rounding.
    while let (Some(less), Some(&more)) = (small.pop(), large.last()) {
        let own = share(&shares, less);
        if let Some(slot) = slots.get_mut(less as usize) {
            *slot = AliasSlot { own: (own * WHOLE) as u64, other: more };
        }
        let rest = share(&shares, more) - (1.0 - own);
        if let Some(kept) = shares.get_mut(more as usize) {
            *kept = rest;
        }
        if rest < 1.0 {
            large.pop();
            small.push(more);
        }
    }
    slots
}

/// Where each seat's part of 0..=`u64::MAX` ends.
fn turns(seats: &[Seat]) -> Box<[u64]> {
    let count = seats.len() as f64;
    let mut sum = 0.0;
    let mut ends: Box<[u64]> = seats
        .iter()
        .map(|seat| {
            sum += seat.share / count;
            // The cast saturates.
            (sum * u64::MAX as f64) as u64
        })
        .collect();
    if let Some(last) = ends.last_mut() {
        *last = u64::MAX;
    }
    ends
}

impl Lineup {
    /// A seat at random, by share; its place among the seats. `None` only if there is none.
    #[must_use]
    pub fn draw(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        if self.seats.is_empty() {
            return None;
        }
        match &self.draw {
            Draw::Even => Some(rng.usize(..self.seats.len())),
            Draw::Alias(slots) => {
                let random = rng.u64(..);
                // The upper half says which slot, the lower one whose.
                let index = (((random >> 32) * slots.len() as u64) >> 32) as usize;
                let slot = slots.get(index)?;
                Some(if random & u64::from(u32::MAX) < slot.own { index } else { slot.other as usize })
            }
            Draw::Turns(_) => self.seat_of_turn(rng.u64(..)),
        }
    }

    /// The seat whose turn it is: they take turns, in even parts one after the other, else so that each has its share of
    /// any run of turns to within a few.
    #[must_use]
    pub fn in_turn(&self, turn: u64) -> Option<usize> {
        match &self.draw {
            Draw::Even | Draw::Alias(_) => usize::try_from(turn.checked_rem(self.seats.len() as u64)?).ok(),
            // Multiples of the golden ratio fall evenly over 0..1, whatever their number and wherever they begin.
            Draw::Turns(_) => self.seat_of_turn(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        }
    }

    fn seat_of_turn(&self, point: u64) -> Option<usize> {
        let Draw::Turns(ends) = &self.draw else { return None };
        Some(ends.partition_point(|end| *end < point)).filter(|seat| *seat < ends.len())
    }
}
