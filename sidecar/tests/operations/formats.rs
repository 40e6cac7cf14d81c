//! OpenMetrics, Prometheus text and OTLP say the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{
        AggregationTemporality, HistogramDataPoint, Metric, NumberDataPoint, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};
use outrider::{model::edge::MAX_EDGES, telemetry::metrics::Format};
use prost::Message as _;

use crate::{
    metrics::{Sample, parse, parse_sample},
    process::{id, observed, state},
};

/// Samples by name and labels.
type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

/// What moves by itself between two readings, in seconds or as a share.
const CLOCKS: [&str; 5] = [
    "outrider_certificate_remaining_seconds",
    "outrider_certificate_age_ratio",
    "outrider_controller_age_seconds",
    "outrider_discovery_age_seconds",
    "outrider_federation_bundle_age_seconds",
];

fn keyed(samples: impl IntoIterator<Item = Sample>) -> Samples {
    let mut keyed = Samples::new();
    for mut sample in samples {
        if let Some(bound) = sample.labels.get_mut("le") {
            // `1.0` here is `1` there.
            *bound = bound.parse::<f64>().unwrap().to_string();
        }
        let old = keyed.insert((sample.name.clone(), sample.labels), sample.value);
        assert_eq!(old, None, "{} stands there twice", sample.name);
    }
    keyed
}

fn of_text(text: &str) -> (BTreeMap<String, String>, Samples) {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let types =
        types.map(|line| line.split_once(' ').unwrap()).map(|(name, kind)| (name.into(), kind.into()));
    (types.collect(), keyed(text.lines().filter(|line| !line.starts_with('#')).map(parse_sample)))
}

