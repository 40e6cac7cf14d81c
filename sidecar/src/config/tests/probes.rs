//! `probes`.

use std::time::Duration;

use super::{TOP, assert_faults, settings};
use crate::model::probe::{HttpProbe, ProbeAction};

const REST: &str = "outbound: [{listen: '127.0.0.1:0'}]\n";

fn file(probes: &str) -> String {
    format!("{REST}probes: [{probes}]\n")
}

#[test]
fn probes_are_what_a_pod_can_ask_for() {
    let text = file(
        "{name: app/readiness, http: {port: 8080, path: /ready?x=1, scheme: https, host: localhost, \
         headers: [{name: Host, value: a.example}, {name: x-y, value: ''}]}, timeout: 3s}, \
         {name: b, tcp: {port: 1, host: '::1'}}, {name: c, grpc: {port: 9, service: a.B}}, {name: d, http: {port: 2}}",
    );
    let probes = settings(&format!("{TOP}{text}")).probes;
    assert_eq!((probes[0].name.as_str(), probes[0].timeout), ("app/readiness", Duration::from_secs(3)));
    let ProbeAction::Http(http) = &probes[0].action else { panic!("{:?}", probes[0]) };
    assert!(http.is_tls && http.host == Some("127.0.0.1".parse().unwrap()));
    let headers: Vec<_> =
        http.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(headers, [("host", "a.example"), ("x-y", "")]);
    assert!(!format!("{http:?}").contains("a.example"), "a value may be a credential");
    assert_eq!(probes[1].action, ProbeAction::Tcp { port: 1, host: Some("::1".parse().unwrap()) });
    assert_eq!(probes[2].action, ProbeAction::Grpc { port: 9, service: "a.B".to_owned() });
    let plain = HttpProbe { port: 2, path: "/".to_owned(), is_tls: false, host: None, headers: Vec::new() };
    assert_eq!((&probes[3].action, probes[3].timeout), (&ProbeAction::Http(plain), Duration::from_secs(1)));
}

#[test]
fn a_probe_is_one_thing_at_the_own_pod() {
    for (probe, fault) in [
        ("{name: a}", "has none of http, tcp and grpc"),
        ("{name: a, tcp: {port: 1}, grpc: {port: 1}}", "has more than one of http, tcp and grpc"),
        ("{name: a, tcp: {port: 0}}", "\"0\" is not a port"),
        ("{name: a, tcp: {port: 1, host: 10.0.0.1}}", "\"10.0.0.1\" is not this host"),
        ("{name: a, http: {port: 1, host: a.example}}", "\"a.example\" is not this host"),
        ("{name: a, http: {port: 1, path: x}}", "\"x\" is not a path"),
        (
            "{name: a, http: {port: 1, headers: [{name: Content-Length, value: 1}]}}",
            "\"Content-Length\" is not a field that a probe can have",
        ),
        ("{name: a, tcp: {port: 1}}, {name: a, tcp: {port: 2}}", "\"a\" stands here twice"),
    ] {
        assert_faults(&file(probe), &[fault]);
    }
}
