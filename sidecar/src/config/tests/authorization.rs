//! `authorization`.

use http::Method;

use super::*;
use crate::model::authorization::{Authorization, HttpRule, Mode, PathRule};

const LISTENERS: &str = "inbound: [{listen: '127.0.0.1:0', app: '127.0.0.1:8080'}, \
                         {listen: '127.0.0.1:0', app: '127.0.0.1:5432', protocol: tcp}]\n";
const FROM: &str = "from: [spiffe://demo.outrider/web]";

fn rules(section: &str) -> Authorization {
    let settings = settings(&format!("{TOP}{LISTENERS}authorization: {section}\n"));
    (*settings.authorization.unwrap()).clone()
}

#[track_caller]
fn assert_rule_faults(rule: &str, expected: &[&str]) {
    assert_faults(&format!("{LISTENERS}authorization: {{rules: [{{{rule}}}]}}\n"), expected);
}

#[test]
fn rules_are_read_in_their_one_spelling() {
    let read = rules(&format!(
        "{{mode: audit, rules: [{{name: a, {FROM}, from_namespaces: [shop, demo.outrider/bills], \
         from_trust_domains: [demo.outrider], ports: [8080], hosts: [orders, 'orders:80'], methods: [GET], paths: [/a], \
         path_prefixes: [/b/, /], headers: [{{name: X-Team, value: a}}]}}, {{name: b, {FROM}}}]}}"
    ));
    assert_eq!(read.mode(), Mode::Audit);
    let [first, second] = read.rules() else { panic!("{read:?}") };
    let namespaces: Vec<_> =
        first.from.namespaces.iter().map(|it| (it.trust_domain.as_str(), &*it.name)).collect();
    assert_eq!(namespaces, [("demo.outrider", "shop"), ("demo.outrider", "bills")]);
    let HttpRule { hosts, methods, paths, headers, .. } = first.http.as_ref().unwrap();
    assert_eq!((hosts.len(), &methods[..], headers[0].name.as_str()), (2, &[Method::GET][..], "x-team"));
    let prefix = |path: &str| PathRule::Prefix(path.into());
    assert_eq!(paths[..], [PathRule::Exact("/a".into()), prefix("/b"), prefix("")]);
    assert_eq!((&second.http, second.from.ids.len()), (&None, 1));
    assert_eq!(rules("{}"), rules("{mode: enforce, rules: []}"));
    assert_eq!(settings(&format!("{TOP}{LISTENERS}")).authorization, None);
}

#[test]
fn a_rule_that_cannot_be_meant_is_a_fault() {
    let with_from = |keys: &str| format!("name: a, {FROM}, {keys}");
    for (keys, fault) in [
        ("ports: [http]", "ports[0] (5): \"http\" is not a port"),
        ("ports: [0]", "ports[0] (5): \"0\" is not a port"),
        ("ports: []", "ports (5): has 0 items"),
        ("ports: [9]", "no listener leads to port 9"),
        ("ports: [5432], methods: [GET]", "asks for requests where protocol is tcp"),
        ("hosts: [Orders]", "hosts[0] (5): \"Orders\" is not how hosts are compared"),
        ("hosts: ['*.shop']", "hosts[0] (5): \"*.shop\" is not a host"),
        ("hosts: ['a b']", "\"a b\" is not a host"),
        ("methods: [get]", "\"get\" is not a method here"),
        ("methods: [GET, GET]", "methods[1] (5): stands here twice"),
        ("paths: [a]", "\"a\" is not the path of a request"),
        ("paths: ['/a?b']", "\"/a?b\" is not the path of a request"),
        ("paths: ['/a/../b']", "\"/a/../b\" is not how paths are compared"),
        ("paths: ['/%61']", "\"/%61\" is not how paths are compared"),
        ("paths: ['/a//b']", "\"/a//b\" is not how paths are compared"),
        ("path_prefixes: ['/a;b']", "would never fit: a ; in a path that rules look at is refused"),
        ("path_prefixes: ['/a%2Fb']", "would never fit"),
        ("headers: [{value: a}]", "headers[0].name (5): is missing"),
        ("headers: [{name: Host}]", "\"Host\" is not a field that a rule can go by"),
        ("headers: [{name: x-forwarded-for}]", "is not a field that a rule can go by"),
        ("headers: [{name: x_forwarded_for}]", "\"x_forwarded_for\" is not a field that a rule can go by"),
        ("headers: [{name: content_type}]", "is not a field that a rule can go by"),
        ("headers: [{name: x-outrider-attempt}]", "is not a field that a rule can go by"),
        ("headers: [{name: connection}]", "is not a field that a rule can go by"),
        ("headers: [{name: a, value: \u{e4}}]", "is not a value that a field can be known by"),
        ("headers: [{name: a, value: ' b'}]", "is not a value that a field can be known by"),
        ("grpc: [/shop.Orders/Get]", "\"/shop.Orders/Get\" is not a service of gRPC"),
        ("grpc: [shop.Orders/]", "\"shop.Orders/\" is not a service of gRPC"),
        ("grpc: [a], methods: [POST]", "methods (5): stands beside grpc"),
        ("grpc: [a], paths: [/a]", "paths (5): stands beside grpc"),
        ("grpc: [a], path_prefixes: [/a]", "path_prefixes (5): stands beside grpc"),
        ("from_namespaces: [Shop]", "\"Shop\" is not a namespace"),
        ("from_namespaces: [a/b/c]", "\"a/b/c\" is not a namespace"),
        ("from_namespaces: [other/shop]", "other is a trust domain whose roots are not known here"),
        ("from_trust_domains: [other]", "other is a trust domain whose roots are not known here"),
        ("from_trust_domains: [Other]", "\"Other\" is not a trust domain"),
        ("zz: 1", "rules[0].zz (5): no such key"),
    ] {
        assert_rule_faults(&with_from(keys), &[fault]);
    }
}

