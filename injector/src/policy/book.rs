//! All policies, and what they come to together.
//!
//! # Invariants
//! - Of several `TrafficPolicies` for one Service the oldest that can be used holds, alone (GEP-713).
//! - `AuthorizationPolicies` add up: a call is allowed if any rule of any of them fits it. It is denied otherwise, unless all
//!   that select the pod are in audit mode: denying wins.
//! - What is said here depends on the policies there are, never on the order in which they came.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::{
    keys::{MAX_BYTES_OF_NAMESPACE, MAX_RULES_OF_NAMESPACE},
    read::{Age, Authorization, Section, Traffic},
    status::{Reason, Verdict},
};
use crate::controller::model::objects::{Name, ObjectKey};

/// The policies of the cluster.
#[derive(Debug, Default)]
pub struct Book {
    traffic: BTreeMap<Name, BTreeMap<Name, Traffic>>,
    authorization: BTreeMap<Name, BTreeMap<Name, Authorization>>,
}

/// Older first; of two of one age, by name.
fn order(one: (&Name, Age), other: (&Name, Age)) -> std::cmp::Ordering {
    one.1.created.cmp(&other.1.created).then_with(|| one.0.cmp(other.0))
}

impl Book {
    /// Takes a `TrafficPolicy` in; `None`: it is gone. Returns the Services, of its namespace, for which something else may
    /// hold from now on.
    pub fn set_traffic(&mut self, key: &ObjectKey, new: Option<Traffic>) -> BTreeSet<ObjectKey> {
        let before = put(&mut self.traffic, key, new.clone());
        if before == new {
            return BTreeSet::new();
        }
        let targets = before.iter().chain(&new).flat_map(|policy| &policy.targets);
        targets
            .map(|name| ObjectKey { namespace: Name::clone(&key.namespace), name: Name::clone(name) })
            .collect()
    }

    /// Takes an `AuthorizationPolicy` in; `None`: it is gone. Returns whether something else may hold for pods of its
    /// namespace.
    pub fn set_authorization(&mut self, key: &ObjectKey, new: Option<Authorization>) -> bool {
        let before = put(&mut self.authorization, key, new.clone());
        before != new
    }

    /// What holds for calls of a Service: keys of `clusters[]`.
    #[must_use]
    pub fn settings_of(&self, service: &ObjectKey) -> Option<&Map<String, Json>> {
        self.holder(service).and_then(|(_, policy)| policy.settings.as_ref().ok())
    }

    /// The policy that holds for a Service.
    fn holder(&self, service: &ObjectKey) -> Option<(&Name, &Traffic)> {
        let is_for = |(_, policy): &(&Name, &Traffic)| {
            policy.settings.is_ok() && policy.targets.contains(&service.name)
        };
        let all = self.traffic.get(&service.namespace)?.iter().filter(is_for);
        all.min_by(|one, other| order((one.0, one.1.age), (other.0, other.1.age)))
    }

    /// What holds for who may call a pod with these labels: the section `authorization`. `None`: no policy selects it.
    #[must_use]
    pub fn authorization_of(&self, namespace: &Name, labels: &[(Name, Name)]) -> Option<Json> {
        let selects = |policy: &Authorization| {
            policy
                .selector
                .iter()
                .all(|(key, value)| labels.iter().any(|label| (&label.0, &label.1) == (key, value)))
        };
        let selecting: Vec<_> =
            self.usable(namespace).into_iter().filter(|(_, policy, _)| selects(policy)).collect();
        if selecting.is_empty() {
            return None;
        }
        let is_audit = selecting.iter().all(|(_, _, usable)| usable.is_some_and(|section| section.is_audit));
        let mode = if is_audit { "audit" } else { "enforce" };
        let rules: Vec<&Json> = selecting
            .iter()
            .filter_map(|(_, _, usable)| *usable)
            .flat_map(|section| &section.rules)
            .collect();
        Some(json!({ "mode": mode, "rules": rules }))
    }

