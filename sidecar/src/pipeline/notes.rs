//! What is noted of a request in its trail, where that takes more than a word. Nothing here decides anything.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::{
    door::{Door, From},
    error::ProxyError,
    respond,
    worker::Worker,
};
use crate::{
    headers::forwarded,
    model::{
        Cluster, Generation,
        edge::{Direction, EdgeCounts, EdgeKey},
        flag::ResponseFlag,
        health::Tally,
        telemetry::AccessLogSettings,
    },
    net::Net,
    relay::body,
    telemetry::{
        record::RequestRecord,
        trail::{self, Asked, Standings, Step, Traffic},
    },
};

/// Who calls where nobody proved to be anybody, as part of an edge.
const UNVERIFIED: &str = "unverified";
/// Bytes of a field's value that are noted.
const MAX_VALUE_BYTES: usize = 256;
/// Fields of one name that are noted.
const MAX_VALUES: usize = 8;

/// What a request asks for, as far as its head says so before it is judged.
pub(super) fn asked<B>(record: &RequestRecord, request: &Request<B>, kind: Traffic) {
    let request_id = forwarded::request_id(request.headers()).cloned();
    let asked = Asked {
        method: request.method().clone(),
        target: request.uri().path_and_query().cloned(),
        authority: Box::default(),
        version: request.version(),
    };
    record.write(|trail| {
        trail.kind = kind;
        trail.request_id = request_id;
        trail.asked = Some(asked);
    });
}

/// Whom it is for, in canonical form.
pub(super) fn for_whom(record: &RequestRecord, authority: &str) {
    let authority = trail::text(authority);
    record.write(|trail| {
        if let Some(asked) = &mut trail.asked {
            asked.authority = authority;
        }
    });
}

/// The ID that it goes on with, where it came without one.
pub(super) fn known_by(record: &RequestRecord, headers: &HeaderMap) {
    record.write(|trail| {
        if trail.request_id.is_none() {
            trail.request_id = forwarded::request_id(headers).cloned();
        }
    });
}

/// By which configuration it goes, before it is known where to.
pub(super) fn under(record: &RequestRecord, config: &Generation) {
    record.write(|trail| trail.generation = config.number);
}

/// Where it goes, and which of the cluster's routes it is of: from here on it counts for both.
pub(super) fn routed<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    config: &Generation,
    (cluster, route): (&Cluster, Option<(usize, &Arc<str>)>),
    record: &mut RequestRecord,
) {
    record.routed(Arc::clone(&cluster.runtime));
    record.of_edge(edge((worker, door), config, cluster, route));
    record.write(|trail| {
        trail.generation = config.number;
        trail.cluster = Some(cluster.name().clone());
        trail.route = route.map(|(_place, name)| Arc::clone(name));
    });
}

/// Where a stream of the own app goes, and by which of the routes of streams: from here on it counts for both.
pub(super) fn stream_routed<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    config: &Generation,
    (cluster, route): (&Cluster, Option<&Arc<str>>),
    record: &mut RequestRecord,
) {
    let Some(route) = route else { return routed((worker, door), config, (cluster, None), record) };
    record.routed(Arc::clone(&cluster.runtime));
    let (destination, route) = (cluster.name().shared(), Arc::clone(route));
    let source = Arc::from(&*config.settings.bootstrap.service);
    // Looked for each time: what a cluster keeps of its edges is for its own routes.
    let key = EdgeKey { direction: Direction::Outbound, source, destination, route };
    record.of_edge(worker.observer.edges.of(&key));
    record.write(|trail| {
        trail.generation = config.number;
        trail.cluster = Some(cluster.name().clone());
        trail.route = Some(Arc::clone(&key.route));
    });
}

/// The counters of who calls whom. Takes a lock for the first request of a cluster and route, or of a peer's connection.
fn edge<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    config: &Generation,
    cluster: &Cluster,
    route: Option<(usize, &Arc<str>)>,
) -> Arc<EdgeCounts> {
    let find = |direction, source| {
        let destination = cluster.name().shared();
        let route = route.map_or_else(|| Arc::from(""), |(_place, name)| Arc::clone(name));
        let edges = &worker.observer.edges;
        let counts = edges.of(&EdgeKey { direction, source, destination, route });
        let is_named = edges.is_named(&counts);
        (counts, is_named)
    };
    let source = match &door.from {
        From::App { .. } => {
            let own = || find(Direction::Outbound, Arc::from(&*config.settings.bootstrap.service));
            return cluster.edges.of(route.map(|(place, _name)| place), own);
        }
        From::Peer { peer, .. } => peer.id().as_str(),
        From::Plain { .. } => UNVERIFIED,
    };
    let route = route.map(|(_place, name)| name);
    door.edge(cluster.name(), route, || find(Direction::Inbound, Arc::from(source)))
}

