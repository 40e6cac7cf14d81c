//! What the whole of `config` promises: sound files become settings, and every fault of the others is named.

mod authorization;
mod balance;
mod edits;
mod federation;
mod health_check;
mod http_routes;
mod identity;
mod intercept;
mod joined;
mod limits;
mod probes;
mod routes;
mod streams;
mod telemetry;
mod told;
mod told_routes;

use std::{net::SocketAddr, path::Path, time::Duration};

use super::*;
use crate::model::{
    cluster::{AppProtocol, Balance, EndpointSource},
    dns::{DnsRecords, Family},
    listener::{Inbound, ListenerKind},
    policy::RetryPolicy,
    settings::IdentitySource,
    transport::{ClientCertificate, HttpVersion, PeerKind, Roots, Transport},
};

const TOP: &str = "service: shop\ntrust_domain: demo.outrider\nidentity: {ca: {address: '127.0.0.1:4350'}}\n";

const FULL: &str = "
outbound:
  - listen: 127.0.0.1:4340
  - {name: db, listen: '127.0.0.1:5432', protocol: tcp, cluster: Orders}
inbound:
  - {name: http, listen: '0.0.0.0:4343', app: '127.0.0.1:8080', allow: [spiffe://demo.outrider/web]}
clusters:
  - name: Orders
    spiffe_ids: [spiffe://demo.outrider/orders]
    endpoints: [{address: '10.0.0.7:4343'}, {address: '10.0.0.8:4343', spiffe_id: spiffe://demo.outrider/b}]
    peer: standard
    peer_protocol: http1
    balance: round_robin
    request_timeout: 3s
    stream_idle_timeout: none
    retry: {max_retries: 0, budget_percent: 50, replay_bytes: 1MiB}
";

fn settings(text: &str) -> Settings {
    parse(text, Path::new("/etc/outrider")).unwrap_or_else(|error| panic!("{error}"))
}

/// `path (line): problem` of every fault of a file that starts with [`TOP`].
fn faults(rest: &str) -> Vec<String> {
    match parse(&format!("{TOP}{rest}"), Path::new("")) {
        Ok(_) => Vec::new(),
        Err(Error::Faults(faults)) => faults
            .iter()
            .map(|fault| format!("{} ({}): {}", fault.path, fault.line.unwrap_or_default(), fault.problem))
            .collect(),
        Err(error) => panic!("{error}"),
    }
}

/// Asserts that each expected text is in a fault of its own, and that there are no others.
#[track_caller]
fn assert_faults(rest: &str, expected: &[&str]) {
    let found = faults(rest);
    for text in expected {
        assert!(found.iter().any(|fault| fault.contains(text)), "no {text:?} in {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn a_full_file_becomes_settings() {
    let settings = settings(&format!("{TOP}{FULL}"));
    assert_eq!(settings.bootstrap.state_dir, Path::new("/var/lib/outrider"));
    assert_eq!(settings.limits.header_bytes, 65536);
    assert_eq!(settings.bootstrap.tls.key_exchange[0], rustls::NamedGroup::X25519MLKEM768);
    let names: Vec<&str> = settings.listeners.iter().map(|listener| &*listener.name).collect();
    assert_eq!(names, ["http", "outbound-0", "db"]);
    let clusters: Vec<&str> = settings.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    assert_eq!(clusters, ["inbound/http", "Orders"]);

    let orders = &settings.clusters[1];
    assert_eq!(orders.authorities, ["orders"]);
    assert_eq!(orders.transport, Transport::Mesh(PeerKind::Standard, HttpVersion::Http1));
    assert_eq!(orders.balance, Balance::RoundRobin);
    assert_eq!(orders.policy.request_timeout, Some(Duration::from_secs(3)));
    assert_eq!(orders.timeouts.stream_idle, defaults::NEVER);
    assert_eq!((orders.policy.retry.max_retries, orders.policy.retry.replay_bytes), (0, 1 << 20));
    assert!((orders.retry_budget.ratio - 0.5).abs() < f64::EPSILON);
    let EndpointSource::Static(endpoints) = &orders.source else { panic!("{:?}", orders.source) };
    assert_eq!(endpoints[0].spiffe_ids[0].as_str(), "spiffe://demo.outrider/orders");
    assert_eq!(endpoints[1].spiffe_ids[0].as_str(), "spiffe://demo.outrider/b");
}

#[test]
fn an_inbound_listener_brings_the_cluster_of_the_own_app() {
    let settings = settings(&format!("{TOP}{FULL}"));
    let ListenerKind::Inbound(inbound) = &settings.listeners[0].kind else { panic!() };
    let Inbound { app, allow, .. } = &**inbound;
    assert_eq!(app, &settings.clusters[0].name);
    assert_eq!(allow.len(), 1);
    let cluster = &settings.clusters[0];
    assert_eq!(cluster.transport, Transport::App);
    assert_eq!(cluster.policy.retry, RetryPolicy::OWN_APP);
    assert_eq!(cluster.timeouts.pool_idle, Duration::from_secs(3));
    let EndpointSource::Static(endpoints) = &cluster.source else { panic!("{:?}", cluster.source) };
    assert_eq!(endpoints[0].address, SocketAddr::from(([127, 0, 0, 1], 8080)));
    assert!(endpoints[0].spiffe_ids.is_empty());
}

#[test]
fn relative_paths_start_at_the_files_folder() {
    let text = "service: a\ntrust_domain: b\nstate_dir: state\nadmin: {socket: /abs.sock, listen: none}\n\
                identity: {file: {certificate: a.pem, key: k.pem, bundle: b.pem}}\n\
                outbound: [{listen: '127.0.0.1:0'}]\n\
                clusters: [{name: x, endpoints_file: x.yaml}]\n";
    let settings = settings(text);
    assert_eq!(settings.bootstrap.state_dir, Path::new("/etc/outrider/state"));
    assert_eq!(settings.bootstrap.admin.socket, Path::new("/abs.sock"));
    assert_eq!(settings.bootstrap.admin.listen, None);
    let IdentitySource::File { key, .. } = &settings.bootstrap.identity else { panic!() };
    assert_eq!(key, Path::new("/etc/outrider/k.pem"));
    let EndpointSource::File { path, .. } = &settings.clusters[0].source else { panic!() };
    assert_eq!(path, Path::new("/etc/outrider/x.yaml"));
}

#[test]
fn every_fault_of_a_file_is_named_at_once() {
    let rest = "\
workers: 65
drain: {idle_grace: 2m, deadline: 1m}
limits: {header_bytes: 1KiB, max_streams: many}
tls: {cipher_suites: [TLS_RSA_WITH_RC4_128_MD5], key_exchange: []}
admin: {lisen: none}
inbound:
  - {listen: '0.0.0.0:4343', app: localhost, protocol: tcp, app_protocol: http2, allow: []}
outbound:
  - {listen: '127.0.0.1:4343', protocol: tcp}
  - {listen: '127.0.0.1:1', cluster: ordres}
clusters:
  - {name: orders, peer_protocol: http1, endpoints: [{address: '1.2.3.4:5'}]}
  - {name: inbound/x, authorities: [ORDERS, 'a b'], endpoints: [], endpoints_file: x}
";
    assert_faults(
        rest,
        &[
            "workers (4): 65 is out of range",
            "drain.deadline (5): is shorter",
            "limits.header_bytes (6): 1KiB is out of range",
            "limits.max_streams (6): \"many\" is not a whole number",
            "tls.cipher_suites[0] (7): \"TLS_RSA_WITH_RC4_128_MD5\" is not known",
            "tls.key_exchange (7): is an empty list",
            "admin.lisen (8): no such key",
            "inbound[0].app (10): \"localhost\" is not an IP address",
            "inbound[0].app_protocol (10): is for HTTP only",
            "inbound[0].allow (10): is an empty list",
            "outbound[0].cluster (12): is missing",
            "outbound[0].listen (12): 127.0.0.1:4343 overlaps with 0.0.0.0:4343 at inbound[0].listen",
            "outbound[1].cluster (13): there is no cluster \"ordres\"",
            "clusters[0].peer_protocol (15): is for standard peers",
            "clusters[0].endpoints[0].spiffe_id (15): is missing",
            "clusters[1].name (16): \"inbound/x\" begins with inbound/",
            "clusters[1].authorities[0] (16): authority \"orders\" leads elsewhere already (clusters[0].name)",
            "clusters[1].authorities[1] (16): \"a b\" is not a host",
            "clusters[1].endpoints_file (16): stands beside endpoints",
        ],
    );
}

#[test]
fn what_must_be_there_is_asked_for() {
    let Err(Error::Faults(faults)) = parse("{}", Path::new("")) else { panic!() };
    let paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["service", "trust_domain", "identity", ""]);
}

#[test]
fn names_addresses_and_authorities_are_unique() {
    assert_faults(
        "\
outbound:
  - {name: a, listen: '127.0.0.1:1'}
  - {name: a, listen: '127.0.0.1:1'}
  - {listen: '127.0.0.1:4391'}
clusters:
  - {name: x, endpoints_file: f}
  - {name: x, endpoints_file: f}
  - {name: X, endpoints_file: f}
",
        &[
            "outbound[1].name (6): \"a\" is also the name of outbound[0]",
            "outbound[1].listen (6): 127.0.0.1:1 overlaps",
            "admin.listen (0): 0.0.0.0:4391 overlaps with 127.0.0.1:4391",
            "clusters[1].name (10): \"x\" is also the name of clusters[0]",
            "clusters[2].name (11): authority \"x\" leads elsewhere already (clusters[0].name)",
        ],
    );
}

#[test]
fn loops_are_refused() {
    assert_faults(
        "\
outbound: [{listen: '127.0.0.1:4340'}]
inbound: [{listen: '0.0.0.0:4343', app: '127.0.0.1:4343'}]
clusters: [{name: x, spiffe_ids: [spiffe://demo.outrider/x], endpoints: [{address: '127.0.0.1:4340'}, {address: '127.0.0.1:4343'}]}]
",
        &["inbound[0].app (5): 127.0.0.1:4343 is our own", "clusters[0].endpoints[0].address (6): 127.0.0.1:4340"],
    );
}

#[test]
fn callers_are_of_the_own_trust_domain() {
    let rest = "inbound: [{listen: '127.0.0.1:0', app: '127.0.0.1:1', allow: [spiffe://other/web]}]";
    assert_faults(
        rest,
        &["inbound[0].allow[0] (4): spiffe://other/web is of a trust domain whose roots are not known"],
    );
}

#[test]
fn broken_yaml_is_shown_with_its_line() {
    for (text, line) in
        [("service: a\ndrain: [}\n", 2), ("service: a\nservice: b\n", 2), ("service: {a: b}\n", 1)]
    {
        let Err(Error::Faults(faults)) = parse(text, Path::new("")) else { panic!("{text}") };
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].line, Some(line), "{}", faults[0]);
    }
}

#[test]
fn a_hostile_file_is_bounded() {
    let deep = "[".repeat(100_000);
    let bomb = format!("a: &a [x, x, x, x]\n{}", "b: [*a, *a, *a, *a, *a]\n".repeat(1000));
    for text in [deep.as_str(), &bomb, &"service: ".repeat(500_000)] {
        assert!(parse(text, Path::new("")).is_err());
    }
}

proptest::proptest! {
    /// Whatever replaces a part of a sound file: settings or faults, never a panic.
    #[test]
    fn damaged_files_are_refused_or_read(start in 0_usize..1200, length in 0_usize..60, patch in "\\PC{0,20}|[-{}\\[\\]:,&*!|>'\"%@`#\n ]{0,20}") {
        let text = format!("{TOP}{FULL}");
        let cut = |at: usize| text.char_indices().map(|(index, _)| index).nth(at).unwrap_or(text.len());
        let damaged = format!("{}{patch}{}", &text[..cut(start)], &text[cut(start + length)..]);
        if let Err(error) = parse(&damaged, Path::new("/etc/outrider")) {
            proptest::prop_assert!(!error.to_string().is_empty());
        }
    }
}

/// One cluster with these keys.
fn clustered(keys: &str) -> String {
    format!(
        "outbound: [{{listen: '127.0.0.1:4340'}}]\n\
         clusters: [{{name: out, endpoints: [{{address: '10.0.0.7:443'}}], {keys}}}]"
    )
}

#[test]
fn a_cluster_outside_the_mesh_is_reached_as_it_says() {
    let transport = |keys: &str| settings(&format!("{TOP}{}", clustered(keys))).clusters[0].transport.clone();
    assert_eq!(transport("tls: none"), Transport::Plain(AppProtocol::Auto));
    assert_eq!(transport("tls: none, plain_protocol: http2"), Transport::Plain(AppProtocol::Http2));
    let Transport::Public(public) = transport("tls: public, public: {server_name: API.example}") else {
        panic!()
    };
    assert_eq!((&*public.server_name, &public.roots), ("api.example", &Roots::System));
    assert_eq!((&public.client, public.protocol), (&None, AppProtocol::Auto));
    let keys = "tls: public, public: {server_name: '::1', roots: r.pem, certificate: c.pem, key: k.pem, protocol: http1}";
    let Transport::Public(public) = transport(keys) else { panic!() };
    assert_eq!(public.roots, Roots::File("/etc/outrider/r.pem".into()));
    let client =
        ClientCertificate { certificate: "/etc/outrider/c.pem".into(), key: "/etc/outrider/k.pem".into() };
    assert_eq!((&public.client, public.protocol), (&Some(client), AppProtocol::Http1));
    let mesh = |keys: &str| transport(&format!("spiffe_ids: [spiffe://demo.outrider/a], {keys}"));
    assert_eq!(mesh(""), Transport::Mesh(PeerKind::Outrider, HttpVersion::Http2));
    assert_eq!(
        mesh("tls: mesh, mesh_protocol: http1"),
        Transport::Mesh(PeerKind::Outrider, HttpVersion::Http1)
    );
}

#[test]
fn keys_of_another_transport_are_faults() {
    let ids = "spiffe_ids: [spiffe://demo.outrider/a]";
    let public = "tls: public, public: {server_name: a.example}";
    assert_faults(
        &clustered(&format!("tls: none, {ids}")),
        &["clusters[0].spiffe_ids (5): is for tls: mesh only"],
    );
    assert_faults(
        &clustered(&format!("{public}, {ids}")),
        &["clusters[0].spiffe_ids (5): is for tls: mesh only"],
    );
    assert_faults(
        &clustered("tls: none, peer: standard, mesh_protocol: http1, public: {server_name: a.example}"),
        &[
            "clusters[0].peer (",
            "clusters[0].mesh_protocol (",
            "clusters[0].public (5): is for tls: public only",
        ],
    );
    assert_faults(
        &clustered(&format!("{public}, peer_protocol: http1, plain_protocol: http1")),
        &["clusters[0].peer_protocol (", "clusters[0].plain_protocol (5): is for tls: none only"],
    );
    assert_faults(
        &clustered(&format!("{ids}, plain_protocol: http1, public: {{server_name: a.example}}")),
        &["clusters[0].plain_protocol (", "clusters[0].public ("],
    );
    let standard = format!("{ids}, peer: standard, mesh_protocol: http1");
    assert_faults(&clustered(&standard), &["clusters[0].mesh_protocol (5): is for sidecars only"]);
    let by_name = "tls: none, dns: {name: out.test., port: 80}";
    assert_faults(&clustered(by_name).replace("endpoints: [{address: '10.0.0.7:443'}], ", ""), &[]);
    let own_id = "outbound: [{listen: '127.0.0.1:4340'}]\nclusters: [{name: out, tls: none, endpoints: \
                  [{address: '10.0.0.7:443', spiffe_id: spiffe://demo.outrider/a}]}]";
    assert_faults(own_id, &["clusters[0].endpoints[0].spiffe_id (5): is for tls: mesh only"]);
    assert_faults(&clustered("tls: off"), &["clusters[0].tls", "clusters[0].endpoints[0].spiffe_id"]);
}

#[test]
fn a_public_section_says_whom_it_is_for() {
    assert_faults(&clustered("tls: public"), &["clusters[0].public (5): is missing"]);
    let with = |keys: &str| clustered(&format!("tls: public, public: {{{keys}}}"));
    assert_faults(&with("roots: system"), &["clusters[0].public.server_name (5): is missing"]);
    for name in ["a b", "https://a.example", "a.example:443", "'[::1]'", "a_b.example", "''"] {
        assert_faults(&with(&format!("server_name: {name}")), &["public.server_name"]);
    }
    assert_faults(&with("server_name: a.example, key: k.pem"), &["public.certificate (5): is missing"]);
    assert_faults(&with("server_name: a.example, certificate: c.pem"), &["public.key (5): is missing"]);
    assert_faults(&with("server_name: a.example, protocol: http3"), &["public.protocol"]);
}

#[test]
fn a_name_in_the_dns_is_a_source_with_bounds() {
    let text = "service: a\ntrust_domain: d\nidentity: {ca: {address: 'h:1'}}\n\
                outbound: [{listen: '127.0.0.1:0'}]\n\
                dns: {servers: ['10.0.0.1:53', '[::1]:5353'], attempts: 3}\n\
                clusters:\n\
                - {name: x, spiffe_ids: [spiffe://d/x], dns: {name: x.test., port: 4343, record: aaaa, min_ttl: 1s}}\n\
                - {name: y, spiffe_ids: [spiffe://d/y], dns: {name: _mesh._tcp.y, record: srv, empty_after: none}}\n";
    let settings = settings(text);
    let [EndpointSource::Dns(x), EndpointSource::Dns(y)] =
        [0, 1].map(|index: usize| settings.clusters[index].source.clone())
    else {
        panic!()
    };
    assert_eq!(
        (x.name.as_str(), x.records),
        ("x.test.", DnsRecords::Addresses { family: Family::V6, port: 4343 })
    );
    assert_eq!((x.min_ttl.as_secs(), x.max_ttl.as_secs()), (1, 300));
    assert_eq!(x.empty_after.map(|limit| limit.as_secs()), Some(60));
    assert_eq!((y.name.as_str(), y.records), ("_mesh._tcp.y", DnsRecords::Services));
    assert_eq!((y.empty_after, y.spiffe_ids[0].as_str()), (None, "spiffe://d/y"));
    assert_eq!(x.resolver, y.resolver);
    assert_eq!((x.resolver.attempts, x.resolver.servers.len()), (3, 2));
}

#[test]
fn faults_of_names_in_the_dns_are_named() {
    assert_faults(
        "\
outbound: [{listen: '127.0.0.1:1'}]
dns: {servers: [resolver, '10.0.0.1:53', '10.0.0.1:53', '10.0.0.1:0'], attempts: 0}
clusters:
  - {name: a, dns: {name: a.test, port: 1}}
  - {name: b, spiffe_ids: [spiffe://demo.outrider/b], dns: {name: 10.0.0.1, port: 0}}
  - {name: c, spiffe_ids: [spiffe://demo.outrider/c], dns: {name: 'a b', record: srv, port: 1}}
  - {name: d, spiffe_ids: [spiffe://demo.outrider/d], dns: {record: mx, min_ttl: 1m, max_ttl: 1s}}
  - {name: e, spiffe_ids: [spiffe://demo.outrider/e], dns: {name: e.test, port: 1}, endpoints_file: e}
",
        &[
            "dns.servers[0] (5): \"resolver\" is not an IP address",
            "dns.servers[2] (5): 10.0.0.1:53 stands here twice",
            "dns.servers[3] (5): 10.0.0.1:0 cannot be asked",
            "dns.attempts (5): 0 is out of range",
            "clusters[0].spiffe_ids (7): is missing",
            "clusters[1].dns.name (8): \"10.0.0.1\" is an address",
            "clusters[1].dns.port (8): \"0\" is not a port",
            "clusters[2].dns.name (9): \"a b\" is not a DNS name",
            "clusters[2].dns.port (9): is in the SRV records",
            "clusters[3].dns.name (10): is missing",
            "clusters[3].dns.max_ttl (10): is less than min_ttl",
            "clusters[3].dns.record (10): \"mx\" is not known",
            "clusters[3].dns.port (10): is missing",
            "clusters[4].dns (11): stands beside endpoints_file",
        ],
    );
}
