//! What an object is told of itself: conditions, as Gateway API has them for policies (GEP-713).

use serde_json::{Value as Json, json};

use super::CONTROLLER;
use crate::controller::model::objects::ObjectKey;

/// Why a policy is, or is not, in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is.
    Accepted,
    /// It cannot be used.
    Invalid,
    /// An older one is for the same Service.
    Conflicted,
    /// There is no such Service.
    TargetNotFound,
}

impl Reason {
    /// As it stands in a condition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Invalid => "Invalid",
            Self::Conflicted => "Conflicted",
            Self::TargetNotFound => "TargetNotFound",
        }
    }
}

/// The condition `Accepted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why.
    pub reason: Reason,
    /// The same in words, with the remedy.
    pub message: String,
    /// The generation of the object that was judged.
    pub generation: i64,
}

impl Verdict {
    /// The condition. `now`: RFC 3339. `before`: the conditions that the object has; one that says the same keeps its time.
    fn condition(&self, before: Option<&Json>, now: &str) -> Json {
        let status = if self.reason == Reason::Accepted { "True" } else { "False" };
        let list = before.and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        let same =
            list.iter().find(|condition| condition["type"] == "Accepted" && condition["status"] == status);
        let since = same.and_then(|condition| condition["lastTransitionTime"].as_str()).unwrap_or(now);
        json!({
            "type": "Accepted", "status": status, "reason": self.reason.as_str(), "message": self.message,
            "observedGeneration": self.generation, "lastTransitionTime": since,
        })
    }
}

/// The status of a `TrafficPolicy`: for each target the Service, and how it is with that. What others than we have said of it
/// stays (`before`: its status).
#[must_use]
pub fn of_traffic(verdicts: &[(ObjectKey, Verdict)], before: &Json, now: &str) -> Json {
    let told = before["ancestors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_ours = |ancestor: &&Json| ancestor["controllerName"] == CONTROLLER;
    let others = told.iter().filter(|ancestor| !is_ours(ancestor)).cloned();
    let ours = verdicts.iter().map(|(service, verdict)| {
        let is_it = |ancestor: &&Json| {
            ancestor.pointer("/ancestorRef/name").and_then(Json::as_str) == Some(&*service.name)
        };
        let known = told.iter().filter(is_ours).find(is_it);
        let condition = verdict.condition(known.map(|ancestor| &ancestor["conditions"]), now);
        json!({
            "ancestorRef": {"group": "", "kind": "Service", "namespace": &*service.namespace, "name": &*service.name},
            "controllerName": CONTROLLER,
            "conditions": [condition],
        })
    });
    json!({ "ancestors": others.chain(ours).collect::<Vec<_>>() })
}

/// The status of an `AuthorizationPolicy`.
#[must_use]
pub fn of_authorization(verdict: &Verdict, before: &Json, now: &str) -> Json {
    let list = before.get("conditions").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let others = list.iter().filter(|condition| condition.get("type").is_none_or(|kind| kind != "Accepted"));
    let ours = verdict.condition(before.get("conditions"), now);
    json!({ "conditions": others.cloned().chain([ours]).collect::<Vec<_>>() })
}
