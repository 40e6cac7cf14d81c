//! What the variables of OpenTelemetry say of where spans and metrics go (its Environment Variable Specification and its
//! OTLP Exporter Configuration). Pure: what was read of the environment comes in, what it means goes out. A variable that
//! cannot be understood counts as not set, and a warning names it.

mod reader;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue};

use self::reader::Reader;
use super::{Environment, defaults::telemetry as defaults};
use crate::model::telemetry::{Endpoint, ExportProtocol, Propagate};

/// What all variables say together; `None` where they say nothing.
#[derive(Debug, Default)]
pub(super) struct Otel {
    /// Nothing is to be sent at all.
    pub(super) is_disabled: bool,
    /// `service.name`.
    pub(super) service: Option<String>,
    /// Attributes of the resource.
    pub(super) attributes: Vec<(String, String)>,
    /// Where spans go.
    pub(super) traces: Signal,
    /// Where metrics go.
    pub(super) metrics: Signal,
    /// Traces begun here that are sampled, of a million.
    pub(super) sampled_of_million: Option<u32>,
    /// What trace fields are written.
    pub(super) propagate: Option<Propagate>,
    /// Spans that wait to be sent.
    pub(super) queue: Option<u64>,
    /// Spans in one message.
    pub(super) batch: Option<u64>,
    /// How long a span waits for others.
    pub(super) interval: Option<Duration>,
    /// Between two messages with metrics.
    pub(super) metric_interval: Option<Duration>,
    /// What could not be understood.
    pub(super) warnings: Vec<String>,
}

/// What the variables say of one signal.
#[derive(Debug, Default)]
pub(super) struct Signal {
    /// Whether it is sent, where that is said in so many words.
    pub(super) is_wanted: Option<bool>,
    /// Where to.
    pub(super) endpoint: Option<Named>,
    /// What is spoken there.
    pub(super) protocol: Option<ExportProtocol>,
    /// Fields of every message, their values marked sensitive.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Time for one message.
    pub(super) timeout: Option<Duration>,
    /// Whether messages are compressed.
    pub(super) is_compressed: Option<bool>,
    /// Roots for `https://`.
    pub(super) roots: Option<PathBuf>,
    /// Our certificate.
    pub(super) certificate: Option<PathBuf>,
    /// Its key.
    pub(super) key: Option<PathBuf>,
}

/// An endpoint, and for what it was named.
#[derive(Clone, Debug)]
pub(super) enum Named {
    /// For this signal.
    Own(Endpoint),
    /// For all.
    All(Endpoint),
}

impl Signal {
    /// Whether it is sent where the file says nothing of it.
    pub(super) fn is_on(&self) -> bool {
        self.is_wanted.unwrap_or(self.endpoint.is_some())
    }
}

impl Otel {
    /// What these variables say.
    pub(super) fn read(environment: &Environment) -> Self {
        let mut reader = Reader::new(environment);
        let (named, attributes) = reader.attributes();
        Self {
            is_disabled: reader.is_disabled(),
            service: environment.get("OTEL_SERVICE_NAME").map(str::to_owned).or(named),
            attributes,
            traces: signal(&mut reader, "TRACES"),
            metrics: signal(&mut reader, "METRICS"),
            sampled_of_million: reader.sampled_of_million(),
            propagate: reader.propagate(),
            queue: reader.number("OTEL_BSP_MAX_QUEUE_SIZE", &defaults::QUEUE),
            batch: reader.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", &defaults::BATCH),
            interval: reader.millis("OTEL_BSP_SCHEDULE_DELAY", &defaults::INTERVAL),
            metric_interval: reader.millis("OTEL_METRIC_EXPORT_INTERVAL", &defaults::METRIC_INTERVAL),
            warnings: reader.warnings,
        }
    }
}

/// What belongs to one signal holds before what belongs to all.
fn signal(reader: &mut Reader<'_>, of: &str) -> Signal {
    let own = |what: &str| format!("OTEL_EXPORTER_OTLP_{of}_{what}");
    let all = |what: &str| format!("OTEL_EXPORTER_OTLP_{what}");
    Signal {
        is_wanted: reader.exporter(&format!("OTEL_{of}_EXPORTER")),
        endpoint: match reader.endpoint(&own("ENDPOINT")) {
            Some(endpoint) => Some(Named::Own(endpoint)),
            None => reader.endpoint(&all("ENDPOINT")).map(Named::All),
        },
        protocol: reader.either(&own("PROTOCOL"), &all("PROTOCOL"), Reader::protocol),
        headers: reader.either(&own("HEADERS"), &all("HEADERS"), Reader::headers).unwrap_or_default(),
        timeout: reader
            .either(&own("TIMEOUT"), &all("TIMEOUT"), |reader, name| reader.millis(name, &defaults::TIMEOUT)),
        is_compressed: reader.either(&own("COMPRESSION"), &all("COMPRESSION"), Reader::compression),
        roots: reader.either(&own("CERTIFICATE"), &all("CERTIFICATE"), Reader::path),
        certificate: reader.either(&own("CLIENT_CERTIFICATE"), &all("CLIENT_CERTIFICATE"), Reader::path),
        key: reader.either(&own("CLIENT_KEY"), &all("CLIENT_KEY"), Reader::path),
    }
}
