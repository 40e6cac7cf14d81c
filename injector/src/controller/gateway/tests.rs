//! What routes come to: what sidecars are told of them, and what their statuses say.

use std::{collections::BTreeSet, path::Path};

use outrider::config::parse;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{
    CONTROLLER, attached,
    route::{Record, Route, RouteKey, RouteKind, Routed},
    status,
    translate::{Routing, routing},
};
use crate::controller::model::{
    cluster::{Cluster, Part, Touched},
    objects::{Event, Kind, Object, Protocol},
    resolve::Target,
    testing::*,
    value::REFUSAL,
};

const NOW: &str = "2026-01-01T00:00:00Z";

fn cluster(events: impl IntoIterator<Item = Event>) -> Cluster {
    let mut cluster = Cluster::default();
    for event in events {
        cluster.apply(event, &mut Touched::new());
    }
    cluster
}

/// `orders`, `orders-v2` and `web` in `shop`, and `orders` in `far`.
fn shop() -> Vec<Event> {
    let http =
        |namespace, name, address| service_with(namespace, name, address, &[("web", 80, Protocol::Http)]);
    vec![
        http("shop", "orders", "10.96.0.1"),
        http("shop", "orders-v2", "10.96.0.2"),
        service_with("shop", "web", "10.96.0.3", &[("web", 80, Protocol::Http), ("db", 5432, Protocol::Tcp)]),
        http("far", "orders", "10.96.0.4"),
    ]
}

/// With a route `r` in `shop` for `orders` that has these rules.
fn with_rules(rules: &Json) -> Cluster {
    let mut events = shop();
    events.push(http_route("shop", "r", &for_orders(rules)));
    cluster(events)
}

fn for_orders(rules: &Json) -> Json {
    json!({"parentRefs": [{"group": "", "kind": "Service", "name": "orders"}], "rules": rules})
}

/// What callers in `caller` are told of the routes of a Service.
fn told(cluster: &Cluster, caller: &str, namespace: &str, name: &str) -> Routing {
    let key = key(namespace, name);
    let whose = attached::whose(cluster, &key, 80, &caller.into());
    whose.map(|whose| routing(cluster, &key, 80, &whose)).unwrap_or_default()
}

/// The rules of the only route of `orders`, for callers of its own namespace.
fn rules(cluster: &Cluster) -> Vec<Json> {
    let told = told(cluster, "shop", "shop", "orders");
    assert!(told.routes.len() <= 1);
    let entry = told.routes.first().map_or(Json::Null, |text| serde_json::from_str(text).unwrap());
    entry["rules"].as_array().cloned().unwrap_or_default()
}

/// What one rule comes to, but for its name.
fn rule(rule: Json) -> Json {
    let mut found = rules(&with_rules(&json!([rule])));
    assert_eq!(found.len(), 1);
    let mut found = found.remove(0);
    found.as_object_mut().unwrap().remove("name");
    found
}

fn found(cluster: &Cluster, kind: RouteKind, namespace: &str, name: &str) -> (RouteKey, Route, Record) {
    let key = RouteKey { kind, key: key(namespace, name) };
    let routed = cluster.book().route(&key).unwrap();
    (key, (*routed.route).clone(), routed.record.clone())
}

/// `type=status:reason` of each condition for the first parent of the route `r`.
fn conditions(cluster: &Cluster) -> Vec<String> {
    let (key, route, _) = found(cluster, RouteKind::Http, "shop", "r");
    let conditions = status::conditions(cluster, &key, &route, &route.parents[0]);
    conditions.iter().map(|it| format!("{}={}:{}", it.kind, it.is_true, it.reason)).collect()
}

const GOOD: [&str; 2] = ["Accepted=true:Accepted", "ResolvedRefs=true:ResolvedRefs"];

#[test]
fn a_split_is_told_with_its_weights_and_what_it_needs() {
    let cluster = with_rules(&json!([{"name": "split", "backendRefs": [
        {"name": "orders", "port": 80, "weight": 90}, {"name": "orders-v2", "port": 80, "weight": 10},
    ]}]));
    let told = told(&cluster, "elsewhere", "shop", "orders");
    let entry: Json = serde_json::from_str(&told.routes[0]).unwrap();
    let expected = json!({"name": "r.shop", "services": ["orders.shop.svc:80"], "rules": [{"name": "split", "clusters": [
        {"name": "orders.shop.svc:80", "weight": 90}, {"name": "orders-v2.shop.svc:80", "weight": 10},
    ]}]});
    assert_eq!(entry, expected);
    assert_eq!(told.needs, [Target::Service(key("shop", "orders-v2"), 80)]);
    assert!(told.parts.contains(&Part::Ports(key("shop", "orders-v2"))));
    assert_eq!(conditions(&cluster), GOOD);
}

