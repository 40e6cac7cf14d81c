//! Who asks for what, and who is to be told when something changes. Pure: no I/O, no clock.
//!
//! ```text
//!   subscriber ──wants──▶ question (a key, in a namespace) ──▶ target ──▶ value (with its generation)
//!        ▲                        │ made of                       │ made of
//!        └──── dirty ◀── hub ◀── parts of the cluster that were touched
//! ```
//! Questions and values are shared: however many sidecars ask, each is answered once. For a subscriber only *what* changed
//! is noted, never the change: who is slow gets the newest state, and nothing waits in a queue.
//!
//! A value with routes needs the values of what they send requests to. These are seen from behind ([`Side::Back`]) and need
//! nothing themselves: routes are looked up once.
//!
//! # Invariants
//! - A value is kept for as long as somebody's question leads to it, or one that is kept needs it, and no longer.
//! - A generation is used once in an epoch: two values with the same one are the same.

mod answers;
#[cfg(test)]
mod tests;
pub mod told;
mod wants;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use indexmap::IndexSet;
use outrider_certs::TrustDomain;

pub use self::wants::{MAX_WANTS, MaxWants, Refused};
use self::{
    answers::leave,
    wants::{Account, Wants},
};
use super::gateway::book::Book;
use super::model::{
    cluster::{Cluster, Part, Touched},
    objects::{Event, Name, ObjectKey, Uid},
    resolve::{Answer, Seen, Side, resolve},
    value::{Facts, World},
    workload::{NOTHING, inbound, with_callers},
};
use crate::policy::kept::Policies;

/// A subscriber's number; never used twice.
pub type SubscriberId = u64;

/// What is told of a target, as of one moment.
#[derive(Debug)]
pub struct Value {
    /// Of these facts, and of no others in this epoch.
    pub generation: u64,
    /// What is told.
    pub facts: Facts,
    /// It is told as what a route sends requests to.
    pub is_back: bool,
}

/// A value, and what it needs: that is told before.
#[derive(Clone, Debug)]
pub struct Led {
    /// What is told.
    pub value: Arc<Value>,
    /// What its routes send requests to.
    pub needs: Vec<Arc<Value>>,
}

/// Something a subscriber is to be told.
#[derive(Clone, Debug)]
pub enum Change {
    /// What holds for its own workload.
    Workload {
        /// Of this epoch.
        generation: u64,
        /// As `Workload.inbound`.
        inbound: String,
    },
    /// What a key leads to; `None`: to nothing in the cluster.
    Destination(Name, Option<Led>),
    /// A key is an address of the cluster, and it is not known who has it.
    Unknown(Name),
    /// A value that it has been told before, and that is another now.
    Value(Led),
}

/// A key, asked in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Question {
    namespace: Name,
    key: Name,
}

#[derive(Debug, Default)]
struct Asked {
    /// What it leads to.
    seen: Option<Seen>,
    /// What that was made of.
    parts: Vec<Part>,
    by: BTreeSet<SubscriberId>,
}

#[derive(Debug)]
struct Kept {
    value: Arc<Value>,
    /// What it was made of.
    parts: Vec<Part>,
    /// The questions that lead here.
    questions: BTreeSet<Question>,
    /// The values that need it.
    needed_by: BTreeSet<Seen>,
}

#[derive(Debug)]
struct Subscriber {
    namespace: Name,
    service_account: Name,
    pod: Option<ObjectKey>,
    /// Which pod of that name; `None`: whichever.
    uid: Option<Uid>,
    wants: HashSet<Name>,
    /// Keys and values of which something is to be told, oldest first.
    keys: IndexSet<Name>,
    values: IndexSet<Seen>,
    is_workload_due: bool,
    /// What was told last of its workload's ports, and of the workload.
    ports: Option<String>,
    inbound: Option<String>,
}

impl Subscriber {
    fn account(&self) -> Account {
        (Name::clone(&self.namespace), Name::clone(&self.service_account))
    }
}

/// Everything that is asked and answered.
#[derive(Debug)]
pub struct Hub {
    cluster: Cluster,
    world: World,
    epoch: u64,
    generation: u64,
    wants: Wants,
    questions: HashMap<Question, Asked>,
    asked_of: HashMap<Part, HashSet<Question>>,
    values: HashMap<Seen, Kept>,
    made_of: HashMap<Part, HashSet<Seen>>,
    subscribers: HashMap<SubscriberId, Subscriber>,
    of_pod: HashMap<ObjectKey, BTreeSet<SubscriberId>>,
    next: SubscriberId,
    woken: BTreeSet<SubscriberId>,
}

