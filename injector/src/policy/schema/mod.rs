//! The CustomResourceDefinitions of both kinds, made of the rows that document and check a sidecar's file, so that a policy has
//! the keys, words, ranges and explanations of the file.
//!
//! Kubernetes asks for structural schemas (no references, one type at each place) and bounds what a rule in CEL may cost, so
//! every text, list and map has a bound. What types cannot say is said by rules, each with the remedy in its message.

mod rules;
mod shape;

use std::collections::HashMap;

use outrider::config::{self, Row};
use serde_json::{Map, Value as Json, json};

use self::shape::shape;
use super::{GROUP, VERSION, keys};

/// What keys mean, by section and key, as `docs/config.md` says it.
pub type Meanings = HashMap<(String, String), String>;

/// Reads the meanings of all keys from the tables of `docs/config.md`. Links are taken out: they lead nowhere in a cluster.
#[must_use]
pub fn meanings(config_md: &str) -> Meanings {
    let (mut section, mut meanings) = ("", Meanings::new());
    for line in config_md.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if let [key, _, _, _, meaning] = *cells
            && line.starts_with("| `")
        {
            meanings.insert((section.to_owned(), key.replace('`', "")), without_links(meaning));
        }
    }
    meanings
}

/// `[text](target)` becomes `text`.
fn without_links(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let (head, label) = before.rsplit_once('[').unwrap_or(("", before));
        out.push_str(head);
        out.push_str(label);
        rest = after.split_once(')').map_or("", |(_, behind)| behind);
    }
    out.push_str(rest);
    out.replace("clusters[].", "")
}

/// Both definitions.
#[must_use]
pub fn definitions(meanings: &Meanings) -> Vec<Json> {
    let all = config::rows();
    let make = Make { rows: &all, meanings };
    vec![make.traffic(), make.authorization()]
}

/// As YAML: a template of the chart without anything to fill in.
///
/// # Errors
/// Never in practice: JSON has nothing that YAML has not.
pub fn template(meanings: &Meanings) -> Result<String, String> {
    let written = definitions(meanings).into_iter().map(|definition| serde_saphyr::to_string(&definition));
    let written = written.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    Ok(format!("{HEAD}\n{}", written.join("---\n")))
}

const HEAD: &str = "# Made of the sidecar's own keys by a test (injector/tests/policies.rs, UPDATE_DOCS=1): docs/policies.md.";

struct Make<'a> {
    rows: &'a [Row],
    meanings: &'a Meanings,
}

