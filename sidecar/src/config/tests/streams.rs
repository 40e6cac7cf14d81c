//! `tcp_routes` and the PROXY protocol.

use super::*;
use crate::model::{listener::Protocol, proxy_protocol::Version};

const CLUSTERS: &str = "outbound: [{listen: '127.0.0.1:0', protocol: tcp, cluster: db}]\nclusters:\n\
    - {name: db, spiffe_ids: [spiffe://demo.outrider/db], endpoints: [{address: '10.0.0.7:4343'}]}\n\
    - {name: db-v2, spiffe_ids: [spiffe://demo.outrider/db], endpoints: [{address: '10.0.0.8:4343'}]}\n";

#[track_caller]
fn assert_route_faults(route: &str, expected: &[&str]) {
    assert_faults(&format!("{CLUSTERS}tcp_routes: [{{{route}}}]\n"), expected);
}

#[test]
fn a_route_of_streams_has_conditions_and_clusters() {
    let route = "{name: r, services: [db], ports: [5432], snis: [DB.example., '*.db.example'], clusters: [{name: db, weight: 9}, {name: db-v2}]}";
    let settings = settings(&format!("{TOP}{CLUSTERS}tcp_routes: [{route}]\n"));
    let [route] = &settings.tcp_routes.0[..] else { panic!() };
    let services: Vec<_> = route.services.iter().map(|name| name.as_str()).collect();
    let snis: Vec<_> = route.snis.iter().map(ToString::to_string).collect();
    let shares: Vec<_> = route.clusters.list().iter().map(|it| (it.name.as_str(), it.weight)).collect();
    assert_eq!((&*route.name, &services[..], &route.ports[..]), ("r", &["db"][..], &[5432][..]));
    assert_eq!(snis, ["db.example", "*.db.example"]);
    assert_eq!(shares, [("db", 9), ("db-v2", 1)]);
}

#[test]
fn what_would_never_fit_or_always_is_a_fault() {
    const TO: &str = "clusters: [{name: db}]";
    assert_route_faults(&format!("services: [db], {TO}"), &["tcp_routes[0].name (8): is missing"]);
    assert_route_faults("name: r, ports: [1]", &["tcp_routes[0].clusters (8): is missing"]);
    assert_route_faults(&format!("name: r, {TO}"), &["tcp_routes[0] (8): has no condition"]);
    assert_route_faults(&format!("name: r, services: [dv], {TO}"), &["there is no cluster \"dv\""]);
    assert_route_faults("name: r, ports: [1], clusters: [{name: db-v3}]", &["there is no cluster \"db-v3\""]);
    assert_route_faults("name: r, ports: [1], clusters: [{name: db, weight: 0}]", &["every weight is 0"]);
    assert_route_faults(&format!("name: r, services: [db, db], {TO}"), &["db stands here twice"]);
    assert_route_faults(&format!("name: r, ports: [], {TO}"), &["ports (8): is an empty list"]);
    assert_route_faults(
        &format!("name: r, ports: [0, x], {TO}"),
        &["ports[0] (8): \"0\" is not", "\"x\" is not a port"],
    );
    for sni in ["10.0.0.1", "'[::1]'", "'*'", "'a.*.b'", "'*a.b'", "a:443", "''", "'*.'"] {
        assert_route_faults(
            &format!("name: r, snis: [{sni}], {TO}"),
            &["is not a name that a TLS client says"],
        );
    }
    let twice = format!("{{name: r, ports: [1], {TO}}}, {{name: r, ports: [2], {TO}}}");
    assert_faults(&format!("{CLUSTERS}tcp_routes: [{twice}]\n"), &["\"r\" is also the name of another"]);
}

const LISTENERS: &str = "outbound: [{listen: '127.0.0.1:1', proxy_protocol: {from: [10.0.0.0/8, '::1'], required: false}}]\n\
    inbound: [{listen: '127.0.0.1:2', app: '127.0.0.1:3', proxy_protocol: {from: [192.0.2.7]}, app_proxy_protocol: v1}]\n\
    intercept: {inbound: {ports: [{port: 80, protocol: tcp, proxy_protocol: {from: [10.0.0.1]}, app_proxy_protocol: v2}]}}\n";

#[test]
fn listeners_and_ports_say_whose_word_they_take_and_what_their_apps_hear() {
    let settings = settings(&format!("{TOP}{LISTENERS}"));
    let of = |name: &str| settings.listeners.iter().find(|listener| &*listener.name == name).unwrap();
    let outbound = of("outbound-0").proxy_protocol(None).unwrap();
    assert!(!outbound.is_required && outbound.listens_to("10.1.1.1".parse().unwrap()));
    assert!(outbound.listens_to("::1".parse().unwrap()) && !outbound.listens_to("::2".parse().unwrap()));
    let inbound = of("inbound-0").proxy_protocol(None).unwrap();
    assert!(inbound.is_required && inbound.listens_to("192.0.2.7".parse().unwrap()));
    let ListenerKind::Inbound(rules) = &of("inbound-0").kind else { panic!() };
    assert_eq!(rules.app_proxy_protocol, Some(Version::V1));
    let intercepted = of("intercept-inbound");
    let original = |port: u16| Some(SocketAddr::from(([10, 0, 0, 9], port)));
    assert!(
        intercepted.proxy_protocol(original(80)).is_some()
            && intercepted.proxy_protocol(original(81)).is_none()
    );
    let port = intercepted.inbound(original(80)).unwrap();
    assert_eq!((port.protocol, port.app_proxy_protocol), (Protocol::Tcp, Some(Version::V2)));
    assert_eq!(intercepted.inbound(original(81)).unwrap().app_proxy_protocol, None);
}

#[test]
fn nobodys_word_is_taken_unnamed() {
    let listener =
        |keys: &str| format!("outbound: [{{listen: '127.0.0.1:1', proxy_protocol: {{{keys}}}}}]\n");
    assert_faults(&listener(""), &["proxy_protocol.from (4): is missing"]);
    assert_faults(&listener("from: []"), &["is an empty list"]);
    assert_faults(&listener("from: [10.0.0.1/8]"), &["\"10.0.0.1/8\" is not an address or a range"]);
    assert_faults(&listener("from: [10.0.0.1], required: maybe"), &["\"maybe\" is not known here"]);
    assert_faults(&listener("from: [10.0.0.1], form: x"), &["form"]);
}
