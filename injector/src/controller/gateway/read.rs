//! An object of the API becomes a route. What the API server's schema would have refused is refused here as well: the
//! definitions that are installed may be others'.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::{
    filters::{self, Filters},
    judge, matches,
    route::{Backend, Mirror, Parent, Problem, Route, RouteKind, Rule, To},
    settings::{self, Retry, Timeouts, shown},
};
use crate::controller::model::{objects::ObjectKey, value::fitting};

/// Parents of one route that are looked at (Gateway API: 32).
const MAX_PARENTS: usize = 32;
/// Rules of one route (Gateway API: 16; a sidecar: 64).
const MAX_RULES: usize = 64;
/// Matches of one rule (Gateway API: 64).
const MAX_MATCHES: usize = 64;
/// Backends of one rule (Gateway API: 16).
const MAX_BACKENDS: usize = 16;
/// Largest weight.
const MAX_WEIGHT: u64 = 1_000_000;
/// Bytes of a cluster's entry in a rule, at most, and of what is around them.
const CLUSTER_BYTES: usize = 160;
const AROUND_BYTES: usize = 16;
/// Bytes of a mirror's entry in a rule, at most, and of what is around them.
const MIRROR_BYTES: usize = 168;
const AROUND_MIRRORS_BYTES: usize = 16;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawParent {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    section_name: Option<String>,
    port: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawRule {
    name: Option<String>,
    matches: Option<Vec<Json>>,
    filters: Option<Vec<Json>>,
    backend_refs: Option<Vec<RawBackend>>,
    timeouts: Option<Timeouts>,
    retry: Option<Retry>,
    /// What is not known here, and would be left out.
    #[serde(flatten)]
    rest: Map<String, Json>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawBackend {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    port: Option<u16>,
    weight: Option<u64>,
    filters: Option<Vec<Json>>,
}

/// What a route's `spec` says. `created`: seconds since the Unix epoch.
#[must_use]
pub fn read(kind: RouteKind, key: &ObjectKey, created: i64, spec: &Json) -> Route {
    let (mut faults, mut rules) = (Vec::new(), Vec::new());
    match spec.get("rules") {
        // The schema's default: everything, with nobody to go to.
        None if kind == RouteKind::Http => rules.push(json!({})),
        None => {}
        Some(Json::Array(list)) if list.len() <= MAX_RULES => rules.clone_from(list),
        Some(Json::Array(list)) => {
            faults.push(Problem::value(format!("{} rules: keep to {MAX_RULES}", list.len())));
        }
        Some(_) => faults.push(Problem::value("rules is not a list")),
    }
    let mut reading =
        Reading { kind, namespace: &key.namespace, names: HashSet::new(), known: HashSet::new() };
    let rules: Vec<Rule> = rules.iter().enumerate().map(|(index, raw)| reading.rule(index, raw)).collect();
    if rules.is_empty() && faults.is_empty() {
        faults.push(Problem::value("it has no rules"));
    }
    Route { created, parents: parents(key, spec), rules, faults }
}

/// Its parents that are Services. What cannot be read is nobody's.
fn parents(key: &ObjectKey, spec: &Json) -> Vec<Parent> {
    let list = spec.get("parentRefs").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let parent = |reference: &Json| {
        let raw = RawParent::deserialize(reference).ok()?;
        let is_service = raw.group.as_deref() == Some("") && raw.kind.as_deref() == Some("Service");
        if !is_service || raw.name.is_empty() {
            return None;
        }
        let namespace = raw.namespace.as_deref().unwrap_or(&key.namespace);
        Some(Parent {
            reference: reference.as_object()?.clone(),
            service: ObjectKey::new(namespace, &raw.name),
            port: raw.port,
            section: raw.section_name.filter(|name| !name.is_empty()).map(Into::into),
        })
    };
    list.iter().take(MAX_PARENTS).filter_map(parent).collect()
}

/// What a rule asks for, and where its requests and their copies go.
struct Asked {
    words: Map<String, Json>,
    to: To,
    mirrors: Vec<Mirror>,
}

struct Reading<'a> {
    kind: RouteKind,
    namespace: &'a str,
    /// Names of rules above.
    names: HashSet<String>,
    /// What rules above match: of two the first has it.
    known: HashSet<String>,
}

impl Reading<'_> {
    fn rule(&mut self, index: usize, raw: &Json) -> Rule {
        let mut faults = Vec::new();
        let (raw, odd) = match RawRule::deserialize(raw) {
            Ok(raw) => (raw, None),
            // What it matches may be clear all the same: these requests are not another rule's.
            Err(error) => match matches_only(raw) {
                Some(raw) => (raw, Some(Problem::value(error.to_string()))),
                None => {
                    faults.push(Problem::value(error.to_string()));
                    return dropped(self.name(index, None), faults);
                }
            },
        };
        let name = self.name(index, raw.name.as_deref());
        let filters = filters::read(self.kind, raw.filters.as_deref().unwrap_or_default());
        let filters = odd.map_or(filters, Err);
        let keeps_prefix = filters.as_ref().is_ok_and(|filters| filters.replaces_prefix);
        let mut found = self.matches(&raw, keeps_prefix, &mut faults);
        let asked = filters.and_then(|filters| self.asked(&raw, filters));
        let sound = asked.and_then(|asked| match judge::fault(&entry(&name, &found, &asked.words)) {
            None => Ok(asked),
            // Perhaps it is a match: then the others hold.
            Some(_) => {
                screen(&name, &mut found, &mut faults);
                match judge::fault(&entry(&name, &found, &asked.words)) {
                    None => Ok(asked),
                    Some(fault) => Err(Problem::value(fault)),
                }
            }
        });
        if sound.is_err() {
            screen(&name, &mut found, &mut faults);
        }
        if found.is_empty() {
            return dropped(name, faults);
        }
        self.known.extend(found.iter().map(key));
        let Asked { words, to, mirrors } = sound.unwrap_or_else(|problem| {
            faults.push(problem);
            Asked { words: Map::new(), to: To::Nobody, mirrors: Vec::new() }
        });
        let words = entry(&name, &found, &words);
        let clusters = match &to {
            To::Backends(list) => list.iter().map(|it| CLUSTER_BYTES + it.edits_bytes()).sum(),
            To::Elsewhere | To::Nobody => CLUSTER_BYTES,
        };
        let bytes = Json::Object(words.clone()).to_string().len() + clusters + AROUND_BYTES;
        let copies = mirrors.len() * MIRROR_BYTES + AROUND_MIRRORS_BYTES;
        let bytes = bytes + copies;
        Rule { name, words: Some(words), matches: found.len(), bytes, to, mirrors, faults }
    }

    /// Its own name, or its place; another where that is one's above.
    fn name(&mut self, index: usize, name: Option<&str>) -> String {
        let is_name = |name: &&str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        let wanted =
            name.filter(is_name).map_or_else(|| index.to_string(), |name| fitting(name.replace('/', "~")));
        let name = if self.names.contains(&wanted) { format!("{index}~") } else { wanted };
        self.names.insert(name.clone());
        name
    }

    /// What the rule matches, each once, without what rules above match.
    fn matches(
        &self,
        raw: &RawRule,
        keeps_prefix: bool,
        faults: &mut Vec<Problem>,
    ) -> Vec<Map<String, Json>> {
        let everything = [json!({})];
        let list = raw.matches.as_deref().filter(|list| !list.is_empty()).unwrap_or(&everything);
        if list.len() > MAX_MATCHES {
            faults.push(Problem::value(format!("{} matches: keep to {MAX_MATCHES}", list.len())));
        }
        let (mut own, mut found) = (HashSet::new(), Vec::new());
        for (index, raw) in list.iter().enumerate().take(MAX_MATCHES) {
            match matches::read(self.kind, raw, keeps_prefix) {
                Ok(words) => {
                    let key = key(&words);
                    if !self.known.contains(&key) && own.insert(key) {
                        found.push(words);
                    }
                }
                Err(problem) => faults.push(problem.at(&format!("matches[{index}]"))),
            }
        }
        found
    }

    /// What the rule asks for, and where its requests go.
    fn asked(&self, raw: &RawRule, filters: Filters) -> Result<Asked, Problem> {
        if let Some(key) = raw.rest.keys().next() {
            return Err(Problem::value(format!("{:?} is not supported", shown(key))));
        }
        let is_redirect = filters.is_redirect();
        let mut words = filters.words;
        if is_redirect {
            return Ok(Asked { words, to: To::Elsewhere, mirrors: Vec::new() });
        }
        words.extend(settings::read(raw.timeouts.as_ref(), raw.retry.as_ref())?);
        let list = raw.backend_refs.as_deref().unwrap_or_default();
        if list.len() > MAX_BACKENDS {
            return Err(Problem::value(format!("{} backendRefs: keep to {MAX_BACKENDS}", list.len())));
        }
        let mut backends = Vec::with_capacity(list.len());
        for (index, raw) in list.iter().enumerate() {
            let at = |problem: Problem| problem.at(&format!("backendRefs[{index}]"));
            let backend = self.backend(raw).map_err(at)?;
            if is_told_otherwise(&backend, &backends) {
                return Err(at(Problem::value("stands here twice, with other filters: keep one of them")));
            }
            backends.push(backend);
        }
        let mirror = |(reference, of_million): (Json, u32)| {
            let raw = RawBackend::deserialize(reference);
            let raw = raw.map_err(|error| Problem::value(format!("RequestMirror: backendRef: {error}")))?;
            Ok(Mirror { backend: self.backend(&raw)?, of_million })
        };
        let mirrors = filters.mirrors.into_iter().map(mirror).collect::<Result<_, Problem>>()?;
        Ok(Asked { words, to: To::Backends(backends), mirrors })
    }

    fn backend(&self, raw: &RawBackend) -> Result<Backend, Problem> {
        let edits = filters::of_backend(raw.filters.as_deref().unwrap_or_default())?;
        if let Some(fault) = judge::fault_of_cluster(&edits).filter(|_| !edits.is_empty()) {
            return Err(Problem::value(fault));
        }
        let weight = raw.weight.unwrap_or(1);
        let weight = u32::try_from(weight).ok().filter(|_| weight <= MAX_WEIGHT);
        let weight = weight.ok_or_else(|| Problem::value(format!("weight is over {MAX_WEIGHT}")))?;
        let (group, kind) = (raw.group.as_deref().unwrap_or(""), raw.kind.as_deref().unwrap_or("Service"));
        let namespace = raw.namespace.as_deref().unwrap_or(self.namespace);
        let service = if !group.is_empty() || kind != "Service" {
            let message =
                format!("{:?} of {:?} is no backend here: name a Service", shown(kind), shown(group));
            Err(Problem::new("InvalidKind", message))
        } else {
            let port = raw.port.filter(|port| *port > 0);
            let key = ObjectKey::new(namespace, &raw.name);
            match port {
                Some(port) => Ok((key, port)),
                None => Err(Problem::new("BackendNotFound", format!("Service {key}: no port is given"))),
            }
        };
        Ok(Backend { weight, service, edits })
    }
}

