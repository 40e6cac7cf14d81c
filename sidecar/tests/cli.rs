//! The command line from outside.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use assert_cmd::Command;

const GOOD: &str = "\
service: shop
trust_domain: demo.outrider
identity: {ca: {address: '127.0.0.1:4350', join_token_file: token}}
inbound: [{listen: '0.0.0.0:4343', app: '127.0.0.1:8080'}]
outbound: [{listen: '127.0.0.1:4340'}]
clusters:
  - {name: orders, spiffe_ids: [spiffe://demo.outrider/orders], endpoints_file: orders.yaml}
";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn outrider(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrider"));
    command.env_remove("OUTRIDER_CONFIG").env_remove("OUTRIDER_LOG").args(arguments);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn check(path: &Path) -> (i32, String, String) {
    outrider(&["check", "--config", path.to_str().unwrap()])
}

#[test]
fn check_sums_up_a_sound_file() {
    let folder = Folder::new();
    folder.write("orders.yaml", "endpoints: [{address: '10.0.0.7:4343'}]");
    let (code, out, err) = check(&folder.write("outrider.yaml", GOOD));
    assert_eq!((code, err.as_str()), (0, ""));
    for part in [
        "service shop in trust domain demo.outrider",
        "listeners: 2",
        "inbound inbound-0 on 0.0.0.0:4343: app at 127.0.0.1:8080",
        "clusters: 1",
        "orders: endpoints in",
        "not there yet: 1",
    ] {
        assert!(out.contains(part), "no {part:?} in:\n{out}");
    }
}

#[test]
fn check_sums_up_where_requests_and_streams_go_and_whose_word_is_taken() {
    let folder = Folder::new();
    folder.write("orders.yaml", "endpoints: [{address: '10.0.0.7:4343'}]");
    let text = GOOD
        .replace(
            "'127.0.0.1:8080'}",
            "'127.0.0.1:8080', proxy_protocol: {from: [10.1.0.0/24]}, app_proxy_protocol: v2}",
        )
        .replace("'127.0.0.1:4340'}", "'127.0.0.1:4340', proxy_protocol: {from: ['::1']}}")
        + "routes: [{name: shop, hosts: [shop.example], services: [orders], rules: [{clusters: [{name: orders}]}]}]\n\
           tcp_routes: [{name: db, services: [orders], ports: [5432], snis: ['*.db.example', a.example], clusters: [{name: orders}]}]\n\
           intercept: {inbound: {port: 4344, ports: [{port: 9000, app_proxy_protocol: v1}, {port: 9001}]}, outbound: {port: 4345}}\n";
    let (code, out, err) = check(&folder.write("outrider.yaml", &text));
    assert_eq!((code, err.as_str()), (0, ""));
    for part in [
        "from any workload of the trust domain; PROXY protocol by 10.1.0.0/24, told to the app\n",
        "http, by authority; PROXY protocol by ::1/128\n",
        "2 port(s) with rules of their own; 1 with the PROXY protocol\n",
        "routes: 1\n  shop of shop.example, service orders: 1 rule(s) with 1 match(es), to orders\n",
        "routes of opaque streams: 1\n  db of service orders; port 5432; TLS for *.db.example, TLS for a.example: to orders\n",
    ] {
        assert!(out.contains(part), "no {part:?} in:\n{out}");
    }
}

#[test]
fn check_says_that_rules_let_connect_whom_they_name() {
    let folder = Folder::new();
    folder.write("orders.yaml", "endpoints: []");
    let (_, without, _) = check(&folder.write("outrider.yaml", GOOD));
    let rules =
        format!("{GOOD}authorization: {{rules: [{{name: a, from_trust_domains: [demo.outrider]}}]}}\n");
    let (code, with, err) = check(&folder.write("outrider.yaml", &rules));
    assert_eq!((code, err.as_str()), (0, ""));
    let whom = "from any workload of the trust domain";
    assert!(without.contains(&format!("{whom}\n")), "{without}");
    assert!(with.contains(&format!("{whom}, and of those that rules name\n")), "{with}");
}

