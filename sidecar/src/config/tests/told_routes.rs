//! Routes that the controller says of its services.

use std::sync::Arc;

use super::joined::{file, fragment, names, of, rejected};
use crate::{
    config::{Joined, Joiner},
    model::{ClusterName, controller::Fragment},
};

fn said(name: &str, routes: &[&str]) -> Fragment {
    let cluster = format!(
        r#"{{"name":"{name}","authorities":["{name}:80"],"addresses":["10.96.0.{}:80"]}}"#,
        name.len()
    );
    let routes = routes.iter().map(|text| (*text).into()).collect();
    Fragment { routes: Some(routes), ..fragment(name, 1, &cluster) }
}

/// Nobody has asked for it.
fn behind(name: &str) -> Fragment {
    Fragment { is_asked_for: false, ..said(name, &[]) }
}

fn to(service: &str, clusters: &[(&str, u32)]) -> String {
    let clusters: Vec<String> =
        clusters.iter().map(|(name, weight)| format!(r#"{{"name":"{name}","weight":{weight}}}"#)).collect();
    let rule = format!(r#"{{"name":"split","clusters":[{}]}}"#, clusters.join(","));
    format!(r#"{{"name":"r.shop","services":["{service}"],"rules":[{rule}]}}"#)
}

fn rules<'a>(joined: &'a Joined, service: &str) -> Vec<(&'a str, Vec<(&'a str, u32)>)> {
    let list = joined.settings.routes.services.get(&ClusterName::new(service));
    let clusters = |rule: &'a crate::model::route_table::Rule| {
        rule.clusters.list().iter().map(|it| (it.name.as_str(), it.weight)).collect()
    };
    list.into_iter().flatten().map(|it| (&*it.rule.name, clusters(&it.rule))).collect()
}

#[test]
fn routes_hold_for_their_service_and_what_they_name_is_reached_by_them_alone() {
    let split = to("orders", &[("orders", 9), ("stock", 1)]);
    let joined = Joiner::default().join(&file(), &of(&[said("orders", &[&split]), behind("stock")]));
    assert!(joined.rejected.is_empty(), "{joined:?}");
    assert_eq!(names(&joined), ["billing", "orders", "stock"]);
    assert_eq!(rules(&joined, "orders"), [("r.shop/split", vec![("orders", 9), ("stock", 1)])]);
    let cluster = |name: &str| joined.settings.clusters.iter().find(|it| it.name.as_str() == name).unwrap();
    let stock = cluster("stock");
    assert!(stock.authorities.is_empty() && stock.addresses.is_empty());
    for name in ["orders", "stock"] {
        assert_eq!(&*cluster(name).routes[0].name, "r.shop/split");
    }
    assert!(cluster("billing").routes.is_empty());
}

#[test]
fn where_copies_go_is_told_beside_and_holds_nothing_up() {
    let copied = to("orders", &[("orders", 1)])
        .replace(r#""clusters":"#, r#""mirror":[{"cluster":"stock","percent":"5.0000"}],"clusters":"#);
    let joined = Joiner::default().join(&file(), &of(&[said("orders", &[&copied]), behind("stock")]));
    assert!(joined.rejected.is_empty(), "{joined:?}");
    assert_eq!(names(&joined), ["billing", "orders", "stock"]);
    let orders = joined.settings.clusters.iter().find(|it| it.name.as_str() == "orders").unwrap();
    let mirrors = orders.routes[0].policy.mirrors.as_deref().unwrap();
    assert_eq!((mirrors[0].cluster.as_str(), mirrors[0].of_million), ("stock", 50_000));
    // Without it there are no copies, and that is said; requests are where they are to be.
    let joined = Joiner::default().join(&file(), &of(&[said("orders", &[&copied])]));
    assert_eq!(rules(&joined, "orders"), [("r.shop/split", vec![("orders", 1)])]);
    let orders = joined.settings.clusters.iter().find(|it| it.name.as_str() == "orders").unwrap();
    assert!(orders.routes[0].policy.mirrors.is_none());
    let [(service, fault)] = rejected(&joined).try_into().unwrap();
    assert!(service == "orders" && fault.contains("copies of requests go to stock"), "{fault}");
}

#[test]
fn two_services_may_have_the_same_route() {
    let routes = ["a", "bb"].map(|service| to(service, &[("ccc", 1)]));
    let all = [said("a", &[&routes[0]]), said("bb", &[&routes[1]]), behind("ccc")];
    let joined = Joiner::default().join(&file(), &of(&all));
    assert!(joined.rejected.is_empty(), "{joined:?}");
    assert_eq!(rules(&joined, "a"), rules(&joined, "bb"));
    assert_eq!(joined.settings.clusters.last().unwrap().routes.len(), 1, "it is counted as one");
}

#[test]
fn a_redirect_needs_no_service() {
    let moved = r#"{"name":"r","services":["orders"],"rules":[{"redirect":{"path":"/new","status":"308"}}]}"#;
    let joined = Joiner::default().join(&file(), &of(&[said("orders", &[moved])]));
    assert!(joined.rejected.is_empty(), "{joined:?}");
    assert_eq!(rules(&joined, "orders"), [("r/0", vec![("outrider/redirect", 1)])]);
}

#[test]
fn routes_that_reach_for_more_than_their_service_are_refused_with_it() {
    let other = to("stock", &[("orders", 1)]);
    let of_the_file = to("orders", &[("billing", 1)]);
    let own_app = to("orders", &[("inbound/8080", 1)]);
    let twice = to("orders", &[("orders", 1)]);
    let hosts = r#"{"name":"r","hosts":["billing"],"services":["orders"],"rules":[{"clusters":[{"name":"orders"}]}]}"#;
    let nobody = r#"{"name":"r","rules":[{"clusters":[{"name":"orders"}]}]}"#;
    for (routes, what) in [
        (vec![other.as_str()], "services"),
        (vec![hosts], "hosts"),
        (vec![nobody], "services"),
        (vec![&of_the_file], "billing"),
        (vec![&own_app], "inbound/8080"),
        (vec![&twice, &twice], "r.shop"),
        (vec!["{"], "routes"),
    ] {
        let joined = Joiner::default().join(&file(), &of(&[said("orders", &routes), said("stock", &[])]));
        assert_eq!(names(&joined), ["billing", "stock"], "{routes:?}");
        assert!(joined.settings.routes.is_empty(), "{routes:?}");
        let [(service, fault)] = rejected(&joined).try_into().unwrap();
        assert!(service == "orders" && fault.contains(what), "{routes:?}: {fault}");
    }
    let many = Fragment { routes: None, ..said("orders", &[]) };
    let joined = Joiner::default().join(&file(), &of(&[many]));
    assert_eq!(names(&joined), ["billing"]);
}

#[test]
fn what_is_not_whole_leaves_the_last_good_in_force() {
    let mut joiner = Joiner::default();
    let [whole, more] = [&[("orders", 1)][..], &[("orders", 1), ("stock", 1)]].map(|to_| to("orders", to_));
    joiner.join(&file(), &of(&[said("orders", &[&whole])]));
    let joined = joiner.join(&file(), &of(&[said("orders", &[&more])]));
    assert_eq!(rules(&joined, "orders"), [("r.shop/split", vec![("orders", 1)])]);
    assert!(rejected(&joined)[0].1.contains("stock"), "{joined:?}");
    let joined = joiner.join(&file(), &of(&[said("orders", &[&more]), behind("stock")]));
    assert!(joined.rejected.is_empty(), "{joined:?}");
    assert_eq!(rules(&joined, "orders")[0].1.len(), 2);
    // What the last good names is gone, too: it would be half of it.
    let joined = joiner.join(&file(), &of(&[said("orders", &[&more])]));
    assert_eq!((names(&joined), joined.rejected.len()), (vec!["billing"], 1));
    let joined = joiner.join(&file(), &of(&[said("orders", &[])]));
    assert_eq!((names(&joined), joined.settings.routes.is_empty()), (vec!["billing", "orders"], true));
}

#[test]
fn what_falls_takes_with_it_what_names_it() {
    let all = [
        said("a", &[&to("a", &[("bb", 1)])]),
        said("bb", &[&to("bb", &[("nobody", 1)])]),
        said("ccc", &[&to("ccc", &[("a", 1)])]),
    ];
    let joined = Joiner::default().join(&file(), &of(&all));
    assert_eq!((names(&joined), joined.rejected.len()), (vec!["billing"], 3));
    // As a backend alone it needs none of its routes.
    let [a, bb, ccc] = all;
    let bb = Fragment { is_asked_for: false, routes: Some(Arc::default()), ..bb };
    let joined = Joiner::default().join(&file(), &of(&[a, bb, ccc]));
    assert_eq!(names(&joined), ["billing", "a", "bb", "ccc"]);
}
