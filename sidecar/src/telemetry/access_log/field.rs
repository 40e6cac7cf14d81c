//! What a record can tell: the name of each fact, in the order of the JSON keys, and where in the trail it is.

use std::{fmt, time::Duration};

use http::{HeaderName, HeaderValue, Version};
use time::OffsetDateTime;

use crate::{
    model::edge::Direction,
    telemetry::trail::{Attempt, Caller, Reuse, Traffic, Trail},
};

/// One fact of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Time,
    TimeClf,
    TraceId,
    SpanId,
    RequestId,
    Kind,
    Direction,
    Listener,
    Client,
    Caller,
    Method,
    Authority,
    Path,
    Query,
    Version,
    Authorization,
    Route,
    Cluster,
    Endpoint,
    Peer,
    Status,
    GrpcStatus,
    Flag,
    Reason,
    Error,
    Duration,
    Head,
    Connected,
    Reused,
    RequestBytes,
    ResponseBytes,
    Generation,
    Attempts,
}

/// Names of facts: JSON keys in their order, and placeholders.
pub(super) const FIELDS: [(&str, Field); 31] = [
    ("time", Field::Time),
    ("trace_id", Field::TraceId),
    ("span_id", Field::SpanId),
    ("request_id", Field::RequestId),
    ("kind", Field::Kind),
    ("direction", Field::Direction),
    ("listener", Field::Listener),
    ("client", Field::Client),
    ("caller", Field::Caller),
    ("method", Field::Method),
    ("authority", Field::Authority),
    ("path", Field::Path),
    ("version", Field::Version),
    ("authorization", Field::Authorization),
    ("route", Field::Route),
    ("cluster", Field::Cluster),
    ("endpoint", Field::Endpoint),
    ("peer", Field::Peer),
    ("status", Field::Status),
    ("grpc_status", Field::GrpcStatus),
    ("flag", Field::Flag),
    ("reason", Field::Reason),
    ("error", Field::Error),
    ("duration_ms", Field::Duration),
    ("head_ms", Field::Head),
    ("connected_ms", Field::Connected),
    ("reused", Field::Reused),
    ("request_bytes", Field::RequestBytes),
    ("response_bytes", Field::ResponseBytes),
    ("generation", Field::Generation),
    ("attempts", Field::Attempts),
];

/// What only a template can ask for: a time of another form, and what may hold secrets.
pub(super) const TEMPLATE_FIELDS: [(&str, Field); 2] =
    [("time_clf", Field::TimeClf), ("query", Field::Query)];