#[test]
fn matches_are_told_in_the_words_of_the_file() {
    let told = rule(json!({"backendRefs": [{"name": "orders", "port": 80}], "matches": [
        {"path": {"type": "Exact", "value": "/%61"}, "method": "GET"},
        {"path": {"value": "/cart/"}, "headers": [{"name": "X-Team", "value": "red"}, {"name": "x-team", "value": "blue"}]},
        {"queryParams": [{"name": "v", "value": "2"}]},
        {"path": {"type": "PathPrefix", "value": "/"}},
    ]}));
    let expected = json!([
        {"path": "/a", "methods": ["GET"]},
        {"path_prefix": "/cart", "headers": [{"name": "x-team", "value": "red"}]},
        {"query": [{"name": "v", "value": "2"}]},
        {"path_prefix": "/"},
    ]);
    assert_eq!(told["matches"], expected);
}

#[test]
fn filters_timeouts_and_retries_are_told_in_the_words_of_the_file() {
    let told = rule(json!({
        "backendRefs": [{"name": "orders", "port": 80}],
        "matches": [{"path": {"value": "/"}}],
        "timeouts": {"request": "1m30s", "backendRequest": "0s"},
        "retry": {"attempts": 30, "codes": [503, 429], "backoff": "1h"},
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {
                "set": [{"name": "X-Tier", "value": "gold"}], "remove": ["x-debug", "X-Debug"],
            }},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "x-by", "value": "us"}]}},
            {"type": "URLRewrite", "urlRewrite": {
                "hostname": "inner.example", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v2/"},
            }},
        ],
    }));
    let expected = json!({
        "matches": [{"path_prefix": "/"}],
        "request_headers": {"set": [{"name": "x-tier", "value": "gold"}], "remove": ["x-debug"]},
        "response_headers": {"add": [{"name": "x-by", "value": "us"}]},
        "rewrite": {"host": "inner.example", "path_prefix": "/v2"},
        "request_timeout": "90000ms",
        "retry": {"per_try_timeout": "none", "statuses": [503, 429], "max_retries": 10, "backoff_base": "10000ms"},
        "clusters": [{"name": "orders.shop.svc:80", "weight": 1}],
    });
    assert_eq!(told, expected);
}

#[test]
fn a_backends_own_changes_go_with_it_alone() {
    let set = |name: &str| json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": name, "value": "1"}]}});
    let answer = json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["Server"]}});
    let told = rule(json!({"filters": [set("x-rule")], "backendRefs": [
        {"name": "orders", "port": 80, "weight": 9},
        {"name": "orders-v2", "port": 80, "filters": [set("X-Stage"), answer]},
        {"name": "nobody", "port": 80, "filters": [set("x-lost")]},
        {"name": "orders-v2", "port": 80, "filters": [set("x-stage"), answer]},
    ]}));
    assert_eq!(told["request_headers"], json!({"set": [{"name": "x-rule", "value": "1"}]}));
    let clusters = json!([
        {"name": "orders.shop.svc:80", "weight": 9},
        {"name": "orders-v2.shop.svc:80", "weight": 2,
         "request_headers": {"set": [{"name": "x-stage", "value": "1"}]}, "response_headers": {"remove": ["server"]}},
        {"name": REFUSAL, "weight": 1},
    ]);
    assert_eq!(told["clusters"], clusters);
}

#[test]
fn a_backends_filter_that_cannot_be_is_no_less_than_a_rules() {
    let set = |name: &str| json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": name, "value": "1"}]}});
    let to = |filters: Json| json!({"name": "orders", "port": 80, "filters": filters});
    for (backends, said) in [
        (
            json!([to(json!([{"type": "URLRewrite", "urlRewrite": {"hostname": "a"}}]))]),
            "\"URLRewrite\" is not supported",
        ),
        (json!([to(json!([{"type": "RequestMirror"}]))]), "backendRefs[0]: filters[0]: "),
        (json!([to(json!([set("host")]))]), "request_headers.set[0].name"),
        (json!([to(json!([set("a"), set("b")]))]), "stands here twice"),
        (
            json!([to(json!([set("a")])), to(json!([]))]),
            "backendRefs[1]: stands here twice, with other filters",
        ),
    ] {
        let cluster = with_rules(&json!([{"backendRefs": backends}]));
        assert_eq!(rules(&cluster)[0]["clusters"], json!([{"name": REFUSAL, "weight": 1}]), "{backends}");
        let (_, route, _) = found(&cluster, RouteKind::Http, "shop", "r");
        let message = &route.rules[0].faults[0].message;
        assert!(message.contains(said), "{message}");
    }
}

/// A filter that has copies sent to `orders-v2`, with these further keys.
fn mirror(keys: Json) -> Json {
    let mut section = json!({"backendRef": {"name": "orders-v2", "port": 80}});
    section.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    json!({"type": "RequestMirror", "requestMirror": section})
}

#[test]
fn a_route_is_never_longer_than_it_was_taken_for() {
    let (space, long) = ("n".repeat(63), "s".repeat(63));
    let edits = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x", "value": "y"}]}});
    let to = json!({"name": long, "port": 80, "weight": 1_000_000, "filters": [edits]});
    let copy = json!({"type": "RequestMirror", "requestMirror": {"backendRef": to, "percent": 100}});
    let rule = json!({"filters": vec![copy; 4], "backendRefs": [to]});
    let spec =
        json!({"parentRefs": [{"group": "", "kind": "Service", "name": long}], "rules": vec![rule; 16]});
    let cluster = cluster([
        service_with(&space, &long, "10.96.0.9", &[("web", 80, Protocol::Http)]),
        http_route(&space, "r", &spec),
    ]);
    let told = told(&cluster, &space, &space, &long);
    let parent = key(&space, &long);
    let (_, route) = cluster.book().of_parent(&parent).next().unwrap();
    let (bytes, bound) = (told.routes[0].len(), route.size().1);
    assert!(bytes <= bound && bound < bytes + bytes / 2, "{bytes} bytes of {bound}");
}

