//! What is written to a route's status: for each Service that is its parent whether it holds, and why not.
//!
//! # Invariants
//! - What others wrote stays as it is: entries of other controllers, conditions that are none of ours.
//! - Nothing is written that says what is there already; a condition that stays keeps its time.

use serde_json::{Map, Value as Json, json};

use super::{
    CONTROLLER,
    attached::{self, Left},
    route::{Parent, Problem, Record, Route, RouteKey, Rule, To},
    translate::{Unresolved, unresolved},
};
use crate::controller::model::{cluster::Cluster, objects::Reach};

/// Entries of a status, of all controllers (Gateway API: 32).
const MAX_ENTRIES: usize = 32;
/// Characters of one message.
const MAX_MESSAGE: usize = 1024;
/// The conditions that are ours.
const OURS: [&str; 3] = ["Accepted", "ResolvedRefs", "PartiallyInvalid"];

/// A condition as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its type.
    pub kind: &'static str,
    /// `True` or `False`.
    pub is_true: bool,
    /// A reason of the specification.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// `status.parents` as it is to be; `None` if it is so already. `now`: RFC 3339, in seconds.
#[must_use]
pub fn parents(
    cluster: &Cluster,
    key: &RouteKey,
    (route, record): (&Route, &Record),
    now: &str,
) -> Option<Vec<Json>> {
    let is_ours = |entry: &&Json| entry.get("controllerName").is_some_and(|name| name == CONTROLLER);
    if record.parents.iter().filter(is_ours).any(|entry| is_newer(entry, record.generation)) {
        // What is known of the object is older than what was last written to it.
        return None;
    }
    let make = |parent: &Parent, before: &[Json]| {
        entry(parent, conditions(cluster, key, route, parent), before, (record.generation, now))
    };
    let mut left: Vec<&Parent> = Vec::new();
    for parent in &route.parents {
        if !left.iter().any(|known| is_same(known, &parent.reference, key)) {
            left.push(parent);
        }
    }
    let mut entries = Vec::new();
    for known in &record.parents {
        if !is_ours(&known) {
            entries.push(known.clone());
            continue;
        }
        let reference = known.get("parentRef").and_then(Json::as_object).cloned().unwrap_or_default();
        // One of a parent that is none any more goes.
        if let Some(place) = left.iter().position(|parent| is_same(parent, &reference, key)) {
            let parent = left.remove(place);
            let before = known.get("conditions").and_then(Json::as_array).map(Vec::as_slice);
            entries.push(make(parent, before.unwrap_or_default()));
        }
    }
    for parent in left {
        if entries.len() < MAX_ENTRIES {
            entries.push(make(parent, &[]));
        }
    }
    (entries != record.parents).then_some(entries)
}

fn is_newer(entry: &Json, generation: i64) -> bool {
    let mut conditions = entry.get("conditions").and_then(Json::as_array).into_iter().flatten();
    conditions.any(|condition| {
        condition.get("observedGeneration").and_then(Json::as_i64).is_some_and(|seen| seen > generation)
    })
}

/// Whether a reference means this parent.
fn is_same(parent: &Parent, reference: &Map<String, Json>, key: &RouteKey) -> bool {
    let text = |name: &str, default: &str| {
        reference
            .get(name)
            .and_then(Json::as_str)
            .filter(|text| !text.is_empty())
            .unwrap_or(default)
            .to_owned()
    };
    text("kind", "Gateway") == "Service"
        && text("namespace", &key.key.namespace) == *parent.service.namespace
        && text("name", "") == *parent.service.name
        && text("sectionName", "") == parent.section.as_deref().unwrap_or_default()
        && reference.get("port").and_then(Json::as_u64) == parent.port.map(u64::from)
}

/// An entry as it is to be, by its conditions, the conditions `before`, the object's generation and the time.
fn entry(parent: &Parent, wanted: Vec<Condition>, before: &[Json], (generation, now): (i64, &str)) -> Json {
    let is_ours = |condition: &Json| {
        condition.get("type").and_then(Json::as_str).is_some_and(|kind| OURS.contains(&kind))
    };
    let mut conditions: Vec<Json> = Vec::new();
    for condition in before {
        let wanted =
            wanted.iter().find(|wanted| condition.get("type").is_some_and(|kind| kind == wanted.kind));
        match wanted {
            Some(wanted) => conditions.push(said(wanted, Some(condition), generation, now)),
            None if is_ours(condition) => {}
            None => conditions.push(condition.clone()),
        }
    }
    for wanted in wanted {
        let is_there = |condition: &Json| condition.get("type").is_some_and(|kind| kind == wanted.kind);
        if !conditions.iter().any(is_there) {
            conditions.push(said(&wanted, None, generation, now));
        }
    }
    json!({"parentRef": parent.reference, "controllerName": CONTROLLER, "conditions": conditions})
}

