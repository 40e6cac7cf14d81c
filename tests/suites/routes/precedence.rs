//! Which rule: the most specific one, by the Gateway API's order; and which rules, by host and service.

use http::{Method, StatusCode, Version};
use outrider::model::flag::ResponseFlag;
use std::sync::atomic::Ordering;

use super::{Shop, ask, get, get_at, of_orders};
use crate::harness::{TestMesh, client::exchange, eventually};

/// A rule for each of these matches, which sends its requests to `v1` with a path that says which rule it was.
fn rules(matches: &[(&str, &str)]) -> String {
    let rule = |(name, matches): &(&str, &str)| {
        format!("{{name: {name}, matches: [{matches}], clusters: [{{name: v1}}], fault: {{abort: 4{name}}}}}")
    };
    matches.iter().map(rule).collect::<Vec<_>>().join(", ")
}

/// Rules are told apart by the statuses of faults: what comes back is that of the rule.
#[tokio::test]
async fn the_most_specific_rule_of_a_service_is_taken() {
    let shop = Shop::new(&of_orders(&rules(&[
        ("10", "{path_prefix: /}"),
        ("11", "{path_prefix: /a}"),
        ("12", "{path_prefix: /a, methods: [PUT]}"),
        ("13", "{path_prefix: /a, headers: [{name: x-team, value: red}]}"),
        ("14", "{path_prefix: /a, headers: [{name: x-team, value: red}], query: [{name: v, value: '2 3'}]}"),
        ("15", "{path_prefix: /a, query: [{name: v, value: '2 3'}]}"),
        ("16", "{path: /a/b}"),
        ("17", "{path_prefix: /a/b/c}"),
        ("18", "{cookies: [{name: user, value: anna}], path_prefix: /c}, {path: /d, methods: [GET, PUT]}"),
        ("19", "{path_prefix: /a, cookies: [{name: user}], headers: [{name: x-team}]}"),
    ])))
    .await;
    let (get, put, red) = (Method::GET, Method::PUT, ("x-team", "red"));
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = shop.client(version).await;
        for (method, path, fields, rule) in [
            (&get, "/", &[][..], 410),
            (&get, "/ab", &[red], 410),
            (&get, "/a", &[], 411),
            (&get, "/a/", &[], 411),
            (&get, "/x/../%61", &[], 411),
            (&put, "/a/x", &[red], 412),
            (&get, "/a/x?v=1", &[red], 413),
            (&get, "/a/x?w&v=2+3&v=4", &[red], 414),
            (&get, "/a/x?v=2%203", &[("x-team", "blue")], 415),
            (&get, "/a/x?v=4&v=2+3", &[], 411),
            (&put, "/a/b?v=2+3", &[red], 416),
            (&get, "/a/b/", &[], 411),
            (&get, "/a/b/c/d", &[red], 417),
            (&get, "/c/d", &[("cookie", "x=1; user=anna")], 418),
            (&get, "/c/d", &[("cookie", "user=ben; user=anna")], 410),
            (&put, "/d", &[], 418),
            (&get, "/a/x", &[red, ("cookie", "user=anyone")], 419),
        ] {
            let (status, ..) = ask(&mut client, method.clone(), path, fields).await;
            assert_eq!(status.as_u16(), rule, "{version:?} {method} {path} {fields:?}");
        }
    }
}

#[tokio::test]
async fn among_equals_the_first_in_the_file_wins_over_all_routes() {
    let to = |name: &str, cluster: &str| {
        format!(
            "{{name: {name}, services: [orders], rules: [{{matches: [{{path_prefix: /a}}], clusters: [{{name: {cluster}}}]}}]}}"
        )
    };
    let mut shop = Shop::new(&format!("[{}, {}]", to("one", "v1"), to("two", "v2"))).await;
    assert_eq!(get(&mut shop.client(Version::HTTP_2).await, "/a", &[]).await, "v1");
    shop.reload(&format!("[{}, {}]", to("two", "v2"), to("one", "v1"))).await;
    assert_eq!(get(&mut shop.client(Version::HTTP_2).await, "/a", &[]).await, "v2");
}

