//! The CustomResourceDefinitions: as the chart has them, as Kubernetes wants them, and what their rules in CEL say of objects.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::{collections::HashMap, env, fs, path::Path};

use cel::{Context, Program, Value as Cel};
use outrider::config::{self, Row};
use outrider_injector::{
    documents,
    policy::{keys, read, schema},
};
use serde_json::{Value, json};

fn file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn definitions() -> Vec<Value> {
    schema::definitions(&schema::meanings(&fs::read_to_string(file("docs/config.md")).unwrap()))
}

fn schema_of(kind: &str) -> Value {
    let found = definitions().into_iter().find(|definition| definition["spec"]["names"]["kind"] == kind);
    found.unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

#[test]
fn the_chart_has_them() {
    let meanings = schema::meanings(&fs::read_to_string(file("docs/config.md")).unwrap());
    let (place, fresh) =
        (file("deploy/helm/outrider/templates/crds.yaml"), schema::template(&meanings).unwrap());
    assert!(!fresh.contains("{{"), "a template of Helm's would be read");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&place, &fresh).unwrap();
    }
    let written = fs::read_to_string(place).unwrap();
    assert_eq!(written, fresh, "out of date: run with UPDATE_DOCS=1");
    let (read, _) = documents::read(&written).unwrap();
    assert_eq!(read, definitions());
}

/// Everything below a schema, with its place.
fn below<'a>(schema: &'a Value, place: &str, visit: &mut dyn FnMut(&str, &'a Value)) {
    visit(place, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        below(property, &format!("{place}.{name}"), visit);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            below(&schema[inner], &format!("{place}.{inner}"), visit);
        }
    }
}

#[test]
fn their_schemas_are_structural_closed_and_bounded() {
    for kind in ["TrafficPolicy", "AuthorizationPolicy"] {
        let schema = schema_of(kind);
        let mut places = 0;
        below(&schema, kind, &mut |place, schema| {
            places += 1;
            let is_either = schema["x-kubernetes-int-or-string"] == true;
            let kind = schema["type"].as_str().unwrap_or("int-or-string");
            assert_eq!(kind == "int-or-string", is_either, "{place}");
            for key in ["$ref", "oneOf", "allOf", "not", "x-kubernetes-preserve-unknown-fields", "nullable"] {
                assert!(schema[key].is_null(), "{place} has {key}");
            }
            let is_ours = place.contains(".spec");
            let bound = match kind {
                "string" if schema["enum"].is_null() => "maxLength",
                "int-or-string" => "maxLength",
                "array" => "maxItems",
                "object" if schema["additionalProperties"].is_object() => "maxProperties",
                _ => return,
            };
            assert!(!is_ours || schema[bound].is_number(), "{place} has no {bound}");
        });
        assert!(places > 30, "{places}");
    }
}

#[test]
fn every_key_says_what_it_means() {
    for kind in ["TrafficPolicy", "AuthorizationPolicy"] {
        let schema = schema_of(kind);
        for (name, property) in schema["properties"]["spec"]["properties"].as_object().unwrap() {
            let told = property["description"].as_str().unwrap_or_default();
            assert!(told.len() > 10 && !told.contains("]("), "{kind} {name}: {told}");
        }
    }
}

/// The keys of a kind, with all below them, as a table: made of the rows that document the sidecar's file.
fn table(section: &str, only: &[&str]) -> String {
    let rows = config::rows();
    let mut lines = vec!["| key | type | without it | range |".to_owned(), "|---|---|---|---|".to_owned()];
    let mut add = |path: &str, row: &Row| {
        let range = if row.range.is_empty() { String::new() } else { format!("`{}`", row.range) };
        lines.push(format!("| `{path}` | {} | {} | {range} |", row.kind, row.default));
    };
    let mut left: Vec<(String, &Row)> = Vec::new();
    let of_section = rows.iter().filter(|row| row.section == section);
    for key in only {
        left.extend(of_section.clone().filter(|row| row.name == *key).map(|row| ((*key).to_owned(), row)));
    }
    while !left.is_empty() {
        let (path, row) = left.remove(0);
        add(&path, row);
        let list = if row.kind == "list of sections" { "[]" } else { "" };
        let below = format!("{section}.{path}{list}");
        let inner = rows.iter().filter(|inner| inner.section == below);
        let inner: Vec<_> = inner.map(|inner| (format!("{path}{list}.{}", inner.name), inner)).collect();
        left.splice(0..0, inner);
    }
    lines.join("\n")
}

