//! The exposition is well-formed, says what the counters say, and `docs/metrics.md` lists all of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use outrider::{
    model::{Snapshot, rate_limit::Caller},
    resilience::rate_limit,
    telemetry::metrics::Format,
};

use crate::process::{ODD_ROUTE, id, state};

/// One line of an exposition.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// Types by family, and all samples. Panics on anything that is not OpenMetrics text.
pub(crate) fn parse(text: &str) -> (BTreeMap<String, String>, Vec<Sample>) {
    let mut types = BTreeMap::new();
    let mut samples = Vec::new();
    let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} stands there twice");
        } else if !line.starts_with("# HELP ") && !line.starts_with("# UNIT ") {
            samples.push(parse_sample(line));
        }
    }
    (types, samples)
}

pub(crate) fn parse_sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let mut rest = labels.strip_suffix('}').unwrap();
    let mut labels = BTreeMap::new();
    while let Some((key, after)) = rest.split_once("=\"") {
        let (value, after) = unescape(after);
        labels.insert(key.trim_start_matches(',').to_owned(), value);
        rest = after;
    }
    Sample { name: name.to_owned(), labels, value: value.parse().unwrap() }
}

/// A label's value and what follows its closing quote.
fn unescape(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text.char_indices();
    while let Some((at, c)) = rest.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match rest.next().unwrap().1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            c => value.push(c),
        }
    }
    panic!("no closing quote: {text}");
}

/// The name as the doc has it: of a histogram the family, of everything else the sample.
fn documented_name(sample: &Sample) -> String {
    let family =
        ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| sample.name.strip_suffix(suffix));
    family.unwrap_or(&sample.name).to_owned()
}

fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |sample: &&Sample| {
        sample.name == name
            && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
    };
    let found: Vec<&Sample> = samples.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
    found[0].value
}

#[test]
fn the_exposition_says_what_the_counters_say() {
    let state = state(None);
    let (types, samples) = parse(&state.metrics.encode(Format::OpenMetrics).unwrap());
    assert_eq!(types["outrider_requests"], "counter");
    assert_eq!(types["outrider_request_duration_seconds"], "histogram");
    let orders = [("direction", "outbound"), ("cluster", "orders")];
    let with = |key, value| [orders[0], orders[1], (key, value)];
    assert_eq!(value(&samples, "outrider_requests_total", &with("status_class", "2xx")), 3.0);
    assert_eq!(value(&samples, "outrider_failures_total", &with("flag", "UF")), 1.0);
    assert_eq!(value(&samples, "outrider_request_duration_seconds_count", &orders), 3.0);
    assert_eq!(value(&samples, "outrider_request_duration_seconds_bucket", &with("le", "0.005")), 2.0);
    assert_eq!(value(&samples, "outrider_request_duration_seconds_bucket", &with("le", "+Inf")), 3.0);
    assert_eq!(value(&samples, "outrider_endpoint_picks_total", &with("endpoint", "10.0.0.7:4343")), 4.0);
    assert_eq!(
        value(&samples, "outrider_endpoint_latency_seconds", &with("endpoint", "10.0.0.7:4343")),
        0.0015
    );
    let web = [("listener", "api"), ("peer", "spiffe://demo.outrider/web")];
    assert_eq!(value(&samples, "outrider_peer_requests_total", &web), 5.0);
    let plaintext = [("listener", "api"), ("reason", "plaintext")];
    assert_eq!(value(&samples, "outrider_listener_refused_total", &plaintext), 1.0);
    let probes = [("listener", "intercept-inbound"), ("exception", "probe")];
    assert_eq!(value(&samples, "outrider_inbound_exceptions_total", &probes), 2.0);
    let sent = [probes[0], probes[1], ("way", "sent")];
    assert_eq!(value(&samples, "outrider_inbound_exception_bytes_total", &sent), 300.0);
    assert!(samples.iter().all(|sample| {
        sample.name != "outrider_inbound_exceptions_total" || sample.labels["listener"] != "api"
    }));
    let server_first = [("listener", "api"), ("protocol", "opaque"), ("how", "server")];
    assert_eq!(value(&samples, "outrider_detections_total", &server_first), 1.0);
    let detected = |bound| {
        value(&samples, "outrider_detection_duration_seconds_bucket", &[("listener", "api"), ("le", bound)])
    };
    assert_eq!((detected("0.0005"), detected("0.001"), detected("+Inf")), (0.0, 1.0, 1.0));
    assert_eq!(value(&samples, "outrider_unrouted_total", &[("listener", "api"), ("flag", "NR")]), 1.0);
    assert_eq!(value(&samples, "outrider_snapshot_version", &[]), 7.0);
    assert_eq!(value(&samples, "outrider_ready", &[]), 1.0);
    let search = [("cluster", "search"), ("outcome", "timeout")];
    assert_eq!(value(&samples, "outrider_dns_lookups_total", &search), 2.0);
    assert!(samples.iter().all(|sample| {
        sample.name != "outrider_dns_lookups_total" || sample.labels["cluster"] == "search"
    }));
    let not_serving = [("cluster", "orders"), ("outcome", "not_serving")];
    assert_eq!(value(&samples, "outrider_health_checks_total", &not_serving), 1.0);
    assert_eq!(value(&samples, "outrider_unhealthy_endpoints", &[("cluster", "orders")]), 1.0);
    assert!(samples.iter().all(|sample| {
        sample.name != "outrider_health_checks_total" || sample.labels["cluster"] == "orders"
    }));
    assert_eq!(value(&samples, "outrider_discovery_endpoints", &[("cluster", "orders")]), 2.0);
    let remaining = value(&samples, "outrider_certificate_remaining_seconds", &[]);
    assert!((3500.0..=3600.0).contains(&remaining), "{remaining}");
    assert_eq!(value(&samples, "outrider_build_info", &[("service", "shop")]), 1.0);
}

