//! Questions and what they lead to, looked at again when a part of the cluster was touched.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use super::{Hub, Kept, Question, Seen, SubscriberId, Value};
use crate::controller::model::{
    objects::Name,
    resolve::{Answer, resolve},
    value::facts,
};

impl Hub {
    /// Answers a question anew; who asked is told if it leads elsewhere.
    pub(super) fn look_again(&mut self, question: &Question) {
        let answer = resolve(&self.cluster, &self.world.domain, &question.namespace, &question.key);
        let Some(answer) = answer else { return };
        if self.adopt(question, answer) {
            let by = self.questions.get(question).map(|asked| asked.by.clone()).unwrap_or_default();
            for id in by {
                if let Some(subscriber) = self.subscribers.get_mut(&id) {
                    subscriber.keys.insert(Name::clone(&question.key));
                    self.woken.insert(id);
                }
            }
        }
    }

    /// Puts an answer in the place of the one before. Whether it leads elsewhere.
    pub(super) fn adopt(&mut self, question: &Question, answer: Answer) -> bool {
        let Some(asked) = self.questions.get_mut(question) else { return false };
        let is_other = asked.answer.target != answer.target;
        let (target, parts) = (answer.target.clone(), answer.parts.clone());
        let before = std::mem::replace(&mut asked.answer, answer);
        for part in before.parts.iter().filter(|part| !parts.contains(part)) {
            leave(&mut self.asked_of, part, question);
        }
        for part in parts {
            self.asked_of.entry(part).or_default().insert(question.clone());
        }
        if is_other {
            if let Some(target) = target {
                self.lead(question, question.sees(target));
            }
            if let Some(target) = before.target {
                self.lead_no_more(question, question.sees(target));
            }
        }
        is_other
    }

    fn lead(&mut self, question: &Question, seen: Seen) {
        if let Some(kept) = self.values.get_mut(&seen) {
            kept.questions.insert(question.clone());
            return;
        }
        let Some(facts) = facts(&self.cluster, &self.world, &seen.0, seen.1) else {
            debug_assert!(false, "{seen:?} was just found");
            return;
        };
        self.generation += 1;
        let value = Arc::new(Value { generation: self.generation, facts });
        self.made_of.entry(seen.0.part()).or_default().insert(seen.clone());
        self.values.insert(seen, Kept { value, questions: BTreeSet::from([question.clone()]) });
    }

    fn lead_no_more(&mut self, question: &Question, seen: Seen) {
        let Some(kept) = self.values.get_mut(&seen) else { return };
        kept.questions.remove(question);
        if kept.questions.is_empty() {
            leave(&mut self.made_of, &seen.0.part(), &seen);
            self.values.remove(&seen);
        }
    }

    /// Makes a value anew; who has been told of it is told if it is another.
    pub(super) fn make_again(&mut self, seen: &Seen) {
        let Some(kept) = self.values.get_mut(seen) else { return };
        // Questions were looked at before: what leads to a thing that is gone leads elsewhere by now.
        let Some(facts) = facts(&self.cluster, &self.world, &seen.0, seen.1) else { return };
        if facts == kept.value.facts {
            return;
        }
        self.generation += 1;
        kept.value = Arc::new(Value { generation: self.generation, facts });
        let asked = kept.questions.iter().filter_map(|question| self.questions.get(question));
        let by: BTreeSet<SubscriberId> = asked.flat_map(|asked| asked.by.iter().copied()).collect();
        for id in by {
            if let Some(subscriber) = self.subscribers.get_mut(&id) {
                subscriber.values.insert(seen.clone());
                self.woken.insert(id);
            }
        }
    }
}

/// Takes one out of a set, and the set out of the map if it was the last.
pub(super) fn leave<K: Hash + Eq, V: Eq, S>(from: &mut HashMap<K, S>, key: &K, value: &V)
where
    S: Bag<V>,
{
    if let Some(set) = from.get_mut(key) {
        set.take_out(value);
        if set.is_bare() {
            from.remove(key);
        }
    }
}

/// A set of either kind.
pub(super) trait Bag<V> {
    fn take_out(&mut self, value: &V);
    fn is_bare(&self) -> bool;
}

impl<V: Hash + Eq> Bag<V> for HashSet<V> {
    fn take_out(&mut self, value: &V) {
        self.remove(value);
    }

    fn is_bare(&self) -> bool {
        self.is_empty()
    }
}

impl<V: Ord> Bag<V> for BTreeSet<V> {
    fn take_out(&mut self, value: &V) {
        self.remove(value);
    }

    fn is_bare(&self) -> bool {
        self.is_empty()
    }
}