#[test]
fn copies_are_told_with_their_share_and_what_they_need() {
    for kind in [RouteKind::Http, RouteKind::Grpc] {
        for (keys, percent) in [
            (json!({}), "100.0000"),
            (json!({"percent": 0}), "0.0000"),
            (json!({"percent": 42}), "42.0000"),
            (json!({"fraction": {"numerator": 5}}), "5.0000"),
            (json!({"fraction": {"numerator": 1, "denominator": 3}}), "33.3333"),
            (json!({"fraction": {"numerator": 1, "denominator": 2_000_000_000}}), "0.0001"),
        ] {
            let mut events = shop();
            let rules = json!([{"filters": [mirror(keys)], "backendRefs": [{"name": "orders", "port": 80}]}]);
            events.push(route(kind, "shop", "r", &for_orders(&rules)));
            let cluster = cluster(events);
            let told = told(&cluster, "shop", "shop", "orders");
            assert_eq!(told.needs, [Target::Service(key("shop", "orders-v2"), 80)]);
            assert!(told.parts.contains(&Part::Ports(key("shop", "orders-v2"))));
            let copies = json!([{"cluster": "orders-v2.shop.svc:80", "percent": percent}]);
            assert_eq!(self::rules(&cluster)[0]["mirror"], copies);
        }
    }
    let told =
        rule(json!({"backendRefs": [{"name": "orders", "port": 80}], "filters": vec![mirror(json!({})); 4]}));
    assert_eq!(told["mirror"].as_array().unwrap().len(), 4);
}

/// Gateway API, `HTTPRequestMirrorFilter.backendRef`: an invalid one is not configured, and `ResolvedRefs` says why.
#[test]
fn a_mirror_that_is_not_there_gets_nothing_and_requests_go_on() {
    for (reference, reason) in [
        (json!({"name": "nobody", "port": 80}), "BackendNotFound"),
        (json!({"name": "orders-v2", "port": 81}), "BackendNotFound"),
        (json!({"name": "orders-v2"}), "BackendNotFound"),
        (json!({"name": "far", "namespace": "far", "port": 80}), "RefNotPermitted"),
        (json!({"name": "orders", "port": 80, "kind": "Bucket", "group": "x.example"}), "InvalidKind"),
    ] {
        let filters = json!([{"type": "RequestMirror", "requestMirror": {"backendRef": reference}}]);
        let backends = json!([{"name": "orders", "port": 80}]);
        let cluster = with_rules(&json!([{"filters": filters, "backendRefs": backends}]));
        let found = rules(&cluster);
        assert_eq!(found[0]["clusters"], json!([{"name": "orders.shop.svc:80", "weight": 1}]), "{reason}");
        assert_eq!(found[0].get("mirror"), None, "{reason}");
        assert_eq!(conditions(&cluster), [GOOD[0], &*format!("ResolvedRefs=false:{reason}")]);
        let (key, route, _) = self::found(&cluster, RouteKind::Http, "shop", "r");
        let said = &status::conditions(&cluster, &key, &route, &route.parents[0])[1].message;
        assert!(said.contains("no copies") && !said.contains("500"), "{said}");
    }
}

#[test]
fn a_redirect_goes_nowhere_else() {
    let told = rule(json!({
        "timeouts": {"request": "1s"},
        "filters": [mirror(json!({})), {"type": "RequestRedirect", "requestRedirect": {"hostname": "shop.example", "statusCode": 301}}],
    }));
    assert_eq!(told, json!({"redirect": {"host": "shop.example", "status": 301}}));
}

#[test]
fn calls_of_grpc_are_told_by_service_and_method() {
    let mut events = shop();
    events.push(route(RouteKind::Grpc, "shop", "r", &for_orders(&json!([
        {"matches": [{"method": {"service": "shop.Carts", "method": "Add"}}, {"method": {"service": "shop.Carts"}}],
         "backendRefs": [{"name": "orders", "port": 80}]},
        {"matches": [{"headers": [{"name": "x-team", "value": "red"}]}], "backendRefs": [{"name": "orders", "port": 80}]},
        {"matches": [{"method": {"method": "Add"}}], "backendRefs": [{"name": "orders", "port": 80}]},
    ]))));
    // Of routes of both kinds those of GRPCRoutes hold.
    events.push(http_route("shop", "h", &for_orders(&json!([{"backendRefs": []}]))));
    let cluster = cluster(events);
    let found = rules(&cluster);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0]["matches"], json!([{"grpc": "shop.Carts/Add"}, {"grpc": "shop.Carts"}]));
    assert_eq!(
        found[1]["matches"],
        json!([{"methods": ["POST"], "headers": [{"name": "x-team", "value": "red"}]}])
    );
    let said = |kind, name| {
        let (key, route, _) = self::found(&cluster, kind, "shop", name);
        let conditions = status::conditions(&cluster, &key, &route, &route.parents[0]);
        conditions.iter().map(|it| format!("{}:{}", it.kind, it.reason)).collect::<Vec<_>>()
    };
    assert_eq!(
        said(RouteKind::Grpc, "r"),
        ["Accepted:Accepted", "ResolvedRefs:ResolvedRefs", "PartiallyInvalid:UnsupportedValue"]
    );
    assert_eq!(said(RouteKind::Http, "h")[0], "Accepted:Conflicted");
}