impl Make<'_> {
    fn traffic(&self) -> Json {
        let mut spec = self.section("clusters[]", &keys::TRAFFIC);
        let targets = json!({
            "description": "The Services of this namespace whose calls it is for. Of two policies for one Service the older holds.",
            "type": "array", "minItems": 1, "maxItems": keys::MAX_TARGETS,
            "items": {
                "type": "object", "required": ["kind", "name"],
                "properties": {
                    "group": {"type": "string", "maxLength": 253, "default": ""},
                    "kind": {"type": "string", "maxLength": 63},
                    "name": {"type": "string", "minLength": 1, "maxLength": 63},
                },
                "x-kubernetes-validations": rules::target(),
            },
            "x-kubernetes-validations": rules::targets(),
        });
        insert_first(&mut spec, keys::TARGETS, targets);
        add(&mut spec, "required", json!([keys::TARGETS]));
        add(&mut spec, "x-kubernetes-validations", rules::traffic());
        let names = ("TrafficPolicy", "trafficpolicies", "trafficpolicy");
        let about =
            "How Services of its namespace are called: by every sidecar that calls them, in any namespace.";
        let accepted = ".status.ancestors[*].conditions[?(@.type==\"Accepted\")].reason";
        definition(names, (about, accepted), (spec, ancestors(), Json::Null))
    }

    fn authorization(&self) -> Json {
        let mut spec = self.section("authorization", &keys::AUTHORIZATION);
        let selector = json!({
            "description": "The pods of this namespace that it is for: those with all of these labels; all pods without it.",
            "type": "object",
            "properties": {
                "matchLabels": {
                    "type": "object", "maxProperties": keys::MAX_LABELS,
                    "additionalProperties": {"type": "string", "maxLength": 63},
                },
            },
        });
        insert_first(&mut spec, keys::SELECTOR, selector);
        let names = ("AuthorizationPolicy", "authorizationpolicies", "authorizationpolicy");
        let about = "Who may call pods of its namespace. A pod that a policy selects is called by nobody whom no rule allows.";
        let accepted = ".status.conditions[?(@.type==\"Accepted\")].reason";
        definition(names, (about, accepted), (spec, conditions_of_status(), rules::name()))
    }

    /// A section of the file, or those keys of it.
    fn section(&self, name: &str, only: &[&str]) -> Json {
        let of_section = |key: &str| self.rows.iter().find(|row| row.section == name && row.name == key);
        let all = self.rows.iter().filter(|row| row.section == name);
        let rows: Vec<&Row> = if only.is_empty() {
            all.collect()
        } else {
            only.iter().filter_map(|key| of_section(key)).collect()
        };
        let mut properties = Map::new();
        for row in &rows {
            properties.insert(row.name.to_owned(), self.key(name, row));
        }
        let required: Vec<&str> =
            rows.iter().filter(|row| row.default == "required").map(|row| row.name).collect();
        let mut section = json!({ "type": "object", "properties": properties });
        if !required.is_empty() {
            add(&mut section, "required", json!(required));
        }
        let rules = rules::of(name);
        if rules != Json::Null {
            add(&mut section, "x-kubernetes-validations", rules);
        }
        section
    }

    fn key(&self, section: &str, row: &Row) -> Json {
        let below = format!("{section}.{}", row.name);
        let mut schema = match row.kind.as_str() {
            "section" => self.section(&below, &[]),
            "list of sections" => {
                let items = self.section(&format!("{below}[]"), &[]);
                let mut list = json!({ "type": "array", "maxItems": shape::most(&below), "items": items });
                if below == "authorization.rules" {
                    add(&mut list, "x-kubernetes-list-type", json!("map"));
                    add(&mut list, "x-kubernetes-list-map-keys", json!(["name"]));
                }
                list
            }
            _ => shape(&below, row),
        };
        let meaning = self.meanings.get(&(section.to_owned(), row.name.to_owned()));
        let mut told = meaning.cloned().unwrap_or_default();
        // What a sidecar does without the key is no default of the object: it may change with the sidecar.
        if !row.default.is_empty() && row.default != "required" {
            told = format!("{told} Without it: {}.", row.default);
        }
        if let Some(schema) = schema.as_object_mut() {
            schema.shift_insert(0, "description".to_owned(), Json::String(told.trim().to_owned()));
        }
        schema
    }
}

fn add(schema: &mut Json, key: &str, value: Json) {
    if let Some(schema) = schema.as_object_mut() {
        schema.insert(key.to_owned(), value);
    }
}

fn insert_first(section: &mut Json, key: &str, schema: Json) {
    if let Some(properties) = section.get_mut("properties").and_then(Json::as_object_mut) {
        properties.shift_insert(0, key.to_owned(), schema);
    }
}

fn definition(
    (kind, plural, singular): (&str, &str, &str),
    (about, accepted): (&str, &str),
    (spec, status, rules): (Json, Json, Json),
) -> Json {
    let mut schema = json!({
        "description": about, "type": "object", "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
            "spec": spec, "status": status,
        },
    });
    if rules != Json::Null {
        add(&mut schema, "x-kubernetes-validations", rules);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        // Without the definition all policies would be gone: an AuthorizationPolicy that is gone opens.
        "metadata": {"name": format!("{plural}.{GROUP}"), "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": {
                "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": singular,
                "categories": ["outrider"],
            },
            "versions": [{
                "name": VERSION, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "Accepted", "type": "string", "jsonPath": accepted},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
            }],
        },
    })
}

/// As Gateway API has them.
fn conditions() -> Json {
    json!({
        "type": "array", "maxItems": 8, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object", "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {"type": "string", "maxLength": 316},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024},
                "message": {"type": "string", "maxLength": 32768},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
            },
        },
    })
}

fn conditions_of_status() -> Json {
    json!({
        "description": "Written by outrider-controller.", "type": "object",
        "properties": {"conditions": conditions()},
    })
}

/// `PolicyStatus` of Gateway API.
fn ancestors() -> Json {
    let text = |most: u32| json!({"type": "string", "maxLength": most});
    json!({
        "description": "Written by outrider-controller: for each Service, whether the policy holds for it.", "type": "object",
        "properties": {
            "ancestors": {
                "type": "array", "maxItems": keys::MAX_TARGETS,
                "items": {
                    "type": "object", "required": ["ancestorRef", "controllerName", "conditions"],
                    "properties": {
                        "ancestorRef": {
                            "type": "object", "required": ["name"],
                            "properties": {
                                "group": text(253), "kind": text(63), "namespace": text(63), "name": text(253),
                                "sectionName": text(253), "port": {"type": "integer", "format": "int32"},
                            },
                        },
                        "controllerName": text(253),
                        "conditions": conditions(),
                    },
                },
            },
        },
    })
}
