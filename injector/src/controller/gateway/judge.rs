//! What a sidecar would say of a rule: its own validator is asked, so that nothing is told that it would refuse.

use std::path::Path;

use outrider::config::{Error, parse};
use serde_json::{Map, Value as Json, json};

/// The cluster that stands for all.
const ANY: &str = "any";

/// What is wrong with an entry of `routes[].rules[].clusters[]` that has no `name` yet; `None`: nothing.
#[must_use]
pub fn fault_of_cluster(words: &Map<String, Json>) -> Option<String> {
    let mut cluster = words.clone();
    cluster.insert("name".to_owned(), json!(ANY));
    fault(&Map::from_iter([("clusters".to_owned(), json!([cluster]))]))
}

/// What is wrong with an entry of `routes[].rules[]` that may have no `clusters` yet; `None`: nothing.
#[must_use]
pub fn fault(words: &Map<String, Json>) -> Option<String> {
    let mut rule = words.clone();
    if !rule.contains_key("redirect") {
        rule.entry("clusters").or_insert_with(|| json!([{"name": ANY}]));
    }
    let file = json!({
        "service": "x", "trust_domain": "x", "identity": {"ca": {"address": "127.0.0.1:1"}},
        "outbound": [{"listen": "127.0.0.1:0"}],
        "clusters": [{"name": ANY, "tls": "none", "endpoints": [{"address": "192.0.2.1:1"}]}],
        "routes": [{"name": "x", "services": [ANY], "rules": [rule]}],
    });
    match parse(&file.to_string(), Path::new("")) {
        Ok(_) => None,
        Err(Error::Faults(faults)) => {
            let fault = faults.first()?;
            let place = fault.path.strip_prefix("routes[0].rules[0]").unwrap_or(&fault.path);
            Some(format!("{}: {} ({})", place.trim_start_matches('.'), fault.problem, fault.remedy))
        }
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(rule: Json) -> Map<String, Json> {
        let Json::Object(words) = rule else { panic!("an object") };
        words
    }

    #[test]
    fn a_sound_rule_has_no_fault_and_an_odd_one_is_told_with_its_place() {
        assert_eq!(fault(&words(json!({"name": "a", "matches": [{"path_prefix": "/a"}]}))), None);
        assert_eq!(fault(&words(json!({"redirect": {"host": "shop.example"}}))), None);
        let told =
            fault(&words(json!({"request_headers": {"set": [{"name": "host", "value": "x"}]}}))).unwrap();
        assert!(told.starts_with("request_headers.set[0].name: ") && told.contains("host"), "{told}");
    }
}