#[test]
fn a_match_that_cannot_be_made_is_left_out_and_said() {
    let good = json!({"path": {"value": "/good"}});
    for bad in [
        json!({"path": {"type": "RegularExpression", "value": "/a.*"}}),
        json!({"headers": [{"type": "RegularExpression", "name": "x", "value": "a.*"}]}),
        json!({"queryParams": [{"type": "RegularExpression", "name": "x", "value": "a.*"}]}),
        json!({"method": "CONNECT"}),
        json!({"path": {"type": "Exact", "value": "/a%5Cb"}}),
        json!({"headers": [{"name": "host", "value": "a"}]}),
        json!({"cookies": [{"name": "new", "value": "field"}]}),
        json!({"path": 3}),
    ] {
        let backends = json!([{"name": "orders", "port": 80}]);
        let cluster = with_rules(
            &json!([{"matches": [bad, good], "backendRefs": backends}, {"matches": [bad], "backendRefs": backends}]),
        );
        let found = rules(&cluster);
        assert_eq!(found.len(), 1, "{bad}");
        assert_eq!(found[0]["matches"], json!([{"path_prefix": "/good"}]), "{bad}");
        assert!(conditions(&cluster).contains(&"PartiallyInvalid=true:UnsupportedValue".to_owned()), "{bad}");
        let cluster = with_rules(&json!([{"matches": [bad], "backendRefs": backends}]));
        assert!(rules(&cluster).is_empty(), "{bad}");
        assert_eq!(conditions(&cluster)[0], "Accepted=false:UnsupportedValue", "{bad}");
    }
}

#[test]
fn without_its_filters_no_request_of_a_rule_passes() {
    let header = |key: &str, name: &str| json!({"type": key, "requestHeaderModifier": {"set": [{"name": name, "value": "x"}]}});
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {"hostname": "a"}});
    let rewrite = json!({"type": "URLRewrite", "urlRewrite": {"hostname": "a"}});
    for (filters, reason) in [
        (json!([mirror(json!({"percent": 101}))]), "UnsupportedValue"),
        (json!([mirror(json!({"percent": 1, "fraction": {"numerator": 1}}))]), "UnsupportedValue"),
        (json!([mirror(json!({"fraction": {"numerator": 1, "denominator": 0}}))]), "UnsupportedValue"),
        (json!([mirror(json!({"somethingNew": 1}))]), "UnsupportedValue"),
        (json!([{"type": "RequestMirror", "requestMirror": {}}]), "UnsupportedValue"),
        (json!(vec![mirror(json!({})); 5]), "UnsupportedValue"),
        (
            json!([{"type": "ExtensionRef", "extensionRef": {"group": "a", "kind": "B", "name": "c"}}]),
            "UnsupportedValue",
        ),
        (json!([{"type": "CORS", "cors": {}}]), "UnsupportedValue"),
        (json!([{"type": "RequestHeaderModifier"}]), "UnsupportedValue"),
        (json!([header("RequestHeaderModifier", "content-length")]), "UnsupportedValue"),
        (
            json!([header("RequestHeaderModifier", "a"), header("RequestHeaderModifier", "b")]),
            "IncompatibleFilters",
        ),
        (json!([redirect, rewrite]), "IncompatibleFilters"),
        (json!([{}]), "UnsupportedValue"),
        (json!("nonsense"), "UnsupportedValue"),
    ] {
        let rule = json!({"matches": [{"path": {"value": "/a"}}], "filters": filters, "backendRefs": [{"name": "orders", "port": 80}]});
        let cluster = with_rules(&json!([rule]));
        let refused = json!([{"name": "0", "matches": [{"path_prefix": "/a"}], "clusters": [{"name": REFUSAL, "weight": 1}]}]);
        assert_eq!(json!(rules(&cluster)), refused, "{filters}");
        assert_eq!(conditions(&cluster)[0], format!("Accepted=false:{reason}"), "{filters}");
    }
    for key in ["sessionPersistence", "somethingNew"] {
        let cluster = with_rules(&json!([{key: {}, "backendRefs": [{"name": "orders", "port": 80}]}]));
        assert_eq!(rules(&cluster)[0]["clusters"], json!([{"name": REFUSAL, "weight": 1}]), "{key}");
    }
}

