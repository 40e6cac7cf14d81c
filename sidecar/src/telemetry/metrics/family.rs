//! Writing one metric with all its series.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use crate::model::histogram::HistogramReading;

/// Name, help and unit of a metric. The prefix, `_total` and the unit are appended when it is written.
pub(super) struct Metric {
    /// Without prefix and suffixes.
    pub(super) name: &'static str,
    /// One sentence.
    pub(super) help: &'static str,
    /// Whether the values are seconds.
    pub(super) is_seconds: bool,
}

/// A metric without unit.
pub(super) const fn metric(name: &'static str, help: &'static str) -> Metric {
    Metric { name, help, is_seconds: false }
}

/// A metric in seconds.
pub(super) const fn seconds(name: &'static str, help: &'static str) -> Metric {
    Metric { name, help, is_seconds: true }
}

/// Labels of a series: names and values.
pub(super) type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

impl Metric {
    fn unit(&self) -> Option<&'static Unit> {
        self.is_seconds.then_some(&Unit::Seconds)
    }

    /// Writes a counter.
    pub(super) fn counters<'a, const N: usize>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        series: impl IntoIterator<Item = (Labels<'a, N>, u64)>,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(self.name, self.help, self.unit(), MetricType::Counter)?;
        for (labels, value) in series {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
        }
        Ok(())
    }

    /// Writes a counter of what is measured and not counted.
    pub(super) fn sums<'a, const N: usize>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        series: impl IntoIterator<Item = (Labels<'a, N>, f64)>,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(self.name, self.help, self.unit(), MetricType::Counter)?;
        for (labels, value) in series {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, f64, u64>(&value, None)?;
        }
        Ok(())
    }

    /// Writes a counter without labels.
    pub(super) fn counter(&self, encoder: &mut DescriptorEncoder<'_>, value: u64) -> fmt::Result {
        encoder
            .encode_descriptor(self.name, self.help, self.unit(), MetricType::Counter)?
            .encode_counter::<NoLabelSet, u64, u64>(&value, None)
    }

    /// Writes a gauge.
    pub(super) fn gauges<'a, const N: usize>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        series: impl IntoIterator<Item = (Labels<'a, N>, f64)>,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(self.name, self.help, self.unit(), MetricType::Gauge)?;
        for (labels, value) in series {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// Writes a gauge without labels.
    pub(super) fn gauge(&self, encoder: &mut DescriptorEncoder<'_>, value: f64) -> fmt::Result {
        encoder.encode_descriptor(self.name, self.help, self.unit(), MetricType::Gauge)?.encode_gauge(&value)
    }

    /// Writes a metric that is always 1 and tells by its labels.
    pub(super) fn info<const N: usize>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        labels: &Labels<'_, N>,
    ) -> fmt::Result {
        encoder.encode_descriptor(self.name, self.help, None, MetricType::Info)?.encode_info(labels)
    }

    /// Writes a histogram.
    pub(super) fn histograms<'a, const N: usize>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        series: impl IntoIterator<Item = (Labels<'a, N>, HistogramReading)>,
    ) -> fmt::Result {
        let mut metric =
            encoder.encode_descriptor(self.name, self.help, self.unit(), MetricType::Histogram)?;
        for (labels, reading) in series {
            let bounds = reading.bounds.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(reading.counts.iter().copied()).collect();
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                reading.sum_seconds,
                reading.count(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}
