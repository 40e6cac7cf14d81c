//! Rules in CEL: what the types of a schema cannot say. Their messages name the remedy.

use serde_json::{Value as Json, json};

use super::keys;

fn all(rules: &[(&str, &str)]) -> Json {
    rules.iter().map(|(rule, message)| json!({ "rule": rule, "message": message })).collect()
}

/// Of one target.
pub(super) fn target() -> Json {
    all(&[(
        "self.kind == 'Service' && (!has(self.group) || self.group == '')",
        "is no Service: write it as {group: \"\", kind: Service, name: orders}",
    )])
}

/// Of all targets.
pub(super) fn targets() -> Json {
    all(&[("self.all(one, self.exists_one(other, other.name == one.name))", "name every Service once")])
}

/// Of a whole `TrafficPolicy`.
pub(super) fn traffic() -> Json {
    let said: Vec<String> = keys::TRAFFIC.iter().map(|key| format!("has(self.{key})")).collect();
    all(&[
        (&said.join(" || "), "says nothing of its Services: give at least one key beside targetRefs"),
        (
            "(has(self.balance) && self.balance == 'maglev') == has(self.affinity)",
            "affinity is for balance: maglev, which needs it: give both or neither",
        ),
    ])
}

/// Of the name of an `AuthorizationPolicy`.
pub(super) fn name() -> Json {
    let rule = format!("self.metadata.name.size() <= {}", keys::MAX_NAME_BYTES);
    let message =
        format!("keep the name to {} bytes: it is part of the names of its rules", keys::MAX_NAME_BYTES);
    all(&[(&rule, &message)])
}

/// Of a section of the file; null: none.
pub(super) fn of(section: &str) -> Json {
    match section {
        "clusters[].affinity" => all(&[
            (
                "(self.by == 'header' || self.by == 'cookie') == has(self.name)",
                "name is for by: header and by: cookie, which need it",
            ),
            ("!has(self.ttl) || self.by == 'cookie'", "ttl is for by: cookie: leave it out"),
        ]),
        "clusters[].health_check" => all(&[
            (
                "!has(self.path) || !has(self.protocol) || self.protocol == 'http'",
                "path is for protocol: http: leave it out",
            ),
            (
                "!has(self.service) || (has(self.protocol) && self.protocol == 'grpc')",
                "service is for protocol: grpc: leave it out, or choose that protocol",
            ),
            (
                "!has(self.host) || !has(self.protocol) || self.protocol != 'tcp'",
                "host is for protocol: http and grpc: leave it out",
            ),
        ]),
        "clusters[].outlier_detection" => all(&[(
            "!has(self.ejection_time) || !has(self.max_ejection_time) || duration(self.ejection_time) <= duration(self.max_ejection_time)",
            "max_ejection_time is below ejection_time: make it at least as long",
        )]),
        "authorization.rules[]" => all(&[
            (
                "has(self.from) || has(self.from_namespaces) || has(self.from_trust_domains)",
                "does not say who may call: say from, from_namespaces or from_trust_domains",
            ),
            (
                "!has(self.grpc) || !(has(self.methods) || has(self.paths) || has(self.path_prefixes))",
                "methods, paths and path_prefixes stand beside grpc, which says both: make two rules of it",
            ),
            (
                "!(self.name in ['allowed', 'denied', 'audited'])",
                "the name is that of a verdict: choose another",
            ),
        ]),
        _ => Json::Null,
    }
}
