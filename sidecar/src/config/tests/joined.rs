//! The file together with what the controller says.

use std::{path::Path, sync::Arc};

use crate::{
    config::{Joined, Joiner, Settings, parse},
    model::{
        ClusterName, ListenerKind,
        cluster::{AppProtocol, EndpointSource},
        controller::{Fragment, Fragments},
        listener::Protocol,
        transport::Transport,
    },
};

const FILE: &str = "
service: web
trust_domain: t
identity: {file: {certificate: c, key: k, bundle: b}}
controller: {address: 'c:4360', spiffe_id: spiffe://t/controller}
intercept: {inbound: {except_ports: [9090], ports: [{port: 8080, protocol: http}], other_ports: {allow: [spiffe://t/friend]}}}
clusters:
  - name: billing
    authorities: [billing, 'billing.shop:80']
    addresses: [10.96.0.1]
    spiffe_ids: [spiffe://t/billing]
    endpoints: [{address: '10.0.0.1:80'}]
";
const ORDERS: &str =
    r#"{"name":"orders","authorities":["orders.shop:80"],"addresses":["10.96.0.7:80"],"max_requests":7}"#;

pub(super) fn file() -> Settings {
    parse(FILE, Path::new("")).unwrap()
}

pub(super) fn fragment(name: &str, revision: u64, cluster: &str) -> Fragment {
    Fragment {
        name: name.into(),
        revision,
        cluster: cluster.into(),
        routes: Some(Arc::default()),
        is_asked_for: true,
        names: Vec::new(),
    }
}

pub(super) fn of(services: &[Fragment]) -> Fragments {
    Fragments { services: services.to_vec(), inbound: None }
}

pub(super) fn names(joined: &Joined) -> Vec<&str> {
    let all = joined.settings.clusters.iter().map(|cluster| cluster.name.as_str());
    all.filter(|name| !name.starts_with("inbound/") && *name != "passthrough").collect()
}

/// Services that are not in force as they were said, and why.
pub(super) fn rejected(joined: &Joined) -> Vec<(&str, String)> {
    joined.rejected.iter().map(|rejected| (&*rejected.service, rejected.faults[0].to_string())).collect()
}

#[test]
fn a_service_is_a_cluster_like_those_of_the_file() {
    let joined = Joiner::default().join(&file(), &of(&[fragment("orders", 3, ORDERS)]));
    assert_eq!(names(&joined), ["billing", "orders"]);
    let orders = joined.settings.clusters.last().unwrap();
    assert_eq!(orders.source, EndpointSource::Controller(3));
    assert!(matches!(orders.transport, Transport::Mesh(..)), "by default");
    assert_eq!(orders.caps.max_requests, 7);
    assert_eq!(orders.authorities, ["orders.shop:80"]);
    assert!(joined.rejected.is_empty());
}

#[test]
fn the_file_wins_over_names_authorities_and_addresses() {
    for (json, what) in [
        (r#"{"name":"billing","authorities":[]}"#, "the name"),
        (r#"{"name":"x","authorities":["Billing.Shop:80"]}"#, "authority billing.shop:80"),
        (r#"{"name":"x","authorities":[],"addresses":["10.96.0.1"]}"#, "address 10.96.0.1"),
    ] {
        let name = if json.contains("\"x\"") { "x" } else { "billing" };
        let joined =
            Joiner::default().join(&file(), &of(&[fragment(name, 1, json), fragment("orders", 1, ORDERS)]));
        assert_eq!(names(&joined), ["billing", "orders"], "{json}");
        let [(service, fault)] = rejected(&joined).try_into().unwrap();
        assert_eq!(service, name);
        assert!(fault.contains(what) && fault.contains("cluster billing"), "{fault}");
        assert!(joined.rejected[0].is_conflict);
        assert!(matches!(
            joined.settings.clusters.iter().find(|c| c.name.as_str() == "billing").unwrap().source,
            EndpointSource::Static(_)
        ));
    }
}

#[test]
fn of_two_services_with_one_address_the_first_by_name_has_it() {
    let two = |first: &str, second: &str| {
        let json = |name| format!(r#"{{"name":"{name}","authorities":[],"addresses":["10.96.0.9:80"]}}"#);
        of(&[fragment(first, 1, &json(first)), fragment(second, 2, &json(second))])
    };
    for fragments in [two("a", "b"), two("b", "a")] {
        let joined = Joiner::default().join(&file(), &fragments);
        assert_eq!(names(&joined), ["billing", "a"]);
        assert_eq!(rejected(&joined)[0].0, "b");
    }
}

#[test]
fn what_is_faulty_keeps_the_last_good_and_costs_nobody_else() {
    let mut joiner = Joiner::default();
    let faulty = r#"{"name":"orders","max_requets":1}"#;
    let joined =
        joiner.join(&file(), &of(&[fragment("orders", 1, faulty), fragment("x", 2, r#"{"name":"x"}"#)]));
    assert_eq!(names(&joined), ["billing", "x"], "nothing of it was ever good");
    joiner.join(&file(), &of(&[fragment("orders", 3, ORDERS)]));
    let joined = joiner.join(&file(), &of(&[fragment("orders", 4, faulty)]));
    assert_eq!(names(&joined), ["billing", "orders"]);
    let orders = joined.settings.clusters.last().unwrap();
    assert_eq!(
        (orders.caps.max_requests, &orders.source),
        (7, &EndpointSource::Controller(3)),
        "with the endpoints of then"
    );
    let [(service, fault)] = rejected(&joined).try_into().unwrap();
    assert_eq!(service, "orders");
    assert!(
        fault.contains("controller.services[orders].max_requets")
            && fault.contains("did you mean max_requests"),
        "{fault}"
    );
    let joined = joiner.join(&file(), &of(&[]));
    assert_eq!(names(&joined), ["billing"]);
}

#[test]
fn what_is_for_the_file_alone_is_refused() {
    for (keys, what) in [
        (r#""endpoints":[{"address":"1.2.3.4:5","spiffe_id":"spiffe://t/o"}]"#, "endpoints"),
        (r#""endpoints_file":"/etc/shadow""#, "endpoints_file"),
        (r#""tls":"public","public":{"server_name":"a","roots":"/etc/shadow"}"#, "public.roots"),
        (r#""tls":"public","public":{"server_name":"a","certificate":"c","key":"k"}"#, "public.certificate"),
    ] {
        let json = format!(r#"{{"name":"x",{keys}}}"#);
        let joined = Joiner::default().join(&file(), &of(&[fragment("x", 1, &json)]));
        assert_eq!(names(&joined), ["billing"], "{json}");
        assert!(rejected(&joined)[0].1.starts_with(&format!("controller.services[x].{what}")), "{joined:?}");
    }
    for json in ["", "[]", "{", r#"{"name":"y"}"#, r#"{"name":"passthrough"}"#, &"x".repeat(70_000)] {
        let joined = Joiner::default().join(&file(), &of(&[fragment("x", 1, json)]));
        assert_eq!((names(&joined), joined.rejected.len()), (vec!["billing"], 1), "{json}");
    }
    let routes = Fragment { routes: Some(Arc::new(["{}".into()])), ..fragment("orders", 1, ORDERS) };
    assert_eq!(
        names(&Joiner::default().join(&file(), &of(&[routes]))),
        ["billing"],
        "they would go elsewhere"
    );
}

#[test]
fn a_name_in_the_dns_is_resolved_as_the_file_says() {
    let json = r#"{"name":"x","tls":"none","authorities":["x:80"],"dns":{"name":"x.example","port":80}}"#;
    let joined = Joiner::default().join(&file(), &of(&[fragment("x", 1, json)]));
    let EndpointSource::Dns(dns) = &joined.settings.clusters.last().unwrap().source else {
        panic!("{joined:?}")
    };
    assert_eq!(dns.resolver, file().resolver);
}

#[test]
fn names_that_the_app_wrote_lead_to_the_service_unless_they_are_anothers() {
    let names = ["orders:80", "billing.shop:80", "orders.shop:80"].map(Into::into).to_vec();
    let joined = Joiner::default().join(&file(), &of(&[Fragment { names, ..fragment("orders", 1, ORDERS) }]));
    assert_eq!(joined.settings.clusters.last().unwrap().authorities, ["orders.shop:80", "orders:80"]);
}

#[test]
fn where_a_name_leads_this_caller_counts_before_what_services_call_themselves() {
    let json = |name| format!(r#"{{"name":"{name}","authorities":["orders.stock:80","{name}:80"]}}"#);
    let asked = Fragment { names: vec!["orders.stock:80".into()], ..fragment("b", 2, &json("b")) };
    let joined = Joiner::default().join(&file(), &of(&[fragment("a", 1, &json("a")), asked]));
    assert!(joined.rejected.is_empty(), "{joined:?}");
    let authorities =
        |at: usize| joined.settings.clusters[joined.settings.clusters.len() - at].authorities.clone();
    assert_eq!(
        (authorities(2), authorities(1)),
        (vec!["a:80".into()], vec!["orders.stock:80".into(), "b:80".into()])
    );
}

fn workload(text: &str) -> Fragments {
    Fragments { services: Vec::new(), inbound: Some(Arc::from(text)) }
}

#[test]
fn ports_that_the_file_does_not_name_carry_what_the_controller_says_by_the_rules_of_the_others() {
    let said = workload(
        r#"{"ports":[{"port":8080,"protocol":"tcp"},{"port":7000,"protocol":"http","app_protocol":"http2"},{"port":9090,"protocol":"http"},{"port":4343,"protocol":"http"}]}"#,
    );
    let joined = Joiner::default().join(&file(), &said);
    assert!(joined.rejected.is_empty(), "{joined:?}");
    let listener = joined.settings.listeners.iter().find(|listener| &*listener.name == "intercept-inbound");
    let ListenerKind::InterceptedInbound(inbound) = &listener.unwrap().kind else { panic!("{listener:?}") };
    let ports = &inbound.ports;
    assert_eq!(ports.keys().copied().collect::<Vec<_>>(), [8080, 7000], "exceptions and own ports are none");
    assert_eq!(ports[&8080].protocol, Protocol::Http, "the file's");
    let new = &ports[&7000];
    assert_eq!((new.protocol, new.app_protocol), (Protocol::Http, AppProtocol::Http2));
    assert_eq!(new.allow, ["spiffe://t/friend".parse().unwrap()], "who may call says the file");
    let app = ClusterName::new("inbound/7000");
    assert_eq!(new.app, app);
    assert!(
        joined
            .settings
            .clusters
            .iter()
            .any(|cluster| cluster.name == app && cluster.transport == Transport::App)
    );
}

#[test]
fn of_the_own_workload_the_controller_says_protocols_and_nothing_else() {
    let mut joiner = Joiner::default();
    for text in [
        r#"{"ports":[{"port":7000,"plaintext":"permissive","plaintext_until":"2999-01-01"}]}"#,
        r#"{"ports":[{"port":7000,"allow":["spiffe://t/x"]}]}"#,
        r#"{"ports":[{"port":7000,"app_tls":"passthrough"}]}"#,
        r#"{"other_ports":{}}"#,
        r#"{"except_ports":[1]}"#,
        r#"{"ports":[{"port":7000},{"port":7000}]}"#,
        r#"{"ports":[{"port":0}]}"#,
        r#"{"ports":[{"protocol":"http"}]}"#,
        "{",
    ] {
        let joined = joiner.join(&file(), &workload(text));
        assert!(rejected(&joined).iter().any(|(what, _)| *what == "intercept.inbound"), "{text}");
        assert_eq!(joined.settings.listeners, file().listeners, "{text}");
    }
    joiner.join(&file(), &workload(r#"{"ports":[{"port":7000,"protocol":"http"}]}"#));
    let joined = joiner.join(&file(), &workload("{"));
    assert_ne!(joined.settings.listeners, file().listeners, "the last good stays");
}