#[test]
fn the_doc_lists_every_key() {
    let place = file("docs/policies.md");
    let mut doc = fs::read_to_string(&place).unwrap();
    for (name, section, keys) in [
        ("traffic", "clusters[]", &keys::TRAFFIC[..]),
        ("authorization", "authorization", &keys::AUTHORIZATION[..]),
    ] {
        let (begin, end) = (format!("<!-- keys: {name} -->\n"), "\n<!-- end -->");
        let from = doc.find(&begin).unwrap() + begin.len();
        let to = from + doc[from..].find(end).unwrap();
        let fresh = format!("\n{}\n", table(section, keys));
        if env::var_os("UPDATE_DOCS").is_some() {
            doc.replace_range(from..to, &fresh);
            fs::write(&place, &doc).unwrap();
        } else {
            assert_eq!(&doc[from..to], fresh, "out of date: run with UPDATE_DOCS=1");
        }
    }
}

#[test]
fn the_docs_examples_are_taken_by_the_schema_and_by_the_controller() {
    let doc = fs::read_to_string(file("docs/policies.md")).unwrap();
    let blocks = doc.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let objects: Vec<Value> = blocks.flat_map(|block| documents::read(block).unwrap().0).collect();
    assert!(objects.len() >= 4, "{objects:?}");
    for object in objects {
        let kind = object["kind"].as_str().unwrap();
        let mut told = Vec::new();
        wrong(&schema_of(kind), &object, "", &mut told);
        assert_eq!(told, Vec::<String>::new(), "{object}");
        let name = object["metadata"]["name"].as_str().unwrap();
        match kind {
            "TrafficPolicy" => drop(read::traffic(read::Age::default(), &object["spec"]).settings.unwrap()),
            _ => drop(read::authorization(read::Age::default(), name, &object["spec"]).section.unwrap()),
        }
    }
}

/// JSON as the API server hands it to a rule: whole numbers are `int`.
fn cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::from(*value),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Cel::from(whole),
            None => Cel::from(number.as_f64().unwrap()),
        },
        Value::String(text) => Cel::from(text.as_str()),
        Value::Array(items) => Cel::from(items.iter().map(cel).collect::<Vec<_>>()),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), cel(value)));
            Cel::from(fields.collect::<HashMap<String, Cel>>())
        }
    }
}

fn holds(rule: &str, of: &Value) -> bool {
    let program = Program::compile(rule).unwrap_or_else(|error| panic!("{rule}: {error}"));
    let mut context = Context::default();
    context.add_variable_from_value("self", cel(of));
    // A rule that fails refuses the object, as one that does not hold.
    matches!(program.execute(&context), Ok(Cel::Bool(true)))
}