impl Hub {
    /// Knows nothing yet. `epoch` is random and not 0.
    #[must_use]
    pub fn new(world: World, epoch: u64, max_wants: MaxWants) -> Self {
        Self {
            cluster: Cluster::default(),
            world,
            epoch,
            generation: 0,
            wants: Wants::new(max_wants),
            questions: HashMap::new(),
            asked_of: HashMap::new(),
            values: HashMap::new(),
            made_of: HashMap::new(),
            subscribers: HashMap::new(),
            of_pod: HashMap::new(),
            next: 0,
            woken: BTreeSet::new(),
        }
    }

    /// The cluster as it is known.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Routes and grants, to settle statuses.
    pub fn book_mut(&mut self) -> &mut Book {
        self.cluster.book_mut()
    }

    /// Our own policies, to settle statuses.
    pub fn policies_mut(&mut self) -> &mut Policies {
        self.cluster.policies_mut()
    }

    /// The mesh's trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.world.trust_domain
    }

    /// Generations are of this epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many subscribers there are, what they want together, and how many values that takes.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.subscribers.len(), self.wants.all(), self.values.len())
    }

    /// Takes changes of the cluster in, in their order. What they touch is looked at once, after the last.
    pub fn apply(&mut self, events: impl IntoIterator<Item = Event>) {
        let mut touched = Touched::new();
        for event in events {
            self.cluster.apply(event, &mut touched);
        }
        let questions: BTreeSet<Question> =
            touched.iter().filter_map(|part| self.asked_of.get(part)).flatten().cloned().collect();
        for question in questions {
            self.look_again(&question);
        }
        let values: BTreeSet<Seen> =
            touched.iter().filter_map(|part| self.made_of.get(part)).flatten().cloned().collect();
        for seen in values {
            self.make_again(&seen);
        }
        for part in &touched {
            let due: Vec<SubscriberId> = match part {
                Part::Pod(pod) => self.of_pod.get(pod).into_iter().flatten().copied().collect(),
                // Policies change rarely.
                Part::Callers(namespace) => {
                    let is_there =
                        |(_, subscriber): &(&SubscriberId, &Subscriber)| subscriber.namespace == *namespace;
                    self.subscribers.iter().filter(is_there).map(|(id, _)| *id).collect()
                }
                Part::Service(_) | Part::Address(_) | Part::Ports(_) | Part::Routes(_) => continue,
            };
            for id in due {
                if let Some(subscriber) = self.subscribers.get_mut(&id) {
                    subscriber.is_workload_due = true;
                    self.woken.insert(id);
                }
            }
        }
    }

    /// A new subscriber: a workload of `namespace` with `service_account`, in the pod of this name and UID; each is empty if it is
    /// not known.
    pub fn subscribe(
        &mut self,
        (namespace, service_account): (&str, &str),
        (pod, uid): (&str, &str),
    ) -> SubscriberId {
        self.next += 1;
        let id = self.next;
        let namespace = Name::from(namespace);
        let pod = (!pod.is_empty())
            .then(|| ObjectKey { namespace: Name::clone(&namespace), name: Name::from(pod) });
        if let Some(pod) = &pod {
            self.of_pod.entry(pod.clone()).or_default().insert(id);
        }
        let subscriber = Subscriber {
            namespace,
            service_account: Name::from(service_account),
            pod,
            uid: (!uid.is_empty()).then(|| Uid::of(uid)),
            wants: HashSet::new(),
            keys: IndexSet::new(),
            values: IndexSet::new(),
            is_workload_due: true,
            ports: None,
            inbound: None,
        };
        self.subscribers.insert(id, subscriber);
        self.woken.insert(id);
        id
    }

    /// The subscriber is gone, with all that it wanted.
    pub fn unsubscribe(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscribers.remove(&id) else { return };
        self.woken.remove(&id);
        if let Some(pod) = &subscriber.pod {
            leave(&mut self.of_pod, pod, &id);
        }
        self.wants.remove(&subscriber.account(), subscriber.wants.len());
        for key in subscriber.wants {
            self.ask_no_more(id, &Question { namespace: Name::clone(&subscriber.namespace), key });
        }
    }

    /// The subscriber wants to know what `key` leads to; asked again, it is told again.
    ///
    /// # Errors
    /// If it is no key, or too many are wanted.
    pub fn want(&mut self, id: SubscriberId, key: &str) -> Result<(), Refused> {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return Ok(()) };
        let question = Question { namespace: Name::clone(&subscriber.namespace), key: key.into() };
        if !subscriber.wants.contains(key) {
            self.wants.check(&subscriber.account(), subscriber.wants.len())?;
        }
        if !self.questions.contains_key(&question) {
            let answer = resolve(&self.cluster, &self.world.domain, &question.namespace, key);
            let answer = answer.ok_or(Refused::Key)?;
            self.questions.insert(question.clone(), Asked::default());
            self.adopt(&question, answer);
        }
        if let Some(asked) = self.questions.get_mut(&question) {
            asked.by.insert(id);
        }
        if let Some(subscriber) = self.subscribers.get_mut(&id) {
            if subscriber.wants.insert(Name::clone(&question.key)) {
                self.wants.add(subscriber.account());
            }
            subscriber.keys.insert(question.key);
            self.woken.insert(id);
        }
        Ok(())
    }

    /// The subscriber wants to hear no more of `key`.
    pub fn forget(&mut self, id: SubscriberId, key: &str) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        let Some(key) = subscriber.wants.take(key) else { return };
        subscriber.keys.shift_remove(&key);
        self.wants.remove(&subscriber.account(), 1);
        let question = Question { namespace: Name::clone(&subscriber.namespace), key };
        self.ask_no_more(id, &question);
    }

    /// Who has something to be told since this was asked last.
    pub fn take_woken(&mut self) -> BTreeSet<SubscriberId> {
        std::mem::take(&mut self.woken)
    }

    /// The next thing that the subscriber is to be told, as it is now.
    pub fn next_change(&mut self, id: SubscriberId) -> Option<Change> {
        if let Some(change) = self.workload(id) {
            return Some(change);
        }
        let subscriber = self.subscribers.get_mut(&id)?;
        if let Some(key) = subscriber.keys.shift_remove_index(0) {
            let question = Question { namespace: Name::clone(&subscriber.namespace), key };
            let seen = self.questions.get(&question).and_then(|asked| asked.seen.as_ref());
            let led = seen.and_then(|seen| self.led(seen));
            if led.is_none() && self.world.has(&question.key) {
                return Some(Change::Unknown(question.key));
            }
            return Some(Change::Destination(question.key, led));
        }
        while let Some(seen) = self.subscribers.get_mut(&id)?.values.shift_remove_index(0) {
            if let Some(led) = self.led(&seen) {
                return Some(Change::Value(led));
            }
        }
        None
    }

    /// What holds for the subscriber's own pod, if that is to be told and is known: the pod must be one that its
    /// certificate can be of, and the one that it says, not a former one of its name.
    fn workload(&mut self, id: SubscriberId) -> Option<Change> {
        let subscriber = self.subscribers.get_mut(&id)?;
        if !std::mem::take(&mut subscriber.is_workload_due) {
            return None;
        }
        let pod = subscriber.pod.as_ref()?;
        let found = self.cluster.pod(pod)?;
        let is_that = subscriber.uid.is_none_or(|uid| uid == found.uid);
        if !is_that || found.service_account != subscriber.service_account {
            return None;
        }
        // A pod that leaves its Services is about to end, or its Services are: what holds for its ports is what held.
        let ports = inbound(&self.cluster, pod).or_else(|| subscriber.ports.take());
        let inbound = with_callers(&self.cluster, pod, ports.as_deref().unwrap_or(NOTHING));
        subscriber.ports = ports;
        if subscriber.inbound.as_ref() == Some(&inbound) {
            return None;
        }
        subscriber.inbound = Some(inbound.clone());
        self.generation += 1;
        Some(Change::Workload { generation: self.generation, inbound })
    }

    fn ask_no_more(&mut self, id: SubscriberId, question: &Question) {
        let Some(asked) = self.questions.get_mut(question) else { return };
        asked.by.remove(&id);
        let (seen, is_last) = (asked.seen.clone(), asked.by.is_empty());
        if is_last {
            self.adopt(question, Answer { target: None, parts: Vec::new() });
            self.questions.remove(question);
        }
        if let Some((target, Side::Front { .. })) = seen {
            self.is_back_only(id, target);
        }
    }
}
