//! `clusters[].routes`.

use std::sync::Arc;

use super::*;
use crate::model::{
    ClusterSettings,
    policy::{PathMatch, Route},
};

const CLUSTER: &str = "outbound: [{listen: '127.0.0.1:0'}]\nclusters:\n  - name: c\n    spiffe_ids: [spiffe://demo.outrider/c]\n    \
                       endpoints: [{address: '10.0.0.7:4343'}]\n";

/// The cluster of a file with these further keys.
fn cluster(keys: &str) -> Arc<ClusterSettings> {
    settings(&format!("{TOP}{CLUSTER}    {keys}\n")).clusters.remove(0)
}

#[track_caller]
fn assert_route_faults(route: &str, expected: &[&str]) {
    assert_faults(&format!("{CLUSTER}    routes: [{{{route}}}]\n"), expected);
}

#[test]
fn what_a_route_does_not_say_is_the_clusters() {
    let cluster = cluster(
        "request_timeout: 3s\n    retry: {max_retries: 5, replay_bytes: 1KiB, backoff_base: 1s}\n    routes:\n    \
         - {path: /none, request_timeout: none}\n    - {path: /one, retry: {max_retries: 0}}\n    \
         - {path: /all, request_timeout: 1s, retry: {max_retries: 1, replay_bytes: 2KiB, backoff_base: 2s}}",
    );
    let said: Vec<_> = cluster
        .routes
        .iter()
        .map(|Route { name, policy, .. }| {
            let retry = &policy.retry;
            let seconds = policy.request_timeout.map(|timeout| timeout.as_secs());
            (&**name, seconds, retry.max_retries, retry.replay_bytes, retry.backoff_base.as_secs())
        })
        .collect();
    assert_eq!(
        said,
        [("route-0", None, 5, 1024, 1), ("route-1", Some(3), 0, 1024, 1), ("route-2", Some(1), 1, 2048, 2)]
    );
}

#[test]
fn routes_are_kept_with_the_most_specific_first() {
    let cluster = cluster(
        "routes:\n    - {name: d, methods: [GET]}\n    - {name: c, path_prefix: /}\n    - {name: b, path_prefix: /b/}\n    \
         - {name: a, path: /b/}",
    );
    let names: Vec<&str> = cluster.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["a", "b", "d", "c"]);
    let path = |place: usize| &cluster.routes[place].matches.as_ref().unwrap().path;
    assert_eq!(*path(0), PathMatch::Exact("/b/".into()));
    assert_eq!(*path(1), PathMatch::Prefix("/b".into()));
    assert_eq!(*path(3), PathMatch::Prefix("".into()));
}

#[test]
fn a_prefix_loses_one_slash_at_its_end_and_no_more() {
    let cluster = cluster("routes: [{path_prefix: /a//}, {path_prefix: //}]");
    let path = |place: usize| &cluster.routes[place].matches.as_ref().unwrap().path;
    assert_eq!(*path(0), PathMatch::Prefix("/a/".into()));
    assert_eq!(*path(1), PathMatch::Prefix("/".into()));
}

#[test]
fn a_route_that_cannot_be_meant_is_a_fault() {
    for (route, fault) in [
        ("name: a", "routes[0] (9): matches every request"),
        ("path: /a, path_prefix: /b", "routes[0].path_prefix (9): stands beside path"),
        ("path: a", "routes[0].path (9): \"a\" is not the path of a request"),
        ("path: '/a?b'", "routes[0].path (9): \"/a?b\" is not the path of a request"),
        ("path_prefix: '/a b'", "routes[0].path_prefix (9): \"/a b\" is not the path of a request"),
        ("path: '/a/../b'", "routes[0].path (9): \"/a/../b\" is not how paths are compared"),
        ("path: /%61", "routes[0].path (9): \"/%61\" is not how paths are compared"),
        ("path_prefix: /..", "routes[0].path_prefix (9): is a path that leads above its root"),
        ("grpc: shop.Orders, path: /a", "routes[0].grpc (9): stands beside path, path_prefix or methods"),
        ("grpc: shop.Orders/", "routes[0].grpc (9): \"shop.Orders/\" is not a service of gRPC"),
        ("grpc: /shop.Orders", "is not a service of gRPC, nor a method of one"),
        ("query: [{value: a}]", "routes[0].query[0].name (9): is missing"),
        ("cookies: [{name: 'a b'}]", "routes[0].cookies[0].name (9): \"a b\" is not the name of a cookie"),
        ("cookies: [{name: a}, {name: a}]", "routes[0].cookies[1] (9): stands here twice"),
        ("methods: []", "routes[0].methods (9): has 0 items"),
        ("methods: [get]", "routes[0].methods[0] (9): \"get\" is not a method here"),
        ("methods: [CONNECT]", "\"CONNECT\" is not a method here"),
        ("methods: [GET, GET]", "routes[0].methods[1] (9): stands here twice"),
        ("headers: [{value: a}]", "routes[0].headers[0].name (9): is missing"),
        ("headers: [{name: 'a b'}]", "\"a b\" is not a field that a route can go by"),
        ("headers: [{name: Host}]", "\"Host\" is not a field that a route can go by"),
        ("headers: [{name: X-Outrider-Attempt}]", "is not a field that a route can go by"),
        ("headers: [{name: a, value: \"\\n\"}]", "is not the value of a field"),
        ("path: /a, retry: {budget_percent: 1}", "routes[0].retry.budget_percent (9): is not a route's"),
        ("path: /a, request_timeout: 2d", "routes[0].request_timeout (9): 2d is out of range"),
    ] {
        assert_route_faults(route, &[fault]);
    }
    let many = |count: usize| {
        let routes: Vec<String> = (0..count).map(|index| format!("{{path: /{index}}}")).collect();
        format!("{CLUSTER}    routes: [{}]\n", routes.join(", "))
    };
    assert_faults(&many(256), &[]);
    assert_faults(&many(257), &["routes (9): 257 routes"]);
}

#[test]
fn two_routes_are_two() {
    let two = |first: &str, second: &str| format!("{CLUSTER}    routes: [{{{first}}}, {{{second}}}]\n");
    let faults = ["routes[1] (9): the name \"a\" is that of another route here"];
    assert_faults(&two("name: a, path: /a", "name: a, path: /b"), &faults);
    let faults = ["routes[1] (9): matches what \"route-0\" matches, and would never be used"];
    assert_faults(&two("path_prefix: /a", "path_prefix: /a/"), &faults);
    assert_faults(&two("path_prefix: /a", "path: /a"), &[]);
}
