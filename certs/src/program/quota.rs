//! What all who come share, such as a listener's connections, and who gives way where it is used up.
//!
//! Whoever comes takes a share. Where nothing is left, it is not the newcomer who goes without: then whoever came first,
//! and says nothing, could keep everybody else out. The one who goes is of the address that has most, and has waited
//! longest of its shares. Who is being served keeps what he has, and nobody takes from an address that has less.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// So much there is in all, and so much one address may have of it.
#[derive(Debug)]
pub struct Quota {
    all: usize,
    of_address: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: usize,
    /// Numbers shares, and turns in waiting.
    next: u64,
    shares: HashMap<u64, Held>,
    /// Those that hold something. `None` are all that have proved who they are.
    sources: HashMap<Option<IpAddr>, Source>,
}

#[derive(Debug)]
struct Held {
    source: Option<IpAddr>,
    amount: usize,
    /// Where it stands among those that wait.
    turn: u64,
    /// What is being done for it at a time; 0: it waits.
    served: usize,
    lost: CancellationToken,
}

#[derive(Debug, Default)]
struct Source {
    held: usize,
    /// Who waits, by turn.
    waiting: BTreeMap<u64, u64>,
}

/// A share of a [`Quota`]; it is given back when this is dropped.
#[derive(Debug)]
pub struct Share {
    quota: Arc<Quota>,
    number: u64,
    lost: CancellationToken,
}

/// As long as there is one, its share is not taken away.
#[derive(Debug)]
pub struct Serving(Arc<Share>);

impl Quota {
    /// `all` in all, of which one address may have `of_address`. The latter does not hold for loopback: whoever is there
    /// is of the same pod or machine.
    #[must_use]
    pub fn new(all: usize, of_address: usize) -> Arc<Self> {
        Arc::new(Self { all, of_address, state: Mutex::default() })
    }

    /// Takes so much, from somebody else if need be; `None` if nobody has to give way. `from` is `None` for who has
    /// proved who he is. Costs time in proportion to the addresses that have something.
    #[must_use]
    pub fn take(self: &Arc<Self>, from: Option<IpAddr>, amount: usize) -> Option<Share> {
        let (source, amount) = (from.map(|address| address.to_canonical()), amount.max(1));
        let mut state = self.state();
        if !self.make_room(&mut state, source, amount, None) {
            return None;
        }
        let (number, turn) = (state.number(), state.number());
        let lost = CancellationToken::new();
        let held = Held { source, amount, turn, served: 0, lost: lost.clone() };
        state.held += amount;
        let of = state.sources.entry(source).or_default();
        of.held += amount;
        of.waiting.insert(turn, number);
        state.shares.insert(number, held);
        Some(Share { quota: Arc::clone(self), number, lost })
    }

    /// What is taken at this time.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state().held
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that `more` fits, if that is possible without `own` giving way.
    fn make_room(&self, state: &mut State, source: Option<IpAddr>, more: usize, own: Option<u64>) -> bool {
        let of_address =
            source.filter(|address| !address.is_loopback()).map_or(self.all, |_| self.of_address);
        if more > of_address.min(self.all) {
            return false;
        }
        while state.held_by(source) + more > of_address {
            if !state.take_away(source, own) {
                return false;
            }
        }
        while state.held + more > self.all {
            let victim = state.largest().filter(|victim| {
                let has_more = || state.held_by(*victim) >= state.held_by(source) + more;
                *victim == source || (victim.is_some() && (source.is_none() || has_more()))
            });
            if !victim.is_some_and(|victim| state.take_away(victim, own)) {
                return false;
            }
        }
        true
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn held_by(&self, source: Option<IpAddr>) -> usize {
        self.sources.get(&source).map_or(0, |source| source.held)
    }

    /// Of those with somebody who waits, the address that has most, and of equals the one that has waited longest.
    fn largest(&self) -> Option<Option<IpAddr>> {
        let waiting = self.sources.iter().filter_map(|(address, source)| {
            let (turn, _) = source.waiting.first_key_value()?;
            Some(((address.map_or(0, |_| source.held), Reverse(*turn)), *address))
        });
        waiting.max_by_key(|(rank, _)| *rank).map(|(_, address)| address)
    }

    /// Has the longest waiting one of that source lose its share, unless that is `own`.
    fn take_away(&mut self, source: Option<IpAddr>, own: Option<u64>) -> bool {
        let first = self.sources.get(&source).and_then(|source| source.waiting.values().next().copied());
        let Some(number) = first.filter(|number| Some(*number) != own) else { return false };
        if let Some(held) = self.remove(number) {
            held.lost.cancel();
        }
        true
    }

    fn remove(&mut self, number: u64) -> Option<Held> {
        let held = self.shares.remove(&number)?;
        self.held -= held.amount;
        if let Some(source) = self.sources.get_mut(&held.source) {
            source.held -= held.amount;
            source.waiting.remove(&held.turn);
            if source.held == 0 {
                self.sources.remove(&held.source);
            }
        }
        Some(held)
    }
}

impl Share {
    /// Waits until it is taken away. What it was for has to end then.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Takes so much more; `false` if there is no more, or this is lost.
    #[must_use]
    pub fn grow(&self, more: usize) -> bool {
        let mut state = self.quota.state();
        let Some(source) = state.shares.get(&self.number).map(|held| held.source) else { return false };
        if !self.quota.make_room(&mut state, source, more, Some(self.number)) {
            return false;
        }
        state.held += more;
        if let Some(held) = state.shares.get_mut(&self.number) {
            held.amount += more;
        }
        if let Some(of) = state.sources.get_mut(&source) {
            of.held += more;
        }
        true
    }

