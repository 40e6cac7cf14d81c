//! What `intercept` promises.

use std::time::SystemTime;

use super::*;
use crate::{
    config::fixed_faults,
    model::{
        cluster::{ClusterName, ServiceAddress},
        intercept::{Mode, Own, Unknown},
        listener::{InterceptedInbound, Protocol},
    },
};

fn intercepted(keys: &str) -> Settings {
    settings(&format!("{TOP}intercept: {{{keys}}}\n"))
}

fn inbound_of(settings: &Settings) -> &InterceptedInbound {
    let kind = &settings.listeners.last().expect("listeners").kind;
    let ListenerKind::InterceptedInbound(inbound) = kind else { panic!("{kind:?}") };
    inbound
}

fn inbound(keys: &str) -> String {
    format!("intercept:\n  inbound: {{{keys}}}\n")
}

fn port(keys: &str) -> String {
    inbound(&format!("ports: [{{port: 8080, {keys}}}]"))
}

#[test]
fn an_empty_section_is_all_defaults() {
    let settings = intercepted("");
    let intercept = settings.bootstrap.intercept.as_ref().unwrap();
    assert_eq!((intercept.mode, intercept.own), (Mode::Redirect, Own::Uid(4343)));
    assert_eq!((intercept.outbound.port, intercept.inbound.port), (4340, 4343));
    assert!(intercept.outbound.except_ports.is_empty() && intercept.inbound.except_cidrs.is_empty());
    let [outbound, inbound] = settings.listeners.as_slice() else { panic!("{:?}", settings.listeners) };
    assert_eq!(
        (&*outbound.name, outbound.address.to_string()),
        ("intercept-outbound", "[::]:4340".to_owned())
    );
    assert_eq!((&*inbound.name, inbound.address.to_string()), ("intercept-inbound", "[::]:4343".to_owned()));
    assert_eq!(outbound.kind, ListenerKind::InterceptedOutbound { unknown: Unknown::Passthrough });
    let others = &inbound_of(&settings).others;
    assert_eq!((others.protocol, others.app.as_str()), (Protocol::Detect, "inbound/other"));
    assert!(others.exceptions.is_none() && others.allow.is_empty());
    let clusters: Vec<_> = settings.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    assert_eq!(clusters, ["inbound/other", "passthrough"]);
}

