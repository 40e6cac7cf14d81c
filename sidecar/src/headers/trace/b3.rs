//! B3 propagation (github.com/openzipkin/b3-propagation): one field, or one for each part.
//!
//! Trace IDs of 64 bits are traces whose upper half is zero, and are written as they came. Debug (`d`, `x-b3-flags: 1`)
//! means that the trace is sampled, and goes on as that. What a span's own parent is, nobody behind us needs to know.

use std::num::{NonZeroU64, NonZeroU128};

use http::{HeaderName, HeaderValue};

use super::{
    B3_FLAGS, B3_SAMPLED, B3_SPAN, B3_TRACE,
    hex::{parse as hex, part, put},
};
use crate::model::trace::{SpanId, TraceId};

/// What B3 says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Trace and span; `None`: it only says whether a trace that begins is sampled.
    pub(super) context: Option<(TraceId, SpanId)>,
    /// Whether it is sampled; `None`: that is left to us.
    pub(super) is_sampled: Option<bool>,
}

/// The one field: `{trace}-{span}[-{sampled}[-{parent}]]`, or `{sampled}` alone. `None` if it is not well-formed.
pub(super) fn parse(value: &[u8]) -> Option<Parsed> {
    if let [state] = value {
        return Some(Parsed { context: None, is_sampled: Some(sampled(*state)?) });
    }
    let digits = value.iter().position(|byte| *byte == b'-')?;
    let (trace, rest) = part(value, digits)?;
    let (span, rest) = part(rest?, 16)?;
    let context = Some((trace_id(trace)?, span_id(span)?));
    let Some(rest) = rest else { return Some(Parsed { context, is_sampled: None }) };
    let (state, parent) = part(rest, 1)?;
    let [state] = state else { return None };
    if let Some(parent) = parent {
        let (parent, None) = part(parent, 16)? else { return None };
        hex(parent)?;
    }
    Some(Parsed { context, is_sampled: Some(sampled(*state)?) })
}

/// A field for each part, which `field` gives by its name. What is not well-formed is as good as absent.
pub(super) fn parse_fields<'a>(field: impl Fn(&HeaderName) -> Option<&'a [u8]>) -> Parsed {
    let context = field(&B3_TRACE).and_then(trace_id).zip(field(&B3_SPAN).and_then(span_id));
    if field(&B3_FLAGS) == Some(b"1") {
        return Parsed { context, is_sampled: Some(true) };
    }
    let is_sampled = match field(&B3_SAMPLED) {
        // Words were once written, and are still read.
        Some(b"1" | b"true") => Some(true),
        Some(b"0" | b"false") => Some(false),
        Some(_) | None => None,
    };
    Parsed { context, is_sampled }
}

fn sampled(state: u8) -> Option<bool> {
    match state {
        b'1' | b'd' => Some(true),
        b'0' => Some(false),
        _ => None,
    }
}

fn trace_id(digits: &[u8]) -> Option<TraceId> {
    let number = hex(digits).filter(|_| matches!(digits.len(), 16 | 32))?;
    NonZeroU128::new(number).map(TraceId)
}

fn span_id(digits: &[u8]) -> Option<SpanId> {
    let number = hex(digits).filter(|_| digits.len() == 16)?;
    NonZeroU64::new(u64::try_from(number).ok()?).map(SpanId)
}

/// The digits of a trace ID: 16 if those are all there is.
fn digits(trace: TraceId) -> usize {
    if trace.0.get() >> 64 == 0 { 16 } else { 32 }
}

/// The one field.
pub(super) fn format(trace: TraceId, span: SpanId, is_sampled: bool) -> Option<HeaderValue> {
    let mut text = [b'-'; 32 + 1 + 16 + 1 + 1];
    let text = text.get_mut(32 - digits(trace)..)?;
    let (trace_text, rest) = text.split_at_mut_checked(digits(trace))?;
    put(trace_text, trace.0.get());
    put(rest.get_mut(1..17)?, u128::from(span.0.get()));
    put(rest.get_mut(18..)?, u128::from(is_sampled));
    HeaderValue::from_bytes(text).ok()
}

/// `x-b3-traceid`.
pub(super) fn format_trace(trace: TraceId) -> Option<HeaderValue> {
    let mut text = [0; 32];
    let text = text.get_mut(32 - digits(trace)..)?;
    put(text, trace.0.get());
    HeaderValue::from_bytes(text).ok()
}

/// `x-b3-spanid`.
pub(super) fn format_span(span: SpanId) -> Option<HeaderValue> {
    let mut text = [0; 16];
    put(&mut text, u128::from(span.0.get()));
    HeaderValue::from_bytes(&text).ok()
}
