//! One metric with all its series, written into whatever is asked for: OpenMetrics, Prometheus text, or OTLP.
//!
//! Who has something to tell calls [`Metric`]'s methods and knows no format; a [`Sink`] knows its format and nothing
//! else. All three say the same of the same counters.

use std::fmt;

use super::{openmetrics, otlp, text};
use crate::model::histogram::HistogramReading;

/// What all names begin with, and an underscore.
pub(super) const PREFIX: &str = "outrider";

/// Name, help and unit of a metric. The prefix, the unit, and `_total` or `_info` are appended when it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    /// Without prefix and suffixes.
    pub(super) name: &'static str,
    /// One sentence.
    pub(super) help: &'static str,
    /// What the values are measured in; `None`: they are counted.
    pub(super) unit: Option<Unit>,
}

/// What values are measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// What a metric's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// They only rise, from the process's start.
    Counter,
    /// They rise and fall.
    Gauge,
    /// They are always 1: the labels tell.
    Info,
    /// They are distributions that only grow.
    Histogram,
}

/// What one series says.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Of counters that count.
    Count(u64),
    /// Of counters that measure, and of gauges.
    Amount(f64),
    /// Of histograms.
    Histogram(HistogramReading),
}

/// Labels of a series: names and values.
pub(super) type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

/// Where metrics are written to.
#[derive(Debug)]
pub(super) enum Sink<'a> {
    /// OpenMetrics 1.0, by the official client.
    OpenMetrics(prometheus_client::encoding::DescriptorEncoder<'a>),
    /// Prometheus text 0.0.4.
    Text(&'a mut String),
    /// Messages for a collector.
    Otlp(&'a mut otlp::Messages),
}

/// A metric that is counted.
pub(super) const fn metric(name: &'static str, help: &'static str) -> Metric {
    Metric { name, help, unit: None }
}

/// A metric in seconds.
pub(super) const fn seconds(name: &'static str, help: &'static str) -> Metric {
    Metric { name, help, unit: Some(Unit::Seconds) }
}

/// A metric in bytes.
pub(super) const fn bytes(name: &'static str, help: &'static str) -> Metric {
    Metric { name, help, unit: Some(Unit::Bytes) }
}

impl Unit {
    /// As the names of Prometheus have it.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
        }
    }
}

impl Metric {
    /// Writes a counter.
    pub(super) fn counters<'a, const N: usize>(
        &self,
        sink: &mut Sink<'_>,
        series: impl IntoIterator<Item = (Labels<'a, N>, u64)>,
    ) -> fmt::Result {
        let series = series.into_iter().map(|(labels, value)| (labels, Value::Count(value)));
        self.write(sink, Kind::Counter, series)
    }

    /// Writes a counter of what is measured and not counted.
    pub(super) fn sums<'a, const N: usize>(
        &self,
        sink: &mut Sink<'_>,
        series: impl IntoIterator<Item = (Labels<'a, N>, f64)>,
    ) -> fmt::Result {
        let series = series.into_iter().map(|(labels, value)| (labels, Value::Amount(value)));
        self.write(sink, Kind::Counter, series)
    }

    /// Writes a counter without labels.
    pub(super) fn counter(&self, sink: &mut Sink<'_>, value: u64) -> fmt::Result {
        self.counters::<0>(sink, [([], value)])
    }

    /// Writes a gauge.
    pub(super) fn gauges<'a, const N: usize>(
        &self,
        sink: &mut Sink<'_>,
        series: impl IntoIterator<Item = (Labels<'a, N>, f64)>,
    ) -> fmt::Result {
        let series = series.into_iter().map(|(labels, value)| (labels, Value::Amount(value)));
        self.write(sink, Kind::Gauge, series)
    }

    /// Writes a gauge without labels.
    pub(super) fn gauge(&self, sink: &mut Sink<'_>, value: f64) -> fmt::Result {
        self.gauges::<0>(sink, [([], value)])
    }

    /// Writes a metric that is always 1 and tells by its labels.
    pub(super) fn info<const N: usize>(&self, sink: &mut Sink<'_>, labels: Labels<'_, N>) -> fmt::Result {
        self.write(sink, Kind::Info, [(labels, Value::Count(1))])
    }

    /// Writes a histogram.
    pub(super) fn histograms<'a, const N: usize>(
        &self,
        sink: &mut Sink<'_>,
        series: impl IntoIterator<Item = (Labels<'a, N>, HistogramReading)>,
    ) -> fmt::Result {
        let series = series.into_iter().map(|(labels, reading)| (labels, Value::Histogram(reading)));
        self.write(sink, Kind::Histogram, series)
    }

    /// Without series it leaves no trace.
    fn write<'a, const N: usize>(
        &self,
        sink: &mut Sink<'_>,
        kind: Kind,
        series: impl IntoIterator<Item = (Labels<'a, N>, Value)>,
    ) -> fmt::Result {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        match sink {
            Sink::OpenMetrics(encoder) => openmetrics::write(encoder, self, kind, series),
            Sink::Text(text) => text::write(text, self, kind, series),
            Sink::Otlp(messages) => {
                messages.write(self, kind, series);
                Ok(())
            }
        }
    }
}
