//! `clusters[].health_check`.

use super::*;
use crate::model::health_check::Question;

fn cluster(keys: &str) -> String {
    format!("outbound: [{{listen: '127.0.0.1:0'}}]\nclusters: [{{name: c, {keys}}}]\n")
}

fn mesh(check: &str) -> String {
    cluster(&format!(
        "spiffe_ids: [spiffe://demo.outrider/c], endpoints: [{{address: '10.0.0.7:1'}}], health_check: {{{check}}}"
    ))
}

fn question(keys: &str) -> Question {
    let settings = settings(&format!("{TOP}{keys}"));
    settings.clusters[0].health_check.as_ref().unwrap().question.clone()
}

#[test]
fn whom_a_check_is_for_is_whom_requests_are_for_unless_it_says_otherwise() {
    let host = |keys: &str| match question(keys) {
        Question::Http { host, .. } | Question::Grpc { host, .. } => host,
        Question::Tcp => String::new(),
    };
    assert_eq!(host(&mesh("path: /ready")), "c");
    assert_eq!(host(&mesh("host: 'Orders.example:8080'")), "orders.example:8080");
    let public = "tls: public, public: {server_name: api.example}, endpoints: [{address: '10.0.0.7:1'}]";
    assert_eq!(host(&cluster(&format!("{public}, health_check: {{protocol: grpc}}"))), "api.example");
    let nobody = "tls: none, authorities: [], endpoints: [{address: '10.0.0.7:1'}]";
    assert_eq!(host(&cluster(&format!("{nobody}, health_check: {{interval: 1s}}"))), "health-check");
}

#[test]
fn what_would_read_as_if_it_held_is_a_fault() {
    assert_faults(&mesh("service: a.B"), &["health_check.service (5): is for protocol: grpc only"]);
    assert_faults(&mesh("protocol: grpc, path: /"), &["health_check.path (5): is for protocol: http only"]);
    assert_faults(
        &mesh("protocol: tcp, host: a"),
        &["health_check.host (5): is for protocol: http and grpc only"],
    );
    assert_faults(&mesh("path: ready, host: 'a b'"), &["health_check.path", "health_check.host"]);
    for path in ["/a b", "/a#b", "'/ä'", "''"] {
        assert_faults(&mesh(&format!("path: {path}")), &["is not a path"]);
    }
    assert_faults(&mesh("protocol: udp"), &["health_check.protocol"]);
}

#[test]
fn grpc_is_not_asked_for_where_http2_is_never_spoken() {
    let plain = "tls: none, plain_protocol: http1, endpoints: [{address: '10.0.0.7:1'}]";
    let text = cluster(&format!("{plain}, health_check: {{protocol: grpc}}"));
    assert_faults(&text, &["health_check.protocol"]);
    // Between sidecars it always may be.
    let text = mesh("protocol: grpc, service: a.B").replace("name: c,", "name: c, mesh_protocol: http1,");
    assert_eq!(question(&text), Question::Grpc { service: "a.B".to_owned(), host: "c".to_owned() });
}