#[test]
fn an_edge_says_who_calls_whom_and_how_that_goes() {
    let (types, samples) = parse(&state(None).metrics.encode(Format::OpenMetrics).unwrap());
    assert_eq!(types["outrider_edge_duration_seconds"], "histogram");
    let edge = [
        ("direction", "inbound"),
        ("source", "spiffe://demo.outrider/web"),
        ("destination", "inbound/api"),
        ("route", ODD_ROUTE),
    ];
    let with = |key, value| [&edge[..], &[(key, value)]].concat();
    assert_eq!(value(&samples, "outrider_edge_requests_total", &with("status_class", "2xx")), 3.0);
    assert_eq!(value(&samples, "outrider_edge_requests_total", &with("status_class", "5xx")), 1.0);
    assert_eq!(value(&samples, "outrider_edge_failures_total", &with("flag", "UT")), 1.0);
    assert_eq!(value(&samples, "outrider_edge_errors_total", &edge), 1.0);
    assert_eq!(value(&samples, "outrider_edge_retries_total", &edge), 2.0);
    assert_eq!(value(&samples, "outrider_edge_request_bytes_total", &edge), 100.0);
    assert_eq!(value(&samples, "outrider_edge_response_bytes_total", &edge), 4000.0);
    assert_eq!(value(&samples, "outrider_edge_duration_seconds_bucket", &with("le", "0.002")), 2.0);
    assert_eq!(value(&samples, "outrider_edge_duration_seconds_count", &edge), 3.0);
    assert_eq!(value(&samples, "outrider_edges", &[]), 1.0);
    assert_eq!(value(&samples, "outrider_edges_beyond_total", &[("direction", "outbound")]), 0.0);
    let series = |name: &str| samples.iter().filter(|sample| sample.name == name).count();
    assert_eq!(series("outrider_edge_requests_total"), 2, "what never counted has no series");
    assert_eq!(series("outrider_edge_failures_total"), 1, "what never counted has no series");
}

#[test]
fn own_app_clusters_are_inbound() {
    let (_, samples) = parse(&state(None).metrics.encode(Format::OpenMetrics).unwrap());
    let labels = [("direction", "inbound"), ("cluster", "inbound/api"), ("status_class", "2xx")];
    assert_eq!(value(&samples, "outrider_requests_total", &labels), 0.0);
}

