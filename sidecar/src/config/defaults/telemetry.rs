//! The keys of `telemetry`. Where a default is another's, its comment says whose (OTel: OpenTelemetry's specification).

use std::time::Duration;

use super::{Choice, HOUR, Key, key, millis, secs};
use crate::{
    config::units::Decimal,
    model::telemetry::{ExportProtocol, Logged, Propagate},
};

/// Where a collector of gRPC is expected (OTel).
pub const GRPC_ENDPOINT: &str = "http://localhost:4317";
/// Where a collector of HTTP is expected (OTel).
pub const HTTP_ENDPOINT: &str = "http://localhost:4318";
/// What is spoken with a collector that the file names (collectors' documentation names 4317 first). Where a variable
/// names it, OTel's own default holds: HTTP.
pub const PROTOCOL: Choice<ExportProtocol> = Choice {
    name: "protocol",
    default: ("grpc", ExportProtocol::Grpc),
    others: &[("http", ExportProtocol::HttpProtobuf)],
};
/// Whether messages are compressed (OTel: not).
pub const COMPRESSION: Choice<bool> =
    Choice { name: "compression", default: ("none", false), others: &[("gzip", true)] };
/// For one message, its repetitions included (OTel).
pub const TIMEOUT: Key<Duration> = key("timeout", secs(10), millis(100), secs(60));
/// Traces begun here that are sampled (OTel: all; Istio: 1 %).
pub const SAMPLE_PERCENT: Key<Decimal> =
    key("sample_percent", Decimal::tenths(10), Decimal::tenths(0), Decimal::tenths(1000));
/// Spans of failed requests that are sent though nobody sampled them.
pub const ERRORS_PER_SECOND: Key<u64> = key("errors_per_second", 10, 0, 1000);
/// What trace fields are written (OTel's list has baggage, too, which always passes).
pub const PROPAGATE: &[(&str, Format)] =
    &[("tracecontext", Format::TraceContext), ("b3", Format::B3), ("b3multi", Format::B3Multi)];
/// Those that are if the file says nothing.
pub const PROPAGATED: Propagate = Propagate { w3c: true, b3: false, b3_multi: false };
/// The same as it stands in the file.
pub const PROPAGATED_WORDS: &str = "tracecontext";
/// Spans that wait to be sent (OTel: 2048).
pub const QUEUE: Key<u64> = key("queue", 4096, 64, 65_536);
/// Spans in one message (OTel).
pub const BATCH: Key<u64> = key("batch", 512, 1, 8192);
/// How long a span waits for others (OTel).
pub const INTERVAL: Key<Duration> = key("interval", secs(5), millis(50), secs(60));
/// Between two messages with metrics (OTel). Short ones are for tests.
pub const METRIC_INTERVAL: Key<Duration> = key("interval", secs(60), millis(100), secs(HOUR));
/// Of which requests there is a record.
pub const LOGGED: Choice<Logged> =
    Choice { name: "of", default: ("errors", Logged::Errors), others: &[("all", Logged::All)] };
/// Of these, so many.
pub const LOGGED_PERCENT: Key<Decimal> =
    key("sample_percent", Decimal::tenths(1000), Decimal::tenths(0), Decimal::tenths(1000));
/// What a record looks like: whether by a template.
pub const LOG_FORMAT: Choice<bool> =
    Choice { name: "format", default: ("json", false), others: &[("template", true)] };

/// A format of trace fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// W3C Trace Context.
    TraceContext,
    /// `b3`.
    B3,
    /// `x-b3-traceid` and the like.
    B3Multi,
}
