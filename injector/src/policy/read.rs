//! One object, as it is meant; or why it cannot be used.
//!
//! The API server has checked objects by their schema, but not that they make sense together; and a schema can be of another
//! version, or edited. So everything is checked here once more, by the code with which sidecars check their file.

use std::collections::BTreeMap;

use outrider::config::{Fault, faults_of_service, faults_of_workload};
use serde_json::{Map, Value as Json, json};

use super::keys::{
    AUTHORIZATION, MAX_BYTES_OF_SETTINGS, MAX_LABELS, MAX_MESSAGE_BYTES, MAX_NAME_BYTES, MAX_RULES,
    MAX_TARGETS, SELECTOR, TARGETS, TRAFFIC,
};
use crate::controller::model::objects::Name;

/// Faults that a message names; who corrects these sees the next.
const MAX_FAULTS: usize = 5;

/// Stands for the mesh's own: which it is makes no difference to whether rules make sense.
const TRUST_DOMAIN: &str = "cluster.local";

/// Labels that are asked for.
pub type Labels = BTreeMap<Name, Name>;

/// Which of two policies is the older, and what of it was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Age {
    /// When it was made, in seconds since the Unix epoch.
    pub created: i64,
    /// `metadata.generation`.
    pub generation: i64,
}

/// Why a policy cannot be used, with the key and the remedy.
pub type Unusable = String;

/// How Services are called.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// How old it is.
    pub age: Age,
    /// The Services, by name, of its own namespace; none if they cannot be read.
    pub targets: Vec<Name>,
    /// Keys of `clusters[]`.
    pub settings: Result<Map<String, Json>, Unusable>,
}

/// Who may call pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Authorization {
    /// How old it is.
    pub age: Age,
    /// Which pods of its own namespace: those with all of these labels. Empty, or not to be read: all.
    pub selector: Labels,
    /// What it says.
    pub section: Result<Section, Unusable>,
}

/// The keys of `authorization`.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Calls that no rule fits pass, and are told.
    pub is_audit: bool,
    /// Its rules, each with the policy's name before its own.
    pub rules: Vec<Json>,
    /// Their text, in bytes.
    pub bytes: usize,
}

/// Reads a `TrafficPolicy`.
#[must_use]
pub fn traffic(age: Age, spec: &Json) -> Traffic {
    match targets(spec) {
        Err(why) => Traffic { age, targets: Vec::new(), settings: Err(why) },
        Ok(targets) => Traffic { age, targets, settings: settings(spec) },
    }
}

fn targets(spec: &Json) -> Result<Vec<Name>, Unusable> {
    let list = spec.get(TARGETS).and_then(Json::as_array).filter(|list| !list.is_empty());
    let list = list.ok_or("spec.targetRefs: is missing; name the Services that it is for")?;
    if list.len() > MAX_TARGETS {
        return Err(format!("spec.targetRefs: {} Services; keep to {MAX_TARGETS}", list.len()));
    }
    let mut found: Vec<Name> = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        let text = |key| item.get(key).and_then(Json::as_str).unwrap_or_default();
        let is_known = |(key, _): (&String, &Json)| matches!(key.as_str(), "group" | "kind" | "name");
        let is_service = text("group").is_empty()
            && text("kind") == "Service"
            && item.as_object().is_some_and(|item| item.iter().all(is_known));
        if !is_service || text("name").is_empty() {
            return Err(format!(
                "spec.targetRefs[{index}]: is no Service of this namespace; write it as {{group: \"\", kind: Service, name: orders}}"
            ));
        }
        if found.iter().any(|known| **known == *text("name")) {
            return Err(format!("spec.targetRefs[{index}]: stands here twice; name every Service once"));
        }
        found.push(text("name").into());
    }
    Ok(found)
}

fn settings(spec: &Json) -> Result<Map<String, Json>, Unusable> {
    let spec = spec.as_object().ok_or("spec: is no object")?;
    let mut settings = spec.clone();
    settings.shift_remove(TARGETS);
    if let Some(key) = settings.keys().find(|key| !TRAFFIC.contains(&key.as_str())) {
        return Err(format!("spec.{key}: is not known here; keys: {}", TRAFFIC.join(", ")));
    }
    if settings.is_empty() {
        return Err(format!("spec: says nothing of its Services; keys: {}", TRAFFIC.join(", ")));
    }
    if Json::Object(settings.clone()).to_string().len() > MAX_BYTES_OF_SETTINGS {
        return Err(format!("spec: is too long; keep to {MAX_BYTES_OF_SETTINGS} bytes"));
    }
    // A Service is reached in either way, and may change from one to the other.
    for tls in ["mesh", "none"] {
        let mut cluster = settings.clone();
        for (key, value) in [("name", json!("policy")), ("authorities", json!([])), ("tls", json!(tls))] {
            cluster.insert(key.to_owned(), value);
        }
        let faults = faults_of_service("policy", &Json::Object(cluster).to_string());
        if !faults.is_empty() {
            return Err(message(&faults, "controller.services[policy]"));
        }
    }
    Ok(settings)
}