#[test]
fn a_full_section_becomes_settings() {
    let settings = settings(&format!(
        "{TOP}intercept:
  {{mode: tproxy, own: mark, mark: 7,
   outbound: {{port: 5001, unknown: deny, except_ports: [25, 3306], except_cidrs: [10.0.0.0/8, '::1'], except_uids: [0, 1000]}},
   inbound: {{port: 5002, except_ports: [22], except_cidrs: [192.0.2.7],
     ports: [{{port: 8080, protocol: http, app_protocol: http2, allow: [spiffe://demo.outrider/web], max_requests: 7}},
             {{port: 9000, protocol: tcp, plaintext: permissive, plaintext_until: 2027-01-31, plaintext_from: [10.0.0.0/8, 'fd00::1'], probes: [/healthz], app_tls: passthrough}}],
     other_ports: {{protocol: tcp}}}}}}
clusters: [{{name: users, addresses: ['10.96.0.10:80', '10.96.0.11', '[fd00::10]:80'], protocol: tcp, endpoints_file: f, spiffe_ids: [spiffe://demo.outrider/u]}}]
"
    ));
    let intercept = settings.bootstrap.intercept.as_ref().unwrap();
    assert_eq!((intercept.mode, intercept.own, intercept.own.mark()), (Mode::Tproxy, Own::Mark(7), Some(7)));
    let (out, inb) = (&intercept.outbound, &intercept.inbound);
    assert_eq!(
        (out.port, out.except_ports.as_slice(), out.except_uids.as_slice()),
        (5001, &[25, 3306][..], &[0, 1000][..])
    );
    let cidrs: Vec<_> = out.except_cidrs.iter().chain(&inb.except_cidrs).map(ToString::to_string).collect();
    assert_eq!(cidrs, ["10.0.0.0/8", "::1/128", "192.0.2.7/32"]);
    assert_eq!((inb.port, inb.except_ports.as_slice()), (5002, &[22][..]));
    let rules = inbound_of(&settings);
    assert_eq!(rules.mode, Mode::Tproxy);
    let (http, tcp) = (rules.of(8080), rules.of(9000));
    assert_eq!((http.protocol, http.app_protocol, http.allow.len()), (Protocol::Http, AppProtocol::Http2, 1));
    assert_eq!((tcp.protocol, tcp.exceptions.app_tls), (Protocol::Tcp, true));
    assert_eq!(tcp.exceptions.probes, ["/healthz"]);
    let day = SystemTime::UNIX_EPOCH + Duration::from_secs(1_801_353_600);
    assert_eq!(tcp.exceptions.plaintext_until, Some(day), "its first moment, in UTC");
    let from: Vec<_> = tcp.exceptions.from.iter().map(ToString::to_string).collect();
    assert_eq!(from, ["10.0.0.0/8", "fd00::1/128"]);
    assert_eq!(rules.of(1).protocol, Protocol::Tcp, "any other");
    let cluster =
        |name| settings.clusters.iter().find(|cluster| cluster.name == ClusterName::new(name)).unwrap();
    assert_eq!(cluster("inbound/8080").caps.max_requests, 7);
    assert_eq!(cluster("inbound/8080").transport, Transport::App);
    let users = cluster("users");
    assert_eq!(users.protocol, Protocol::Tcp);
    let address = |ip: &str, port| ServiceAddress { ip: ip.parse().unwrap(), port };
    assert_eq!(
        users.addresses,
        [address("10.96.0.10", Some(80)), address("10.96.0.11", None), address("fd00::10", Some(80))]
    );
}

#[test]
fn a_day_that_has_passed_is_no_fault() {
    let keys = "plaintext: permissive, plaintext_until: 2020-01-31, trusted_hops: 2";
    let settings = settings(&format!("{TOP}{}", port(keys)));
    let exceptions = &inbound_of(&settings).of(8080).exceptions;
    assert!(
        !exceptions.permits_plaintext([127, 0, 0, 1].into(), SystemTime::now()),
        "a restart must not fail because time has passed"
    );
}

#[test]
fn who_is_told_by_what_is_said_once() {
    for (keys, fault) in [
        ("own: mark, uid: 5", "intercept.uid (4): has no meaning with own: mark"),
        ("mark: 5", "intercept.mark (4): has no meaning with own: uid"),
        ("own: user", "intercept.own (4): \"user\" is not known here"),
        ("uid: 0", "intercept.uid (4): 0 is out of range"),
        ("uid: 4294967295", "intercept.uid (4): 4294967295 is out of range"),
        ("own: mark, mark: 0", "intercept.mark (4): 0 is out of range"),
        ("own: mark, mark: 1330774016", "intercept.mark (4): 1330774016 is one of those that the rules use"),
        ("own: mark, mark: 1330839551", "intercept.mark (4): 1330839551 is one of those that the rules use"),
        ("mode: tunnel", "intercept.mode (4): \"tunnel\" is not known here"),
        ("mod: redirect", "intercept.mod (4): no such key"),
    ] {
        assert_faults(&format!("intercept: {{{keys}}}\n"), &[fault]);
    }
    for mark in ["1330774015", "1330839552", "4294967295"] {
        intercepted(&format!("own: mark, mark: {mark}"));
    }
}

#[test]
fn exceptions_are_ports_ranges_and_users_each_once() {
    let lists = "\
intercept:
  outbound: {except_ports: [0, 65536, '+80', 80, 80, http], except_cidrs: [10.1.0.0/8, '::ffff:10.0.0.1', '::ffff:10.0.0.0/104', 10.0.0.0/33, host, 192.0.2.7/32, 192.0.2.7], except_uids: [root, -1, 4294967295, 7, 7]}
  inbound: {except_ports: [22, 22], except_cidrs: ['fd00::1/8', fd00::/8, 'fd00:0::/8']}
";
    let outbound = |key: &str, index, rest: &str| format!("intercept.outbound.{key}[{index}] (5): {rest}");
    let inbound = |key: &str, index, rest: &str| format!("intercept.inbound.{key}[{index}] (6): {rest}");
    let expected = [
        outbound("except_ports", 0, "\"0\" is not a port"),
        outbound("except_ports", 1, "\"65536\" is not a port"),
        outbound("except_ports", 2, "\"+80\" is not a port"),
        outbound("except_ports", 4, "80 stands here twice"),
        outbound("except_ports", 5, "\"http\" is not a port"),
        outbound("except_cidrs", 0, "\"10.1.0.0/8\" is not an address or a range"),
        outbound("except_cidrs", 1, "\"::ffff:10.0.0.1\" is not"),
        outbound("except_cidrs", 2, "\"::ffff:10.0.0.0/104\" is not"),
        outbound("except_cidrs", 3, "\"10.0.0.0/33\" is not"),
        outbound("except_cidrs", 4, "\"host\" is not"),
        outbound("except_cidrs", 6, "192.0.2.7 stands here twice"),
        outbound("except_uids", 0, "\"root\" is not the number of a user"),
        outbound("except_uids", 1, "\"-1\" is not"),
        outbound("except_uids", 2, "\"4294967295\" is not"),
        outbound("except_uids", 4, "7 stands here twice"),
        inbound("except_ports", 1, "22 stands here twice"),
        inbound("except_cidrs", 0, "\"fd00::1/8\" is not"),
        inbound("except_cidrs", 2, "fd00:0::/8 stands here twice"),
    ];
    assert_faults(lists, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    let many = vec!["1"; 1001].join(", ");
    assert_faults(&inbound_list(&many), &["intercept.inbound.except_ports (5): 1001 entries"]);
}

fn inbound_list(ports: &str) -> String {
    inbound(&format!("except_ports: [{ports}]"))
}

#[test]
fn every_fault_of_a_port_has_its_place() {
    for (keys, faults) in [
        ("plaintext: permissive", &["plaintext_until (5): is missing"][..]),
        ("plaintext_until: 2027-01-31", &["plaintext_until (5): has no meaning"]),
        (
            "plaintext: permissive, plaintext_until: 2027-02-30",
            &["plaintext_until (5): \"2027-02-30\" is not a date"],
        ),
        (
            "plaintext: permissive, plaintext_until: 31.1.2027",
            &["plaintext_until (5): \"31.1.2027\" is not a date"],
        ),
        ("plaintext: permissive, plaintext_until: '2027-01-31T00:00:00Z'", &["is not a date"]),
        ("plaintext: permissive, plaintext_until: never", &["is not a date"]),
        ("plaintext_from: [10.0.0.0/8]", &["plaintext_from (5): has no meaning"]),
        ("probes: [/], plaintext_from: []", &["plaintext_from (5): is an empty list"]),
        (
            "app_tls: passthrough, plaintext_from: [10.0.0.1/8, 10.0.0.0/8, 10.0.0.0/8, nowhere]",
            &[
                "plaintext_from[0] (5): \"10.0.0.1/8\" is not an address or a range",
                "plaintext_from[2] (5): 10.0.0.0/8 stands here twice",
                "plaintext_from[3] (5): \"nowhere\" is not",
            ],
        ),
        ("plaintext: permissive, plaintext_from: [10.0.0.0/8]", &["plaintext_until (5): is missing"]),
        ("trusted_hops: 1", &["trusted_hops (5): has no meaning while plaintext is refused"]),
        (
            "plaintext: permissive, plaintext_until: 2027-01-31, protocol: tcp, trusted_hops: 1",
            &["trusted_hops (5): is for HTTP only"],
        ),
        (
            "plaintext: permissive, plaintext_until: 2027-01-31, trusted_hops: 17",
            &["trusted_hops (5): 17 is out of range"],
        ),
        ("plaintext: allow", &["plaintext (5): \"allow\" is not known here"]),
        ("probes: [healthz, '/a?b', '/a b', /ok]", &["probes[0] (5)", "probes[1] (5)", "probes[2] (5)"]),
        ("protocol: udp", &["protocol (5): \"udp\" is not known here"]),
        ("protocol: tcp, app_protocol: http2", &["app_protocol (5): is for HTTP only"]),
        ("allow: []", &["allow (5): is an empty list"]),
        (
            "allow: [spiffe://other/a]",
            &["allow[0] (5): spiffe://other/a is of a trust domain whose roots are not known"],
        ),
        ("app_tls: yes", &["app_tls (5): \"yes\" is not known here"]),
        ("peer: istio", &["peer (5): \"istio\" is not known here"]),
        ("connect_timeout: 0s", &["connect_timeout (5): 0s is out of range"]),
        ("app: '127.0.0.1:80'", &["app (5): no such key"]),
    ] {
        let expected: Vec<_> = faults
            .iter()
            .map(|fault| {
                if fault.contains(" (5)") {
                    format!("intercept.inbound.ports[0].{fault}")
                } else {
                    (*fault).to_owned()
                }
            })
            .collect();
        assert_faults(&port(keys), &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
    assert_faults(
        &inbound("ports: [{protocol: http}, {port: 0}, {port: 80}, {port: 80}], other_ports: {port: 80}"),
        &[
            "intercept.inbound.ports[0].port (5): is missing",
            "intercept.inbound.ports[1].port (5): \"0\" is not a port",
            "intercept.inbound.ports[3] (5): port 80 stands here twice",
            "intercept.inbound.other_ports.port (5): has no meaning here",
        ],
    );
}

#[test]
fn ports_and_names_of_interception_are_nobody_elses() {
    assert_faults(
        "intercept: {outbound: {port: 5000}, inbound: {port: 5000}}\n",
        &["intercept.inbound.port (4): [::]:5000 overlaps with [::]:5000 at intercept.outbound.port"],
    );
    assert_faults(
        "\
intercept: {outbound: {port: 4391}}
inbound: [{name: intercept-inbound, listen: '10.0.0.1:4343', app: '127.0.0.1:1'}]
outbound: [{listen: '127.0.0.1:4391'}]
",
        &[
            "inbound[0].name (5): \"intercept-inbound\" is also the name of intercept",
            "intercept.outbound.port (4): [::]:4391 overlaps with 127.0.0.1:4391 at outbound[0].listen",
            "intercept.inbound.port (4): [::]:4343 overlaps with 10.0.0.1:4343 at inbound[0].listen",
            "admin.listen (0): 0.0.0.0:4391 overlaps with 127.0.0.1:4391 at outbound[0].listen",
        ],
    );
    assert_faults(
        "\
intercept: {inbound: {ports: [{port: 8080}, {port: 9090}]}}
inbound: [{name: '8080', listen: '127.0.0.1:1', app: '127.0.0.1:2'}, {name: other, listen: '127.0.0.1:3', app: '127.0.0.1:4'}, {name: '8081', listen: '127.0.0.1:5', app: '127.0.0.1:6'}]
",
        &[
            "inbound[0].name (5): \"8080\" stands for an intercepted port",
            "inbound[1].name (5): \"other\" stands for an intercepted port",
        ],
    );
    assert_faults("inbound: [{name: other, listen: '127.0.0.1:3', app: '127.0.0.1:4'}]\n", &[]);
}

#[test]
fn rules_for_a_port_that_never_comes_in_are_faults() {
    assert_faults(
        "\
intercept: {inbound: {except_ports: [22, 8080], ports: [{port: 8080}, {port: 4391}, {port: 4340}, {port: 6000}, {port: 7000}]}}
inbound: [{listen: '10.0.0.1:6000', app: '127.0.0.1:1'}]
outbound: [{listen: '127.0.0.1:7000'}]
",
        &[
            "intercept.inbound.ports[0].port (4): port 8080 is left alone by intercept.inbound.except_ports[1]",
            "intercept.inbound.ports[1].port (4): port 4391 is that of our own listener at admin.listen",
            "intercept.inbound.ports[2].port (4): port 4340 is that of our own listener at intercept.outbound.port",
            "intercept.inbound.ports[3].port (4): port 6000 is that of our own listener at inbound[0].listen",
        ],
    );
}

#[test]
fn an_endpoint_at_our_own_outbound_port_is_a_loop() {
    assert_faults(
        "intercept: {}\nclusters: [{name: x, spiffe_ids: [spiffe://demo.outrider/x], endpoints: [{address: '127.0.0.1:4340'}, {address: '[::1]:4340'}, {address: '10.0.0.1:4340'}]}]\n",
        &[
            "clusters[0].endpoints[0].address (5): 127.0.0.1:4340 is our own outbound listener",
            "clusters[0].endpoints[1].address (5): [::1]:4340 is our own outbound listener",
        ],
    );
    assert_faults(
        "intercept: {}\ninbound: [{listen: '127.0.0.1:1', app: '127.0.0.1:4343'}]\n",
        &["inbound[0].app (5): 127.0.0.1:4343 is our own listener at intercept.inbound.port"],
    );
}

#[test]
fn service_addresses_can_be_dialled_and_lead_to_one_cluster() {
    let cluster = |name: &str, addresses: &str| {
        format!(
            "- {{name: {name}, addresses: [{addresses}], endpoints_file: f, spiffe_ids: [spiffe://demo.outrider/x]}}\n"
        )
    };
    let file = |clusters: &[String]| format!("intercept: {{}}\nclusters:\n{}", clusters.concat());
    assert_faults(
        &file(&[cluster(
            "x",
            "orders, '0.0.0.0:80', '[::]:80', 10.0.0.1:0, '::ffff:10.0.0.1', '[::ffff:10.0.0.1]:80', 10.0.0.0/8, '10.0.0.1:80', '10.0.0.1:80', '::2', '::2'",
        )]),
        &[
            "clusters[0].addresses[0] (6): \"orders\" is not an IP address",
            "clusters[0].addresses[1] (6)",
            "clusters[0].addresses[2] (6)",
            "clusters[0].addresses[3] (6)",
            "clusters[0].addresses[4] (6)",
            "clusters[0].addresses[5] (6)",
            "clusters[0].addresses[6] (6)",
            "clusters[0].addresses[8] (6): 10.0.0.1:80 stands here twice",
            "clusters[0].addresses[10] (6): ::2 stands here twice",
        ],
    );
    assert_faults(
        &file(&[
            cluster("x", "10.0.0.1, '10.0.0.2:80'"),
            cluster("y", "'10.0.0.1:80', '10.0.0.2:81'"),
            cluster("z", "10.0.0.1, '10.0.0.2:80'"),
        ]),
        &[
            "clusters[2].addresses[0] (8): 10.0.0.1 leads elsewhere already (clusters[0].addresses[0])",
            "clusters[2].addresses[1] (8): 10.0.0.2:80 leads elsewhere already (clusters[0].addresses[1])",
        ],
    );
}

#[test]
fn the_name_of_what_passes_through_is_nobody_elses() {
    // Also without interception, so that adding it to a file breaks nothing.
    for first in ["intercept: {}", "outbound: [{listen: '127.0.0.1:1'}]"] {
        assert_faults(
            &format!("{first}\nclusters: [{{name: passthrough, tls: none, endpoints_file: f}}]\n"),
            &["clusters[0].name (5): \"passthrough\" stands for destinations that no cluster has"],
        );
    }
}

#[test]
fn what_the_kernel_was_told_is_fixed_and_the_rest_reloads() {
    let is_fixed = |before: &str, after: &str| {
        let keys: Vec<_> =
            fixed_faults(&settings(&format!("{TOP}{before}")), &settings(&format!("{TOP}{after}")))
                .into_iter()
                .map(|fault| fault.path)
                .collect();
        assert!(keys.is_empty() || keys == ["intercept"], "{keys:?}");
        !keys.is_empty()
    };
    let base = "intercept: {outbound: {port: 5000}}\n";
    for other in [
        "intercept: {outbound: {port: 5001}}\n",
        "intercept: {outbound: {port: 5000}, mode: tproxy}\n",
        "intercept: {outbound: {port: 5000}, uid: 5}\n",
        "intercept: {outbound: {port: 5000}, own: mark}\n",
        "intercept: {outbound: {port: 5000, except_ports: [1]}}\n",
        "intercept: {outbound: {port: 5000, except_cidrs: ['::1']}}\n",
        "intercept: {outbound: {port: 5000, except_uids: [1]}}\n",
        "intercept: {outbound: {port: 5000}, inbound: {port: 5001}}\n",
        "intercept: {outbound: {port: 5000}, inbound: {except_ports: [1]}}\n",
        "intercept: {outbound: {port: 5000}, inbound: {except_cidrs: ['::1']}}\n",
        "outbound: [{listen: '127.0.0.1:1'}]\n",
    ] {
        assert!(is_fixed(base, other) && is_fixed(other, base), "{other}");
    }
    for other in [
        "intercept: {outbound: {port: 5000, unknown: deny}}\n",
        "intercept: {outbound: {port: 5000}, inbound: {ports: [{port: 80, protocol: http}]}}\n",
        "intercept: {outbound: {port: 5000}, inbound: {other_ports: {protocol: tcp}}}\n",
    ] {
        assert!(!is_fixed(base, other), "{other}");
    }
}
