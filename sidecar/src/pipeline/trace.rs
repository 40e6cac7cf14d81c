//! A request's place in its trace: found or begun when it comes in, told to the next hop with each attempt.
//!
//! ```text
//!   own app ──▶ told: its span ──────────────────────────┐
//!               the x-request-id of one brought to it: ──┼─▶ attempts: a span each, told to whoever gets it
//!                that one's span                         │
//!               neither: a new trace, and a span of ours ┘
//!   peer ─────▶ told: its span; or a new trace ─▶ a span of ours, told to the own app
//!   stranger ─▶ a new trace ────────────────────▶ the same
//! ```
//! Without `telemetry.traces` nothing of this happens, and the fields pass as they are. Those of what leaves the mesh always
//! do.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use super::{
    door::{Door, From},
    notes,
    worker::Worker,
};
use crate::{
    headers::{
        forwarded,
        trace::{self as fields, Sent, Told},
    },
    model::{
        Generation,
        telemetry::{AccessLogSettings, Logged, Propagate, TraceSettings},
        trace::{Origin, SpanId, TraceId, TracePlace},
    },
    net::Net,
    telemetry::{observer::Wanted, record::RequestRecord, sampling, stitches::Stitch},
};

/// What is told of a request's trace with each of its attempts.
#[derive(Clone, Debug)]
pub(super) struct Baton {
    trace: TraceId,
    /// Our one span of it, which the own app is told; `None`: each attempt has its own.
    span: Option<SpanId>,
    /// Whether what the own app sends with its ID belongs to it. A stranger may have chosen somebody else's.
    is_remembered: bool,
    is_sampled: bool,
    state: Option<HeaderValue>,
    /// In which formats it said something itself.
    told: Propagate,
    /// In which formats the next hop is told.
    formats: Propagate,
    /// The fields pass as they are.
    is_silent: bool,
}

impl Baton {
    /// Takes what it said itself off a head that is [ready](super::head::rewrite) otherwise. What leaves the mesh
    /// (`is_outside`) keeps it; what goes to the own app is remembered by its ID.
    pub(super) fn dress<N: Net>(
        &mut self,
        worker: &Worker<N>,
        (headers, is_outside): (&mut HeaderMap, bool),
        record: &RequestRecord,
    ) {
        self.is_silent = is_outside;
        if is_outside {
            return;
        }
        fields::strip(headers, self.told);
        if let Some(span) = self.span
            && self.is_remembered
            && let Some(id) = forwarded::request_id(headers)
        {
            let stitch = Stitch { trace: self.trace, span, is_sampled: self.is_sampled };
            let now = record.started();
            worker.observer.stitches(now).put(id.as_bytes(), stitch, now);
        }
    }

    /// The span of an attempt that begins; `None`: it has none of its own.
    pub(super) fn attempt<N: Net>(&self, worker: &Worker<N>) -> Option<SpanId> {
        if self.span.is_some() { None } else { Some(worker.with_trace_rng(SpanId::random)) }
    }

    /// Tells the next hop, in an attempt with that span.
    pub(super) fn tell(&self, headers: &mut HeaderMap, attempt: Option<SpanId>) {
        let Some(span) = self.span.or(attempt).filter(|_| !self.is_silent) else { return };
        let Self { trace, is_sampled, state, formats, .. } = self;
        let sent =
            Sent { trace: *trace, span, is_sampled: *is_sampled, state: state.as_ref(), formats: *formats };
        fields::inject(headers, &sent);
    }
}

