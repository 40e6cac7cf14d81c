//! One span, as far as it is shown. What came over the network is bounded here.

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{self as otlp, span::SpanKind, status::StatusCode},
};

/// Characters kept of a name or a value.
const MAX_TEXT: usize = 128;
/// The scope of spans that sidecars of ours make.
pub const PROXY_SCOPE: &str = "outrider";

/// A span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its trace.
    pub trace: u128,
    /// Itself, unique in its trace.
    pub id: u64,
    /// The span that it is part of.
    pub parent: Option<u64>,
    /// Whose it is (`service.name`).
    pub service: Arc<str>,
    /// What it is.
    pub name: Box<str>,
    /// On which side of a call.
    pub kind: Kind,
    /// Whether a sidecar of ours made it, and not an app.
    pub is_proxy: bool,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// The same; never before the start.
    pub end: u64,
    /// Whether it failed.
    pub is_error: bool,
    /// The status of the answer.
    pub status: Option<u16>,
    /// How many attempts were before it (`http.request.resend_count`).
    pub resend: u32,
    /// The cluster that was asked (`outrider.cluster`).
    pub cluster: Option<Box<str>>,
    /// The endpoint that was asked (`outrider.endpoint`).
    pub endpoint: Option<Box<str>>,
}

/// On which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It answers.
    Server,
    /// It asks.
    Client,
    /// Neither, or something that is not shown apart.
    Internal,
}

impl Span {
    /// How long it took, in nanoseconds.
    #[must_use]
    pub fn nanos(&self) -> u64 {
        self.end - self.start
    }
}

/// The spans of one message, and how many in it had no valid identity.
#[must_use]
pub fn spans(message: ExportTraceServiceRequest) -> (Vec<Span>, i64) {
    let (mut spans, mut bad) = (Vec::new(), 0);
    for of_resource in message.resource_spans {
        let attributes = of_resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let service: Arc<str> = text(&attributes, "service.name").unwrap_or_default().into();
        for of_scope in of_resource.scope_spans {
            let is_proxy = of_scope.scope.is_some_and(|scope| scope.name == PROXY_SCOPE);
            for span in of_scope.spans {
                match read(span, &service, is_proxy) {
                    Some(span) => spans.push(span),
                    None => bad += 1,
                }
            }
        }
    }
    (spans, bad)
}

fn read(span: otlp::Span, service: &Arc<str>, is_proxy: bool) -> Option<Span> {
    let trace = u128::from_be_bytes(span.trace_id.try_into().ok()?);
    let id = u64::from_be_bytes(span.span_id.try_into().ok()?);
    let parent = match span.parent_span_id.is_empty() {
        true => 0,
        false => u64::from_be_bytes(span.parent_span_id.try_into().ok()?),
    };
    if trace == 0 || id == 0 {
        return None;
    }
    let number = |name| match value(&span.attributes, name) {
        Some(Value::IntValue(number)) => Some(*number),
        _ => None,
    };
    Some(Span {
        trace,
        id,
        parent: Some(parent).filter(|parent| *parent != 0),
        service: Arc::clone(service),
        name: bounded(&span.name),
        kind: match SpanKind::try_from(span.kind) {
            Ok(SpanKind::Server) => Kind::Server,
            Ok(SpanKind::Client) => Kind::Client,
            _ => Kind::Internal,
        },
        is_proxy,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano.max(span.start_time_unix_nano),
        is_error: span.status.is_some_and(|status| status.code == StatusCode::Error as i32),
        status: number("http.response.status_code").and_then(|status| status.try_into().ok()),
        resend: number("http.request.resend_count").and_then(|count| count.try_into().ok()).unwrap_or(0),
        cluster: text(&span.attributes, "outrider.cluster"),
        endpoint: text(&span.attributes, "outrider.endpoint"),
    })
}

fn value<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    let AnyValue { value } = found.value.as_ref()?;
    value.as_ref()
}

fn text(attributes: &[KeyValue], name: &str) -> Option<Box<str>> {
    match value(attributes, name) {
        Some(Value::StringValue(text)) => Some(bounded(text)),
        _ => None,
    }
}

/// The first characters of a text.
fn bounded(text: &str) -> Box<str> {
    let end = text.char_indices().nth(MAX_TEXT).map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or_default().into()
}