#[test]
fn check_names_what_no_rule_about_callers_holds_for() {
    let folder = Folder::new();
    folder.write("orders.yaml", "endpoints: []");
    let (_, without, _) = check(&folder.write("outrider.yaml", GOOD));
    assert!(!without.contains("past mutual TLS"), "{without}");
    let ports = "{port: 9000, plaintext: permissive, plaintext_until: 2027-01-31, plaintext_from: [10.0.0.0/8]}, \
                 {port: 9001, probes: [/healthz], app_tls: passthrough}";
    let inbound = format!("port: 4344, except_ports: [22], except_cidrs: [10.9.0.0/16], ports: [{ports}]");
    let text = format!("{GOOD}intercept: {{outbound: {{port: 4345}}, inbound: {{{inbound}}}}}\n");
    let (code, out, err) = check(&folder.write("outrider.yaml", &text));
    assert_eq!((code, err.as_str()), (0, ""));
    let named = "past mutual TLS, and past authorization: 5\n  \
                 port 9000: PLAINTEXT from 10.0.0.0/8, until 2027-01-31T00:00:00Z\n  \
                 port 9001: probes of /healthz from anybody\n  \
                 port 9001: TLS of the app's own from anybody\n  \
                 port 22: LEFT ALONE, whoever calls\n  \
                 callers from 10.9.0.0/16: LEFT ALONE, at every port\n";
    assert!(out.contains(named), "{out}");
}

#[test]
fn check_names_every_fault_with_its_line() {
    let folder = Folder::new();
    let text = GOOD
        .replace("service: shop", "service: shop\nlimits: {max_strems: 1}")
        .replace("'0.0.0.0:4343'", "'0.0.0.0:99999'")
        .replace("spiffe://demo.outrider/orders", "spiffe://x");
    let (code, out, err) = check(&folder.write("outrider.yaml", &text));
    assert_eq!((code, out.as_str()), (1, ""));
    for part in [
        "3 fault(s)",
        "limits.max_strems: no such key (line 2); remedy: did you mean max_streams?",
        "inbound[0].listen: \"0.0.0.0:99999\" is not an IP address with a port (line 5); remedy: ",
        "clusters[0].spiffe_ids[0]: \"spiffe://x\" names a trust domain, not a workload (line 8); remedy: ",
    ] {
        assert!(err.contains(part), "no {part:?} in:\n{err}");
    }
}

#[test]
fn check_looks_into_endpoints_files() {
    let folder = Folder::new();
    folder.write("orders.yaml", "endpoints:\n- adress: 10.0.0.7:4343\n");
    let (code, _, err) = check(&folder.write("outrider.yaml", GOOD));
    assert_eq!(code, 1);
    assert!(err.contains("orders.yaml: endpoints[0].adress: no such key (line 2)"), "{err}");
}

#[test]
fn broken_yaml_is_shown_where_it_breaks() {
    let folder = Folder::new();
    let (code, _, err) = check(&folder.write("outrider.yaml", "service: shop\ndrain: [}\n"));
    assert_eq!(code, 1);
    assert!(err.contains("(line 2)") && err.contains("drain: [}"), "{err}");
}

#[test]
fn a_missing_file_is_told_and_wrong_flags_are_two() {
    let (code, _, err) = outrider(&["check", "--config", "/nonexistent/outrider.yaml"]);
    assert_eq!(code, 1);
    assert!(err.contains("cannot read /nonexistent/outrider.yaml: No such file"), "{err}");
    assert_eq!(outrider(&["check"]).0, 2);
    assert_eq!(outrider(&["chekc"]).0, 2);
    let (code, _, err) = outrider(&["run", "--log-level", "inof", "--config", "/nonexistent"]);
    assert_eq!(code, 1);
    assert!(err.contains("is not a log filter"), "{err}");
}

#[test]
fn help_and_version_answer() {
    let (code, out, _) = outrider(&["--help"]);
    assert_eq!(code, 0);
    for command in ["run", "check", "drain", "version"] {
        assert!(out.contains(command), "{out}");
    }
    let version = format!("outrider {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(outrider(&["version"]), (0, version, String::new()));
}

#[test]
fn drain_says_that_nobody_is_there() {
    let (code, _, err) = outrider(&["drain", "--admin-socket", "/nonexistent/admin.sock"]);
    assert_eq!(code, 1);
    assert!(err.contains("no answer from the sidecar at /nonexistent/admin.sock"), "{err}");
}
