//! Prometheus text 0.0.4: what every scraper reads.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

use super::family::{Kind, Labels, Metric, PREFIX, Value};

/// A number as the format has it.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            // `NaN` is written alike.
            number => write!(f, "{number}"),
        }
    }
}

/// A label's value with `\`, `"` and line feeds escaped.
fn escaped(value: &str) -> Cow<'_, str> {
    if value.contains(['\\', '"', '\n']) {
        Cow::Owned(value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
    } else {
        Cow::Borrowed(value)
    }
}

/// Appends one metric with all its series.
pub(super) fn write<'a, const N: usize>(
    text: &mut String,
    metric: &Metric,
    kind: Kind,
    series: impl IntoIterator<Item = (Labels<'a, N>, Value)>,
) -> fmt::Result {
    let name = name(metric, kind);
    let shown = match kind {
        Kind::Counter => "counter",
        // There are no infos in this format.
        Kind::Gauge | Kind::Info => "gauge",
        Kind::Histogram => "histogram",
    };
    let help = metric.help.replace('\\', "\\\\").replace('\n', "\\n");
    write!(text, "# HELP {name} {help}\n# TYPE {name} {shown}\n")?;
    for (labels, value) in series {
        match value {
            Value::Count(value) => sample(text, (&name, ""), &labels, None, value)?,
            Value::Amount(value) => sample(text, (&name, ""), &labels, None, Number(value))?,
            Value::Histogram(reading) => {
                let mut below = 0;
                let bounds = reading.bounds.iter().copied().chain([f64::INFINITY]);
                for (bound, count) in bounds.zip(&reading.counts) {
                    below += count;
                    sample(text, (&name, "_bucket"), &labels, Some(bound), below)?;
                }
                sample(text, (&name, "_sum"), &labels, None, Number(reading.sum_seconds))?;
                sample(text, (&name, "_count"), &labels, None, below)?;
            }
        }
    }
    Ok(())
}

fn name(metric: &Metric, kind: Kind) -> String {
    let unit = metric.unit.map(|unit| format!("_{}", unit.suffix())).unwrap_or_default();
    let suffix = match kind {
        Kind::Counter => "_total",
        Kind::Info => "_info",
        Kind::Gauge | Kind::Histogram => "",
    };
    format!("{PREFIX}_{}{unit}{suffix}", metric.name)
}

fn sample<const N: usize>(
    text: &mut String,
    (name, suffix): (&str, &str),
    labels: &Labels<'_, N>,
    bound: Option<f64>,
    value: impl fmt::Display,
) -> fmt::Result {
    write!(text, "{name}{suffix}")?;
    let mut before = '{';
    for (label, value) in labels {
        write!(text, "{before}{label}=\"{}\"", escaped(value))?;
        before = ',';
    }
    if let Some(bound) = bound {
        write!(text, "{before}le=\"{}\"", Number(bound))?;
        before = ',';
    }
    if before == ',' {
        text.push('}');
    }
    writeln!(text, " {value}")
}
