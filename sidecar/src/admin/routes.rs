//! Which path answers what.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{
    BoxError, Json, Router,
    error_handling::HandleErrorLayer,
    extract::{Extension, Path, Query, Request, State as Shared},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_body::Body as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::{
    ServiceBuilder, limit::GlobalConcurrencyLimitLayer, load_shed::LoadShedLayer, timeout::TimeoutLayer,
};

use super::{
    CHANGE_HEADER, DrainRequest, State, ask, dump,
    probes::MAX_PROBES,
    server::{Life, LocalAddress},
};
use crate::{drain::Phase, telemetry::metrics::Format};

/// Answers being rendered per listener. One that is rendered stays in memory until it is read, at most for the life of
/// its connection.
const MAX_REQUESTS: usize = 8;
/// Time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a probe under way keeps its connection: more often than that would end.
const RENEWAL: Duration = Duration::from_secs(5);

/// What the TCP listener answers.
pub(super) fn read_only(state: Arc<State>) -> Router {
    bounded(probes()).merge(own_app()).with_state(state)
}

/// Probes of the own app: with bounds of their own, for one may take as long as it is configured to.
fn own_app() -> Router<Arc<State>> {
    Router::new().route("/probe/{*name}", get(probe)).layer(middleware::from_fn(refuse_body)).layer(
        ServiceBuilder::new()
            .layer(HandleErrorLayer::new(overloaded))
            .layer(LoadShedLayer::new())
            .layer(GlobalConcurrencyLimitLayer::new(MAX_PROBES)),
    )
}

async fn probe(
    Shared(state): Shared<Arc<State>>,
    Path(name): Path<String>,
    Extension(life): Extension<Life>,
    local: Option<Extension<LocalAddress>>,
    headers: HeaderMap,
) -> Response {
    let snapshot = state.snapshots.load();
    let probes = Arc::clone(&snapshot.config.settings.probes);
    drop(snapshot);
    let Some(probe) = probes.iter().find(|probe| probe.name == name) else {
        return refusal(StatusCode::NOT_FOUND, "no such probe is configured");
    };
    let own = local.map(|Extension(LocalAddress(address))| address);
    let mut performed = pin!(state.prober.perform(probe, own, &headers));
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut performed => break outcome,
            () = tokio::time::sleep(RENEWAL) => life.renew(),
        }
    };
    tracing::debug!(probe = %probe.name, status = outcome.status.as_u16(), "{}", outcome.text);
    (outcome.status, format!("{}\n", outcome.text)).into_response()
}

/// What the socket answers.
pub(super) fn all(state: Arc<State>) -> Router {
    let dumps = Router::new()
        .route("/status", get(|Shared(state): Shared<Arc<State>>| async move { Json(dump::status(&state)) }))
        .route("/config", get(|Shared(state): Shared<Arc<State>>| async move { Json(dump::config(&state)) }))
        .route(
            "/clusters",
            get(|Shared(state): Shared<Arc<State>>| async move { Json(dump::clusters(&state)) }),
        )
        .route(
            "/listeners",
            get(|Shared(state): Shared<Arc<State>>| async move { Json(dump::listeners(&state)) }),
        )
        .route("/certs", get(|Shared(state): Shared<Arc<State>>| async move { Json(dump::certs(&state)) }))
        .route("/log", get(log_level));
    let changes = Router::new()
        .route("/drain", post(drain))
        .route("/reload", post(reload))
        .route("/log", post(log))
        .route_layer(middleware::from_fn(require_change_header));
    bounded(probes().merge(dumps).merge(ask::routes()).merge(changes)).with_state(state)
}

fn probes() -> Router<Arc<State>> {
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
}

/// Over the limit is answered at once, never queued.
fn bounded(router: Router<Arc<State>>) -> Router<Arc<State>> {
    router.layer(middleware::from_fn(refuse_body)).layer(
        ServiceBuilder::new()
            .layer(HandleErrorLayer::new(overloaded))
            .layer(LoadShedLayer::new())
            .layer(GlobalConcurrencyLimitLayer::new(MAX_REQUESTS))
            .layer(TimeoutLayer::new(REQUEST_TIMEOUT)),
    )
}

async fn overloaded(error: BoxError) -> Response {
    let status = if error.is::<tower::timeout::error::Elapsed>() {
        StatusCode::GATEWAY_TIMEOUT
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    refusal(status, "admin is busy; try again")
}

/// No request here has a body; one that has is not meant for us.
async fn refuse_body(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        next.run(request).await
    } else {
        refusal(StatusCode::PAYLOAD_TOO_LARGE, "no request here has a body")
    }
}

async fn require_change_header(request: Request, next: Next) -> Response {
    if request.headers().get(CHANGE_HEADER).is_some_and(|value| value == "1") {
        next.run(request).await
    } else {
        refusal(
            StatusCode::FORBIDDEN,
            "a request that changes something needs the header x-outrider-admin: 1",
        )
    }
}

pub(super) fn refusal(status: StatusCode, problem: &str) -> Response {
    (status, Json(json!({ "error": problem }))).into_response()
}

async fn ready(Shared(state): Shared<Arc<State>>) -> Response {
    let is_draining = state.drain.phase() > Phase::Running || state.drain_requests.current().is_some();
    let waiting = state.readiness.waiting_for();
    match (is_draining, waiting.as_slice()) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response(),
        (false, []) => "ready\n".into_response(),
        (false, waiting) => {
            let text = format!("waiting for: {}\n", waiting.join(", "));
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

async fn metrics(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::accepted(accepted);
    match state.metrics.encode(format) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainQuery {
    #[serde(default)]
    inbound: bool,
}

async fn drain(
    Shared(state): Shared<Arc<State>>,
    Query(query): Query<DrainQuery>,
) -> (StatusCode, Json<Value>) {
    tracing::info!(inbound_only = query.inbound, "an operator asked for a drain");
    state.drain_requests.request(DrainRequest { inbound_only: query.inbound });
    (StatusCode::ACCEPTED, Json(dump::status(&state)))
}

async fn reload(Shared(state): Shared<Arc<State>>) -> Response {
    tracing::info!("an operator asked for a reload");
    match state.reload_requests.request().await {
        Some(report) => {
            let status = if report.outcome.is_good() { StatusCode::OK } else { StatusCode::CONFLICT };
            (status, Json(dump::report(&report))).into_response()
        }
        None => refusal(StatusCode::SERVICE_UNAVAILABLE, "a reload is under way; try again"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    level: String,
}

async fn log_level(Shared(state): Shared<Arc<State>>) -> Response {
    match &state.log {
        Some(control) => Json(json!({ "level": control.filter() })).into_response(),
        None => no_log(),
    }
}

async fn log(Shared(state): Shared<Arc<State>>, Query(query): Query<LogQuery>) -> Response {
    let Some(control) = &state.log else { return no_log() };
    match control.set(&query.level) {
        Ok(was) => {
            let level = control.filter();
            tracing::info!(level, was, "an operator changed the log level");
            Json(json!({ "level": level, "was": was })).into_response()
        }
        Err(error) => refusal(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn no_log() -> Response {
    refusal(StatusCode::NOT_FOUND, "this process has no log of its own")
}
