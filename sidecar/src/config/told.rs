//! Who may call the own app, as the controller says it: policies of the cluster, beside the rules of the file.
//!
//! # Invariants
//! - A call passes if both let it pass: neither opens what the other closes.
//! - In a pod nobody may call before the controller has said what holds there; and what it says and cannot be understood lets
//!   nobody call.

use std::sync::Arc;

use super::{Fault, Settings, validate};
use crate::model::{
    authorization::{Authorization, Mode, Whose},
    controller::Rejected,
};

/// What the controller has said, as it was read last.
#[derive(Debug, Default)]
pub(super) struct ToldRules(Option<(Arc<str>, Found)>);

/// What is said of who may call, if anything is, or why that cannot be understood.
type Found = Result<Option<Authorization>, Vec<Fault>>;

impl ToldRules {
    /// The rules of the file with those that `text` says of the own workload; `None`: it was not said yet.
    pub(super) fn join(
        &mut self,
        file: &Settings,
        text: Option<&Arc<str>>,
        rejected: &mut Vec<Rejected>,
    ) -> Option<Arc<Authorization>> {
        let bootstrap = &file.bootstrap;
        let is_in_pod = bootstrap.controller.as_ref().is_some_and(|controller| controller.pod.is_some());
        let told = match text {
            None => is_in_pod.then(nobody),
            Some(text) => match self.read(text, bootstrap.trust_domain.as_str()) {
                Ok(rules) => rules.clone(),
                Err(faults) => {
                    let faults = [vec![closed()], faults.clone()].concat();
                    rejected.push(Rejected { service: Rejected::CALLERS.into(), faults, is_conflict: false });
                    Some(nobody())
                }
            },
        };
        match (&file.authorization, told) {
            (rules, None) => rules.clone(),
            (None, Some(told)) => Some(Arc::new(told)),
            (Some(rules), Some(told)) => Some(Arc::new(Authorization::clone(rules).and(told))),
        }
    }

    fn read(&mut self, text: &Arc<str>, own: &str) -> &Found {
        let known = self.0.take().filter(|(before, _)| before == text);
        let (_, rules) =
            self.0.insert(known.unwrap_or_else(|| (Arc::clone(text), validate::rules(text, own))));
        rules
    }
}

/// What lets nobody call.
fn nobody() -> Authorization {
    Authorization::new(Mode::Enforce, Vec::new()).by(Whose::Controller)
}

fn closed() -> Fault {
    Fault {
        path: "controller.authorization".to_owned(),
        line: None,
        problem: "cannot be understood: nobody may call the app".to_owned(),
        remedy: "start a sidecar of the controller's version, or correct the policy".to_owned(),
    }
}

/// What is wrong with an entry of `clusters[]` that a controller would say of the service `name`, by the rules of who hears it.
#[must_use]
pub fn faults_of_service(name: &str, cluster: &str) -> Vec<Fault> {
    validate::fragment(name, cluster, 0, &validate::resolver_by_default()).err().unwrap_or_default()
}

/// What is wrong with what a controller would say of a workload in that trust domain, in the same way.
#[must_use]
pub fn faults_of_workload(inbound: &str, trust_domain: &str) -> Vec<Fault> {
    let (ports, rules) = (validate::inbound(inbound).err(), validate::rules(inbound, trust_domain).err());
    ports.into_iter().chain(rules).flatten().collect()
}
