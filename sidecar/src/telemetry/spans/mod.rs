//! From a trail to the spans that tell of it. Pure.
//!
//! ```text
//!   inbound    parent ─▶ SERVER
//!   outbound   parent ─▶ CLIENT, CLIENT …           one for each attempt
//!              INTERNAL ─▶ CLIENT, CLIENT …         where the trace begins here
//! ```
//! Names and attributes are those of OpenTelemetry's semantic conventions (HTTP, RPC), and our own, which begin with
//! `outrider.`. Texts that peers or apps chose are cut; a query is left out, for it may hold secrets. Times of a trail lie
//! within each other: a child never begins before its parent, nor ends after it.

mod attributes;
mod fault;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, time::Duration};

use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId as OtelSpanId, TraceFlags, TraceId as OtelTraceId,
    trace::{Event, SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use self::{
    attributes::{asked, cut, of_attempt, of_flag, of_route, of_whole},
    fault::Fault,
};
use super::{
    anchor::Anchor,
    trail::{Attempt, Reuse, Traffic, Trail},
};
use crate::model::{
    edge::Direction,
    trace::{SpanId, TracePlace},
};

/// Bytes of a `tracestate` that is told; a longer one is left out (W3C Trace Context: 512 must pass).
const MAX_STATE_BYTES: usize = 512;

/// What makes spans.
#[derive(Clone, Debug)]
pub struct Maker {
    scope: InstrumentationScope,
}

impl Default for Maker {
    fn default() -> Self {
        let scope = InstrumentationScope::builder("outrider").with_version(env!("CARGO_PKG_VERSION"));
        Self { scope: scope.build() }
    }
}

impl Maker {
    /// The spans of a request that is over; none if it has no place in a trace. `rng` is for those that nobody was told of.
    pub fn of(&self, trail: &Trail, anchor: &Anchor, rng: &mut fastrand::Rng) -> Vec<SpanData> {
        let Some(place) = &trail.trace else { return Vec::new() };
        let making = Making { maker: self, trail, place, anchor };
        match trail.direction {
            Direction::Inbound => vec![making.server(place.own.unwrap_or_else(|| SpanId::random(rng)))],
            Direction::Outbound => making.outbound(rng),
        }
    }
}

/// One trail on its way to be spans.
struct Making<'a> {
    maker: &'a Maker,
    trail: &'a Trail,
    place: &'a TracePlace,
    anchor: &'a Anchor,
}

