//! `routes`.

use super::*;
use crate::{
    model::{ClusterSettings, policy::PathMatch, route_table::Sticky},
    route::table,
};

const CLUSTERS: &str = "outbound: [{listen: '127.0.0.1:0'}]\nclusters:\n\
    - {name: a, spiffe_ids: [spiffe://demo.outrider/a], endpoints: [{address: '10.0.0.7:1'}], request_timeout: 3s, \
    routes: [{path: /own}]}\n\
    - {name: b, spiffe_ids: [spiffe://demo.outrider/b], endpoints: [{address: '10.0.0.8:1'}]}\n";

/// The settings of a file with these routes.
fn routed(routes: &str) -> Settings {
    settings(&format!("{TOP}{CLUSTERS}routes: {routes}\n"))
}

#[track_caller]
fn assert_route_faults(routes: &str, expected: &[&str]) {
    assert_faults(&format!("{CLUSTERS}routes: {routes}\n"), expected);
}

/// A rule to `a` with these further keys, in a route `r` of the service `a`.
#[track_caller]
fn assert_rule_faults(keys: &str, expected: &[&str]) {
    assert_route_faults(&format!("[{{name: r, services: [a], rules: [{{{keys}}}]}}]"), expected);
}

fn cluster<'a>(settings: &'a Settings, name: &str) -> &'a ClusterSettings {
    settings.clusters.iter().find(|cluster| cluster.name.as_str() == name).unwrap()
}