fn said(wanted: &Condition, before: Option<&Json>, generation: i64, now: &str) -> Json {
    let status = if wanted.is_true { "True" } else { "False" };
    let since = before
        .filter(|before| before.get("status").is_some_and(|known| known == status))
        .and_then(|before| before.get("lastTransitionTime").and_then(Json::as_str))
        .unwrap_or(now);
    json!({
        "type": wanted.kind, "status": status, "reason": wanted.reason, "message": wanted.message,
        "observedGeneration": generation, "lastTransitionTime": since,
    })
}

/// The conditions of a route for one of its parents.
#[must_use]
pub fn conditions(cluster: &Cluster, key: &RouteKey, route: &Route, parent: &Parent) -> Vec<Condition> {
    let refused = accepted(cluster, key, route, parent);
    let mut conditions = vec![condition("Accepted", "Accepted", "its rules hold", refused.as_ref())];
    let first = first_of(&unresolved(cluster, key, route, &parent.service));
    conditions.push(condition("ResolvedRefs", "ResolvedRefs", "all backends are there", first.as_ref()));
    let faulty = faulty(route);
    if let (None, Some(reason)) = (&refused, faulty.first().map(|problem| problem.reason)) {
        let all: Vec<&str> = faulty.iter().map(|problem| problem.message.as_str()).collect();
        let message = bounded(&format!("Dropped Rule {}", all.join("; ")));
        conditions.push(Condition { kind: "PartiallyInvalid", is_true: true, reason, message });
    }
    conditions
}

/// What a condition says of everything that is not there: the first one's reason, and all in words.
fn first_of(Unresolved { backends, mirrors }: &Unresolved) -> Option<Problem> {
    let first = backends.first().or(mirrors.first())?;
    let lists = [
        (backends, "their share of the requests is answered with 500"),
        (mirrors, "no copies of requests go there"),
    ];
    let told = lists.into_iter().filter(|(list, _)| !list.is_empty()).map(|(list, effect)| {
        let all: Vec<&str> = list.iter().map(|problem| problem.message.as_str()).collect();
        format!("{}; {effect}", all.join("; "))
    });
    Some(Problem::new(first.reason, told.collect::<Vec<_>>().join("; ")))
}

fn condition(kind: &'static str, good: &'static str, message: &str, bad: Option<&Problem>) -> Condition {
    match bad {
        None => Condition { kind, is_true: true, reason: good, message: message.to_owned() },
        Some(bad) => Condition { kind, is_true: false, reason: bad.reason, message: bounded(&bad.message) },
    }
}

fn bounded(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).collect()
}

/// What is wrong with rules, one line for each.
fn faulty(route: &Route) -> Vec<Problem> {
    let of_rule = |rule: &Rule| {
        let first = rule.faults.first()?;
        let all: Vec<&str> = rule.faults.iter().map(|fault| fault.message.as_str()).collect();
        let effect = match (&rule.words, &rule.to) {
            (None, _) => "no request is its",
            (Some(_), To::Nobody) => "its requests are answered with 500",
            (Some(_), _) => "its other matches hold",
        };
        Some(Problem::new(first.reason, format!("{} ({}): {effect}", rule.name, all.join(", "))))
    };
    route.rules.iter().filter_map(of_rule).collect()
}

/// Why a route does not hold for a parent; `None`: it does, at one port at least.
fn accepted(cluster: &Cluster, key: &RouteKey, route: &Route, parent: &Parent) -> Option<Problem> {
    let service = &parent.service;
    let nobody = |what: &str| Some(Problem::new("NoMatchingParent", format!("Service {service} {what}")));
    let Some(found) = cluster.service(service) else { return nobody("is not there") };
    if matches!(found.reach, Reach::Name(_)) {
        return nobody("is only a name (ExternalName)");
    }
    let ports: Vec<_> = found.ports.iter().filter(|port| attached::is_for(parent, port)).collect();
    if ports.is_empty() {
        return nobody("has no such port that carries HTTP");
    }
    if let Some(fault) = route.faults.first() {
        return Some(fault.clone());
    }
    let is_dead = |rule: &Rule| rule.words.is_none() || (!rule.faults.is_empty() && rule.to == To::Nobody);
    if route.rules.iter().all(is_dead) {
        let faulty = faulty(route);
        let all: Vec<&str> = faulty.iter().map(|problem| problem.message.as_str()).collect();
        let reason = faulty.first().map_or("UnsupportedValue", |problem| problem.reason);
        return Some(Problem::new(reason, format!("rule {}", all.join("; rule "))));
    }
    let mut why = None;
    for port in ports {
        let sorted = attached::sorted(cluster.book(), service, port, &key.key.namespace);
        if sorted.taken.iter().any(|(known, _)| *known == key) {
            return None;
        }
        why = why.or_else(|| sorted.left.iter().find(|(known, _)| *known == key).map(|(_, why)| *why));
    }
    Some(match why {
        Some(Left::Conflicted) => Problem::new(
            "Conflicted",
            format!("Service {service} has GRPCRoutes, and they come before HTTPRoutes"),
        ),
        Some(Left::TooMany) => {
            let message = format!("older routes of Service {service} are as much as a sidecar takes");
            Problem::new("TooManyRoutes", message)
        }
        None => Problem::value("nothing of it can be told"),
    })
}
