//! OTLP: what a collector is sent.
//!
//! Names are those of Prometheus without the unit and `_total`, which collectors append by the unit and the type, so
//! that one query fits both ways.

use std::time::SystemTime;

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric as Message, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};

use super::family::{Kind, Labels, Metric, PREFIX, Unit, Value};
use crate::model::histogram::HistogramReading;

/// Bytes of one message, about: collectors refuse those over 4 MiB.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// Bytes of a number's or histogram's point without its labels, about.
const POINT_BYTES: usize = 40;

/// Metrics on their way into messages.
#[derive(Debug)]
pub(super) struct Messages {
    /// Since when counters count, and when they were read: in nanoseconds since the Unix epoch.
    times: (u64, u64),
    full: Vec<Vec<Message>>,
    last: Vec<Message>,
    /// Of the last one.
    bytes: usize,
}

/// An attribute with a text.
pub(super) fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Messages {
    /// Without metrics yet: counters count since `started` and are read now, at `read`.
    pub(super) fn new(started: SystemTime, read: SystemTime) -> Self {
        Self { times: (nanos(started), nanos(read)), full: Vec::new(), last: Vec::new(), bytes: 0 }
    }

    /// Appends one metric with all its series.
    pub(super) fn write<'a, const N: usize>(
        &mut self,
        metric: &Metric,
        kind: Kind,
        series: impl IntoIterator<Item = (Labels<'a, N>, Value)>,
    ) {
        let mut data = None;
        for (labels, value) in series {
            let size = labels.iter().map(|(name, value)| name.len() + value.len() + 8).sum::<usize>();
            self.bytes += POINT_BYTES + size;
            let attributes = labels.iter().map(|(name, value)| attribute(name, value)).collect();
            match value {
                Value::Count(value) => {
                    // A count beyond 2^63 does not occur.
                    let value = number_data_point::Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX));
                    self.number(&mut data, kind, attributes, value);
                }
                Value::Amount(value) => {
                    self.number(&mut data, kind, attributes, number_data_point::Value::AsDouble(value));
                }
                Value::Histogram(reading) => self.histogram(&mut data, attributes, &reading),
            }
            if self.bytes >= MAX_MESSAGE_BYTES {
                self.end_metric(metric, kind, &mut data);
                self.end_message();
            }
        }
        self.end_metric(metric, kind, &mut data);
    }

    fn number(
        &self,
        data: &mut Option<Data>,
        kind: Kind,
        attributes: Vec<KeyValue>,
        value: number_data_point::Value,
    ) {
        let (started, read) = self.times;
        let point = NumberDataPoint {
            attributes,
            // What is not counted from somewhere has no start.
            start_time_unix_nano: if kind == Kind::Counter { started } else { 0 },
            time_unix_nano: read,
            value: Some(value),
            ..NumberDataPoint::default()
        };
        let empty = || match kind {
            Kind::Counter => Data::Sum(Sum {
                data_points: Vec::new(),
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
                is_monotonic: true,
            }),
            Kind::Gauge | Kind::Info | Kind::Histogram => Data::Gauge(Gauge::default()),
        };
        match data.get_or_insert_with(empty) {
            Data::Sum(sum) => sum.data_points.push(point),
            Data::Gauge(gauge) => gauge.data_points.push(point),
            Data::Histogram(_) | Data::ExponentialHistogram(_) | Data::Summary(_) => {}
        }
    }

    fn histogram(&mut self, data: &mut Option<Data>, attributes: Vec<KeyValue>, reading: &HistogramReading) {
        let (started, read) = self.times;
        self.bytes += 8 * (reading.bounds.len() + reading.counts.len());
        let point = HistogramDataPoint {
            attributes,
            start_time_unix_nano: started,
            time_unix_nano: read,
            count: reading.count(),
            sum: Some(reading.sum_seconds),
            bucket_counts: reading.counts.clone(),
            explicit_bounds: reading.bounds.to_vec(),
            ..HistogramDataPoint::default()
        };
        let empty = || {
            Data::Histogram(Histogram {
                data_points: Vec::new(),
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
            })
        };
        if let Data::Histogram(histogram) = data.get_or_insert_with(empty) {
            histogram.data_points.push(point);
        }
    }

    fn end_metric(&mut self, metric: &Metric, kind: Kind, data: &mut Option<Data>) {
        let Some(data) = data.take() else { return };
        let unit = match metric.unit {
            Some(Unit::Seconds) => "s",
            Some(Unit::Bytes) => "By",
            None => "",
        };
        let suffix = if kind == Kind::Info { "_info" } else { "" };
        self.last.push(Message {
            name: format!("{PREFIX}_{}{suffix}", metric.name),
            description: metric.help.to_owned(),
            unit: unit.to_owned(),
            metadata: Vec::new(),
            data: Some(data),
        });
    }

    fn end_message(&mut self) {
        self.full.push(std::mem::take(&mut self.last));
        self.bytes = 0;
    }

    /// The messages, each of whose metrics are said to be of `resource`.
    pub(super) fn requests(mut self, resource: &Resource) -> Vec<ExportMetricsServiceRequest> {
        if !self.last.is_empty() {
            self.end_message();
        }
        let scope = InstrumentationScope {
            name: PREFIX.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let request = |metrics| ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(resource.clone()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(scope.clone()),
                    metrics,
                    schema_url: String::new(),
                }],
                schema_url: String::new(),
            }],
        };
        self.full.into_iter().map(request).collect()
    }
}
