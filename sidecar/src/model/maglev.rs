//! Consistent hashing: a table that leads from a key to an endpoint, after Maglev (Eisenbud et al. 2016).
//!
//! Each endpoint has an order of its own in which it wants the slots; in turn, each takes the first it wants that is
//! free, a heavier one more often. So all get their share to within a slot, and where one comes or goes, about its share
//! of the slots change hands and few others do.
//!
//! # Invariants
//! - The table depends on the endpoints' addresses and weights and on nothing else: not on their order, not on who
//!   makes it, not on their health. Every sidecar and every worker leads a key to the same endpoint.
//! - An endpoint that is not usable keeps its slots; whoever looks passes over them. So what it had spreads over the
//!   others, no other key moves, and it has its keys again when it is back.

use std::{net::SocketAddr, sync::Arc};

use super::endpoint::Endpoint;

/// Slots of a table, a prime (as Envoy, and the paper's small one). A hundred for each of 655 endpoints, so that shares
/// are right to 1 %. There is one size, because with another every key would move: 128 KiB for each cluster that uses it.
pub const SLOTS: usize = 65_537;

/// Endpoints that find room in a table; more get no key.
const MAX_ENDPOINTS: usize = SLOTS;

/// A table of [`SLOTS`] slots.
#[derive(Clone, PartialEq, Eq)]
pub struct Maglev {
    slots: Box<[u16]>,
}

/// One endpoint while a table is filled.
struct Turn {
    endpoint: u16,
    /// The slot that it wants next, and how far the one after that is.
    wanted: usize,
    skip: usize,
    weight: u64,
    /// Its share so far, in units of the largest weight.
    taken: u64,
}

impl Maglev {
    /// The table of these endpoints. Takes about a millisecond.
    #[must_use]
    pub fn new(endpoints: &[Arc<Endpoint>]) -> Self {
        let mut turns: Vec<(SocketAddr, Turn)> =
            endpoints.iter().take(MAX_ENDPOINTS).zip(0_u16..=u16::MAX).map(turn).collect();
        turns.sort_unstable_by_key(|(address, _)| *address);
        let largest = turns.iter().map(|(_, turn)| turn.weight).max().unwrap_or(1);
        let mut slots = vec![None; SLOTS];
        let mut left = if turns.is_empty() { 0 } else { SLOTS };
        let mut round = 1;
        while left > 0 {
            for (_, turn) in &mut turns {
                // One of the largest weight takes a slot each round, one of a third of it every third.
                if left == 0 || round * turn.weight < turn.taken {
                    continue;
                }
                turn.taken += largest;
                turn.take(&mut slots);
                left -= 1;
            }
            round += 1;
        }
        Self { slots: slots.into_iter().map(Option::unwrap_or_default).collect() }
    }

    /// The endpoints of a key, in the order in which they are to be asked: the first is the key's own, and each comes up
    /// as often as it has slots. Where two keys share the first, they share the second by chance only.
    pub fn of(&self, key: u64) -> impl Iterator<Item = u32> {
        let (first, skip) = (slot(key), skip(mix(key)));
        let at = move |step: usize| (first + step * skip) % SLOTS;
        (0..self.slots.len())
            .filter_map(move |step| self.slots.get(at(step)))
            .map(|endpoint| u32::from(*endpoint))
    }

    /// A key that leads to this endpoint, by its place in the cluster; which one depends on `random`. `None` if it has no
    /// slot.
    #[must_use]
    pub fn key_to(&self, endpoint: u32, random: u64) -> Option<u64> {
        let is_its = |slot: &usize| self.slots.get(*slot).is_some_and(|owner| u32::from(*owner) == endpoint);
        let first = slot(random);
        let found = (first..SLOTS).chain(0..first).find(is_its)?;
        // Halved, so that adding a slot cannot overflow.
        let base = random / 2;
        Some(base - slot(base) as u64 + found as u64)
    }
}

impl std::fmt::Debug for Maglev {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Maglev({} slots)", self.slots.len())
    }
}

impl Turn {
    /// Takes the first slot it wants that is free. There is one: `SLOTS` is prime, so that every `skip` visits all.
    fn take(&mut self, slots: &mut [Option<u16>]) {
        loop {
            let wanted = self.wanted;
            self.wanted = (wanted + self.skip) % SLOTS;
            if let Some(free) = slots.get_mut(wanted).filter(|slot| slot.is_none()) {
                *free = Some(self.endpoint);
                return;
            }
        }
    }
}

fn turn((endpoint, index): (&Arc<Endpoint>, u16)) -> (SocketAddr, Turn) {
    let address = endpoint.address();
    let hash = hash(address.to_string().as_bytes());
    let turn = Turn {
        endpoint: index,
        wanted: slot(hash),
        skip: skip(mix(hash)),
        weight: endpoint.settings.weight.into(),
        taken: 0,
    };
    (address, turn)
}

/// The slot of a key.
fn slot(key: u64) -> usize {
    (key % SLOTS as u64) as usize
}

/// How far it is from one slot to the next: 1 to `SLOTS` − 1.
fn skip(hash: u64) -> usize {
    1 + (hash % (SLOTS as u64 - 1)) as usize
}

/// The key of a text. It is the same in every process and every version, and no secret: who may choose a key may choose
/// an endpoint.
#[must_use]
pub fn hash(text: &[u8]) -> u64 {
    // FNV-1a, which is even over the low bits only when mixed.
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(text.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// Spreads what differs in a few bits over all of them (the end of SplitMix64).
#[must_use]
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