#[tokio::test]
async fn what_is_of_no_rule_is_not_found_and_the_connection_goes_on() {
    let shop = Shop::new(&of_orders("{matches: [{path_prefix: /a}], clusters: [{name: v1}]}")).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = shop.client(version).await;
        let (status, _, reason) = ask(&mut client, Method::GET, "/b", &[]).await;
        assert_eq!((status, reason.as_deref()), (StatusCode::NOT_FOUND, Some("no_rule")));
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        let (status, _, reason) = ask(&mut client, Method::POST, "/b", &grpc).await;
        assert_eq!((status, reason.as_deref()), (StatusCode::OK, Some("no_rule")), "gRPC says it itself");
        assert_eq!(get(&mut client, "/a/b", &[]).await, "v1", "the same connection");
        assert_eq!(get(&mut client, "/", &[("host", "v2")]).await, "v2", "another service has no rules");
    }
    assert_eq!(shop.counts(), [0, 2, 2]);
    let refused = &shop.web.listener("out").unrouted[ResponseFlag::NR as usize];
    eventually("they are counted", || refused.load(Ordering::Relaxed) == 4).await;
}

#[tokio::test]
async fn a_path_without_one_spelling_is_refused_whatever_the_rules_are() {
    let shop = Shop::new(&of_orders(
        "{matches: [{path_prefix: /a}], clusters: [{name: v1}]}, \
         {matches: [{methods: [GET]}], clusters: [{name: v2}]}",
    ))
    .await;
    for method in ["GET", "POST"] {
        for path in ["/a/..%2fb", "/a%00", "/../a", "/a%5c..", "/%zz"] {
            let sent = format!("{method} {path} HTTP/1.1\r\nhost: orders\r\ncontent-length: 0\r\n\r\n");
            let answer = exchange(shop.web.address(), sent.as_bytes()).await;
            assert!(answer.starts_with(b"HTTP/1.1 400 "), "{path}: {}", String::from_utf8_lossy(&answer));
        }
    }
    assert_eq!(shop.counts(), [0, 0, 0]);
}

#[tokio::test]
async fn a_host_comes_before_a_wildcard_and_both_before_the_service() {
    let route = |name: &str, parents: &str, cluster: &str| {
        format!("{{name: {name}, {parents}, rules: [{{clusters: [{{name: {cluster}}}]}}]}}")
    };
    let routes = [
        route("a", "hosts: ['shop.example:8080', '*.eu.shop.example']", "v2"),
        route("b", "hosts: [shop.example, '*.shop.example', v2]", "v1"),
        route("c", "services: [orders, v2]", "orders"),
    ];
    let shop = Shop::new(&format!("[{}]", routes.join(", "))).await;
    for (host, service) in [
        ("shop.example:8080", Some("v2")),
        ("shop.example", Some("v1")),
        ("SHOP.Example.:81", Some("v1")),
        ("a.shop.example", Some("v1")),
        ("a.b.shop.example:8080", Some("v1")),
        ("a.eu.shop.example", Some("v2")),
        ("eu.shop.example", Some("v1")),
        ("v2", Some("v1")),
        ("orders:99", Some("orders")),
        ("v1", Some("v1")),
        ("example", None),
    ] {
        let (status, text, reason) = get_at(shop.web.address(), host, "/").await;
        match service {
            Some(service) => assert_eq!((status, text.as_str()), (StatusCode::OK, service), "{host}"),
            None => {
                assert_eq!((status, reason.as_deref()), (StatusCode::NOT_FOUND, Some("no_route")), "{host}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_listener_sends_to_a_service_goes_by_its_rules() {
    let shop = Shop::new("[]").await;
    let clusters: Vec<String> = ["orders", "v2"]
        .into_iter()
        .zip([&shop.callees[0], &shop.callees[2]])
        .map(|(name, callee)| TestMesh::cluster(name, &[callee.address()], ""))
        .collect();
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0', cluster: orders}}]\nclusters: [{}]\nroutes: {}",
        clusters.join(", "),
        of_orders("{matches: [{path_prefix: /new}], clusters: [{name: v2}]}, {clusters: [{name: orders}]}"),
    );
    let web = shop.mesh.start("web", &yaml).await;
    for (path, service) in [("/new/1", "v2"), ("/old", "orders")] {
        assert_eq!(get_at(web.address(), "anything.example", path).await.1, service);
    }
}