/// Whether the same Service is a backend already, with other changes: a sidecar has one entry for each.
fn is_told_otherwise(backend: &Backend, others: &[Backend]) -> bool {
    let is_same = |other: &&Backend| other.service.is_ok() && other.service == backend.service;
    others.iter().filter(is_same).any(|other| other.edits != backend.edits)
}

/// Of a rule that cannot be read as a whole what it matches; `None`: nor that.
fn matches_only(raw: &Json) -> Option<RawRule> {
    let matches = match raw.as_object()?.get("matches") {
        None | Some(Json::Null) => None,
        Some(matches) => Some(matches.as_array()?.clone()),
    };
    Some(RawRule { matches, ..RawRule::default() })
}

/// A rule of which nothing is told: no request is its.
fn dropped(name: String, faults: Vec<Problem>) -> Rule {
    Rule { name, words: None, matches: 0, bytes: 0, to: To::Nobody, mirrors: Vec::new(), faults }
}

/// Leaves out what no sidecar would take for a match.
fn screen(name: &str, found: &mut Vec<Map<String, Json>>, faults: &mut Vec<Problem>) {
    found.retain(|words| {
        let fault = judge::fault(&entry(name, std::slice::from_ref(words), &Map::new()));
        let is_sound = fault.is_none();
        faults.extend(fault.map(Problem::value));
        is_sound
    });
}

/// By what matches are told apart.
fn key(words: &Map<String, Json>) -> String {
    let mut words = words.clone();
    if words.get("path_prefix").is_some_and(|prefix| prefix == "/") {
        words.remove("path_prefix");
    }
    Json::Object(words).to_string()
}

/// An entry of `routes[].rules[]`, but for its clusters.
fn entry(name: &str, matches: &[Map<String, Json>], words: &Map<String, Json>) -> Map<String, Json> {
    let mut entry = Map::from_iter([("name".to_owned(), json!(name))]);
    // What matches everything is alone, or says so: an empty match is taken for one that was forgotten.
    let is_everything = matches!(matches, [one] if one.is_empty());
    if !is_everything {
        let said = |words: &Map<String, Json>| {
            if words.is_empty() { json!({"path_prefix": "/"}) } else { Json::Object(words.clone()) }
        };
        entry.insert("matches".to_owned(), matches.iter().map(said).collect());
    }
    entry.extend(words.clone());
    entry
}
