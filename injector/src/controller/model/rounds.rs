//! A set that is gone through in rounds: what comes back while a round is under way waits for the next. So what cannot be done
//! now, and is tried again, holds up nothing else.

use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Unbounded},
};

/// Such a set.
#[derive(Debug)]
pub struct Rounds<K> {
    items: BTreeSet<K>,
    /// What was taken last.
    last: Option<K>,
}

impl<K> Default for Rounds<K> {
    fn default() -> Self {
        Self { items: BTreeSet::new(), last: None }
    }
}

impl<K: Ord + Clone> Rounds<K> {
    /// Adds one.
    pub fn insert(&mut self, key: K) {
        self.items.insert(key);
    }

    /// Takes one out.
    pub fn remove(&mut self, key: &K) {
        self.items.remove(key);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The next one of the round, or the first of a new round.
    pub fn take(&mut self) -> Option<K> {
        let after = self.last.as_ref().and_then(|last| self.items.range((Excluded(last), Unbounded)).next());
        let next = after.or_else(|| self.items.first()).cloned()?;
        self.items.remove(&next);
        self.last = Some(next.clone());
        Some(next)
    }
}

impl<K: Ord> Extend<K> for Rounds<K> {
    fn extend<T: IntoIterator<Item = K>>(&mut self, items: T) {
        self.items.extend(items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_waits_until_the_others_had_their_turn() {
        let mut rounds = Rounds::default();
        rounds.extend([1, 2, 3]);
        let mut taken = Vec::new();
        for _ in 0..6 {
            let next = rounds.take().unwrap();
            taken.push(next);
            if next != 3 {
                rounds.insert(next);
            }
        }
        assert_eq!(taken, [1, 2, 3, 1, 2, 1]);
        rounds.remove(&2);
        assert_eq!((rounds.take(), rounds.take(), rounds.is_empty()), (Some(1), None, true));
    }
}