#[test]
fn a_rule_is_a_route_of_each_of_its_clusters_with_what_it_says_over_theirs() {
    let settings = routed(
        "[{name: r, hosts: [shop], rules: [{name: canary, clusters: [{name: b, weight: 3}, {name: a, weight: 0}], \
         sticky: {cookie: user}, retry: {max_retries: 7}}, {clusters: [{name: a}], matches: [{path: /x}], \
         request_timeout: none}]}]",
    );
    let named = |name: &str| {
        let routes = cluster(&settings, name).routes.iter();
        routes
            .map(|route| {
                let policy = &route.policy;
                let is_own = route.matches.is_some();
                (
                    &*route.name,
                    is_own,
                    policy.retry.max_retries,
                    policy.request_timeout.map(|it| it.as_secs()),
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        named("a"),
        [("route-0", true, 2, Some(3)), ("r/canary", false, 7, Some(3)), ("r/1", false, 2, None)]
    );
    assert_eq!(named("b"), [("r/canary", false, 7, None)]);
    let rules = &settings.routes.routes[0].rules;
    assert_eq!((rules[0].places.as_slice(), rules[1].places.as_slice()), (&[0, 1][..], &[2][..]));
    assert_eq!(rules[0].sticky, Some(Sticky::Cookie("user".into())));
    let weights: Vec<u32> = rules[0].clusters.list().iter().map(|cluster| cluster.weight).collect();
    assert_eq!(weights, [3, 0]);
    let list = table::of_host(&settings.routes, "SHOP.:80").unwrap();
    let paths: Vec<&PathMatch> = list.iter().map(|candidate| &candidate.matches.path).collect();
    assert_eq!(paths, [&PathMatch::Exact("/x".into()), &PathMatch::Any]);
}

#[test]
fn a_clusters_own_changes_come_after_the_rules_and_are_nobody_elses() {
    let settings = routed(
        "[{name: r, hosts: [shop], rules: [{request_headers: {set: [{name: x-stage, value: all}], remove: [x-a]}, \
         clusters: [{name: a, request_headers: {set: [{name: x-stage, value: canary}]}, \
         response_headers: {remove: [server]}}, {name: b}]}]}]",
    );
    let edits = |name| cluster(&settings, name).routes.last().unwrap().policy.edits.clone().unwrap();
    let (a, b) = (edits("a"), edits("b"));
    assert_eq!((a.request.set[0].1.as_bytes(), a.request.set.len()), (&b"canary"[..], 1));
    assert_eq!((a.request.remove.len(), a.response.remove.len()), (1, 1));
    assert_eq!((b.request.set[0].1.as_bytes(), b.response.remove.len()), (&b"all"[..], 0));
}

#[test]
fn copies_have_the_rules_changes_and_time_and_are_sent_once() {
    let settings = routed(
        "[{name: r, hosts: [shop], rules: [{request_headers: {set: [{name: x-rule, value: '1'}]}, request_timeout: 2m, \
         response_headers: {remove: [server]}, mirror: [{cluster: b, percent: 33.3333}, {cluster: a}], \
         clusters: [{name: a, request_headers: {set: [{name: x-stage, value: canary}]}}]}, \
         {matches: [{path: /x}], clusters: [{name: a}], mirror: [{cluster: b}]}]}]",
    );
    let policy = |index: usize| std::sync::Arc::clone(&cluster(&settings, "a").routes[index].policy);
    let mirrors = policy(1).mirrors.clone().unwrap();
    let told: Vec<_> = mirrors.iter().map(|mirror| (mirror.cluster.as_str(), mirror.of_million)).collect();
    assert_eq!(told, [("b", 333_333), ("a", 1_000_000)]);
    let copies = &mirrors[0].policy;
    let edits = copies.edits.as_deref().unwrap();
    assert_eq!((edits.request.set.len(), edits.request.set[0].0.as_str()), (1, "x-rule"));
    assert_eq!((edits.response.remove.len(), copies.request_timeout), (0, Some(Duration::from_secs(30))));
    assert_eq!((copies.retry.clone(), copies.mirrors.is_none()), (RetryPolicy::NONE, true));
    let of_second = policy(2).mirrors.clone().unwrap();
    // What the rule does not say is its cluster's.
    assert_eq!(of_second[0].policy.request_timeout, Some(Duration::from_secs(3)));
    assert!(policy(0).mirrors.is_none() && cluster(&settings, "b").routes.is_empty());
}

#[test]
fn a_host_has_the_rules_of_all_routes_that_name_it_in_the_files_order() {
    let settings = routed(
        "[{name: one, hosts: [shop, '*.shop'], rules: [{name: x, matches: [{path_prefix: /a}], clusters: [{name: a}]}]}, \
         {name: two, hosts: [shop], services: [b], rules: [{name: y, clusters: [{name: b}], \
         matches: [{path_prefix: /a}, {path_prefix: /a/b}]}]}]",
    );
    let names = |list: &crate::model::route_table::RuleList| {
        list.iter().map(|candidate| candidate.rule.name.to_string()).collect::<Vec<_>>()
    };
    let of_host = |host| table::of_host(&settings.routes, host).map(names).unwrap_or_default();
    assert_eq!(of_host("shop"), ["two/y", "one/x", "two/y"]);
    assert_eq!(of_host("eu.shop:81"), ["one/x"]);
    let b = &cluster(&settings, "b").name;
    assert_eq!(table::of_service(&settings.routes, b).map(names).unwrap(), ["two/y", "two/y"]);
    assert!(table::of_service(&settings.routes, &cluster(&settings, "a").name).is_none());
}

#[test]
fn what_cannot_be_meant_is_a_fault() {
    for (keys, fault) in [
        ("name: c", "rules[0].clusters (8): is missing"),
        ("clusters: []", "rules[0].clusters (8): has 0 items"),
        ("clusters: [{weight: 1}]", "rules[0].clusters[0].name (8): is missing"),
        ("clusters: [{name: a, weight: 0}]", "rules[0].clusters (8): every weight is 0"),
        ("clusters: [{name: a}, {name: a}]", "rules[0].clusters[1] (8): stands here twice"),
        ("clusters: [{name: a, weight: 1000001}]", "clusters[0].weight (8): 1000001 is out of range"),
        ("clusters: [{name: aa}]", "rules[0].clusters[0].name (8): there is no cluster \"aa\""),
        (
            "clusters: [{name: b}, {name: a, request_headers: {remove: [host]}}]",
            "rules[0].clusters[1].request_headers.remove[0] (8): \"host\" is not a field",
        ),
        ("clusters: [{name: a}], mirror: []", "rules[0].mirror (8): has 0 items"),
        ("clusters: [{name: a}], mirror: [{cluster: c}]", "mirror[0].cluster (8): there is no cluster \"c\""),
        ("clusters: [{name: a}], mirror: [{percent: 5}]", "rules[0].mirror[0].cluster (8): is missing"),
        (
            "clusters: [{name: a}], mirror: [{cluster: b, percent: 100.5}]",
            "percent (8): 100.5 is out of range",
        ),
        ("clusters: [{name: a}], mirror: [{cluster: b, percent: all}]", "\"all\" is not a percentage"),
        ("redirect: {host: b}, mirror: [{cluster: b}]", "rules[0].mirror (8): has no meaning"),
        ("clusters: [{name: a}], matches: []", "rules[0].matches (8): has 0 items"),
        ("clusters: [{name: a}], matches: [{}]", "rules[0].matches[0] (8): matches every request"),
        ("clusters: [{name: a}], matches: [{path: b}]", "matches[0].path (8): \"b\" is not the path"),
        ("clusters: [{name: a}], matches: [{path: /b}, {path: /b}]", "matches[1] (8): stands here twice"),
        ("clusters: [{name: a}], name: x/y", "rules[0].name (8): \"x/y\" has a /"),
        ("clusters: [{name: a}], sticky: {}", "rules[0].sticky (8): names nothing"),
        ("clusters: [{name: a}], sticky: {header: a, cookie: b}", "sticky.cookie (8): stands beside header"),
        ("clusters: [{name: a}], sticky: {cookie: 'a=b'}", "\"a=b\" is not the name of a cookie"),
        ("clusters: [{name: a}], sticky: {header: host}", "\"host\" is not a field that a route can go by"),
        ("clusters: [{name: a}, {name: b}], request_timeout: 2d", "request_timeout (8): 2d is out of range"),
        ("clusters: [{name: a}], retry: {max_active: 1}", "retry.max_active (8): is not a route's"),
        ("clusters: [{name: a}], backends: 1", "rules[0].backends (8): no such key"),
    ] {
        assert_rule_faults(keys, &[fault]);
    }
    let rule = "rules: [{clusters: [{name: a}]}]";
    for (route, fault) in [
        (format!("{{hosts: [a], {rule}}}"), "routes[0].name (8): is missing"),
        (format!("{{name: a/b, hosts: [a], {rule}}}"), "routes[0].name (8): \"a/b\" has a /"),
        (format!("{{name: r, {rule}}}"), "routes[0] (8): is nobody's"),
        (format!("{{name: r, hosts: [], {rule}}}"), "routes[0].hosts (8): has 0 items"),
        (format!("{{name: r, hosts: [a, a], {rule}}}"), "routes[0].hosts[1] (8): stands here twice"),
        (format!("{{name: r, services: [c], {rule}}}"), "services[0] (8): there is no cluster \"c\""),
        ("{name: r, hosts: [a]}".to_owned(), "routes[0].rules (8): has 0 items"),
        ("{name: r, hosts: [a], rules: []}".to_owned(), "routes[0].rules (8): has 0 items"),
    ] {
        assert_route_faults(&format!("[{route}]"), &[fault]);
    }
    let two = format!("{{name: r, hosts: [a], {rule}}}");
    assert_route_faults(&format!("[{two}, {two}]"), &["routes[1] (8): the name \"r\" is that of another"]);
    let rule = |keys: &str| format!("{{clusters: [{{name: a}}], {keys}}}");
    let two = |first: &str, second: &str| {
        format!("[{{name: r, hosts: [a], rules: [{}, {}]}}]", rule(first), rule(second))
    };
    assert_route_faults(&two("name: x", "name: x, matches: [{path: /a}]"), &["the name \"r/x\" is that of"]);
    assert_route_faults(
        &two("matches: [{path: /a}]", "matches: [{path: /b}, {path: /a}]"),
        &["rules[1] (8): what its match 1 matches, a rule above it matches already"],
    );
}

#[test]
fn hosts_are_written_as_they_are_compared() {
    let fault = |host: &str, expected: &[&str]| {
        let route = format!("[{{name: r, hosts: ['{host}'], rules: [{{clusters: [{{name: a}}]}}]}}]");
        assert_route_faults(&route, expected);
    };
    for host in ["shop", "shop.example:8080", "*.shop.example", "*.shop:81", "[2001:db8::1]", "10.0.0.1:80"] {
        fault(host, &[]);
    }
    for host in ["Shop", "shop.", "*.SHOP", "shop:", "[2001:DB8::1]"] {
        fault(host, &["is not how hosts are compared"]);
    }
    for host in ["*", "*.", "a.*.b", "*shop", "*.*.shop", "a b", "u@a", "", "*.[::1]", "a:0x"] {
        fault(host, &["is not a host, or host:port"]);
    }
}

#[test]
fn the_own_app_has_routes_too() {
    let inbound = |keys: &str| {
        format!("inbound: [{{listen: '0.0.0.0:4343', app: '127.0.0.1:8080', request_timeout: 1s, {keys}}}]\n")
    };
    assert_faults(&inbound(""), &["inbound[0].request_timeout (4): no such key"]);
    let inbound =
        |keys: &str| format!("inbound: [{{listen: '0.0.0.0:4343', app: '127.0.0.1:8080', {keys}}}]\n");
    let routes = "rate_limits: [{requests: 5}], routes: [{grpc: shop.Orders/Get, request_timeout: 2s, \
                  rate_limits: [{requests: 1, by: caller}], fault: {abort: 503}}, {path_prefix: /slow}]";
    let settings = settings(&format!("{TOP}{}", inbound(routes)));
    let routes = &settings.clusters[0].routes;
    assert_eq!(routes[0].policy.request_timeout, Some(Duration::from_secs(2)));
    assert_eq!((&*routes[0].policy.rate_limits[0].name, routes[0].policy.fault.is_some()), ("caller", true));
    assert_eq!(routes[0].policy.retry, RetryPolicy::OWN_APP);
    let matches = routes[0].matches.as_ref().unwrap();
    assert_eq!((&matches.path, matches.is_grpc), (&PathMatch::Exact("/shop.Orders/Get".into()), true));
    assert!(std::sync::Arc::ptr_eq(&routes[1].policy.rate_limits, &settings.clusters[0].policy.rate_limits));
    assert_faults(
        &inbound("routes: [{path: /a, retry: {max_retries: 1}}]"),
        &["routes[0].retry (4): no such key"],
    );
    assert_faults(
        &inbound("protocol: tcp, routes: [{path: /a}]"),
        &["inbound[0].routes (4): is for HTTP only"],
    );
}
