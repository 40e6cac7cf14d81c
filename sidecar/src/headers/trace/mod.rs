//! Trace context: what a request says of the trace that it is part of, and what we say of it to the next hop.
//!
//! Read in this order: `traceparent` with `tracestate` (W3C Trace Context), `b3`, `x-b3-traceid` and its like. What is
//! not well-formed is as good as absent. Written are the formats that came in, and those that the configuration asks for:
//! all say the same, and none of what came in stays beside them. `baggage` is between apps, and is not touched.

mod b3;
mod hex;
mod tracestate;
mod w3c;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::model::{
    telemetry::Propagate,
    trace::{SpanId, TraceId},
};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
static B3: HeaderName = HeaderName::from_static("b3");
/// What the fields of B3's longer form begin with.
const B3_MULTI: &str = "x-b3-";
static B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
static B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
static B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
static B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
static B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// What a request says of its trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The trace, and the span that it was sent in; `None`: it says nothing of them that is well-formed.
    pub context: Option<(TraceId, SpanId)>,
    /// Whether the trace's spans are wanted; `None`: it leaves that to us.
    pub is_sampled: Option<bool>,
    /// What tracing systems add (`tracestate`), in one value.
    pub state: Option<HeaderValue>,
    /// In which formats it says something, well-formed or not.
    pub formats: Propagate,
}

/// What is said of a request's trace to the next hop.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// The trace.
    pub trace: TraceId,
    /// The span that it is sent in.
    pub span: SpanId,
    /// Whether the trace's spans are wanted.
    pub is_sampled: bool,
    /// What tracing systems added.
    pub state: Option<&'a HeaderValue>,
    /// In which formats.
    pub formats: Propagate,
}

/// Reads what a request says of its trace. No allocation, unless there is a `tracestate` in several pieces.
#[must_use]
pub fn extract(headers: &HeaderMap) -> Told {
    let formats = formats(headers);
    let mut told = Told { formats, ..Told::default() };
    if formats.w3c
        && let Some((trace, span, is_sampled)) = only(headers, &TRACEPARENT).and_then(w3c::parse)
    {
        told.context = Some((trace, span));
        told.is_sampled = Some(is_sampled);
        told.state = tracestate::read(headers.get_all(&TRACESTATE));
        return told;
    }
    let single = || only(headers, &B3).filter(|_| formats.b3).and_then(b3::parse);
    let multi = || formats.b3_multi.then(|| b3::parse_fields(|name| only(headers, name)));
    if let Some(b3::Parsed { context, is_sampled }) = single().or_else(multi) {
        (told.context, told.is_sampled) = (context, is_sampled);
    }
    told
}

/// Takes off everything that a request says of its trace.
pub fn strip(headers: &mut HeaderMap, formats: Propagate) {
    let w3c = [&TRACEPARENT, &TRACESTATE];
    let multi = [&B3_TRACE, &B3_SPAN, &B3_PARENT, &B3_SAMPLED, &B3_FLAGS];
    let names = w3c.into_iter().filter(|_| formats.w3c);
    let names = names.chain(formats.b3.then_some(&B3)).chain(multi.into_iter().filter(|_| formats.b3_multi));
    for name in names {
        headers.remove(name);
    }
}

/// Says of a request's trace what there is to say. What [it said itself](strip) must be gone.
pub fn inject(headers: &mut HeaderMap, sent: &Sent<'_>) {
    let Sent { trace, span, is_sampled, state, formats } = *sent;
    if formats.w3c {
        let mut parent = w3c::format(trace, span, is_sampled);
        // No two requests have the same: in HTTP/2's table (RFC 7541 §2.3.2) it would only drive out what all have.
        parent.iter_mut().for_each(|value| value.set_sensitive(true));
        set(headers, &TRACEPARENT, parent);
        if let Some(state) = state {
            set(headers, &TRACESTATE, Some(state.clone()));
        }
    }
    if formats.b3 {
        set(headers, &B3, b3::format(trace, span, is_sampled));
    }
    if formats.b3_multi {
        set(headers, &B3_TRACE, b3::format_trace(trace));
        set(headers, &B3_SPAN, b3::format_span(span));
        set(headers, &B3_SAMPLED, Some(HeaderValue::from_static(if is_sampled { "1" } else { "0" })));
    }
}

/// In which formats a request says something. One look at each name.
fn formats(headers: &HeaderMap) -> Propagate {
    let mut formats = Propagate::default();
    for name in headers.keys() {
        match name.as_str() {
            "traceparent" | "tracestate" => formats.w3c = true,
            "b3" => formats.b3 = true,
            name => formats.b3_multi |= name.starts_with(B3_MULTI),
        }
    }
    formats
}

/// The field of that name, if it is there once, without what is around it.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let only = values.next()?;
    values.next().is_none().then(|| trim(only.as_bytes()))
}

/// Without optional whitespace (RFC 9110 §5.6.3) at both ends.
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// A map that can take no more names says nothing of the trace.
fn set(headers: &mut HeaderMap, name: &HeaderName, value: Option<HeaderValue>) {
    if let Some(value) = value {
        headers.try_insert(name, value).ok();
    }
}

#[cfg(test)]
mod tests;
