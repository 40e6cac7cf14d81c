//! What variables say, alone and beside a file.

use std::path::Path;

use super::*;
use crate::{
    config::parse_in,
    model::telemetry::{FieldValue, TelemetrySettings},
};

fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment::new(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

/// Of a file with that section (or none) in that environment.
fn telemetry(section: &str, variables: &[(&str, &str)]) -> TelemetrySettings {
    let top = "service: shop\ntrust_domain: t\nidentity: {ca: {address: 'h:1'}}\noutbound: [{listen: '127.0.0.1:1'}]\n";
    let text = format!("{top}{section}");
    let settings = parse_in(&text, Path::new("/etc"), &environment(variables));
    settings.unwrap_or_else(|error| panic!("{error}")).telemetry.as_ref().clone()
}

/// Where spans and metrics go.
fn endpoints(section: &str, variables: &[(&str, &str)]) -> [Option<String>; 2] {
    let telemetry = telemetry(section, variables);
    let traces = telemetry.traces.map(|traces| traces.export.endpoint.to_string());
    [traces, telemetry.metrics.map(|metrics| metrics.export.endpoint.to_string())]
}

const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

#[test]
fn nothing_is_sent_where_nobody_says_so() {
    assert_eq!(endpoints("", &[]), [None, None]);
    assert_eq!(endpoints("", &[("OTEL_SERVICE_NAME", "x"), (ALL, " ")]), [None, None]);
}

#[test]
fn an_endpoint_alone_switches_signals_on() {
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        endpoints("", &[(ALL, "http://c:4318")]),
        [some("http://c:4318/v1/traces"), some("http://c:4318/v1/metrics")]
    );
    assert_eq!(endpoints("", &[(TRACES, "http://c:4318/x")]), [some("http://c:4318/x"), None]);
    assert_eq!(endpoints("", &[(TRACES, "http://c:4318")]), [some("http://c:4318/"), None], "as it is");
    assert_eq!(
        endpoints("", &[(ALL, "http://all:1/"), (TRACES, "http://c:2/t"), ("OTEL_METRICS_EXPORTER", "none")]),
        [some("http://c:2/t"), None]
    );
    assert_eq!(
        endpoints("", &[(ALL, "http://c:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]),
        [some("http://c:4317"), some("http://c:4317")]
    );
    assert_eq!(
        endpoints("", &[("OTEL_TRACES_EXPORTER", "otlp")]),
        [some("http://localhost:4318/v1/traces"), None]
    );
}

#[test]
fn the_file_wins_then_the_variable_then_the_default() {
    let section = "telemetry: {traces: {endpoint: 'http://file:1', timeout: 3s, sample_percent: 50}}";
    let telemetry = telemetry(
        section,
        &[
            (ALL, "http://variable:2"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "4000"),
            ("OTEL_TRACES_SAMPLER", "always_on"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_SCHEDULE_DELAY", "250"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_PROPAGATORS", "b3, baggage"),
        ],
    );
    let traces = telemetry.traces.unwrap();
    assert_eq!(traces.export.endpoint.to_string(), "http://file:1");
    assert_eq!(traces.export.protocol, ExportProtocol::Grpc);
    assert_eq!(
        (traces.export.timeout, traces.interval),
        (Duration::from_secs(3), Duration::from_millis(250))
    );
    assert_eq!((traces.sampled_of_million, traces.queue, traces.batch), (500_000, 100, 100));
    assert!(traces.export.is_compressed);
    assert_eq!(traces.propagate, Propagate { b3: true, ..Propagate::default() });
    assert_eq!(telemetry.metrics.unwrap().export.timeout, Duration::from_secs(4));
    assert!(telemetry.warnings.is_empty(), "{:?}", telemetry.warnings);
}

#[test]
fn samplers_are_understood_with_and_without_parents() {
    let of = |sampler: &str, argument: &str| {
        Otel::read(&environment(&[("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)]))
            .sampled_of_million
    };
    assert_eq!(of("always_on", ""), Some(1_000_000));
    assert_eq!(of("parentbased_always_off", "0.5"), Some(0));
    assert_eq!(of("parentbased_traceidratio", "0.25"), Some(250_000));
    assert_eq!(of("traceidratio", ""), Some(1_000_000));
    for (sampler, argument) in
        [("jaeger_remote", ""), ("traceidratio", "1.5"), ("traceidratio", "NaN"), ("traceidratio", "x")]
    {
        assert_eq!(of(sampler, argument), None, "{sampler} {argument}");
    }
}

#[test]
fn fields_and_attributes_are_decoded_and_added() {
    let section =
        "telemetry: {traces: {headers: [{name: x-a, value: file}]}, attributes: [{name: team, value: file}]}";
    let telemetry = telemetry(
        section,
        &[
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-a=variable, authorization=Bearer%20abc%3D"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=variable,service.name=other,zone=a%2Cb"),
            ("OTEL_SERVICE_NAME", "named"),
        ],
    );
    let export = &telemetry.traces.as_ref().unwrap().export;
    let given: Vec<_> = export
        .headers
        .iter()
        .map(|(name, value)| match value {
            FieldValue::Given(value) => (name.as_str(), value.to_str().unwrap(), value.is_sensitive()),
            FieldValue::File(_) => panic!("{name}"),
        })
        .collect();
    assert_eq!(given, [("x-a", "file", true), ("authorization", "Bearer abc=", true)]);
    assert_eq!(export.service, "named");
    let attributes =
        [("team", "file"), ("zone", "a,b")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(export.attributes, attributes);
    assert!(!format!("{telemetry:?}").contains("Bearer"), "{telemetry:?}");
}

#[test]
fn a_bad_variable_is_named_without_its_secret_and_counts_as_not_set() {
    for (name, value) in [
        (ALL, "collector:4317"),
        (TRACES, "http://user:hunter2@c:1"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "host=hunter2"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=hunter2%zz"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("OTEL_PROPAGATORS", "jaeger"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1e3"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team"),
        ("OTEL_SDK_DISABLED", "yes"),
    ] {
        let telemetry = telemetry("", &[(name, value)]);
        assert_eq!(telemetry.warnings.len(), 1, "{name}={value}: {:?}", telemetry.warnings);
        let warning = &telemetry.warnings[0];
        assert!(warning.starts_with(name) && !warning.contains("hunter2"), "{warning}");
        assert!(telemetry.traces.is_none() && telemetry.metrics.is_none(), "{name}={value}");
    }
    assert!(!format!("{:?}", environment(&[(ALL, "hunter2")])).contains("hunter2"));
}

#[test]
fn disabled_is_disabled_whatever_the_file_says() {
    let section = "telemetry: {traces: {endpoint: 'http://file:1'}, access_log: {of: all}}";
    let telemetry = telemetry(section, &[("OTEL_SDK_DISABLED", "TRUE"), (ALL, "http://c:1")]);
    assert!(telemetry.traces.is_none() && telemetry.metrics.is_none());
    assert!(telemetry.access_log.is_some(), "which is ours and not OpenTelemetry's");
    assert_eq!(telemetry.warnings.len(), 1);
}

#[test]
fn a_path_that_grpc_has_no_use_for_sends_nothing() {
    let variables = [(TRACES, "http://c:1/v1/traces"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let telemetry = telemetry("", &variables);
    assert!(telemetry.traces.is_none());
    assert_eq!(telemetry.warnings.len(), 1);
}
