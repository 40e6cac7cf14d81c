//! What operators ask of requests: who calls whom, what goes on now, why something failed, what would become of one.

mod calls;
mod edges;
mod explain;
mod now;
mod tap;

use std::sync::Arc;

use axum::{Router, routing::get};

use super::State;

/// `/edges`, `/tap`, `/explain`, and what is below that.
pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/edges", get(edges::edges))
        .route("/tap", get(tap::tap))
        .route("/explain", get(explain::explain))
        .route("/explain/route", get(calls::route))
        .route("/explain/policy", get(calls::policy))
}
