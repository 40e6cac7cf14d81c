//! What is told of requests, and where to: the `telemetry` section.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};

/// What is told of requests, and where to. The default: nothing leaves the process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TelemetrySettings {
    /// Spans; `None`: none are made, and trace fields pass as they are.
    pub traces: Option<Arc<TraceSettings>>,
    /// Metrics sent to a collector, beside those that are asked for.
    pub metrics: Option<Arc<MetricExport>>,
    /// A record of each request; `None`: none is written.
    pub access_log: Option<Arc<AccessLogSettings>>,
    /// Variables of the environment that were not understood, or have no effect, each with what is wrong: for a warning.
    pub warnings: Vec<String>,
}

/// Spans: of which requests, and where to.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSettings {
    /// Where they are sent.
    pub export: Export,
    /// Traces begun here that are sampled, of a million; those of others are sampled as their beginner decided.
    pub sampled_of_million: u32,
    /// Spans of failed requests are sent although their trace is not sampled: so many a second at most, 0: none.
    pub errors_per_second: u32,
    /// What trace fields are written beside those that a request came with.
    pub propagate: Propagate,
    /// Spans that wait to be sent; more are dropped, and counted.
    pub queue: usize,
    /// Spans in one message.
    pub batch: usize,
    /// The longest that a span waits for its batch to be full.
    pub interval: Duration,
}

/// What trace fields are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Propagate {
    /// `traceparent` and `tracestate` (W3C Trace Context).
    pub w3c: bool,
    /// `b3`.
    pub b3: bool,
    /// `x-b3-traceid` and the like.
    pub b3_multi: bool,
}

/// Metrics sent to a collector.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricExport {
    /// Where they are sent.
    pub export: Export,
    /// How often.
    pub interval: Duration,
}

/// How a collector is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// Where it is.
    pub endpoint: Endpoint,
    /// What is spoken there.
    pub protocol: ExportProtocol,
    /// Fields of every message.
    pub headers: Vec<(HeaderName, FieldValue)>,
    /// Whether messages are compressed (gzip).
    pub is_compressed: bool,
    /// Roots for `https://`, PEM; `None`: the operating system's.
    pub roots: Option<PathBuf>,
    /// Our certificate and key for collectors that ask for one, PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Time for one message, its repetitions included.
    pub timeout: Duration,
    /// Attributes of the resource beside `service.name`, in order, each name once.
    pub attributes: Vec<(String, String)>,
    /// `service.name`.
    pub service: String,
}

/// Where a collector is: a URL without user, query and fragment. Shown as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it is `https://`.
    pub is_tls: bool,
    /// A name, or an address; IPv6 without its brackets.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// Of HTTP: where messages are posted to, with its slash. Empty of gRPC, whose methods have paths of their own.
    pub path: Box<str>,
}

impl Endpoint {
    /// `host:port`, IPv6 in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// The value of a field of every message. It may be a secret: it is never shown.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// This one, marked sensitive.
    Given(HeaderValue),
    /// What the file says, without the line's end; it is read again now and then.
    File(PathBuf),
}

/// What is spoken with a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportProtocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, binary.
    HttpProtobuf,
}

/// A record of each request.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLogSettings {
    /// Of which requests.
    pub of: Logged,
    /// Of these, so many of a million.
    pub sampled_of_million: u32,
    /// Where to; `None`: standard output.
    pub path: Option<PathBuf>,
    /// What a record looks like.
    pub format: LogFormat,
    /// Request fields whose values are recorded. All others are left out.
    pub request_headers: Vec<HeaderName>,
    /// Response fields whose values are recorded. All others are left out.
    pub response_headers: Vec<HeaderName>,
}

/// Of which requests there is a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logged {
    /// All.
    All,
    /// Those with a response flag, an HTTP status of 500 and more, or a gRPC status that says that something failed.
    Errors,
}

/// What a record looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// A line with the request's facts in their places: `{method} {path} {status}`.
    Template(String),
}