#[test]
fn a_rule_has_a_name_and_callers() {
    assert_rule_faults("name: a", &["rules[0] (5): does not say who may call"]);
    assert_rule_faults(FROM, &["rules[0].name (5): is missing"]);
    assert_rule_faults(&format!("name: denied, {FROM}"), &["is the name of a verdict"]);
    assert_rule_faults("name: a, from: []", &["from (5): has 0 items"]);
    assert_rule_faults("name: a, from: [web]", &["\"web\" is not a workload's SPIFFE ID"]);
    assert_rule_faults("name: a, from: [spiffe://demo.outrider]", &["it has no path"]);
    assert_rule_faults(
        "name: a, from: [spiffe://other/web]",
        &["other is a trust domain whose roots are not known here"],
    );
    let two = format!("{LISTENERS}authorization: {{rules: [{{name: a, {FROM}}}, {{name: a, {FROM}}}]}}\n");
    assert_faults(&two, &["rules[1] (5): the name \"a\" is that of another rule"]);
    assert_faults(&format!("{LISTENERS}authorization: {{mode: off}}\n"), &["\"off\" is not known here"]);
    let many = |count: usize| {
        let rules: Vec<String> = (0..count).map(|index| format!("{{name: r{index}, {FROM}}}")).collect();
        format!("{LISTENERS}authorization: {{rules: [{}]}}\n", rules.join(", "))
    };
    assert_faults(&many(500), &[]);
    assert_faults(&many(501), &["rules (5): 501 rules"]);
}

#[test]
fn rules_that_no_call_is_compared_with_are_faults() {
    let nowhere = "authorization (5): nothing comes in here that rules could be about";
    assert_faults("outbound: [{listen: '127.0.0.1:0'}]\nauthorization: {rules: []}\n", &[nowhere]);
    let rule = format!("authorization: {{rules: [{{name: a, {FROM}, ports: [22, 80, 4391]}}]}}\n");
    let left_alone = "intercept: {inbound: {except_ports: [22]}}";
    let own = "authorization.rules[0].ports[2] (5): port 4391 is that of our own listener at admin.listen";
    assert_faults(
        &format!("{left_alone}\n{rule}"),
        &[
            "authorization.rules[0].ports[0] (5): port 22 is left alone by intercept.inbound.except_ports[0]",
            own,
        ],
    );
    // By this listener, calls to the port are.
    let listener = "inbound: [{listen: '127.0.0.1:0', app: '127.0.0.1:22'}]";
    assert_faults(&format!("{rule}{left_alone}\n{listener}\n"), &[&own.replace("(5)", "(4)")]);
}
