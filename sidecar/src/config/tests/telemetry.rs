//! `telemetry`: what becomes of a full section, and what is refused.

use super::*;
use crate::model::telemetry::{ExportProtocol, FieldValue, LogFormat, Logged, Propagate};

const OUT: &str = "outbound: [{listen: '127.0.0.1:1'}]\n";

#[test]
fn a_full_section_becomes_settings() {
    let section = "
telemetry:
  attributes: [{name: team, value: payments}, {name: service.name, value: shop-front}]
  traces:
    endpoint: https://collector:4318
    protocol: http
    headers: [{name: X-Tenant, value: secret}, {name: authorization, value_file: token}]
    compression: gzip
    roots: ca.pem
    certificate: c.pem
    key: k.pem
    timeout: 3s
    sample_percent: 2.5
    errors_per_second: 0
    propagate: [b3, tracecontext]
    queue: 64
    batch: 100
    interval: 100ms
  metrics: {endpoint: 'http://[::1]:4317/'}
  access_log: {of: all, sample_percent: 0.1, path: a.log, format: template, template: '{method}', request_headers: [X-A]}
";
    let settings = settings(&format!("{TOP}{OUT}{section}"));
    let traces = settings.telemetry.traces.as_ref().unwrap();
    let export = &traces.export;
    assert_eq!(export.endpoint.to_string(), "https://collector:4318/v1/traces");
    assert_eq!(export.protocol, ExportProtocol::HttpProtobuf);
    assert!(matches!(&export.headers[0].1, FieldValue::Given(value) if value.is_sensitive()));
    assert_eq!(export.headers[1].1, FieldValue::File("/etc/outrider/token".into()));
    assert_eq!(export.roots.as_deref(), Some(Path::new("/etc/outrider/ca.pem")));
    assert!(export.certificate.is_some() && export.is_compressed);
    assert_eq!((traces.sampled_of_million, traces.errors_per_second), (25_000, 0));
    assert_eq!((traces.queue, traces.batch), (64, 64), "never more than the queue");
    assert_eq!(traces.propagate, Propagate { w3c: true, b3: true, b3_multi: false });
    assert_eq!(export.service, "shop-front");
    assert_eq!(export.attributes, [("team".to_owned(), "payments".to_owned())]);
    let metrics = settings.telemetry.metrics.as_ref().unwrap();
    assert_eq!(metrics.export.endpoint.to_string(), "http://[::1]:4317");
    assert_eq!(metrics.interval, Duration::from_secs(60));
    let log = settings.telemetry.access_log.as_ref().unwrap();
    assert_eq!((log.of, log.sampled_of_million), (Logged::All, 1000));
    assert_eq!(log.format, LogFormat::Template("{method}".to_owned()));
    assert!(!format!("{settings:?}").contains("secret"));
}

#[test]
fn without_the_section_nothing_leaves_the_process() {
    let settings = settings(&format!("{TOP}{OUT}"));
    assert_eq!(*settings.telemetry, Default::default());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let with = |inside: &str| format!("{OUT}telemetry: {{{inside}}}\n");
    for (inside, fault) in [
        ("traces: {endpoint: 'collector:4317'}", "telemetry.traces.endpoint (5): is not a URL"),
        ("traces: {endpoint: 'http://c:4317/v1/traces'}", "endpoint (5): is a URL with a path"),
        ("traces: {endpoint: 'http://u:p@c:4317'}", "endpoint (5): is a URL with a user or password"),
        ("traces: {protocol: http/json}", "protocol (5): \"http/json\" is not known"),
        ("traces: {roots: ca.pem}", "roots (5): is for https:// only"),
        ("traces: {endpoint: 'https://c', key: k}", "certificate (5): is missing"),
        ("traces: {headers: [{name: host, value: a}]}", "headers[0].name (5): \"host\" is not a field"),
        ("traces: {headers: [{name: grpc-timeout, value: a}]}", "name (5): \"grpc-timeout\""),
        ("traces: {headers: [{name: 'a b', value: a}]}", "name (5): \"a b\""),
        ("traces: {headers: [{name: a}]}", "headers[0].value (5): is missing"),
        ("traces: {headers: [{name: a, value: b, value_file: c}]}", "value_file (5): stands beside value"),
        ("traces: {headers: [{name: a, value: \"b\\nc\"}]}", "value (5): is not the value of a field"),
        (
            "traces: {headers: [{name: a, value: b}, {name: A, value: c}]}",
            "headers[1] (5): a stands here twice",
        ),
        ("traces: {sample_percent: 0.15}", "sample_percent (5): \"0.15\" is not a number"),
        ("traces: {sample_percent: 101}", "sample_percent (5): 101 is out of range"),
        ("traces: {propagate: []}", "propagate (5): is an empty list"),
        ("traces: {propagate: [jaeger]}", "propagate[0] (5): \"jaeger\" is not known"),
        ("traces: {queue: 10}", "queue (5): 10 is out of range"),
        ("metrics: {interval: 0s}", "telemetry.metrics.interval (5): 0s is out of range"),
        ("metrics: {queue: 100}", "telemetry.metrics.queue (5): no such key"),
        ("access_log: {template: x}", "template (5): is for format: template only"),
        ("access_log: {format: template}", "template (5): is missing"),
        ("access_log: {format: template, template: \"a\\nb\"}", "template (5): it has a line end"),
        ("access_log: {request_headers: [Cookie]}", "request_headers[0] (5): cookie holds secrets"),
        ("access_log: {response_headers: [a, A]}", "response_headers[1] (5): a stands here twice"),
        ("attributes: [{name: a}]", "attributes[0] (5): has no name, or no value"),
        ("attributes: [{name: telemetry.sdk.name, value: x}]", "attributes[0] (5): is not an attribute"),
        ("attributes: [{name: a, value: x}, {name: a, value: y}]", "attributes[1] (5): a stands here twice"),
    ] {
        assert_faults(&with(inside), &[fault]);
    }
}