/// A fact's value.
pub(super) enum Value<'a> {
    /// There is none.
    Absent,
    /// Of a closed list.
    Word(&'static str),
    /// Somebody chose it.
    Text(&'a [u8]),
    /// As it is shown; nobody chose it.
    Shown(&'a dyn fmt::Display),
    Number(u64),
    Millis(Duration),
    Is(bool),
    /// RFC 3339 with milliseconds.
    Time(OffsetDateTime),
    /// As in the common log format.
    TimeClf(OffsetDateTime),
}

impl<'a> Value<'a> {
    fn text(text: Option<&'a str>) -> Self {
        match text {
            Some(text) if !text.is_empty() => Self::Text(text.as_bytes()),
            _ => Self::Absent,
        }
    }

    fn shown<T: fmt::Display>(shown: Option<&'a T>) -> Self {
        shown.map_or(Self::Absent, |shown| Self::Shown(shown))
    }

    fn number(number: Option<u16>) -> Self {
        number.map_or(Self::Absent, |number| Self::Number(number.into()))
    }

    fn millis(duration: Option<Duration>) -> Self {
        duration.map_or(Self::Absent, Self::Millis)
    }
}

/// What a field of a trail is.
pub(super) fn value<'a>(field: Field, trail: &'a Trail, arrived: OffsetDateTime) -> Value<'a> {
    let asked = trail.asked.as_ref();
    let attempt = trail.delivered().map(|(_, attempt)| attempt);
    let connected = attempt.and_then(|attempt| attempt.connected);
    match field {
        Field::Time => Value::Time(arrived),
        Field::TimeClf => Value::TimeClf(arrived),
        Field::TraceId => Value::shown(trail.trace.as_ref().map(|place| &place.trace)),
        Field::SpanId => {
            let own = trail.trace.as_ref().and_then(|place| place.own.as_ref());
            let its_own = attempt.and_then(|attempt| attempt.span.as_ref());
            Value::shown(match trail.direction {
                Direction::Inbound => own,
                Direction::Outbound => its_own.or(own),
            })
        }
        Field::RequestId => trail.request_id.as_ref().map_or(Value::Absent, header),
        Field::Kind => Value::Word(kind(trail.kind)),
        Field::Direction => Value::Word(trail.direction.label()),
        Field::Listener => Value::text(Some(&trail.listener)),
        Field::Client => Value::shown(trail.client.as_ref()),
        Field::Caller => match &trail.caller {
            Caller::App => Value::Word("app"),
            Caller::Peer(id) => Value::Shown(id),
            Caller::Unverified => Value::Word("unverified"),
        },
        Field::Method => Value::text(asked.map(|asked| asked.method.as_str())),
        Field::Authority => Value::text(asked.map(|asked| &*asked.authority)),
        Field::Path => Value::text(asked.and_then(|asked| Some(asked.target.as_ref()?.path()))),
        Field::Query => Value::text(asked.and_then(|asked| asked.target.as_ref()?.query())),
        Field::Version => asked.map_or(Value::Absent, |asked| Value::Word(version(asked.version))),
        Field::Authorization => Value::text(trail.authorization.as_deref()),
        Field::Route => Value::text(trail.route.as_deref()),
        Field::Cluster => Value::text(trail.cluster.as_ref().map(|name| name.as_str())),
        Field::Endpoint => Value::shown(attempt.map(|attempt| &attempt.endpoint)),
        Field::Peer => Value::shown(attempt.and_then(|attempt| attempt.peer.as_ref())),
        Field::Status => Value::number(trail.status),
        Field::GrpcStatus => Value::number(trail.grpc_status),
        Field::Flag => trail.flag.map_or(Value::Absent, |flag| Value::Word(flag.letters())),
        Field::Reason => Value::text(trail.reason.as_deref()),
        Field::Error => Value::text(trail.error.as_deref()),
        Field::Duration => Value::Millis(trail.ended),
        Field::Head => Value::millis(trail.answered),
        Field::Connected => Value::millis(connected.map(|(after, _)| after)),
        Field::Reused => connected.map_or(Value::Absent, |(_, reuse)| Value::Is(reuse == Reuse::Reused)),
        Field::RequestBytes => Value::Number(trail.request_bytes),
        Field::ResponseBytes => Value::Number(trail.response_bytes),
        Field::Generation if trail.generation == 0 => Value::Absent,
        Field::Generation => Value::Number(trail.generation),
        Field::Attempts => Value::Number(trail.attempts.len().try_into().unwrap_or_default()),
    }
}

/// The facts of one attempt, with their JSON keys.
pub(super) fn of_attempt(attempt: &Attempt) -> [(&'static str, Value<'_>); 13] {
    let connected = attempt.connected;
    let only = |is: bool| if is { Value::Is(true) } else { Value::Absent };
    [
        ("endpoint", Value::Shown(&attempt.endpoint)),
        ("peer", Value::shown(attempt.peer.as_ref())),
        ("span_id", Value::shown(attempt.span.as_ref())),
        ("begun_ms", Value::Millis(attempt.begun)),
        ("connected_ms", Value::millis(connected.map(|(after, _)| after))),
        ("reused", connected.map_or(Value::Absent, |(_, reuse)| Value::Is(reuse == Reuse::Reused))),
        ("head_ms", Value::millis(attempt.answered)),
        ("ended_ms", Value::millis(attempt.ended)),
        ("status", Value::number(attempt.status)),
        ("failure", attempt.failure.map_or(Value::Absent, |reason| Value::Word(reason.label()))),
        ("error", Value::text(attempt.error.as_deref())),
        ("hedge", only(attempt.is_hedge)),
        ("probe", only(attempt.is_probe)),
    ]
}

/// All values of a field of that name.
pub(super) fn of_name<'a>(
    fields: &'a [(HeaderName, HeaderValue)],
    name: &'a HeaderName,
) -> impl Iterator<Item = &'a HeaderValue> {
    fields.iter().filter(move |(other, _)| other == name).map(|(_, value)| value)
}

fn header(value: &HeaderValue) -> Value<'_> {
    Value::Text(value.as_bytes())
}

fn kind(kind: Traffic) -> &'static str {
    match kind {
        Traffic::Http => "http",
        Traffic::Grpc => "grpc",
        Traffic::Stream => "stream",
        Traffic::Tunnel => "tunnel",
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP",
    }
}