/// When after the request's arrival, what, and how.
type Happened = (Duration, &'static str, Vec<KeyValue>);

/// What tells one span of a trail from another.
struct Part {
    id: SpanId,
    parent: Option<SpanId>,
    is_parent_remote: bool,
    kind: SpanKind,
    /// From the request's arrival.
    from: Duration,
    to: Duration,
    attributes: Vec<KeyValue>,
    events: Vec<Happened>,
    status: Status,
}

impl Making<'_> {
    fn server(&self, id: SpanId) -> SpanData {
        let trail = self.trail;
        let delivered = trail.delivered();
        let events = delivered.map_or_else(Vec::new, |(_, attempt)| events(attempt, trail.ended));
        let (attributes, status) = self.whole(SpanKind::Server);
        self.span(Part {
            id,
            parent: self.place.parent,
            is_parent_remote: true,
            kind: SpanKind::Server,
            from: Duration::ZERO,
            to: trail.ended,
            attributes,
            events,
            status,
        })
    }

    /// What a span of the request as a whole tells.
    fn whole(&self, kind: SpanKind) -> (Vec<KeyValue>, Status) {
        let trail = self.trail;
        let fault = fault::of_whole(trail, &kind);
        let mut attributes = asked(trail, kind);
        attributes.extend(of_route(trail));
        attributes.extend(of_flag(trail.flag));
        attributes.extend(of_whole(trail, trail.status, trail.grpc_status));
        attributes.extend(fault.as_ref().map(Fault::attribute));
        (attributes, fault::status(fault))
    }

    fn outbound(&self, rng: &mut fastrand::Rng) -> Vec<SpanData> {
        let trail = self.trail;
        let mut spans = Vec::with_capacity(trail.attempts.len() + 2);
        if let Some(own) = self.place.own {
            let (attributes, status) = self.whole(SpanKind::Internal);
            spans.push(self.span(Part {
                id: own,
                parent: self.place.parent,
                is_parent_remote: true,
                kind: SpanKind::Internal,
                from: Duration::ZERO,
                to: trail.ended,
                attributes,
                events: Vec::new(),
                status,
            }));
        }
        let delivered = trail.delivered().map(|(index, _)| index);
        for (index, attempt) in trail.attempts.iter().enumerate() {
            spans.push(self.client((index, delivered == Some(index)), attempt, rng));
        }
        if trail.attempts.is_empty() {
            let (attributes, status) = self.whole(SpanKind::Client);
            spans.push(self.client_span(
                SpanId::random(rng),
                (Duration::ZERO, trail.ended),
                attributes,
                status,
            ));
        }
        spans
    }

    /// The first begins when the request came, so that waiting is seen in it. What became of the whole request is told of
    /// the one that was delivered; but a status only if the attempt had one, else it is of our own answer.
    fn client(
        &self,
        (index, is_delivered): (usize, bool),
        attempt: &Attempt,
        rng: &mut fastrand::Rng,
    ) -> SpanData {
        let trail = self.trail;
        let from = if index == 0 { Duration::ZERO } else { attempt.begun };
        let to = attempt.ended.unwrap_or(trail.ended);
        let mut attributes = asked(trail, SpanKind::Client);
        attributes.extend(of_attempt(attempt, index));
        attributes.extend(of_route(trail));
        attributes.extend(of_flag(attempt.flag.or(trail.flag.filter(|_| is_delivered))));
        if is_delivered {
            let grpc_status = trail.grpc_status.filter(|_| attempt.status.is_some());
            attributes.extend(of_whole(trail, None, grpc_status));
        }
        let fault = fault::of_attempt(trail, attempt, is_delivered);
        attributes.extend(fault.as_ref().map(Fault::attribute));
        let status = fault::status(fault);
        let id = attempt.span.unwrap_or_else(|| SpanId::random(rng));
        let mut span = self.client_span(id, (from, to), attributes, status);
        span.events = self.placed(events(attempt, to), (from, to));
        span
    }

    fn client_span(
        &self,
        id: SpanId,
        (from, to): (Duration, Duration),
        attributes: Vec<KeyValue>,
        status: Status,
    ) -> SpanData {
        self.span(Part {
            id,
            parent: self.place.own.or(self.place.parent),
            is_parent_remote: self.place.own.is_none(),
            kind: SpanKind::Client,
            from,
            to,
            attributes,
            events: Vec::new(),
            status,
        })
    }

    fn span(&self, part: Part) -> SpanData {
        let limits = (part.from.min(self.trail.ended), part.to.min(self.trail.ended));
        let place = self.place;
        let flags = if place.is_sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let trace = OtelTraceId::from_bytes(place.trace.0.get().to_be_bytes());
        SpanData {
            span_context: SpanContext::new(trace, otel(part.id), flags, false, state(place)),
            parent_span_id: part.parent.map_or(OtelSpanId::INVALID, otel),
            parent_span_is_remote: part.is_parent_remote && part.parent.is_some(),
            name: name(self.trail),
            span_kind: part.kind,
            start_time: self.wall(limits.0),
            end_time: self.wall(limits.1.max(limits.0)),
            attributes: part.attributes,
            dropped_attributes_count: 0,
            events: self.placed(part.events, limits),
            links: SpanLinks::default(),
            status: part.status,
            instrumentation_scope: self.maker.scope.clone(),
        }
    }

    /// Events at their times, none outside of its span.
    fn placed(&self, events: Vec<Happened>, (from, to): (Duration, Duration)) -> SpanEvents {
        let from = from.min(self.trail.ended);
        let to = to.min(self.trail.ended).max(from);
        let mut placed = SpanEvents::default();
        placed.events = events
            .into_iter()
            .map(|(after, name, attributes)| {
                Event::new(name, self.wall(after.clamp(from, to)), attributes, 0)
            })
            .collect();
        placed
    }

    fn wall(&self, after: Duration) -> std::time::SystemTime {
        self.anchor.wall(self.trail.started + after)
    }
}

/// What happened to an attempt.
fn events(attempt: &Attempt, to: Duration) -> Vec<Happened> {
    let mut events = vec![(attempt.begun, "queued", Vec::new())];
    if let Some((at, reuse)) = attempt.connected {
        events.push((at, "connection", vec![KeyValue::new("reused", reuse == Reuse::Reused)]));
    }
    if let Some(at) = attempt.answered {
        events.push((at, "first_byte", Vec::new()));
        events.push((to, "last_byte", Vec::new()));
    }
    events
}

/// What spans of such a request are called: never anything that grows without bound, but for methods of gRPC.
fn name(trail: &Trail) -> Cow<'static, str> {
    let method = || attributes::known_method(trail).unwrap_or("HTTP");
    match trail.kind {
        Traffic::Stream => Cow::Borrowed("tcp"),
        Traffic::Tunnel => Cow::Borrowed("CONNECT"),
        Traffic::Grpc => match attributes::grpc_method(trail) {
            Some(called) => Cow::Owned(cut(called)),
            None => Cow::Borrowed("grpc"),
        },
        Traffic::Http => match &trail.route {
            Some(route) => Cow::Owned(cut(&format!("{} {route}", method()))),
            None => Cow::Borrowed(method()),
        },
    }
}

fn otel(id: SpanId) -> OtelSpanId {
    OtelSpanId::from_bytes(id.0.get().to_be_bytes())
}

fn state(place: &TracePlace) -> TraceState {
    let text = place.state.as_ref().and_then(|state| state.to_str().ok());
    text.filter(|text| text.len() <= MAX_STATE_BYTES).and_then(|text| text.parse().ok()).unwrap_or_default()
}
