//! Policies as the controller takes them.

use outrider::config::faults_of_service;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{
    book::Book,
    read::{Age, authorization, traffic},
    status::{self, Reason},
};
use crate::controller::model::objects::{Name, ObjectKey};

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(namespace, name)
}

fn age(created: i64) -> Age {
    Age { created, generation: 1 }
}

fn for_service(name: &str, settings: &Json) -> Json {
    let mut spec = json!({ "targetRefs": [{"group": "", "kind": "Service", "name": name}] });
    for (key, value) in settings.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

fn why(spec: &Json) -> String {
    traffic(age(0), spec).settings.unwrap_err()
}

fn set(book: &mut Book, namespace: &str, name: &str, created: i64, spec: &Json) {
    book.set_traffic(&key(namespace, name), Some(traffic(age(created), spec)));
}

fn allow(book: &mut Book, namespace: &str, name: &str, created: i64, spec: &Json) {
    book.set_authorization(&key(namespace, name), Some(authorization(age(created), name, spec)));
}

fn labels(all: &[(&str, &str)]) -> Vec<(Name, Name)> {
    all.iter().map(|(key, value)| (Name::from(*key), Name::from(*value))).collect()
}

fn rule_names(section: &Json) -> Vec<&str> {
    section["rules"].as_array().unwrap().iter().map(|rule| rule["name"].as_str().unwrap()).collect()
}

#[test]
fn a_traffic_policy_that_a_sidecar_would_refuse_is_told_why() {
    for (settings, place) in [
        (json!({"request_timeout": "5"}), "spec.request_timeout: \"5\" is not a duration"),
        (json!({"retry": {"max_retries": 99}}), "spec.retry.max_retries: 99 is out of range; keep to 0..=10"),
        (json!({"retry": {"max_retrys": 1}}), "spec.retry.max_retrys: "),
        (json!({"balance": "maglev"}), "spec.affinity: is missing"),
        (json!({"spiffe_ids": ["spiffe://a/b"]}), "spec.spiffe_ids: is not known here; keys: balance, "),
        (json!({"name": "x"}), "spec.name: is not known here"),
        (json!({"balance": null}), "spec.balance: "),
        (json!({}), "spec: says nothing"),
    ] {
        let told = why(&for_service("orders", &settings));
        assert!(told.starts_with(place), "{told}");
    }
    for (targets, told) in [
        (json!(null), "spec.targetRefs: is missing"),
        (json!([]), "spec.targetRefs: is missing"),
        (json!([{"kind": "Pod", "name": "a"}]), "spec.targetRefs[0]: is no Service"),
        (
            json!([{"kind": "Service", "name": "a", "namespace": "other"}]),
            "spec.targetRefs[0]: is no Service",
        ),
        (
            json!([{"kind": "Service", "name": "a"}, {"kind": "Service", "name": "a"}]),
            "spec.targetRefs[1]: stands",
        ),
    ] {
        let told_us = why(&json!({"targetRefs": targets, "max_requests": 1}));
        assert!(told_us.starts_with(told), "{told_us}");
    }
    assert!(why(&json!([])).starts_with("spec.targetRefs"));
}

#[test]
fn what_is_taken_fits_every_service_however_it_is_reached() {
    let dns = json!({"name": "mail.example.", "port": 25});
    let services = [
        json!({"tls": "mesh", "authorities": ["orders.shop:80"], "addresses": ["10.96.0.1:80"], "protocol": "http"}),
        json!({"tls": "mesh", "authorities": [], "protocol": "tcp"}),
        json!({"tls": "none", "authorities": ["orders.shop:80"], "protocol": "http", "plain_protocol": "http2"}),
        json!({"tls": "none", "authorities": ["mail.shop:25"], "protocol": "detect", "dns": dns}),
    ];
    for said in [
        json!({"balance": "maglev", "affinity": {"by": "spiffe_id", "max_load_percent": 125}, "slow_start": "10s"}),
        json!({"health_check": {"protocol": "grpc", "service": "a.B"}, "panic_percent": 0, "zones": "ignore"}),
        json!({"health_check": {"path": "/ready", "host": "a:1"}, "retry": {"hedge": "p95", "statuses": [429, "5xx"]}}),
        json!({"health_check": {"protocol": "tcp"}, "outlier_detection": {"slow_factor": "1.5", "failure_percent": "none"}}),
        json!({"rate_limits": [{"requests": 1, "burst": 5}], "max_connection_age": "none", "queue_timeout": "0s"}),
    ] {
        let taken = traffic(age(0), &for_service("orders", &said)).settings.unwrap();
        for service in &services {
            let mut cluster = service.clone();
            cluster["name"] = json!("orders");
            cluster.as_object_mut().unwrap().extend(taken.clone());
            assert_eq!(faults_of_service("orders", &cluster.to_string()), Vec::new(), "{cluster}");
        }
    }
}

#[test]
fn the_oldest_that_can_be_used_holds_for_a_service() {
    let mut book = Book::default();
    let caps =
        |book: &Book| book.settings_of(&key("shop", "orders")).map(|found| found["max_requests"].clone());
    set(&mut book, "shop", "b", 20, &for_service("orders", &json!({"max_requests": 2})));
    set(&mut book, "shop", "a", 20, &for_service("orders", &json!({"max_requests": 1})));
    assert_eq!(caps(&book), Some(json!(1)), "of two of one second, by name");
    set(&mut book, "shop", "c", 10, &for_service("orders", &json!({"max_requests": 3})));
    assert_eq!(caps(&book), Some(json!(3)));
    let reasons = |book: &Book, name: &str| {
        let told = book.verdicts_of_traffic(&key("shop", name), |service| &*service.name == "orders");
        told.into_iter().map(|(_, verdict)| verdict.reason).collect::<Vec<_>>()
    };
    assert_eq!([reasons(&book, "c"), reasons(&book, "a")], [[Reason::Accepted], [Reason::Conflicted]]);
    set(&mut book, "shop", "c", 10, &for_service("orders", &json!({"max_requests": 0})));
    assert_eq!(caps(&book), Some(json!(1)), "what cannot be used stands in nobody's way");
    assert_eq!(reasons(&book, "c"), [Reason::Invalid]);
    set(&mut book, "shop", "d", 1, &for_service("nobody", &json!({"max_requests": 4})));
    assert_eq!(reasons(&book, "d"), [Reason::TargetNotFound]);
    for name in ["a", "b", "c", "d"] {
        let touched = book.set_traffic(&key("shop", name), None);
        assert_eq!(touched.len(), 1, "{name}");
    }
    assert_eq!(caps(&book), None);
}

#[test]
fn authorization_policies_add_up_and_denying_wins() {
    let mut book = Book::default();
    let rule = |name: &str| json!({"name": name, "from_namespaces": ["web"]});
    let told =
        |book: &Book, app: &str| book.authorization_of(&"shop".into(), &labels(&[("app", app), ("v", "1")]));
    assert_eq!(told(&book, "orders"), None);
    allow(&mut book, "shop", "all", 2, &json!({"mode": "audit", "rules": [rule("a")]}));
    let orders = json!({"matchLabels": {"app": "orders", "v": "1"}});
    allow(
        &mut book,
        "shop",
        "orders",
        1,
        &json!({"selector": orders, "mode": "audit", "rules": [rule("a"), rule("b")]}),
    );
    let both = told(&book, "orders").unwrap();
    assert_eq!(
        (both["mode"].as_str(), rule_names(&both)),
        (Some("audit"), vec!["orders/a", "orders/b", "all/a"])
    );
    assert_eq!(rule_names(&told(&book, "billing").unwrap()), ["all/a"]);
    allow(&mut book, "shop", "closed", 3, &json!({}));
    let three = told(&book, "orders").unwrap();
    assert_eq!((three["mode"].as_str(), rule_names(&three).len()), (Some("enforce"), 3));
}

#[test]
fn an_authorization_policy_that_cannot_be_used_selects_and_allows_nobody() {
    for (spec, place) in [
        (json!({"rules": [{"name": "a"}]}), "spec.rules[0]: does not say who may call"),
        (
            json!({"rules": [{"name": "a", "from": ["x"]}]}),
            "spec.rules[0].from[0]: \"x\" is not a workload's",
        ),
        (json!({"rules": [{"name": "a", "from_namespaces": ["b"], "path": ["/a"]}]}), "spec.rules[0].path: "),
        (json!({"rules": {}}), "spec.rules: is no list"),
        (json!({"deny": []}), "spec.deny: is not known here"),
        (json!({"mode": "off"}), "spec.mode: "),
        (json!({"selector": {"matchExpressions": []}, "rules": []}), "spec.selector: is not understood"),
        (json!({"selector": {"matchLabels": {"a": 1}}}), "spec.selector: is not understood"),
        (json!(null), "spec: is no object"),
    ] {
        let mut book = Book::default();
        allow(&mut book, "shop", "p", 1, &spec);
        let section = book.authorization_of(&"shop".into(), &labels(&[("app", "orders")])).unwrap();
        assert_eq!(section, json!({"mode": "enforce", "rules": []}), "{spec}");
        let verdict = book.verdict_of_authorization(&key("shop", "p")).unwrap();
        assert_eq!(verdict.reason, Reason::Invalid);
        assert!(verdict.message.starts_with(place), "{}", verdict.message);
    }
}

#[test]
fn what_a_namespace_says_is_bounded_and_the_oldest_come_first() {
    let mut book = Book::default();
    let rules = |count: usize| -> Vec<Json> {
        (0..count).map(|index| json!({"name": format!("r{index}"), "from_namespaces": ["web"]})).collect()
    };
    for index in 0..9 {
        allow(&mut book, "shop", &format!("p{index}"), 10 - index, &json!({"rules": rules(60)}));
    }
    let told = book.authorization_of(&"shop".into(), &[]).unwrap();
    assert_eq!(told["rules"].as_array().unwrap().len(), 480);
    let reason = |name: &str| book.verdict_of_authorization(&key("shop", name)).unwrap().reason;
    assert_eq!((reason("p8"), reason("p0")), (Reason::Accepted, Reason::Invalid));
    assert!(told.to_string().len() < 64 * 1024);
}

#[test]
fn a_status_keeps_what_others_say_and_the_time_since_when_it_is_so() {
    let mut book = Book::default();
    set(&mut book, "shop", "p", 1, &for_service("orders", &json!({"max_requests": 1})));
    let verdicts = book.verdicts_of_traffic(&key("shop", "p"), |_| true);
    let other =
        json!({"ancestorRef": {"name": "orders"}, "controllerName": "example.com/c", "conditions": []});
    let first = status::of_traffic(&verdicts, &json!({"ancestors": [other]}), "2026-01-01T00:00:00Z");
    assert_eq!(first["ancestors"][0], other);
    let ours = &first["ancestors"][1];
    assert_eq!(ours["controllerName"], "outrider.io/controller");
    assert_eq!(ours["ancestorRef"]["namespace"], "shop");
    let again = status::of_traffic(&verdicts, &first, "2026-02-02T00:00:00Z");
    assert_eq!(again, first, "nothing has changed");
    let gone = book.verdicts_of_traffic(&key("shop", "p"), |_| false);
    let changed = status::of_traffic(&gone, &again, "2026-02-02T00:00:00Z");
    let condition = &changed["ancestors"][1]["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("TargetNotFound")));
    assert_eq!(condition["lastTransitionTime"], "2026-02-02T00:00:00Z");
}

/// A policy somebody makes: a namespace, a name, an age, and what it is about.
fn policies() -> impl Strategy<Value = Vec<(bool, u8, i64, u8, u32)>> {
    proptest::collection::vec((any::<bool>(), 0..4_u8, 0..3_i64, 0..3_u8, 0..5_u32), 0..12)
}

/// Both kinds in one book, in that order; who is `true` is of the namespace `a`.
fn written(policies: &[(bool, u8, i64, u8, u32)]) -> Book {
    let mut book = Book::default();
    for (is_a, name, created, target, number) in policies {
        let (namespace, name) = (if *is_a { "a" } else { "b" }, format!("p{name}"));
        // 0 is out of range: some cannot be used.
        set(
            &mut book,
            namespace,
            &name,
            *created,
            &for_service(&format!("s{target}"), &json!({"max_requests": number})),
        );
        let rule = json!({"name": format!("r{number}"), "from_namespaces": [format!("n{number}")]});
        let spec = json!({"selector": {"matchLabels": {"app": format!("s{target}")}}, "rules": [rule]});
        allow(&mut book, namespace, &name, *created, &spec);
    }
    book
}

/// All that holds in a namespace.
fn holds(book: &Book, namespace: &str) -> Vec<String> {
    let of = |target: u8| {
        let service = format!("s{target}");
        let rules = book.authorization_of(&namespace.into(), &labels(&[("app", &service)]));
        format!("{:?} {rules:?}", book.settings_of(&key(namespace, &service)))
    };
    (0..3).map(of).collect()
}

proptest! {
    #[test]
    fn a_policy_acts_in_its_own_namespace_alone(policies in policies()) {
        let both = written(&policies);
        for (namespace, is_a) in [("a", true), ("b", false)] {
            let own: Vec<_> = policies.iter().filter(|policy| policy.0 == is_a).copied().collect();
            prop_assert_eq!(holds(&both, namespace), holds(&written(&own), namespace));
        }
    }

    #[test]
    fn the_order_in_which_policies_come_changes_nothing(policies in policies()) {
        // Of two with one name the last is meant.
        let mut once: Vec<(bool, u8, i64, u8, u32)> = Vec::new();
        for policy in policies.iter().rev() {
            if !once.iter().any(|known| (known.0, known.1) == (policy.0, policy.1)) {
                once.push(*policy);
            }
        }
        let back: Vec<_> = once.iter().rev().copied().collect();
        for namespace in ["a", "b"] {
            prop_assert_eq!(holds(&written(&once), namespace), holds(&written(&back), namespace));
            prop_assert_eq!(holds(&written(&once), namespace), holds(&written(&policies), namespace));
        }
    }
}