#[test]
fn the_share_of_a_backend_that_is_not_there_is_refused() {
    let good = json!({"name": "orders-v2", "port": 80, "weight": 3});
    for (bad, reason) in [
        (json!({"name": "nobody", "port": 80}), "BackendNotFound"),
        (json!({"name": "orders", "port": 81}), "BackendNotFound"),
        (json!({"name": "orders"}), "BackendNotFound"),
        (json!({"name": "web", "port": 5432}), "UnsupportedProtocol"),
        (
            json!({"name": "x", "kind": "ServiceImport", "group": "multicluster.x-k8s.io", "port": 80}),
            "InvalidKind",
        ),
        (json!({"name": "orders", "namespace": "far", "port": 80}), "RefNotPermitted"),
    ] {
        let cluster = with_rules(&json!([{"backendRefs": [good, bad]}]));
        let expected =
            json!([{"name": "orders-v2.shop.svc:80", "weight": 3}, {"name": REFUSAL, "weight": 1}]);
        assert_eq!(rules(&cluster)[0]["clusters"], expected, "{bad}");
        assert_eq!(
            conditions(&cluster),
            [GOOD[0].to_owned(), format!("ResolvedRefs=false:{reason}")],
            "{bad}"
        );
        assert!(told(&cluster, "shop", "shop", "orders").needs.contains(&Target::Refusal));
    }
    for nobody in [json!([]), json!([{"name": "orders", "port": 80, "weight": 0}])] {
        let cluster = with_rules(&json!([{"backendRefs": nobody}]));
        assert_eq!(rules(&cluster)[0]["clusters"], json!([{"name": REFUSAL, "weight": 1}]));
    }
}

#[test]
fn a_grant_opens_a_namespace_for_as_long_as_it_is_there() {
    let mut cluster =
        with_rules(&json!([{"backendRefs": [{"name": "orders", "namespace": "far", "port": 80}]}]));
    let share = |cluster: &Cluster| rules(cluster)[0]["clusters"][0]["name"].clone();
    assert_eq!(share(&cluster), REFUSAL);
    let mut touched = Touched::new();
    cluster.apply(grant("far", "shop"), &mut touched);
    assert_eq!(touched, Touched::from([Part::Routes(key("shop", "orders"))]));
    assert_eq!(
        (share(&cluster), conditions(&cluster)),
        (json!("orders.far.svc:80"), GOOD.map(str::to_owned).to_vec())
    );
    cluster.apply(gone(Kind::Grant, "far", "shop"), &mut touched);
    assert_eq!(share(&cluster), REFUSAL);
    cluster.apply(grant("far", "elsewhere"), &mut touched);
    assert_eq!(share(&cluster), REFUSAL, "another namespace's");
}

#[test]
fn a_consumers_routes_hold_for_its_callers_in_the_place_of_the_producers() {
    let rules = |weight: u32| json!([{"backendRefs": [{"name": "orders", "namespace": "shop", "port": 80, "weight": weight}]}]);
    let parent = json!([{"group": "", "kind": "Service", "namespace": "shop", "name": "orders"}]);
    let mut events = shop();
    events.push(http_route("shop", "producer", &for_orders(&rules(1))));
    events.push(http_route("eve", "consumer", &json!({"parentRefs": parent, "rules": rules(2)})));
    let cluster = cluster(events);
    let names = |caller: &str| {
        let told = told(&cluster, caller, "shop", "orders");
        told.routes
            .iter()
            .map(|text| serde_json::from_str::<Json>(text).unwrap()["name"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("eve"), ["consumer.eve"]);
    assert_eq!(names("shop"), ["producer.shop"]);
    assert_eq!(names("bob"), ["producer.shop"]);
    let told = told(&cluster, "eve", "shop", "orders");
    assert!(!told.needs.contains(&Target::Refusal), "what its callers called anyway needs no grant");
}

#[test]
fn a_parent_may_be_one_port_and_only_one_that_carries_http() {
    let web = |more: Json| {
        let mut parent = json!({"group": "", "kind": "Service", "name": "web"});
        parent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut events = shop();
        events.push(http_route("shop", "r", &json!({"parentRefs": [parent], "rules": [{}]})));
        let cluster = cluster(events);
        let whose = |port| attached::whose(&cluster, &key("shop", "web"), port, &"shop".into()).is_some();
        (whose(80), whose(5432), conditions(&cluster).remove(0))
    };
    let accepted = || "Accepted=true:Accepted".to_owned();
    let nobody = || "Accepted=false:NoMatchingParent".to_owned();
    assert_eq!(web(json!({})), (true, false, accepted()));
    assert_eq!(web(json!({"port": 80})), (true, false, accepted()));
    assert_eq!(web(json!({"sectionName": "web"})), (true, false, accepted()));
    assert_eq!(web(json!({"port": 5432})), (false, false, nobody()));
    assert_eq!(web(json!({"port": 80, "sectionName": "db"})), (false, false, nobody()));
    assert_eq!(web(json!({"name": "nobody"})).2, nobody());
}

#[test]
fn the_oldest_route_comes_first_and_what_is_too_much_is_left_out() {
    let many: Vec<Json> = (0..60).map(|n| json!({"path": {"value": format!("/{n}")}})).collect();
    let rules: Vec<Json> = (0..10)
        .map(|n| {
            json!({"matches": many.iter().map(|it| {
            let mut it = it.clone();
            it["headers"] = json!([{"name": "x", "value": format!("{n}")}]);
            it
        }).collect::<Vec<_>>()})
        })
        .collect();
    let mut events = shop();
    events.push(http_route("shop", "a", &for_orders(&json!(rules))));
    events.push(http_route("shop", "r", &for_orders(&json!(rules))));
    let cluster = cluster(events);
    assert_eq!(told(&cluster, "shop", "shop", "orders").routes.len(), 1);
    assert_eq!(conditions(&cluster)[0], "Accepted=false:TooManyRoutes");
}

#[test]
fn a_status_is_written_once_and_leaves_what_is_others() {
    let cluster = with_rules(&json!([{"backendRefs": [{"name": "nobody", "port": 80}]}]));
    let (key, route, _) = found(&cluster, RouteKind::Http, "shop", "r");
    let foreign = json!({"parentRef": {"name": "gate"}, "controllerName": "other/one", "conditions": [{"type": "Accepted"}]});
    let stale = json!({"parentRef": {"group": "", "kind": "Service", "name": "gone"}, "controllerName": CONTROLLER, "conditions": []});
    let record = Record { generation: 3, version: "7".to_owned(), parents: vec![foreign.clone(), stale] };
    let first = status::parents(&cluster, &key, (&route, &record), NOW).unwrap();
    assert_eq!((first.len(), &first[0]), (2, &foreign));
    let condition = |parents: &[Json], index: usize| parents[1]["conditions"][index].clone();
    assert_eq!(
        condition(&first, 0),
        json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "its rules hold",
            "observedGeneration": 3, "lastTransitionTime": NOW})
    );
    assert_eq!(condition(&first, 1)["reason"], "BackendNotFound");
    let later = "2026-01-02T00:00:00Z";
    let mut record = Record { parents: first, ..record };
    assert_eq!(status::parents(&cluster, &key, (&route, &record), later), None, "it is so already");
    record.parents[1]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "special.io/Own", "status": "True"}));
    record.generation = 4;
    let next = status::parents(&cluster, &key, (&route, &record), later).unwrap();
    assert_eq!(condition(&next, 0)["observedGeneration"], 4);
    assert_eq!(condition(&next, 0)["lastTransitionTime"], NOW, "it has not changed");
    assert_eq!(condition(&next, 2)["type"], "special.io/Own");
    let newer = Record { generation: 3, parents: next, ..record };
    assert_eq!(status::parents(&cluster, &key, (&route, &newer), later), None, "what is known is older");
}