#[test]
fn what_left_the_snapshot_has_no_series() {
    let state = state(None);
    let config = std::sync::Arc::clone(&state.snapshots.load().config);
    state.snapshots.store(std::sync::Arc::new(Snapshot::empty(config)));
    let text = state.metrics.encode(Format::OpenMetrics).unwrap();
    parse(&text);
    assert!(!text.contains("orders") && !text.contains("10.0.0.7"), "{text}");
    assert!(!text.contains("outrider_certificate"), "no identity, no certificate");
}

#[test]
fn callers_cannot_grow_the_exposition() {
    let state = state(None);
    for number in 0..2_000 {
        let peer =
            state.snapshots.load().config.listeners["api"].runtime.peers.of(&id(&format!("caller-{number}")));
        peer.requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    let (_, samples) = parse(&state.metrics.encode(Format::OpenMetrics).unwrap());
    let peers = samples
        .iter()
        .filter(|sample| sample.name == "outrider_peer_requests_total" && sample.labels["listener"] == "api");
    assert_eq!(peers.count(), 257);
    let other = value(&samples, "outrider_peer_requests_total", &[("listener", "api"), ("peer", "other")]);
    assert_eq!(other, 2_000.0 - 255.0);
}

#[test]
fn callers_of_a_rate_limit_have_no_series() {
    let state = state(None);
    let snapshot = state.snapshots.load();
    let limits = &snapshot.clusters[0].limiters;
    let limiters = &limits.lists()[0].limiters;
    for number in 0..5_000_u32 {
        let caller = Caller::Address(std::net::Ipv4Addr::from(number).into());
        for _ in 0..6 {
            drop(rate_limit::take(limiters, Some(&caller), state.clock.now()));
        }
    }
    let (_, samples) = parse(&state.metrics.encode(Format::OpenMetrics).unwrap());
    let labels = [("direction", "inbound"), ("cluster", "inbound/api"), ("route", ""), ("limit", "caller")];
    assert_eq!(value(&samples, "outrider_rate_limit_callers", &labels), 1024.0);
    assert!(value(&samples, "outrider_rate_limited_total", &labels) > 0.0);
    assert!(value(&samples, "outrider_rate_limit_beyond_total", &labels) > 0.0);
    let series = |name: &str| samples.iter().filter(|sample| sample.name == name).count();
    assert_eq!(series("outrider_rate_limited_total"), 1);
    assert_eq!(series("outrider_rate_limit_callers"), 1);
}

#[test]
fn the_doc_lists_every_metric_with_its_type_and_labels() {
    let (types, samples) = parse(&state(None).metrics.encode(Format::OpenMetrics).unwrap());
    let mut exported: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for sample in &samples {
        let name = documented_name(sample);
        let family = name.strip_suffix("_total").or(name.strip_suffix("_info")).unwrap_or(&name);
        let kind = types.get(family).unwrap_or_else(|| panic!("no type for {name}"));
        let labels = sample.labels.keys().filter(|key| *key != "le").cloned().collect();
        exported.insert(name, (kind.clone(), labels));
    }
    let doc = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md")).unwrap();
    let mut documented: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for line in doc.lines().filter(|line| line.starts_with("| `outrider_")) {
        let cells: Vec<String> =
            line.split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect();
        let labels = cells[3].split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        documented.insert(cells[1].clone(), (cells[2].clone(), labels));
        assert!(!cells[4].is_empty(), "no bound: {line}");
    }
    let undocumented: Vec<_> =
        exported.iter().filter(|(name, facts)| documented.get(*name) != Some(facts)).collect();
    let stale: Vec<_> = documented.keys().filter(|name| !exported.contains_key(*name)).collect();
    assert!(
        undocumented.is_empty() && stale.is_empty(),
        "not so in the doc: {undocumented:#?}\nonly there: {stale:#?}"
    );
}