/// What the API server has against an object, with the place: types, bounds, rules.
fn wrong(schema: &Value, of: &Value, place: &str, told: &mut Vec<String>) {
    let is_either = schema["x-kubernetes-int-or-string"] == true;
    let fits = match schema["type"].as_str() {
        None => is_either && (of.is_i64() || of.is_string()),
        Some("object") => of.is_object(),
        Some("array") => of.is_array(),
        Some("integer") => of.is_i64(),
        Some("string") => of.is_string(),
        Some(other) => panic!("{place}: {other}"),
    };
    if !fits {
        return told.push(format!("{place}: another type"));
    }
    let mut say = |what: &str| told.push(format!("{place}: {what}"));
    let number = |key: &str| schema[key].as_i64();
    let length = match of {
        Value::String(text) => i64::try_from(text.chars().count()).ok(),
        Value::Array(items) => i64::try_from(items.len()).ok(),
        Value::Object(fields) => i64::try_from(fields.len()).ok(),
        Value::Number(number) => number.as_i64(),
        Value::Null | Value::Bool(_) => None,
    };
    for key in ["minLength", "minItems", "minimum"] {
        if number(key).is_some_and(|least| length.is_some_and(|length| length < least)) {
            say(key);
        }
    }
    let of_texts: &[&str] =
        if of.is_string() { &["maxLength"] } else { &["maxItems", "maxProperties", "maximum"] };
    for key in of_texts {
        if number(key).is_some_and(|most| length.is_some_and(|length| length > most)) {
            say(key);
        }
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(of)) {
        say("none of the words");
    }
    if schema["pattern"].as_str().is_some_and(|pattern| !holds(&format!("self.matches(r'{pattern}')"), of)) {
        say("pattern");
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if of.get(name.as_str().unwrap()).is_none() {
            say(&format!("{name} is missing"));
        }
    }
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        if !holds(rule["rule"].as_str().unwrap(), of) {
            say(rule["message"].as_str().unwrap());
        }
    }
    for (name, value) in of.as_object().into_iter().flatten() {
        let inner = [&schema["properties"][name], &schema["additionalProperties"]];
        match inner.into_iter().find(|inner| inner.is_object()) {
            // The API server knows what is in there.
            _ if place.ends_with(".metadata") => {}
            Some(inner) => wrong(inner, value, &format!("{place}.{name}"), told),
            None => told.push(format!("{place}.{name}: unknown")),
        }
    }
    for (index, item) in of.as_array().into_iter().flatten().enumerate() {
        wrong(&schema["items"], item, &format!("{place}[{index}]"), told);
    }
}

fn judged(kind: &str, spec: Value) -> Vec<String> {
    let object = json!({
        "apiVersion": "outrider.io/v1alpha1", "kind": kind,
        "metadata": {"namespace": "shop", "name": "orders"}, "spec": spec,
    });
    let mut told = Vec::new();
    wrong(&schema_of(kind), &object, "", &mut told);
    told
}

fn traffic(settings: Value) -> Vec<String> {
    let mut spec = json!({"targetRefs": [{"group": "", "kind": "Service", "name": "orders"}]});
    spec.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    judged("TrafficPolicy", spec)
}

fn rule(keys: Value) -> Vec<String> {
    let mut rule = json!({"name": "web", "from_namespaces": ["web"]});
    rule.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    judged("AuthorizationPolicy", json!({"rules": [rule]}))
}

#[test]
fn what_makes_sense_is_taken() {
    for settings in [
        json!({"balance": "maglev", "affinity": {"by": "cookie", "name": "stick", "ttl": "8760h"}}),
        json!({"request_timeout": "1m30s", "stream_idle_timeout": "none", "max_requests": 7, "panic_percent": 0}),
        json!({"retry": {"max_retries": 1, "hedge": "p95", "replay_bytes": "64KiB", "statuses": [502, "5xx"]}}),
        json!({"retry": {"replay_bytes": 65536, "per_try_timeout": "none", "grpc_statuses": ["UNAVAILABLE"]}}),
        json!({"outlier_detection": {"failure_percent": "none", "slow_factor": "1.5", "success_rate_stdev": 3}}),
        json!({"outlier_detection": {"ejection_time": "5s", "max_ejection_time": "1m", "consecutive_gateway_failures": 1}}),
        json!({"health_check": {"protocol": "grpc", "service": "shop.Orders", "host": "orders"}}),
        json!({"health_check": {"path": "/ready"}, "rate_limits": [{"requests": 10, "per": "1s"}]}),
    ] {
        assert_eq!(traffic(settings.clone()), Vec::<String>::new(), "{settings}");
    }
    for keys in [
        json!({"methods": ["GET"], "path_prefixes": ["/items"], "hosts": ["orders:8080"], "ports": [8080]}),
        json!({"grpc": ["shop.Orders/Get"], "headers": [{"name": "x-team", "value": "a"}]}),
        json!({"from": ["spiffe://cluster.local/ns/shop/sa/web"], "from_trust_domains": ["b.example"]}),
    ] {
        assert_eq!(rule(keys.clone()), Vec::<String>::new(), "{keys}");
    }
    let selector = json!({"matchLabels": {"app": "orders"}});
    assert_eq!(
        judged("AuthorizationPolicy", json!({"selector": selector, "mode": "audit"})),
        Vec::<String>::new()
    );
}