/// Names of clusters that an entry's rules name.
fn named(text: &str) -> BTreeSet<String> {
    let entry: Json = serde_json::from_str(text).unwrap();
    let lists = entry["rules"].as_array().unwrap().iter().flat_map(|rule| {
        let of = |list: &str, name: &'static str| (rule[list].as_array().cloned().unwrap_or_default(), name);
        [of("clusters", "name"), of("mirror", "cluster")]
    });
    lists
        .flat_map(|(list, name)| list.into_iter().map(move |one| one[name].as_str().unwrap().to_owned()))
        .collect()
}

/// Whether a sidecar takes all that is told of a Service.
fn is_taken(told: &Routing) -> Result<(), String> {
    let mut names: BTreeSet<String> = told.routes.iter().flat_map(|text| named(text)).collect();
    names.insert("orders.shop.svc:80".to_owned());
    let clusters: Vec<Json> = names
        .iter()
        .enumerate()
        .map(|(n, name)| json!({"name": name, "tls": "none", "endpoints": [{"address": format!("192.0.2.{}:1", n + 1)}]}))
        .collect();
    let routes: Vec<Json> = told.routes.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    let file = json!({
        "service": "x", "trust_domain": "x", "identity": {"ca": {"address": "127.0.0.1:1"}},
        "outbound": [{"listen": "127.0.0.1:0"}], "clusters": clusters, "routes": routes,
    });
    parse(&file.to_string(), Path::new("")).map(drop).map_err(|error| format!("{error} in {file}"))
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "",
            "/",
            "/a",
            "/a/",
            "/%61",
            "/a%2e",
            "/a;b",
            "/%7Ea",
            "/a/b",
            "/.well-known/x",
            "x-team",
            "X-Team",
            "Host",
            "connection",
            "authorization",
            "x-outrider-a",
            "content-type",
            "GET",
            "CONNECT",
            "get",
            "1s",
            "0s",
            "99999h",
            "1h2m3s4ms",
            "a.b.C",
            "orders",
            "orders-v2",
            "a b",
            "é",
            "shop.example",
            "gold",
            "Exact",
            "PathPrefix",
            "RegularExpression",
            "ReplaceFullPath",
            "ReplacePrefixMatch",
            "http",
            "https",
            "\u{7f}",
            "\"",
            "\\",
        ])
        .prop_map(str::to_owned),
        ".{0,12}",
    ]
}

fn any_fields() -> impl Strategy<Value = Json> {
    prop::collection::vec((any_text(), any_text()), 0..4).prop_map(|pairs| {
        pairs.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
    })
}

fn any_path_edit() -> impl Strategy<Value = Json> {
    (any::<bool>(), any_text()).prop_map(|(is_full, text)| {
        if is_full {
            json!({"type": "ReplaceFullPath", "replaceFullPath": text})
        } else {
            json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": text})
        }
    })
}

