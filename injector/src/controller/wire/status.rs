//! `/live`, `/ready` and `/metrics`, in plaintext: nothing secret, nothing that changes anything.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::{StatusCode, header};
use outrider::{clock::Clock, model::Identity};
use tokio::sync::watch;

use super::desk::Desk;
use crate::controller::metrics::{Metrics, Standing};

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The cluster and the streams.
    pub desk: Arc<Desk>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Ours.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// Ages go by it.
    pub clock: Clock,
}

/// The routes of the plaintext listener.
pub fn router(facts: Facts) -> Router {
    Router::new()
        .route("/live", get(|| std::future::ready("live\n")))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(facts)
}

/// Ready means: sidecars are answered. It stays so while the API server is away: old answers are better than none, and
/// another replica has no newer ones.
async fn ready(State(facts): State<Facts>) -> Response {
    let what = if facts.identity.borrow().is_none() {
        "waiting for a certificate\n"
    } else if !facts.desk.is_synced() {
        "waiting for the first lists of the cluster's objects\n"
    } else {
        let age = facts.metrics.age(facts.clock.now()).as_secs();
        return format!("ready; the API server last answered {age} s ago\n").into_response();
    };
    (StatusCode::SERVICE_UNAVAILABLE, what).into_response()
}

async fn metrics(State(facts): State<Facts>) -> Response {
    let not_after = facts.identity.borrow().as_ref().map(|identity| identity.svid.not_after());
    let is_synced = facts.desk.is_synced();
    let text = facts.desk.look(|cluster, counts| {
        let standing = Standing { cluster, counts, is_synced, not_after };
        facts.metrics.render(&standing, facts.clock.now())
    });
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