    /// Policies of a namespace, the oldest first, with what is used of each: a sidecar takes so many rules and no more.
    fn usable(&self, namespace: &Name) -> Vec<(&Name, &Authorization, Option<&Section>)> {
        let mut all: Vec<_> = self.authorization.get(namespace).into_iter().flatten().collect();
        all.sort_by(|one, other| order((one.0, one.1.age), (other.0, other.1.age)));
        let (mut rules, mut bytes) = (0, 0);
        let fitting = all.into_iter().map(|(name, policy)| {
            let section = policy.section.as_ref().ok().filter(|section| {
                let fits = rules + section.rules.len() <= MAX_RULES_OF_NAMESPACE
                    && bytes + section.bytes <= MAX_BYTES_OF_NAMESPACE;
                if fits {
                    rules += section.rules.len();
                    bytes += section.bytes;
                }
                fits
            });
            (name, policy, section)
        });
        fitting.collect()
    }

    /// Whether a `TrafficPolicy` is for that Service.
    #[must_use]
    pub fn is_for(&self, policy: &ObjectKey, service: &ObjectKey) -> bool {
        let found = self.traffic.get(&policy.namespace).and_then(|policies| policies.get(&policy.name));
        policy.namespace == service.namespace
            && found.is_some_and(|policy| policy.targets.contains(&service.name))
    }

    /// How it is with a `TrafficPolicy` and each Service that it is for. `is_there`: whether there is such a Service.
    #[must_use]
    pub fn verdicts_of_traffic(
        &self,
        key: &ObjectKey,
        is_there: impl Fn(&ObjectKey) -> bool,
    ) -> Vec<(ObjectKey, Verdict)> {
        let Some(policy) = self.traffic.get(&key.namespace).and_then(|policies| policies.get(&key.name))
        else {
            return Vec::new();
        };
        let generation = policy.age.generation;
        let verdict = |service: &ObjectKey| {
            if let Err(why) = &policy.settings {
                return Verdict { reason: Reason::Invalid, message: why.clone(), generation };
            }
            if !is_there(service) {
                let message = format!("there is no Service {} in this namespace", service.name);
                return Verdict { reason: Reason::TargetNotFound, message, generation };
            }
            match self.holder(service) {
                Some((other, _)) if **other != *key.name => {
                    let message = format!(
                        "TrafficPolicy {other} is older and holds for Service {}; take the Service out of one of them",
                        service.name
                    );
                    Verdict { reason: Reason::Conflicted, message, generation }
                }
                Some(_) | None => {
                    let message = format!("holds for calls of Service {}", service.name);
                    Verdict { reason: Reason::Accepted, message, generation }
                }
            }
        };
        let services = policy.targets.iter();
        let services = services
            .map(|name| ObjectKey { namespace: Name::clone(&key.namespace), name: Name::clone(name) });
        services
            .map(|service| {
                let verdict = verdict(&service);
                (service, verdict)
            })
            .collect()
    }

    /// How it is with an `AuthorizationPolicy`.
    #[must_use]
    pub fn verdict_of_authorization(&self, key: &ObjectKey) -> Option<Verdict> {
        let (_, policy, usable) =
            self.usable(&key.namespace).into_iter().find(|(name, ..)| **name == key.name)?;
        let generation = policy.age.generation;
        let closed = "It allows nobody until it is corrected, and the pods that it selects are called by nobody whom no other policy allows.";
        Some(match (&policy.section, usable) {
            (Err(why), _) => {
                Verdict { reason: Reason::Invalid, message: format!("{why}\n{closed}"), generation }
            }
            (Ok(_), None) => {
                let message = format!(
                    "the AuthorizationPolicies of this namespace have more than {MAX_RULES_OF_NAMESPACE} rules or {MAX_BYTES_OF_NAMESPACE} bytes with this one, and others are older; write fewer or shorter rules\n{closed}"
                );
                Verdict { reason: Reason::Invalid, message, generation }
            }
            (Ok(_), Some(_)) => {
                let message = "holds for the pods that it selects".to_owned();
                Verdict { reason: Reason::Accepted, message, generation }
            }
        })
    }
}

fn put<T>(all: &mut BTreeMap<Name, BTreeMap<Name, T>>, key: &ObjectKey, new: Option<T>) -> Option<T> {
    let Some(new) = new else {
        let policies = all.get_mut(&key.namespace)?;
        let before = policies.remove(&key.name);
        if policies.is_empty() {
            all.remove(&key.namespace);
        }
        return before;
    };
    all.entry(Name::clone(&key.namespace)).or_default().insert(Name::clone(&key.name), new)
}