fn labels(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| {
        let Some(Value::StringValue(text)) = pair.value.clone().unwrap().value else { panic!("{pair:?}") };
        text
    };
    attributes.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

fn number(name: &str, point: &NumberDataPoint) -> Sample {
    let value = match point.value.unwrap() {
        number_data_point::Value::AsDouble(value) => value,
        number_data_point::Value::AsInt(value) => value as f64,
    };
    Sample { name: name.to_owned(), labels: labels(&point.attributes), value }
}

fn histogram(name: &str, point: &HistogramDataPoint) -> Vec<Sample> {
    let sample = |suffix: &str, value| Sample {
        name: format!("{name}{suffix}"),
        labels: labels(&point.attributes),
        value,
    };
    let mut samples = vec![sample("_sum", point.sum.unwrap()), sample("_count", point.count as f64)];
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    let mut below = 0;
    for (count, bound) in point.bucket_counts.iter().zip(point.explicit_bounds.iter().chain([&f64::INFINITY]))
    {
        below += count;
        let mut bucket = sample("_bucket", below as f64);
        bucket.labels.insert("le".to_owned(), bound.to_string());
        samples.push(bucket);
    }
    samples
}

/// One metric as a collector shows it to Prometheus.
fn of_metric(metric: Metric, now: u64) -> Vec<Sample> {
    let unit = match metric.unit.as_str() {
        "s" => "_seconds",
        "By" => "_bytes",
        "" => "",
        other => panic!("unit {other}"),
    };
    let name = format!("{}{unit}", metric.name);
    assert!(!metric.description.is_empty());
    let is_now = |started: u64, read: u64| read.abs_diff(now) < 60_000_000_000 && started <= read;
    match metric.data.unwrap() {
        Data::Sum(sum) => {
            assert!(sum.is_monotonic && sum.aggregation_temporality() == AggregationTemporality::Cumulative);
            let points = sum.data_points.iter();
            points
                .map(|point| {
                    assert!(point.start_time_unix_nano > 0);
                    assert!(is_now(point.start_time_unix_nano, point.time_unix_nano), "{point:?}");
                    number(&format!("{name}_total"), point)
                })
                .collect()
        }
        Data::Gauge(gauge) => {
            assert!(gauge.data_points.iter().all(|point| is_now(0, point.time_unix_nano)));
            gauge.data_points.iter().map(|point| number(&name, point)).collect()
        }
        Data::Histogram(found) => {
            assert_eq!(found.aggregation_temporality(), AggregationTemporality::Cumulative);
            assert!(
                found
                    .data_points
                    .iter()
                    .all(|point| is_now(point.start_time_unix_nano, point.time_unix_nano))
            );
            found.data_points.iter().flat_map(|point| histogram(&name, point)).collect()
        }
        other @ (Data::ExponentialHistogram(_) | Data::Summary(_)) => panic!("{other:?}"),
    }
}

fn of_messages(messages: Vec<ExportMetricsServiceRequest>) -> Samples {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let now = u64::try_from(now).unwrap();
    let resources = messages.into_iter().flat_map(|message| message.resource_metrics);
    let metrics = resources.flat_map(|resource| {
        assert_eq!(labels(&resource.resource.unwrap().attributes)["service.name"], "shop");
        resource.scope_metrics.into_iter().flat_map(|scope| {
            assert_eq!(scope.scope.unwrap().name, "outrider");
            scope.metrics
        })
    });
    keyed(metrics.flat_map(|metric| of_metric(metric, now)))
}

fn resource() -> Resource {
    let value = opentelemetry_proto::tonic::common::v1::AnyValue {
        value: Some(Value::StringValue("shop".to_owned())),
    };
    let name = KeyValue { key: "service.name".to_owned(), value: Some(value), ..KeyValue::default() };
    Resource { attributes: vec![name], ..Resource::default() }
}

fn assert_same(left: &Samples, right: &Samples) {
    let names = |samples: &Samples| samples.keys().cloned().collect::<BTreeSet<_>>();
    let (only_left, only_right) = (names(left), names(right));
    assert!(
        only_left == only_right,
        "{:#?}",
        only_left.symmetric_difference(&only_right).collect::<Vec<_>>()
    );
    for ((name, labels), value) in left {
        let other = right[&(name.clone(), labels.clone())];
        let allowed = if CLOCKS.contains(&name.as_str()) { 60.0 } else { 0.0 };
        assert!((value - other).abs() <= allowed, "{name} {labels:?}: {value} and {other}");
    }
}

#[test]
fn all_formats_say_the_same_of_every_series() {
    let metrics = &state(None).metrics;
    let open = keyed(parse(&metrics.encode(Format::OpenMetrics).unwrap()).1);
    let (types, text) = of_text(&metrics.encode(Format::Text).unwrap());
    assert!(open.len() > 500, "{}", open.len());
    assert_same(&open, &text);
    assert_same(&open, &of_messages(metrics.messages(&resource()).unwrap()));
    for (name, kind) in [
        ("requests_total", "counter"),
        ("ready", "gauge"),
        ("build_info", "gauge"),
        ("edge_duration_seconds", "histogram"),
    ] {
        assert_eq!(types[&format!("outrider_{name}")], kind);
    }
}

#[test]
fn messages_for_a_collector_are_bounded_and_lose_nothing() {
    use outrider::model::edge::{Direction, EdgeKey};
    let (state, observer) = observed(None);
    let few = state.metrics.messages(&resource()).unwrap();
    assert_eq!(few.len(), 1);
    for number in 0..MAX_EDGES + 10 {
        let source = id(&format!("{}{number}", "long/".repeat(60)));
        let key = EdgeKey {
            direction: Direction::Inbound,
            source: source.as_str().into(),
            destination: "inbound/api".into(),
            route: "".into(),
        };
        let edge = observer.edges.of(&key);
        edge.by_class[2].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    let messages = state.metrics.messages(&resource()).unwrap();
    assert!(messages.len() > 1);
    for message in &messages {
        assert!(message.encoded_len() < 2 << 20, "{}", message.encoded_len());
    }
    let open = keyed(parse(&state.metrics.encode(Format::OpenMetrics).unwrap()).1);
    assert_same(&open, &of_messages(messages));
    let edges = open.keys().filter(|(name, _)| name == "outrider_edge_errors_total").count();
    assert_eq!(edges, MAX_EDGES + 1, "and `other`");
}
