//! `telemetry`: what is told of requests, and where to. A key of the file wins over a variable of OpenTelemetry's, and that
//! one over the default.

mod access_log;
mod export;

use std::{path::Path, sync::Arc};

use serde_saphyr::Spanned;

pub(in crate::config) use export::{MAX_HEADERS, export_field};

use self::export::{Common, Surroundings};
use super::bootstrap::{section, to_u32, to_usize};
use crate::{
    config::{
        defaults::telemetry::{self as defaults, Format},
        otel::Otel,
        raw,
        units::Decimal,
        value::{Text, quantity, words},
    },
    model::{
        file::{Faults, Place, report_odd_keys},
        telemetry::{MetricExport, Propagate, TelemetrySettings, TraceSettings},
    },
};

/// Attributes of the resource.
pub(in crate::config) const MAX_ATTRIBUTES: usize = 64;
/// Bytes of an attribute's name, and of its value.
const MAX_ATTRIBUTE_BYTES: (usize, usize) = (128, 256);

/// What the sections of traces and of metrics both say of a collector. `path` is where messages go by HTTP.
macro_rules! common {
    ($raw:expr, $path:expr) => {
        Common {
            endpoint: $raw.endpoint.as_ref(),
            protocol: $raw.protocol.as_ref(),
            headers: $raw.headers.as_ref(),
            compression: $raw.compression.as_ref(),
            roots: $raw.roots.as_ref(),
            certificate: $raw.certificate.as_ref(),
            key: $raw.key.as_ref(),
            timeout: $raw.timeout.as_ref(),
            path: $path,
        }
    };
}

/// The section as a whole.
pub(super) fn telemetry(
    raw: Option<&Spanned<raw::Telemetry>>,
    service: &str,
    folder: &Path,
    otel: Otel,
    faults: &mut Faults,
) -> TelemetrySettings {
    let empty = raw::Telemetry::default();
    let place = section(raw, "telemetry");
    let raw = raw.map_or(&empty, |raw| &raw.value);
    report_odd_keys(&raw.odd_keys, raw::Telemetry::KEYS, &place, faults);
    let attributes = attributes(raw, &place, &otel, faults);
    let (service, attributes) = named(service, attributes, &otel);
    let surroundings = Surroundings { folder, service: &service, attributes: &attributes };
    let mut warnings = otel.warnings.clone();
    let traces = traces(raw.traces.as_ref(), &place, &surroundings, &otel, (faults, &mut warnings));
    let metrics = metrics(raw.metrics.as_ref(), &place, &surroundings, &otel, (faults, &mut warnings));
    let access_log = access_log::access_log(raw.access_log.as_ref(), folder, &place, faults);
    if otel.is_disabled && (traces.is_some() || metrics.is_some()) {
        warnings.push("OTEL_SDK_DISABLED is true: neither spans nor metrics are sent".to_owned());
    }
    TelemetrySettings {
        traces: traces.filter(|_| !otel.is_disabled).map(Arc::new),
        metrics: metrics.filter(|_| !otel.is_disabled).map(Arc::new),
        access_log: access_log.map(Arc::new),
        warnings,
    }
}

/// Spans are sent if the file has a section for them, or a variable says so.
fn traces(
    raw: Option<&Spanned<raw::Traces>>,
    place: &Place,
    surroundings: &Surroundings<'_>,
    otel: &Otel,
    (faults, warnings): (&mut Faults, &mut Vec<String>),
) -> Option<TraceSettings> {
    if raw.is_none() && !otel.traces.is_on() {
        return None;
    }
    let empty = raw::Traces::default();
    let place = raw.map_or_else(|| place.key("traces"), |raw| place.key("traces").at(raw));
    let raw = raw.map_or(&empty, |raw| &raw.value);
    report_odd_keys(&raw.odd_keys, raw::Traces::KEYS, &place, faults);
    let common = common!(raw, "/v1/traces");
    let export = export::export(&common, &otel.traces, surroundings, &place, (faults, warnings));
    let sampled = of_million(raw.sample_percent.as_ref(), &defaults::SAMPLE_PERCENT, &place, faults);
    let sampled =
        raw.sample_percent.is_none().then_some(otel.sampled_of_million).flatten().unwrap_or(sampled);
    let errors = quantity(raw.errors_per_second.as_ref(), &defaults::ERRORS_PER_SECOND, &place, faults);
    let queue = quantity(raw.queue.as_ref(), &or(&defaults::QUEUE, otel.queue), &place, faults);
    let batch = quantity(raw.batch.as_ref(), &or(&defaults::BATCH, otel.batch), &place, faults);
    Some(TraceSettings {
        export: export?,
        sampled_of_million: sampled,
        errors_per_second: to_u32(errors),
        propagate: propagate(raw, &place, otel, faults),
        queue: to_usize(queue),
        batch: to_usize(batch.min(queue)),
        interval: quantity(raw.interval.as_ref(), &or(&defaults::INTERVAL, otel.interval), &place, faults),
    })
}