fn any_match() -> impl Strategy<Value = Json> {
    let kind = prop::sample::select(vec!["Exact", "PathPrefix", "PathPrefix", "RegularExpression"]);
    let path =
        prop::option::of((kind, any_text()).prop_map(|(kind, value)| json!({"type": kind, "value": value})));
    let method = prop::option::of(prop::sample::select(vec!["GET", "POST", "CONNECT"]));
    (path, method, prop::option::of(any_fields()), prop::option::of(any_fields())).prop_map(
        |(path, method, headers, query)| {
            let mut one = serde_json::Map::new();
            let parts = [
                ("path", path),
                ("method", method.map(|it| json!(it))),
                ("headers", headers),
                ("queryParams", query),
            ];
            one.extend(parts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
            Json::Object(one)
        },
    )
}

fn any_edits() -> impl Strategy<Value = Json> {
    let names = prop::collection::vec(any_text(), 0..3);
    (any_fields(), any_fields(), names)
        .prop_map(|(set, add, remove)| json!({"set": set, "add": add, "remove": remove}))
}

fn any_filter() -> impl Strategy<Value = Json> {
    let scheme = prop::option::of(prop::sample::select(vec!["http", "https", "ftp"]));
    let code = prop::option::of(prop::sample::select(vec![301_u16, 302, 303, 307, 308, 200]));
    prop_oneof![
        any_edits().prop_map(|it| json!({"type": "RequestHeaderModifier", "requestHeaderModifier": it})),
        any_edits().prop_map(|it| json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": it})),
        (prop::option::of(any_text()), prop::option::of(any_path_edit())).prop_map(
            |(host, path)| json!({"type": "URLRewrite", "urlRewrite": {"hostname": host, "path": path}})
        ),
        (
            scheme,
            prop::option::of(any_text()),
            prop::option::of(any_path_edit()),
            code,
            prop::option::of(any::<u16>())
        )
            .prop_map(
                |(scheme, host, path, code, port)| json!({"type": "RequestRedirect", "requestRedirect": {
                "scheme": scheme, "hostname": host, "path": path, "statusCode": code, "port": port}})
            ),
        (0..200_u32).prop_map(|percent| mirror(json!({"percent": percent}))),
    ]
}

fn any_rule() -> impl Strategy<Value = Json> {
    let backend =
        (prop::sample::select(vec!["orders", "orders-v2", "nobody"]), prop::option::of(0..1_000_001_u32))
            .prop_map(|(name, weight)| json!({"name": name, "port": 80, "weight": weight}));
    let name = prop::option::of(prop::sample::select(vec!["0", "1", "a", "a"]));
    let limits = prop::option::of((any_text(), any_text()));
    let retry = prop::option::of((prop::collection::vec(400..600_u16, 0..3), 0..20_u32, any_text()));
    let lists = (
        prop::option::of(prop::collection::vec(any_match(), 0..4)),
        prop::collection::vec(any_filter(), 0..2),
        prop::collection::vec(backend, 0..6),
    );
    (name, lists, limits, retry).prop_map(|(name, (matches, filters, backends), limits, retry)| {
        json!({
            "name": name, "matches": matches, "filters": filters, "backendRefs": backends,
            "timeouts": limits.map(|(request, backend)| json!({"request": request, "backendRequest": backend})),
            "retry": retry.map(|(codes, attempts, backoff)| json!({"codes": codes, "attempts": attempts, "backoff": backoff})),
        })
    })
}

/// Anything at all.
fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any_text().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        let key = prop_oneof![
            4 => prop::sample::select(vec![
                "parentRefs", "rules", "matches", "path", "type", "value", "name", "filters", "backendRefs", "headers",
                "group", "kind", "namespace", "port", "weight", "timeouts", "retry", "method", "service",
            ]).prop_map(str::to_owned),
            1 => any_text(),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec((key, inner), 0..4).prop_map(|pairs| Json::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever routes say, a sidecar takes what is told of them.
    #[test]
    fn a_sidecar_takes_whatever_is_told(
        lists in prop::collection::vec(prop::collection::vec(any_rule(), 0..4), 1..3),
    ) {
        let mut events = shop();
        for (index, rules) in lists.iter().enumerate() {
            events.push(http_route("shop", &format!("r{index}"), &for_orders(&json!(rules))));
        }
        let cluster = cluster(events);
        let told = told(&cluster, "shop", "shop", "orders");
        prop_assert_eq!(is_taken(&told), Ok(()));
        let bytes: usize = told.routes.iter().map(|text| text.len()).sum();
        let orders = key("shop", "orders");
        let bound: usize = cluster.book().of_parent(&orders).map(|(_, route)| route.size().1).sum();
        prop_assert!(bytes <= bound, "{} bytes of {}", bytes, bound);
        for name in told.routes.iter().flat_map(|text| named(text)) {
            let is_need = told.needs.iter().any(|target| match target {
                Target::Service(key, port) => name == format!("{}.{}.svc:{port}", key.name, key.namespace),
                Target::Refusal => name == REFUSAL,
                Target::Host(..) | Target::Pod(..) | Target::External(..) => false,
            });
            prop_assert!(is_need || name == "orders.shop.svc:80", "{} is told", name);
        }
    }

    /// Objects of any shape are read without harm.
    #[test]
    fn anything_is_read(spec in any_json(), rules in any_json()) {
        for kind in [RouteKind::Http, RouteKind::Grpc] {
            let mut events = shop();
            events.push(route(kind, "shop", "a", &spec));
            events.push(route(kind, "shop", "r", &for_orders(&json!([rules.clone(), rules.clone()]))));
            let cluster = cluster(events);
            prop_assert_eq!(is_taken(&told(&cluster, "shop", "shop", "orders")), Ok(()));
            let (key, found, record) = found(&cluster, kind, "shop", "r");
            prop_assert!(status::parents(&cluster, &key, (&found, &record), NOW).is_some());
        }
        drop(super::grant::Grant::read(&spec));
    }
}

/// A route, a grant or a Service of one namespace, or its end.
fn any_act(of: &'static str) -> impl Strategy<Value = Event> {
    let anywhere = prop::sample::select(vec!["ann", "bob", "cid"]);
    let name = prop::sample::select(vec!["one", "two"]);
    let spec = (anywhere.clone(), name.clone(), anywhere.clone(), name.clone(), any_match()).prop_map(
        |(parent_of, parent, backend_of, backend, matches)| json!({
            "parentRefs": [{"group": "", "kind": "Service", "namespace": parent_of, "name": parent}],
            "rules": [{"matches": [matches], "backendRefs": [{"namespace": backend_of, "name": backend, "port": 80}]}],
        }),
    );
    prop_oneof![
        4 => (name.clone(), spec, prop::bool::weighted(0.2)).prop_map(move |(name, spec, is_grpc)| {
            route(if is_grpc { RouteKind::Grpc } else { RouteKind::Http }, of, name, &spec)
        }),
        1 => name.clone().prop_map(move |name| gone(Kind::GrpcRoute, of, name)),
        1 => name.clone().prop_map(move |name| gone(Kind::Service, of, name)),
        1 => prop::sample::select(vec!["ann", "bob", "cid"]).prop_map(move |from| gone(Kind::Grant, of, from)),
        1 => name.clone().prop_map(move |name| gone(Kind::HttpRoute, of, name)),
        1 => anywhere.prop_map(move |from| grant(of, from)),
        1 => name.prop_map(move |name| service(of, name, "10.96.1.1", 80)),
    ]
}

/// Has every status written that is due.
fn settle(cluster: &mut Cluster) {
    while let Some((key, route, record)) = cluster.book_mut().take_unsettled() {
        let Some(parents) = status::parents(cluster, &key, (&route, &record), NOW) else { continue };
        let routed = Routed { route, record: Record { parents, ..record } };
        cluster.apply(Event::Set(Object::Route(key, Box::new(routed))), &mut Touched::new());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever changes, a status that has to be another is looked at; and who has settled all has nothing left to write.
    #[test]
    fn no_status_is_forgotten(
        acts in prop::collection::vec((prop_oneof![any_act("ann"), any_act("bob")], any::<bool>()), 1..40),
    ) {
        let mut cluster = Cluster::default();
        for (act, is_settled) in acts {
            cluster.apply(act, &mut Touched::new());
            if is_settled {
                settle(&mut cluster);
            }
        }
        settle(&mut cluster);
        for kind in [RouteKind::Http, RouteKind::Grpc] {
            for known in cluster.book().keys(kind) {
                let (key, route, record) = found(&cluster, kind, &known.namespace, &known.name);
                prop_assert_eq!(status::parents(&cluster, &key, (&route, &record), NOW), None, "{:?}", key);
            }
        }
    }


    /// What a namespace does with its own objects changes what others are told of its own Services, and what its own callers
    /// are told; and of a third's Services nothing, unless that one's routes refer to it.
    #[test]
    fn a_namespace_changes_nothing_between_others(
        before in prop::collection::vec(prop_oneof![any_act("ann"), any_act("bob"), any_act("cid")], 0..20),
        acts in prop::collection::vec(any_act("ann"), 1..10),
    ) {
        let mut events: Vec<Event> = ["ann", "bob", "cid"]
            .into_iter()
            .flat_map(|namespace| ["one", "two"].map(|name| service(namespace, name, "10.96.0.1", 80)))
            .collect();
        events.extend(before);
        let mut cluster = cluster(events);
        let seen = |cluster: &Cluster| {
            let mut seen = Vec::new();
            for caller in ["bob", "cid"] {
                for (namespace, name) in [("bob", "one"), ("bob", "two"), ("cid", "one"), ("cid", "two")] {
                    let told = told(cluster, caller, namespace, name);
                    let refers_to_ann = told.parts.iter().any(|part| matches!(part, Part::Ports(key) if *key.namespace == *"ann"));
                    seen.push((!refers_to_ann).then_some((told.routes, told.needs)));
                }
            }
            seen
        };
        let first = seen(&cluster);
        for act in acts {
            cluster.apply(act, &mut Touched::new());
        }
        prop_assert_eq!(first, seen(&cluster));
    }
}
