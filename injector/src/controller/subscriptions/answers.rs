//! Questions and what they lead to, looked at again when a part of the cluster was touched.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use super::{Hub, Kept, Led, Question, SubscriberId, Value};
use crate::controller::model::{
    cluster::Part,
    objects::Name,
    resolve::{Answer, Seen, Side, Target, resolve},
    value::{Facts, facts},
};

impl Hub {
    /// Answers a question anew; who asked is told if it leads elsewhere.
    pub(super) fn look_again(&mut self, question: &Question) {
        let answer = resolve(&self.cluster, &self.world.domain, &question.namespace, &question.key);
        let Some(answer) = answer else { return };
        let before = self.questions.get(question).and_then(|asked| asked.seen.clone());
        if self.adopt(question, answer) {
            let by = self.questions.get(question).map(|asked| asked.by.clone()).unwrap_or_default();
            for id in by {
                if let Some(subscriber) = self.subscribers.get_mut(&id) {
                    subscriber.keys.insert(Name::clone(&question.key));
                    self.woken.insert(id);
                }
                if let Some((target, _)) = &before {
                    self.is_back_only(id, target.clone());
                }
            }
        }
    }

    /// A question of this subscriber leads to a target no more. If routes still need it, it is to be told as they do.
    pub(super) fn is_back_only(&mut self, id: SubscriberId, target: Target) {
        let seen = (target, Side::Back);
        if !self.values.contains_key(&seen) {
            return;
        }
        if let Some(subscriber) = self.subscribers.get_mut(&id) {
            subscriber.values.insert(seen);
            self.woken.insert(id);
        }
    }

    /// Puts an answer in the place of the one before. Whether it leads elsewhere, or to the same seen from another side.
    pub(super) fn adopt(&mut self, question: &Question, answer: Answer) -> bool {
        let Answer { target, mut parts } = answer;
        let seen = target.map(|target| {
            let (side, part) = target.side(&self.cluster, &question.namespace);
            parts.extend(part);
            (target, side)
        });
        let Some(asked) = self.questions.get_mut(question) else { return false };
        let is_other = asked.seen != seen;
        let before = std::mem::replace(&mut asked.parts, parts.clone());
        let seen_before = std::mem::replace(&mut asked.seen, seen.clone());
        for part in before.iter().filter(|part| !parts.contains(part)) {
            leave(&mut self.asked_of, part, question);
        }
        for part in parts {
            self.asked_of.entry(part).or_default().insert(question.clone());
        }
        if is_other {
            if let Some(seen) = seen {
                self.lead(question, &seen);
            }
            if let Some(seen) = seen_before {
                self.lead_no_more(question, &seen);
            }
        }
        is_other
    }

    fn lead(&mut self, question: &Question, seen: &Seen) {
        self.keep(seen);
        if let Some(kept) = self.values.get_mut(seen) {
            kept.questions.insert(question.clone());
        }
    }

    /// Has a value made if it is not there.
    fn keep(&mut self, seen: &Seen) {
        if self.values.contains_key(seen) {
            return;
        }
        let Some(facts) = facts(&self.cluster, &self.world, &seen.0, &seen.1) else {
            debug_assert!(false, "{seen:?} was just found");
            return;
        };
        let value = self.value(seen, facts);
        let kept = Kept { value, parts: Vec::new(), questions: BTreeSet::new(), needed_by: BTreeSet::new() };
        self.values.insert(seen.clone(), kept);
        self.join(seen, &[]);
    }

    /// A value, and what it needs.
    pub(super) fn led(&self, seen: &Seen) -> Option<Led> {
        let value = Arc::clone(&self.values.get(seen)?.value);
        let needed = value.facts.routing.needs.iter();
        let needed = needed.filter_map(|target| self.values.get(&(target.clone(), Side::Back)));
        Some(Led { needs: needed.map(|kept| Arc::clone(&kept.value)).collect(), value })
    }

    fn value(&mut self, seen: &Seen, facts: Facts) -> Arc<Value> {
        self.generation += 1;
        Arc::new(Value { generation: self.generation, facts, is_back: seen.1 == Side::Back })
    }

    /// Notes what the value of `seen`, just made, was made of and what it needs; before, it needed `needed`.
    fn join(&mut self, seen: &Seen, needed: &[Target]) {
        let Some(kept) = self.values.get_mut(seen) else { return };
        let routing = &kept.value.facts.routing;
        let parts: Vec<Part> = seen.0.part().into_iter().chain(routing.parts.iter().cloned()).collect();
        let needs = routing.needs.clone();
        let before = std::mem::replace(&mut kept.parts, parts.clone());
        for part in before.iter().filter(|part| !parts.contains(part)) {
            leave(&mut self.made_of, part, seen);
        }
        for part in parts {
            self.made_of.entry(part).or_default().insert(seen.clone());
        }
        for target in &needs {
            let need = (target.clone(), Side::Back);
            self.keep(&need);
            if let Some(kept) = self.values.get_mut(&need) {
                kept.needed_by.insert(seen.clone());
            }
        }
        for target in needed.iter().filter(|target| !needs.contains(target)) {
            self.need_no_more(seen, &(target.clone(), Side::Back));
        }
    }

    fn lead_no_more(&mut self, question: &Question, seen: &Seen) {
        if let Some(kept) = self.values.get_mut(seen) {
            kept.questions.remove(question);
        }
        self.drop_if_unused(seen);
    }

    fn need_no_more(&mut self, by: &Seen, need: &Seen) {
        if let Some(kept) = self.values.get_mut(need) {
            kept.needed_by.remove(by);
        }
        self.drop_if_unused(need);
    }

    fn drop_if_unused(&mut self, seen: &Seen) {
        let is_unused =
            self.values.get(seen).is_some_and(|kept| kept.questions.is_empty() && kept.needed_by.is_empty());
        let Some(kept) = is_unused.then(|| self.values.remove(seen)).flatten() else { return };
        for part in &kept.parts {
            leave(&mut self.made_of, part, seen);
        }
        // What is seen from behind needs nothing: this goes one step deep.
        for target in &kept.value.facts.routing.needs {
            self.need_no_more(seen, &(target.clone(), Side::Back));
        }
    }

    /// Makes a value anew; who has been told of it is told if it is another.
    pub(super) fn make_again(&mut self, seen: &Seen) {
        let Some(kept) = self.values.get(seen) else { return };
        // Questions were looked at before: what leads to a thing that is gone leads elsewhere by now.
        let Some(facts) = facts(&self.cluster, &self.world, &seen.0, &seen.1) else { return };
        if facts == kept.value.facts {
            return;
        }
        let value = self.value(seen, facts);
        let Some(kept) = self.values.get_mut(seen) else { return };
        let before = std::mem::replace(&mut kept.value, value);
        self.join(seen, &before.facts.routing.needs);
        for id in self.told_of(seen) {
            if let Some(subscriber) = self.subscribers.get_mut(&id) {
                subscriber.values.insert(seen.clone());
                self.woken.insert(id);
            }
        }
    }

    /// Who has been told of a value: by a question that leads to it, or to one that needs it.
    fn told_of(&self, seen: &Seen) -> BTreeSet<SubscriberId> {
        let Some(kept) = self.values.get(seen) else { return BTreeSet::new() };
        let needing = kept.needed_by.iter().filter_map(|by| self.values.get(by));
        let questions = needing.chain([kept]).flat_map(|kept| &kept.questions);
        let asked = questions.filter_map(|question| self.questions.get(question));
        asked.flat_map(|asked| asked.by.iter().copied()).collect()
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