/// The same of metrics.
fn metrics(
    raw: Option<&Spanned<raw::Metrics>>,
    place: &Place,
    surroundings: &Surroundings<'_>,
    otel: &Otel,
    (faults, warnings): (&mut Faults, &mut Vec<String>),
) -> Option<MetricExport> {
    if raw.is_none() && !otel.metrics.is_on() {
        return None;
    }
    let empty = raw::Metrics::default();
    let place = raw.map_or_else(|| place.key("metrics"), |raw| place.key("metrics").at(raw));
    let raw = raw.map_or(&empty, |raw| &raw.value);
    report_odd_keys(&raw.odd_keys, raw::Metrics::KEYS, &place, faults);
    let common = common!(raw, "/v1/metrics");
    let export = export::export(&common, &otel.metrics, surroundings, &place, (faults, warnings));
    let interval = or(&defaults::METRIC_INTERVAL, otel.metric_interval);
    let interval = quantity(raw.interval.as_ref(), &interval, &place, faults);
    Some(MetricExport { export: export?, interval })
}

/// The same key where a variable's value holds if the file says nothing.
fn or<T: Copy>(
    key: &crate::config::defaults::Key<T>,
    variable: Option<T>,
) -> crate::config::defaults::Key<T> {
    key.or(variable.or(key.default))
}

/// A percentage in tenths as parts of a million.
fn of_million(
    text: Text<'_>,
    key: &crate::config::defaults::Key<Decimal>,
    place: &Place,
    faults: &mut Faults,
) -> u32 {
    to_u32(quantity(text, key, place, faults).in_tenths() * 1000)
}

fn propagate(raw: &raw::Traces, place: &Place, otel: &Otel, faults: &mut Faults) -> Propagate {
    let Some(list) = &raw.propagate else { return otel.propagate.unwrap_or(defaults::PROPAGATED) };
    let mut formats = Propagate::default();
    for format in words(Some(list), defaults::PROPAGATE, &place.key("propagate"), faults) {
        match format {
            Format::TraceContext => formats.w3c = true,
            Format::B3 => formats.b3 = true,
            Format::B3Multi => formats.b3_multi = true,
        }
    }
    formats
}

/// Whether that may be an attribute of the resource. What is said of the library is not the user's to say.
pub(in crate::config) fn is_attribute(name: &str, value: &str) -> bool {
    let (of_name, of_value) = MAX_ATTRIBUTE_BYTES;
    (1..=of_name).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic())
        && !name.starts_with("telemetry.")
        && value.len() <= of_value
        && !value.chars().any(char::is_control)
}

fn attributes(
    raw: &raw::Telemetry,
    place: &Place,
    otel: &Otel,
    faults: &mut Faults,
) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let place = place.key("attributes");
    let list = raw.attributes.as_ref().map(|list| (place.at(list), &list.value));
    if let Some((place, list)) = list {
        if list.len() > MAX_ATTRIBUTES {
            faults.add(&place, format!("has {} items", list.len()), format!("keep to {MAX_ATTRIBUTES}"));
            return found;
        }
        for (index, item) in list.iter().enumerate() {
            let place = place.item(index).at(item);
            report_odd_keys(&item.value.odd_keys, raw::Attribute::KEYS, &place, faults);
            let (Some(name), Some(value)) = (&item.value.name, &item.value.value) else {
                faults.add(&place, "has no name, or no value", "give both, as {name: team, value: payments}");
                continue;
            };
            if !is_attribute(&name.value, &value.value) {
                let remedy = "name it in up to 128 printable ASCII characters, not telemetry.…; the value has up to 256 bytes";
                faults.add(&place, "is not an attribute of a resource", remedy);
            }
            if found.iter().any(|(before, _)| *before == name.value) {
                faults.add(&place, format!("{} stands here twice", name.value), "list each once");
            }
            found.push((name.value.clone(), value.value.clone()));
        }
    }
    for (name, value) in &otel.attributes {
        if found.len() < MAX_ATTRIBUTES && !found.iter().any(|(before, _)| before == name) {
            found.push((name.clone(), value.clone()));
        }
    }
    found
}

/// The service's name, and the attributes without it: as one of the attributes, of a variable, or else our own.
fn named(
    service: &str,
    mut attributes: Vec<(String, String)>,
    otel: &Otel,
) -> (String, Vec<(String, String)>) {
    let own = attributes.iter().position(|(name, _)| name == "service.name");
    let own = own.map(|index| attributes.remove(index).1);
    (own.or_else(|| otel.service.clone()).unwrap_or_else(|| service.to_owned()), attributes)
}