/// Gives what came in its place in its trace, and says who wants its trail. Of a stream there are no `headers`.
pub(super) fn begin<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    config: &Generation,
    headers: Option<&HeaderMap>,
    record: &mut RequestRecord,
) -> Option<Box<Baton>> {
    notes::under(record, config);
    let telemetry = &config.settings.telemetry;
    if telemetry.traces.is_none() && telemetry.access_log.is_none() {
        return None;
    }
    let mut wanted = Wanted::default();
    if let Some(log) = &telemetry.access_log {
        log_to(worker, log, headers, (record, &mut wanted));
    }
    let baton = telemetry.traces.as_deref().map(|traces| {
        let said = headers.map(fields::extract).unwrap_or_default();
        let told = said.formats;
        // What a stranger says of traces is not believed.
        let is_stranger = matches!(door.from, From::Plain { .. });
        let said = if is_stranger { Told::default() } else { said };
        let state = said.state.clone();
        let place = place((worker, door), traces, said, (headers, record));
        let (trace, is_sampled) = (place.trace, place.is_sampled);
        let span = place.own.filter(|_| door.is_inbound());
        (wanted.is_sampled, wanted.is_traced_on_error) = (is_sampled, traces.errors_per_second > 0);
        record.write(|trail| trail.trace = Some(place));
        let formats = union(told, traces.propagate);
        let is_remembered = !is_stranger;
        Box::new(Baton { trace, span, is_remembered, is_sampled, state, told, formats, is_silent: false })
    });
    record.want(wanted);
    baton
}

/// The span of a stream's attempt that begins; `None`: spans are not made.
pub(super) fn of_stream<N: Net>(worker: &Worker<N>, record: &RequestRecord) -> Option<SpanId> {
    let mut is_traced = false;
    record.write(|trail| is_traced = trail.trace.is_some());
    is_traced.then(|| worker.with_trace_rng(SpanId::random))
}

/// A request's place in its trace.
fn place<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    traces: &TraceSettings,
    said: Told,
    (headers, record): (Option<&HeaderMap>, &RequestRecord),
) -> TracePlace {
    let stitch = || {
        let id = forwarded::request_id(headers?).filter(|_| !door.is_inbound())?;
        worker.observer.known_stitches()?.get(id.as_bytes(), record.started())
    };
    let is_drawn = |trace| sampling::is_sampled(trace, traces.sampled_of_million);
    let (trace, parent, is_sampled, origin) = if let Some((trace, span)) = said.context {
        (trace, Some(span), said.is_sampled.unwrap_or_else(|| is_drawn(trace)), Origin::Told)
    } else if let Some(Stitch { trace, span, is_sampled }) = stitch() {
        (trace, Some(span), is_sampled, Origin::RequestId)
    } else {
        let trace = worker.with_trace_rng(TraceId::random);
        (trace, None, said.is_sampled.unwrap_or_else(|| is_drawn(trace)), Origin::Here)
    };
    let has_own = door.is_inbound() || origin == Origin::Here;
    let own = has_own.then(|| worker.with_trace_rng(SpanId::random));
    TracePlace { trace, parent, own, is_sampled, state: said.state, origin }
}

/// Whether the access log is to have it, and if so, the fields that it is to have.
fn log_to<N: Net>(
    worker: &Worker<N>,
    log: &AccessLogSettings,
    headers: Option<&HeaderMap>,
    (record, wanted): (&RequestRecord, &mut Wanted),
) {
    if !worker.with_trace_rng(|rng| sampling::is_drawn(log.sampled_of_million, rng)) {
        return;
    }
    match log.of {
        Logged::All => wanted.is_logged = true,
        Logged::Errors => wanted.is_logged_on_error = true,
    }
    if let Some(headers) = headers.filter(|_| !log.request_headers.is_empty()) {
        let fields = notes::fields(headers, &log.request_headers);
        record.write(|trail| trail.fields = fields);
    }
}

/// The access log's settings, if it may have this one and wants fields of its answer.
pub(super) fn log_of(config: &Generation, record: &RequestRecord) -> Option<Arc<AccessLogSettings>> {
    let wanted = record.wanted();
    let log = config.settings.telemetry.access_log.as_ref()?;
    let is_wanted = (wanted.is_logged || wanted.is_logged_on_error) && !log.response_headers.is_empty();
    is_wanted.then(|| Arc::clone(log))
}

fn union(one: Propagate, other: Propagate) -> Propagate {
    Propagate { w3c: one.w3c || other.w3c, b3: one.b3 || other.b3, b3_multi: one.b3_multi || other.b3_multi }
}
