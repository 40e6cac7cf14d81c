//! One key's type, by its row.

use outrider::config::Row;
use serde_json::{Value as Json, json};

use super::keys;

/// Items of a list of sections.
pub(super) fn most(list: &str) -> usize {
    match list {
        "authorization.rules" => keys::MAX_RULES,
        "clusters[].rate_limits" => 4,
        _ => 16,
    }
}

/// The schema of a key at `place` that is no section.
pub(super) fn shape(place: &str, row: &Row) -> Json {
    let (kind, range) = (row.kind.as_str(), row.range.split_once("..="));
    if let (Some((min, max)), Some(schema)) = (range, range.and_then(|range| quantity(kind, range))) {
        debug_assert!(!min.is_empty() && !max.is_empty(), "{place}");
        return schema;
    }
    if let Some(item) = kind.strip_prefix("list of ") {
        return json!({
            "type": "array", "maxItems": entries(place), "x-kubernetes-list-type": "set", "items": text(item),
        });
    }
    match words(kind) {
        Some(words) => json!({ "type": "string", "enum": words }),
        None => text(kind),
    }
}

fn entries(place: &str) -> usize {
    match place {
        "clusters[].retry.statuses" => 200,
        "clusters[].retry.grpc_statuses" => 16,
        _ => keys::MAX_ENTRIES,
    }
}

/// A quantity with its range. Kinds that may be a word, too, are texts or numbers in Kubernetes' own way (`int-or-string`).
fn quantity(kind: &str, (min, max): (&str, &str)) -> Option<Json> {
    let or: Vec<&str> = kind.split('`').skip(1).step_by(2).collect();
    let is_word: Vec<String> = or.iter().map(|word| format!("self == '{word}'")).collect();
    let or_word = |test: String| {
        let tests: Vec<String> = is_word.iter().cloned().chain([test]).collect();
        tests.join(" || ")
    };
    let words: String = or.iter().map(|word| format!(" or {word}")).collect();
    let rule = |test: String, message: String| json!([{ "rule": test, "message": message }]);
    let keep = format!("keep to {min}..={max}");
    if kind.starts_with("duration") {
        let (from, to) = (go_duration(min), go_duration(max));
        let words: String = or.iter().map(|word| format!("|{word}")).collect();
        let test = format!("(duration(self) >= duration('{from}') && duration(self) <= duration('{to}'))");
        return Some(json!({
            "type": "string", "maxLength": 32, "pattern": format!("^(([0-9]{{1,9}}(ms|s|m|h)){{1,4}}{words})$"),
            "x-kubernetes-validations": rule(or_word(test), keep),
        }));
    }
    if kind == "whole number" {
        let number = |text: &str| text.parse::<u64>().ok();
        let (min, max) = (number(min)?, number(max)?);
        return Some(json!({ "type": "integer", "format": "int64", "minimum": min, "maximum": max }));
    }
    let int_or_string = |test: String, message: String| {
        json!({
            "x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}], "maxLength": 32,
            "x-kubernetes-validations": rule(test, message),
        })
    };
    if kind.starts_with("whole number") {
        let test =
            format!("type(self) == int ? (self >= {min} && self <= {max}) : ({})", is_word.join(" || "));
        return Some(int_or_string(test, format!("write a whole number of {min}..={max}{words}")));
    }
    if kind.starts_with("number") {
        let text = format!(
            "(self.matches('^[0-9]{{1,6}}([.][0-9])?$') && double(self) >= double('{min}') && double(self) <= double('{max}'))"
        );
        let test = format!(
            "type(self) == int ? (double(self) >= double('{min}') && double(self) <= double('{max}')) : ({})",
            or_word(text)
        );
        let example =
            format!("write a number of {min}..={max} with at most one decimal, as \"1.5\" in quotes{words}");
        return Some(int_or_string(test, example));
    }
    if kind == "size" {
        let most = bytes(max)?;
        let test = format!(
            "type(self) == int ? (self >= 0 && self <= {most}) : self.matches('^[0-9]{{1,9}}(KiB|MiB|GiB)?$')"
        );
        return Some(int_or_string(test, format!("write bytes as 65536, 64KiB or 1MiB, and {keep}")));
    }
    None
}

/// A duration of the file as CEL and Go have it: they know no days.
fn go_duration(text: &str) -> String {
    match text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok()) {
        Some(days) => format!("{}h", days * 24),
        None => text.to_owned(),
    }
}

fn bytes(text: &str) -> Option<u64> {
    let units = [("KiB", 1_u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let (digits, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or((text, 1));
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// The words of a kind that is nothing but words.
fn words(kind: &str) -> Option<Vec<&str>> {
    let words: Option<Vec<&str>> =
        kind.split(" or ").map(|word| word.strip_prefix('`')?.strip_suffix('`')).collect();
    words.filter(|words| !words.contains(&"host"))
}

/// A text of a kind. What it must look like is checked by the controller, with the reason in the status; here are bounds.
fn text(kind: &str) -> Json {
    let most = match kind {
        "ports" => return json!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": 65535 }),
        "statuses or `5xx`" => {
            let test = "type(self) == int ? (self >= 400 && self <= 599) : self == '5xx'";
            return json!({
                "x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}],
                "maxLength": 3,
                "x-kubernetes-validations": [{"rule": test, "message": "list statuses of 400 to 599, or 5xx"}],
            });
        }
        "SPIFFE IDs" => {
            return json!({ "type": "string", "minLength": 10, "maxLength": 512, "pattern": "^spiffe://[^/]+/.+$" });
        }
        "paths" | "path" => return json!({ "type": "string", "maxLength": 1024, "pattern": "^/" }),
        "gRPC statuses" => return json!({ "type": "string", "maxLength": 32, "pattern": "^[A-Z_]+$" }),
        "methods" => 32,
        "namespaces" => 320,
        "value of a field" => 1024,
        "name" => keys::MAX_NAME_BYTES,
        _ => 256,
    };
    json!({ "type": "string", "minLength": 1, "maxLength": most })
}
