use std::time::Instant;

use super::*;
use crate::model::{ClusterSettings, EndpointSettings, fixture, runtime::EndpointRuntime};

/// A snapshot of mesh clusters with these keys, and the own app's cluster `inbound/http`, which a faulty
/// configuration has given the key `app`.
fn snapshot(routes: &[(&str, &str)]) -> Snapshot {
    let mut snapshot = fixture::snapshot();
    for (key, name) in routes.iter().copied().chain([("app", "inbound/http")]) {
        let transport =
            if name.starts_with("inbound/") { Transport::App } else { fixture::settings(name).transport };
        let settings = ClusterSettings { transport, ..fixture::settings(name) };
        let cluster = Arc::new(fixture::cluster(settings, 1, Instant::now()));
        snapshot.clusters.insert(ClusterName::new(name), cluster);
        snapshot.routes.insert(Box::from(key), ClusterName::new(name));
    }
    snapshot
}

fn found<'a>(snapshot: &'a Snapshot, authority: &str) -> Option<&'a str> {
    find(snapshot, authority, None).map(|cluster| cluster.name().as_str())
}

#[test]
fn host_and_port_are_looked_for_before_the_host_alone() {
    let snapshot = snapshot(&[("orders", "any"), ("orders:8080", "exact"), ("carts:80", "carts")]);
    for (authority, cluster) in [
        ("orders:8080", Some("exact")),
        ("orders:9090", Some("any")),
        ("orders", Some("any")),
        ("carts:80", Some("carts")),
        ("carts:81", None),
        ("carts", None),
        ("other", None),
    ] {
        assert_eq!(found(&snapshot, authority), cluster, "{authority}");
    }
}

#[test]
fn every_spelling_of_an_authority_leads_to_the_same_cluster() {
    let snapshot = snapshot(&[
        ("orders.default.svc:8080", "a"),
        ("carts", "b"),
        ("[2001:db8::1]:80", "c"),
        ("[::1]", "d"),
    ]);
    for (authority, cluster) in [
        ("ORDERS.default.SVC:8080", "a"),
        ("orders.default.svc.:8080", "a"),
        ("Carts", "b"),
        ("carts.", "b"),
        ("carts:", "b"),
        ("CARTS.:", "b"),
        ("[2001:DB8::1]:80", "c"),
        ("[2001:0db8:0:0::1]:80", "c"),
        ("[::1]", "d"),
        ("[0:0:0:0:0:0:0:1]:8080", "d"),
    ] {
        assert_eq!(found(&snapshot, authority), Some(cluster), "{authority}");
    }
}

#[test]
fn what_no_cluster_names_goes_to_the_default() {
    let snapshot = snapshot(&[("orders", "orders"), ("fallback", "fallback")]);
    let default = ClusterName::new("fallback");
    let name = |authority| find(&snapshot, authority, Some(&default)).map(|cluster| cluster.name().as_str());
    assert_eq!(name("orders"), Some("orders"));
    assert_eq!(name("elsewhere:80"), Some("fallback"));
    assert_eq!(name(""), Some("fallback"));
    assert_eq!(find(&snapshot, "", None).map(|cluster| cluster.name()), None);
    assert!(find(&snapshot, "elsewhere", Some(&ClusterName::new("unknown"))).is_none());
}

#[test]
fn what_is_not_an_authority_goes_nowhere() {
    let snapshot = snapshot(&[("orders", "orders"), ("fallback", "fallback")]);
    let default = ClusterName::new("fallback");
    for authority in [
        "user@orders",
        "@orders",
        "orders@",
        "user:pw@orders:80",
        ":80",
        ":",
        ".",
        "orders..",
        "orders:080",
        "orders:65536",
        "orders:-1",
        "orders:+1",
        "orders:80:80",
        "orders:http",
        "orders/",
        "orders?",
        "orders#",
        "orders\\",
        "or ders",
        "orders\0",
        "%6frders",
        "\u{f6}rders",
        "[",
        "[]",
        "[::1",
        "[::1]80",
        "[::1]:x",
        "[orders]",
        "[fe80::1%25eth0]",
        "::1",
        "[[::1]]",
    ] {
        assert!(find(&snapshot, authority, Some(&default)).is_none(), "{authority:?}");
    }
}

#[test]
fn no_authority_leads_to_the_own_app() {
    let snapshot = snapshot(&[]);
    for authority in ["app", "app:80", "inbound/http", "APP."] {
        assert!(find(&snapshot, authority, None).is_none(), "{authority}");
    }
    assert!(find(&snapshot, "other", Some(&ClusterName::new("inbound/http"))).is_none());
}

/// Who is at an address: a cluster, and the endpoint if it is that alone.
fn at<'a>(snapshot: &'a Snapshot, address: &str) -> Option<(&'a str, Option<SocketAddr>)> {
    match at_address(snapshot, address.parse().unwrap()) {
        AtAddress::Service(cluster) => Some((cluster.name().as_str(), None)),
        AtAddress::Endpoint(cluster, endpoint) => Some((cluster.name().as_str(), Some(endpoint.address()))),
        AtAddress::Unknown => None,
    }
}

#[test]
fn a_service_with_its_port_is_found_before_its_address_alone_and_both_before_an_endpoint() {
    let mut snapshot = snapshot(&[("a", "any"), ("b", "exact"), ("c", "pods")]);
    let services =
        [("10.96.0.10", None, "any"), ("10.96.0.10", Some(80), "exact"), ("fd96::10", Some(80), "exact")];
    for (ip, port, name) in services {
        let address = ServiceAddress { ip: ip.parse().unwrap(), port };
        snapshot.addresses.services.insert(address, ClusterName::new(name));
    }
    // An endpoint that has a service's address as well.
    for address in ["10.0.0.0:1", "10.96.0.10:80", "[fd00::7]:8080"] {
        let endpoint = Arc::new(Endpoint {
            settings: EndpointSettings::new(address.parse().unwrap(), Arc::from([])),
            runtime: Arc::new(EndpointRuntime::new(Instant::now())),
            client: None,
        });
        let at = (ClusterName::new("pods"), endpoint);
        snapshot.addresses.endpoints.insert(address.parse().unwrap(), at);
    }
    for (address, found) in [
        ("10.96.0.10:80", Some(("exact", None))),
        ("10.96.0.10:81", Some(("any", None))),
        ("[fd96::10]:80", Some(("exact", None))),
        ("[fd96::10]:81", None),
        ("10.0.0.0:1", Some(("pods", Some("10.0.0.0:1")))),
        ("10.0.0.0:2", None),
        ("10.0.0.1:1", None),
        ("[fd00::7]:8080", Some(("pods", Some("[fd00::7]:8080")))),
        ("[fd00::7]:80", None),
    ] {
        let found = found.map(|(name, endpoint)| (name, endpoint.map(|text: &str| text.parse().unwrap())));
        assert_eq!(at(&snapshot, address), found, "{address}");
    }
}

#[test]
fn an_address_of_a_cluster_that_is_gone_leads_nowhere() {
    let mut snapshot = snapshot(&[]);
    let address = ServiceAddress { ip: "10.96.0.10".parse().unwrap(), port: None };
    snapshot.addresses.services.insert(address, ClusterName::new("gone"));
    assert_eq!(at(&snapshot, "10.96.0.10:80"), None);
}