/// Why we answer ourselves, or end a stream that leads nowhere.
pub(super) fn refused<N: Net>(worker: &Worker<N>, record: &RequestRecord, error: &ProxyError) {
    let text = trail::text(&respond::chain(error));
    let nobody = if let ProxyError::NoEndpoint { tally, .. } = error { Some(tally) } else { None };
    let nobody = nobody.map(|tally| (record.after(worker.now()), tally));
    record.set_flag(error.flag());
    record.write(|trail| {
        trail.reason = Some(error.reason().into());
        trail.error = Some(text);
        if let Some((after, tally)) = nobody {
            let tried = trail.attempts.len();
            trail.step(after, Step::NobodyToAsk(standings(tally, tried)));
        }
    });
}

fn standings(tally: &Tally, tried: usize) -> Standings {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Standings {
        all: count(tally.listed),
        not_ready: count(tally.not_ready),
        unhealthy: count(tally.unhealthy),
        ejected: count(tally.ejected),
        tried: count(tried),
    }
}

/// A step of it, now.
pub(super) fn step<N: Net>(worker: &Worker<N>, record: &RequestRecord, step: Step) {
    let after = record.after(worker.now());
    record.write(|trail| trail.step(after, step));
}

/// Those fields of a head that have one of these names, with their values cut.
pub(super) fn fields(headers: &HeaderMap, names: &[HeaderName]) -> Vec<(HeaderName, HeaderValue)> {
    let of_name = |name: &HeaderName| {
        let values = headers.get_all(name).iter().take(MAX_VALUES);
        values.filter_map(cut).map(|value| (name.clone(), value)).collect::<Vec<_>>()
    };
    names.iter().flat_map(of_name).collect()
}

/// A value as far as it is noted.
fn cut(value: &HeaderValue) -> Option<HeaderValue> {
    match value.as_bytes().get(..MAX_VALUE_BYTES) {
        Some(beginning) => HeaderValue::from_bytes(beginning).ok(),
        None => Some(value.clone()),
    }
}

/// The answer's fields that the access log is to have.
pub(super) fn answered(record: &RequestRecord, headers: &HeaderMap, log: &AccessLogSettings) {
    let fields = fields(headers, &log.response_headers);
    record.write(|trail| trail.answer_fields = fields);
}

/// The status of a call, where these fields of its answer have one.
pub(super) fn grpc_status(record: &RequestRecord, fields: &HeaderMap) {
    let status = fields.get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok());
    if let Some(status) = status {
        record.write(|trail| trail.grpc_status = Some(status));
    }
}

/// A call whose answer ends without a status is taken for UNKNOWN by its client (gRPC over HTTP/2, "Responses").
pub(super) fn without_status(record: &RequestRecord) {
    record.write(|trail| {
        trail.grpc_status.get_or_insert(2);
    });
}

/// Why an answer ended before its end.
pub(super) fn broken_off(record: &RequestRecord, error: &body::Error) {
    let (flag, reason) = match error {
        body::Error::Upstream(_) => (ResponseFlag::UC, "reset_in_answer"),
        body::Error::Idle => (ResponseFlag::SI, "stream_idle"),
        body::Error::Deadline => (ResponseFlag::DE, "deadline_exceeded"),
        body::Error::NoLongerAllowed => (ResponseFlag::RBAC, "no_longer_allowed"),
    };
    record.set_flag(flag);
    let text = trail::text(&respond::chain(error));
    record.write(|trail| {
        trail.reason = Some(reason.into());
        trail.error = Some(text);
    });
}

/// How long it waits there, however that ends.
pub(super) async fn waited<N: Net, T>(
    worker: &Worker<N>,
    record: &RequestRecord,
    waiting: impl Future<Output = T>,
) -> T {
    let begun = worker.now();
    let waited = waiting.await;
    step(worker, record, Step::Waited(worker.now().saturating_duration_since(begun)));
    waited
}
