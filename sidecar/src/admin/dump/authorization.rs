//! `authorization` of `/config`.

use http::Method;
use outrider_certs::{SpiffeId, TrustDomain};
use serde_json::{Value, json};

use crate::{
    model::authorization::{Authorization, FieldRule, HttpRule, Mode, PathRule, Rule, Whose},
    telemetry::access_log::is_redacted,
};

/// What `whose` rules enforce, rule by rule, with all that a rule asks for; `None`: it says none.
pub(super) fn authorization(rules: &Authorization, whose: Whose) -> Option<Value> {
    let rule = |rule: &Rule| {
        json!({
            "name": &*rule.name,
            "from": rule.from.ids.iter().map(SpiffeId::as_str).collect::<Vec<_>>(),
            "from_namespaces": rule.from.namespaces.iter()
                .map(|namespace| format!("{}/{}", namespace.trust_domain, namespace.name))
                .collect::<Vec<_>>(),
            "from_trust_domains": rule.from.trust_domains.iter().map(TrustDomain::as_str).collect::<Vec<_>>(),
            "ports": rule.ports,
            "http": rule.http.as_ref().map(http),
        })
    };
    let layer = rules.layers().find(|layer| layer.whose == whose)?;
    Some(json!({
        "mode": match layer.mode { Mode::Enforce => "enforce", Mode::Audit => "audit" },
        "rules": layer.rules.iter().map(rule).collect::<Vec<_>>(),
    }))
}

/// What a request must be; a list that is empty asks for nothing.
fn http(rule: &HttpRule) -> Value {
    let HttpRule { hosts, methods, paths, headers, grpc } = rule;
    let (mut exact, mut prefixes) = (Vec::new(), Vec::new());
    for path in paths {
        match path {
            PathRule::Exact(path) => exact.push(&**path),
            PathRule::Prefix(prefix) if prefix.is_empty() => prefixes.push("/"),
            PathRule::Prefix(prefix) => prefixes.push(&**prefix),
        }
    }
    let grpc = grpc.iter().map(|call| match &call.method {
        Some(method) => format!("{}/{method}", call.service),
        None => call.service.to_string(),
    });
    json!({
        "hosts": hosts,
        "methods": methods.iter().map(Method::as_str).collect::<Vec<_>>(),
        "paths": exact,
        "path_prefixes": prefixes,
        "headers": headers.iter().map(field).collect::<Vec<_>>(),
        "grpc": grpc.collect::<Vec<_>>(),
    })
}

fn field(rule: &FieldRule) -> Value {
    let value = rule.value.as_ref().map(|value| match is_redacted(&rule.name) {
        true => "[redacted]".into(),
        false => String::from_utf8_lossy(value.as_bytes()),
    });
    json!({ "name": rule.name.as_str(), "value": value })
}

#[cfg(test)]
mod tests {
    use ::http::{HeaderName, HeaderValue};

    use super::*;
    use crate::model::authorization::{Callers, GrpcRule};

    #[test]
    fn all_that_a_rule_asks_for_is_shown_but_for_secrets() {
        let field = |name: &'static str, value: Option<&'static str>| FieldRule {
            name: HeaderName::from_static(name),
            value: value.map(HeaderValue::from_static),
        };
        let asked = HttpRule {
            hosts: vec!["orders".into()],
            methods: vec![Method::GET],
            paths: vec![
                PathRule::Exact("/a".into()),
                PathRule::Prefix("".into()),
                PathRule::Prefix("/b".into()),
            ],
            headers: vec![field("x-team", Some("a")), field("x-any", None), field("x-api-key", Some("s3"))],
            grpc: vec![
                GrpcRule { service: "shop.Orders".into(), method: Some("Get".into()) },
                GrpcRule { service: "shop.Carts".into(), method: None },
            ],
        };
        let from = Callers { trust_domains: vec![TrustDomain::parse("a.b").unwrap()], ..Callers::default() };
        let rule = |name: &str, http| Rule { name: name.into(), from: from.clone(), ports: vec![80], http };
        let rules = Authorization::new(Mode::Enforce, vec![rule("some", Some(asked)), rule("all", None)]);
        let shown = |name: &str, http: Value| {
            json!({
                "name": name,
                "from": [],
                "from_namespaces": [],
                "from_trust_domains": ["a.b"],
                "ports": [80],
                "http": http,
            })
        };
        let some = json!({
            "hosts": ["orders"],
            "methods": ["GET"],
            "paths": ["/a"],
            "path_prefixes": ["/", "/b"],
            "headers": [
                { "name": "x-team", "value": "a" },
                { "name": "x-any", "value": null },
                { "name": "x-api-key", "value": "[redacted]" },
            ],
            "grpc": ["shop.Orders/Get", "shop.Carts"],
        });
        let expected =
            json!({ "mode": "enforce", "rules": [shown("some", some), shown("all", Value::Null)] });
        assert_eq!(authorization(&rules, Whose::File), Some(expected));
        assert_eq!(authorization(&rules, Whose::Controller), None);
        let told = Authorization::new(Mode::Audit, Vec::new()).by(Whose::Controller);
        let shown = json!({ "mode": "audit", "rules": [] });
        assert_eq!(authorization(&rules.and(told), Whose::Controller), Some(shown));
    }
}