    /// Its holder has proved who he is: no stranger takes it away, whatever his address has.
    pub fn prove(&self) {
        let mut state = self.quota.state();
        let Some(held) = state.remove(self.number) else { return };
        state.held += held.amount;
        let of = state.sources.entry(None).or_default();
        of.held += held.amount;
        if held.served == 0 {
            of.waiting.insert(held.turn, self.number);
        }
        state.shares.insert(self.number, Held { source: None, ..held });
    }

    /// Has it kept while something is done for its holder. After that it waits anew.
    #[must_use]
    pub fn serving(self: &Arc<Self>) -> Serving {
        let mut state = self.quota.state();
        let State { shares, sources, .. } = &mut *state;
        if let Some(held) = shares.get_mut(&self.number) {
            held.served += 1;
            if let Some(source) = sources.get_mut(&held.source) {
                source.waiting.remove(&held.turn);
            }
        }
        Serving(Arc::clone(self))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let mut state = self.0.quota.state();
        let turn = state.number();
        let State { shares, sources, .. } = &mut *state;
        let Some(held) = shares.get_mut(&self.0.number) else { return };
        held.served -= 1;
        if held.served == 0 {
            held.turn = turn;
            if let Some(source) = sources.get_mut(&held.source) {
                source.waiting.insert(turn, self.0.number);
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.quota.state().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    fn is_lost(share: &Share) -> bool {
        share.lost.is_cancelled()
    }

    #[test]
    fn one_address_takes_from_itself_alone() {
        let quota = Quota::new(64, 8);
        let first: Vec<Share> = (0..8).filter_map(|_| quota.take(address(1), 1)).collect();
        let other = quota.take(address(2), 1).unwrap();
        let further: Vec<Share> = (0..100).filter_map(|_| quota.take(address(1), 1)).collect();
        assert!(first.iter().all(is_lost) && !is_lost(&other));
        assert_eq!(further.iter().filter(|share| !is_lost(share)).count(), 8);
        assert_eq!(quota.held(), 9);
        drop((first, further, other));
        assert!(quota.held() == 0 && quota.state().sources.is_empty());
    }

    #[test]
    fn where_all_is_taken_the_oldest_of_the_largest_goes() {
        let quota = Quota::new(4, 4);
        let small = quota.take(address(1), 1).unwrap();
        let large: Vec<Share> = (0..3).filter_map(|_| quota.take(address(2), 1)).collect();
        let new = quota.take(address(3), 1).unwrap();
        assert_eq!(large.iter().map(is_lost).collect::<Vec<_>>(), [true, false, false]);
        let newer = quota.take(address(4), 1).unwrap();
        assert!(is_lost(&large[1]) && !is_lost(&small));
        let newest = quota.take(address(5), 1).unwrap();
        assert!(is_lost(&small), "all have one: the oldest");
        assert!(![&large[2], &new, &newer, &newest].into_iter().any(is_lost));
    }

    #[test]
    fn who_is_served_keeps_its_share_and_who_has_more_takes_from_nobody_who_has_less() {
        let quota = Quota::new(3, 3);
        let busy: Vec<_> = (0..2).map(|_| Arc::new(quota.take(address(1), 1).unwrap())).collect();
        let serving: Vec<Serving> = busy.iter().map(Share::serving).collect();
        let idle = quota.take(address(2), 1).unwrap();
        assert!(quota.take(address(1), 1).is_none() && !is_lost(&idle));
        drop(serving);
        let _new = quota.take(address(1), 1).unwrap();
        assert!(is_lost(&busy[0]) && !is_lost(&busy[1]) && !is_lost(&idle));
    }

    #[test]
    fn strangers_do_not_take_from_who_has_proved_who_he_is() {
        let quota = Quota::new(2, 2);
        let known = [quota.take(address(1), 1).unwrap(), quota.take(address(1), 1).unwrap()];
        known.iter().for_each(Share::prove);
        assert!(quota.take(address(2), 1).is_none());
        let [first, _second] = known;
        drop(first);
        let stranger = quota.take(address(2), 1).unwrap();
        let _known = quota.take(None, 1).unwrap();
        assert!(is_lost(&stranger), "strangers go first");
    }

    #[test]
    fn amounts_grow_at_the_cost_of_who_has_most() {
        let quota = Quota::new(100, 60);
        let large = quota.take(address(1), 50).unwrap();
        assert!(!large.grow(20), "more than an address may have");
        let small = quota.take(address(2), 1).unwrap();
        assert!(small.grow(39) && !is_lost(&large));
        let other = quota.take(address(3), 10).unwrap();
        assert!(other.grow(10) && is_lost(&large) && !large.grow(1));
        assert_eq!(quota.held(), 60);
        assert!(quota.take(address(4), 101).is_none() && !is_lost(&small));
    }

    #[test]
    fn loopback_may_have_all() {
        let quota = Quota::new(4, 1);
        let shares: Vec<Share> = (0..4).filter_map(|_| quota.take(Some([127, 0, 0, 1].into()), 1)).collect();
        assert!(shares.len() == 4 && !shares.iter().any(is_lost));
        let mapped = quota.take(Some("::ffff:10.0.0.1".parse().unwrap()), 1).unwrap();
        assert!(is_lost(&shares[0]));
        let _again = quota.take(address(1), 1).unwrap();
        assert!(is_lost(&mapped), "mapped or not, it is one address");
    }
}
