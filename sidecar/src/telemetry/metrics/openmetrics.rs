//! OpenMetrics 1.0, by the official client.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit as ClientUnit,
};

use super::family::{Kind, Labels, Metric, Unit, Value};

/// Appends one metric with all its series.
pub(super) fn write<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    kind: Kind,
    series: impl IntoIterator<Item = (Labels<'a, N>, Value)>,
) -> fmt::Result {
    let unit = metric.unit.map(|unit| match unit {
        Unit::Seconds => &ClientUnit::Seconds,
        Unit::Bytes => &ClientUnit::Bytes,
    });
    let client_kind = match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Info => MetricType::Info,
        Kind::Histogram => MetricType::Histogram,
    };
    let mut family = encoder.encode_descriptor(metric.name, metric.help, unit, client_kind)?;
    for (labels, value) in series {
        if kind == Kind::Info {
            family.encode_info(&labels)?;
        } else if N == 0 {
            write_one(&mut family, kind, &value)?;
        } else {
            write_one(&mut family.encode_family(&labels)?, kind, &value)?;
        }
    }
    Ok(())
}

fn write_one(encoder: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> fmt::Result {
    match value {
        Value::Count(value) => encoder.encode_counter::<NoLabelSet, u64, u64>(value, None),
        Value::Amount(value) if kind == Kind::Counter => {
            encoder.encode_counter::<NoLabelSet, f64, u64>(value, None)
        }
        Value::Amount(value) => encoder.encode_gauge(value),
        Value::Histogram(reading) => {
            let bounds = reading.bounds.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(reading.counts.iter().copied()).collect();
            let (sum, count) = (reading.sum_seconds, reading.count());
            encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        }
    }
}