#[test]
fn what_makes_none_is_refused_with_the_remedy() {
    for (settings, remedy) in [
        (json!({}), "give at least one key"),
        (json!({"balance": "maglev"}), "give both or neither"),
        (json!({"affinity": {"by": "source"}}), "give both or neither"),
        (json!({"balance": "maglev", "affinity": {"by": "header"}}), "name is for by: header"),
        (json!({"balance": "maglev", "affinity": {"by": "source", "ttl": "1m"}}), "ttl is for by: cookie"),
        (json!({"request_timeout": "25h"}), "keep to 1ms..=24h"),
        (json!({"request_timeout": "0s"}), "keep to 1ms..=24h"),
        (json!({"request_timeout": "5"}), "pattern"),
        (json!({"request_timeout": 5}), "another type"),
        (json!({"max_requests": 0}), "minimum"),
        (json!({"zones": "near"}), "none of the words"),
        (json!({"outlier_detection": {"failure_percent": 101}}), "whole number of 1..=100 or none"),
        (json!({"outlier_detection": {"failure_percent": "off"}}), "whole number of 1..=100 or none"),
        (json!({"outlier_detection": {"slow_factor": "1.25"}}), "as \"1.5\" in quotes"),
        (json!({"outlier_detection": {"slow_factor": 1}}), "as \"1.5\" in quotes"),
        (
            json!({"outlier_detection": {"ejection_time": "5m", "max_ejection_time": "1m"}}),
            "at least as long",
        ),
        (json!({"health_check": {"protocol": "tcp", "path": "/"}}), "path is for protocol: http"),
        (json!({"health_check": {"protocol": "tcp", "host": "a"}}), "host is for protocol"),
        (json!({"health_check": {"service": "a"}}), "service is for protocol: grpc"),
        (json!({"retry": {"statuses": [200]}}), "400 to 599"),
        (json!({"retry": {"replay_bytes": "1 MB"}}), "write bytes as"),
        (json!({"rate_limits": [{"per": "1s"}]}), "\"requests\" is missing"),
        (json!({"spiffe_ids": []}), "unknown"),
        (json!({"targetRefs": []}), "minItems"),
        (json!({"targetRefs": [{"kind": "Pod", "name": "a"}], "max_requests": 1}), "is no Service"),
        (json!({"targetRefs": [{"kind": "Service", "name": "a"}, {"kind": "Service", "name": "a"}]}), "once"),
    ] {
        let told = traffic(settings.clone());
        assert!(told.iter().any(|told| told.contains(remedy)), "{settings}: {told:?}");
    }
    for (keys, remedy) in [
        (json!({"grpc": ["a.B"], "methods": ["POST"]}), "make two rules"),
        (json!({"name": "denied"}), "that of a verdict"),
        (json!({"name": "n".repeat(64)}), "maxLength"),
        (json!({"ports": [0]}), "minimum"),
        (json!({"paths": ["items"]}), "pattern"),
        (json!({"from": ["web"]}), "pattern"),
        (json!({"path_prefix": ["/"]}), "unknown"),
    ] {
        let told = rule(keys.clone());
        assert!(told.iter().any(|told| told.contains(remedy)), "{keys}: {told:?}");
    }
    let told = judged("AuthorizationPolicy", json!({"rules": [{"name": "a"}]}));
    assert!(told[0].contains("does not say who may call"), "{told:?}");
}