/// Reads an `AuthorizationPolicy` of that name.
#[must_use]
pub fn authorization(age: Age, name: &str, spec: &Json) -> Authorization {
    match selector(spec) {
        Err(why) => Authorization { age, selector: Labels::new(), section: Err(why) },
        Ok(selector) => Authorization { age, selector, section: section(name, spec) },
    }
}

fn selector(spec: &Json) -> Result<Labels, Unusable> {
    let Some(selector) = spec.get(SELECTOR) else { return Ok(Labels::new()) };
    let unreadable =
        || "spec.selector: is not understood; write it as {matchLabels: {app: orders}}".to_owned();
    let keys = selector.as_object().ok_or_else(unreadable)?;
    if keys.keys().any(|key| key != "matchLabels") {
        return Err(unreadable());
    }
    let Some(labels) = keys.get("matchLabels") else { return Ok(Labels::new()) };
    let labels = labels.as_object().ok_or_else(unreadable)?;
    if labels.len() > MAX_LABELS {
        return Err(format!("spec.selector.matchLabels: {} labels; keep to {MAX_LABELS}", labels.len()));
    }
    let label =
        |(key, value): (&String, &Json)| Some((Name::from(key.as_str()), Name::from(value.as_str()?)));
    labels.iter().map(label).collect::<Option<Labels>>().ok_or_else(unreadable)
}

fn section(name: &str, spec: &Json) -> Result<Section, Unusable> {
    let spec = spec.as_object().ok_or("spec: is no object")?;
    let is_known = |key: &&String| *key == SELECTOR || AUTHORIZATION.contains(&key.as_str());
    if let Some(key) = spec.keys().find(|key| !is_known(key)) {
        return Err(format!("spec.{key}: is not known here; keys: selector, mode, rules"));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("metadata.name: has {} bytes; keep to {MAX_NAME_BYTES}", name.len()));
    }
    let rules = match spec.get("rules") {
        None => Vec::new(),
        Some(rules) => rules.as_array().cloned().ok_or("spec.rules: is no list")?,
    };
    if rules.len() > MAX_RULES {
        return Err(format!("spec.rules: {} rules; keep to {MAX_RULES}", rules.len()));
    }
    let mut section = Map::new();
    if let Some(mode) = spec.get("mode") {
        section.insert("mode".to_owned(), mode.clone());
    }
    section.insert("rules".to_owned(), Json::Array(rules.clone()));
    let faults = faults_of_workload(&json!({ "authorization": section }).to_string(), TRUST_DOMAIN);
    if !faults.is_empty() {
        return Err(message(&faults, "controller.authorization"));
    }
    let is_audit = spec.get("mode").and_then(Json::as_str) == Some("audit");
    let rules = rules.into_iter().map(|rule| named(name, rule)).collect::<Result<Vec<_>, _>>()?;
    let bytes = rules.iter().map(|rule| rule.to_string().len() + 1).sum();
    Ok(Section { is_audit, rules, bytes })
}

/// A rule with the policy's name before its own, so that rules of several policies stand beside each other.
fn named(policy: &str, mut rule: Json) -> Result<Json, Unusable> {
    let name = rule.get("name").and_then(Json::as_str).unwrap_or_default();
    if name.len() > MAX_NAME_BYTES {
        return Err(format!(
            "spec.rules: the name of a rule has {} bytes; keep to {MAX_NAME_BYTES}",
            name.len()
        ));
    }
    let name = format!("{policy}/{name}");
    if let Some(rule) = rule.as_object_mut() {
        rule.insert("name".to_owned(), Json::String(name));
    }
    Ok(rule)
}

/// What the sidecar's checks say, with the object's keys in the place of those of what it is told.
fn message(faults: &[Fault], place: &str) -> Unusable {
    let told = faults.iter().take(MAX_FAULTS).map(|fault| {
        let path = fault.path.strip_prefix(place).unwrap_or(&fault.path);
        format!("spec{path}: {}; {}", fault.problem, fault.remedy)
    });
    cut(told.collect::<Vec<_>>().join("\n"))
}

/// At most [`MAX_MESSAGE_BYTES`].
fn cut(mut text: String) -> String {
    while text.len() > MAX_MESSAGE_BYTES {
        text.pop();
    }
    text
}
