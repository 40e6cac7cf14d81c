//! `GET /edges`: who calls whom, how often and how well.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{Query, State as Shared},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    super::{State, dump, routes::refusal},
    now,
};
use crate::{
    model::{Cluster, ClusterName, edge::EdgeKey, flag::ResponseFlag, health::Tally},
    telemetry::ring::{ClusterWindow, EdgeWindow, KEPT},
};

/// The window, unless the request says otherwise.
const WINDOW_SECONDS: u64 = 60;
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    seconds: Option<u64>,
}

pub(super) async fn edges(Shared(state): Shared<Arc<State>>, Query(asked): Query<Asked>) -> Response {
    let seconds = asked.seconds.unwrap_or(WINDOW_SECONDS);
    if !(1..=KEPT.as_secs()).contains(&seconds) {
        let problem = format!("seconds must be 1 to {}: no more is kept", KEPT.as_secs());
        return refusal(StatusCode::BAD_REQUEST, &problem);
    }
    Json(answer(&state, Duration::from_secs(seconds))).into_response()
}

fn answer(state: &State, window: Duration) -> Value {
    let (now, snapshot) = (state.clock.now(), state.snapshots.load());
    let view = state.insight.ring.read(now, window, &state.observer.edges, &snapshot);
    let covered = view.covered.as_secs_f64().max(0.001);
    let mut edges: Vec<_> = view.edges.iter().filter(|(_, window)| window.requests() > 0).collect();
    edges.sort_by_key(|(_, window)| std::cmp::Reverse(window.requests()));
    let of: HashMap<&ClusterName, &ClusterWindow> =
        view.clusters.iter().map(|(name, window)| (name, window)).collect();
    let clusters = snapshot.clusters.values().map(|cluster| {
        let window = of.get(cluster.name()).copied().copied().unwrap_or_default();
        self::cluster(cluster, window, now)
    });
    json!({
        "service": snapshot.config.settings.bootstrap.service,
        "generation": snapshot.config.number,
        "at": dump::time(state.clock.wall()),
        // At least what was asked for, in whole buckets; less if there are no counters of that age.
        "seconds": covered,
        "kept_seconds": KEPT.as_secs(),
        "edges": edges.iter().map(|(key, window)| edge(key, window, covered)).collect::<Vec<_>>(),
        "clusters": clusters.collect::<Vec<_>>(),
    })
}

fn edge(key: &EdgeKey, window: &EdgeWindow, seconds: f64) -> Value {
    let requests = window.requests();
    let millis = |ratio| window.latency.quantile(ratio).map(|seconds| round(seconds * 1000.0, 1000.0));
    json!({
        "direction": key.direction.label(),
        "source": &*key.source,
        "destination": &*key.destination,
        "route": &*key.route,
        "requests": requests,
        "rate": round(count(requests) / seconds, 1000.0),
        "failed": window.failed,
        "success": round(1.0 - count(window.failed.min(requests)) / count(requests.max(1)), 1e6),
        "p50_ms": millis(0.5),
        "p90_ms": millis(0.9),
        "p99_ms": millis(0.99),
        "retries": window.retries,
        "request_bytes": window.request_bytes,
        "response_bytes": window.response_bytes,
        "by_status": occurred(CLASSES, &window.by_class),
        "by_flag": occurred(ResponseFlag::ALL.map(ResponseFlag::letters), &window.by_flag),
    })
}

fn cluster(cluster: &Cluster, window: ClusterWindow, now: Instant) -> Value {
    let runtime = &cluster.runtime;
    json!({
        "name": cluster.name().as_str(),
        "direction": if cluster.name().is_inbound() { "inbound" } else { "outbound" },
        "in_flight": runtime.in_flight.load(Ordering::Relaxed),
        "connections": runtime.connections.load(Ordering::Relaxed),
        "pending": runtime.pending.load(Ordering::Relaxed),
        "endpoints": now::endpoints(&Tally::of(&cluster.endpoints, now)),
        "breaker": now::breaker(cluster),
        "retries": window.retries,
        "retries_over_budget": window.over_budget,
        "retries_over_active": window.over_active,
        "hedges": window.hedges,
        "ejections": window.ejections,
        "ejections_held_back": window.held_back,
    })
}

/// Only those that occurred.
fn occurred<const N: usize>(names: [&str; N], counts: &[u64; N]) -> Map<String, Value> {
    let named = names.iter().zip(counts).filter(|(_, count)| **count > 0);
    named.map(|(name, count)| ((*name).to_owned(), (*count).into())).collect()
}

#[expect(clippy::cast_precision_loss, reason = "requests of a quarter of an hour")]
fn count(count: u64) -> f64 {
    count as f64
}

fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}
