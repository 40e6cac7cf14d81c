//! Policies as objects: what is kept of them beside what they mean, and which statuses are to be looked at.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{
    book::Book,
    read::{Authorization, Traffic},
    status,
};
use crate::controller::model::{
    objects::{Kind, Name, ObjectKey},
    rounds::Rounds,
};

/// Which kind of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKind {
    /// `TrafficPolicy`.
    Traffic,
    /// `AuthorizationPolicy`.
    Authorization,
}

impl PolicyKind {
    /// As it is watched.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Traffic => Kind::TrafficPolicy,
            Self::Authorization => Kind::AuthorizationPolicy,
        }
    }
}

/// A policy's kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    /// Which kind.
    pub kind: PolicyKind,
    /// Where it is.
    pub key: ObjectKey,
}

/// What a policy means.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// How Services are called.
    Traffic(Traffic),
    /// Who may call pods.
    Authorization(Authorization),
}

/// What its object says beside that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// `metadata.resourceVersion`: a status is written to this version and no other.
    pub version: String,
    /// `status`, as it is.
    pub status: Json,
}

/// What a change of a policy may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that sidecars are told.
    None,
    /// How these Services are called.
    Services(BTreeSet<ObjectKey>),
    /// Who may call pods of this namespace.
    Pods(Name),
}

/// All policies.
#[derive(Debug, Default)]
pub struct Policies {
    book: Book,
    records: BTreeMap<PolicyKey, Record>,
    unsettled: Rounds<PolicyKey>,
}

impl Policies {
    /// A policy is new, or changed, or gone.
    pub fn set(&mut self, key: &PolicyKey, new: Option<(Policy, Record)>) -> Effect {
        let (policy, record) = new.unzip();
        match record {
            Some(record) => {
                self.records.insert(key.clone(), record);
                self.unsettled.insert(key.clone());
            }
            None => {
                self.records.remove(key);
                self.unsettled.remove(key);
            }
        }
        let (traffic, authorization) = match policy {
            Some(Policy::Traffic(policy)) => (Some(policy), None),
            Some(Policy::Authorization(policy)) => (None, Some(policy)),
            None => (None, None),
        };
        let effect = match key.kind {
            PolicyKind::Traffic => Effect::Services(self.book.set_traffic(&key.key, traffic)),
            PolicyKind::Authorization if self.book.set_authorization(&key.key, authorization) => {
                Effect::Pods(Name::clone(&key.key.namespace))
            }
            PolicyKind::Authorization => Effect::None,
        };
        if effect != Effect::None && effect != Effect::Services(BTreeSet::new()) {
            // Where one comes or goes, others of the namespace may win or lose.
            let is_beside =
                |other: &&PolicyKey| other.kind == key.kind && other.key.namespace == key.key.namespace;
            self.unsettled.extend(self.records.keys().filter(is_beside).cloned());
        }
        effect
    }

    /// What they come to together.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// All of a kind.
    pub fn keys(&self, kind: PolicyKind) -> impl Iterator<Item = &ObjectKey> {
        self.records.keys().filter(move |key| key.kind == kind).map(|key| &key.key)
    }

    /// A Service is new, or gone: the status of who is for it says so.
    pub fn service_changed(&mut self, service: &ObjectKey) {
        let namespace = &service.namespace;
        let is_of = |key: &&PolicyKey| key.kind == PolicyKind::Traffic && key.key.namespace == *namespace;
        let is_for = |key: &&PolicyKey| self.book.is_for(&key.key, service);
        let due: Vec<PolicyKey> = self.records.keys().filter(is_of).filter(is_for).cloned().collect();
        self.unsettled.extend(due);
    }

    /// All statuses are to be looked at.
    pub fn unsettle_all(&mut self) {
        self.unsettled.extend(self.records.keys().cloned());
    }

    /// The status of this policy is to be looked at again.
    pub fn unsettle(&mut self, key: &PolicyKey) {
        if self.records.contains_key(key) {
            self.unsettled.insert(key.clone());
        }
    }

    /// Whether there is a status to be looked at.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// The next policy whose status is to be looked at.
    pub fn take_unsettled(&mut self) -> Option<(PolicyKey, Record)> {
        while let Some(key) = self.unsettled.take() {
            if let Some(record) = self.records.get(&key).cloned() {
                return Some((key, record));
            }
        }
        None
    }

    /// What is to be written to a policy whose status is `before`; `None`: it says so already. `is_there`: whether there is
    /// such a Service. `now`: RFC 3339.
    #[must_use]
    pub fn status(
        &self,
        key: &PolicyKey,
        before: &Json,
        is_there: impl Fn(&ObjectKey) -> bool,
        now: &str,
    ) -> Option<Json> {
        let status = match key.kind {
            PolicyKind::Traffic => {
                let verdicts = self.book.verdicts_of_traffic(&key.key, is_there);
                status::of_traffic(&verdicts, before, now)
            }
            PolicyKind::Authorization => {
                status::of_authorization(&self.book.verdict_of_authorization(&key.key)?, before, now)
            }
        };
        (status != *before).then_some(status)
    }
}
