//! Reviews as requests: read, bounded, answered within the time that the API server waits.
//!
//! Nobody knows who asks: an API server shows nothing that could be checked. So whoever sends slowly or much gets in
//! nobody's way. A review is read before it takes a place among those that are worked on; places and memory are shared
//! by address, and who has most gives way ([`Quota`]).

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Extension, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_body_util::BodyExt as _;
use outrider::clock::Clock;
use outrider_certs::program::quota::{Quota, Share};
use tokio::sync::Semaphore;

use super::{
    Health, Limits,
    events::Events,
    metrics::Metrics,
    nodes::{self, Nodes},
    review::{self, MAX_REVIEW_BYTES, Verdict},
};
use crate::installation::Installation;

/// Time for an answer where the API server does not say how long it waits; its own default.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
/// The longest that it may say (timeoutSeconds).
pub(super) const MAX_DEADLINE: Duration = Duration::from_secs(30);
/// Time for a review to arrive: an API server has it at hand.
const BODY_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest request head, in bytes. So much of [`MAX_BYTES`] is counted for each request.
pub(super) const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Bytes of requests under way, in all; of one address half of it.
const MAX_BYTES: usize = 24 * 1024 * 1024;
/// What of the places one address may have: one in so many.
const ADDRESS_PART: usize = 2;

/// What every request needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) installation: Installation,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: Option<Events>,
    pub(super) health: Health,
    pub(super) clock: Clock,
    pub(super) bounds: Bounds,
}

/// How much there may be at a time.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Reviews that have arrived and have no answer yet.
    reviews: Arc<Quota>,
    /// Bytes of requests.
    bytes: Arc<Quota>,
    /// KiB of memory for working on reviews. Who finds none waits, for its answer's time at most.
    memory: Arc<Semaphore>,
}

impl Bounds {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            reviews: Quota::new(limits.requests, limits.requests.div_ceil(ADDRESS_PART)),
            bytes: Quota::new(MAX_BYTES, MAX_BYTES / ADDRESS_PART),
            memory: Arc::new(Semaphore::new(nodes::MAX_MEMORY_KIB)),
        }
    }
}

/// The connection that a request came on.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) address: IpAddr,
    pub(super) place: Arc<Share>,
}

/// What the API server asks.
pub(super) fn reviews(shared: &Arc<Shared>) -> Router {
    Router::new().route("/inject", post(inject)).with_state(Arc::clone(shared))
}

/// What the kubelet and Prometheus ask.
pub(super) fn status(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/live", get(async || "live\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(shared))
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let waits = shared.health.waits_for();
    if waits.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("waits for: {}\n", waits.join(", "))).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shared.metrics.text(&shared.health.newest)).into_response()
}

/// Answers one review, within the time that the API server waits.
async fn inject(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let begun = shared.clock.now();
    let deadline = deadline(request.uri().query());
    let answered = tokio::time::timeout(deadline, Box::pin(answer(&shared, &caller, request))).await;
    shared.metrics.seconds.observe(shared.clock.now().saturating_duration_since(begun).as_secs_f64());
    let (status, reason, text) = match answered {
        Ok(Ok(body)) => return ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Ok(Err(refused)) => refused,
        Err(_) => (StatusCode::GATEWAY_TIMEOUT, "timeout", format!("no answer within {deadline:?}")),
    };
    shared.metrics.refused(reason);
    tracing::warn!(reason, from = %caller.address, "a review was not answered: {text}");
    (status, format!("{text}\n")).into_response()
}

/// Status, reason for the metrics, and text.
type Refused = (StatusCode, &'static str, String);

fn overload() -> Refused {
    let text = "too many reviews, or too much of them, are being answered".to_owned();
    (StatusCode::SERVICE_UNAVAILABLE, "overload", text)
}

async fn answer(shared: &Arc<Shared>, caller: &Caller, request: Request) -> Result<Vec<u8>, Refused> {
    let kind =
        request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        let text = "reviews are application/json".to_owned();
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", text));
    }
    let bounds = &shared.bounds;
    let bytes = bounds.bytes.take(Some(caller.address), MAX_HEADER_BYTES).ok_or_else(overload)?;
    let read = tokio::select! {
        biased;
        () = bytes.lost() => Err(overload()),
        read = tokio::time::timeout(BODY_TIMEOUT, read(request.into_body(), &bytes)) => read.unwrap_or_else(|_| {
            let text = format!("the review did not arrive within {BODY_TIMEOUT:?}");
            Err((StatusCode::REQUEST_TIMEOUT, "timeout", text))
        }),
    };
    let (body, nodes) = read?;
    let place = bounds.reviews.take(Some(caller.address), 1).ok_or_else(overload)?;
    let cost = nodes::memory_kib(body.len(), nodes);
    let memory = tokio::select! {
        biased;
        () = place.lost() => return Err(overload()),
        memory = Arc::clone(&bounds.memory).acquire_many_owned(cost) => memory.map_err(|_| overload())?,
    };
    // What is being worked on is seen through, even if nobody waits for it any more: it holds all that it uses.
    let held = (memory, Arc::new(place).serving(), Arc::new(bytes).serving(), caller.place.serving());
    let state = Arc::clone(shared);
    // Megabytes of JSON take their time: not on a thread that others wait for.
    let judged = tokio::task::spawn_blocking(move || {
        let answered = review::answer(&body, &state.installation);
        drop((body, held));
        answered
    });
    let answered = judged
        .await
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, "panic", error.to_string()))?
        .map_err(|error| (StatusCode::BAD_REQUEST, "no_review", error.to_string()))?;
    shared.metrics.answered(&answered.verdict);
    tell(shared, &answered);
    Ok(answered.body)
}

/// The whole body, and how many values there are in it.
async fn read(mut body: Body, share: &Share) -> Result<(Bytes, usize), Refused> {
    let (mut whole, mut nodes) = (Vec::new(), Nodes::default());
    while let Some(frame) = body.frame().await {
        let broken =
            |error| (StatusCode::BAD_REQUEST, "broken", format!("the review did not arrive: {error}"));
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if whole.len() + data.len() > MAX_REVIEW_BYTES {
            let text = format!("the review has more than {MAX_REVIEW_BYTES} bytes");
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "too_large", text));
        }
        if !share.grow(data.len()) {
            return Err(overload());
        }
        nodes.feed(&data);
        whole.extend_from_slice(&data);
    }
    Ok((whole.into(), nodes.count()))
}

fn tell(shared: &Shared, answered: &review::Answered) {
    let (namespace, pod) = (&answered.subject.namespace, &answered.subject.name);
    match &answered.verdict {
        Verdict::Denied(reasons) => {
            tracing::warn!(%namespace, %pod, ?reasons, "a pod was denied");
            if let Some(events) = shared.events.as_ref().filter(|_| !answered.subject.is_dry_run) {
                events.denied(&answered.subject, reasons);
            }
        }
        verdict @ (Verdict::Injected | Verdict::Unchanged | Verdict::Left(_)) => {
            tracing::debug!(%namespace, %pod, ?verdict, warnings = ?answered.warnings, "a pod was looked at");
        }
    }
}

/// How long the API server waits: `timeout=10s` of the query, less what the way takes.
fn deadline(query: Option<&str>) -> Duration {
    let given = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("timeout="));
    let given = given.and_then(|text| humantime::parse_duration(text).ok());
    let whole = given.unwrap_or(DEFAULT_DEADLINE).min(MAX_DEADLINE);
    whole - whole / 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_a_bit_below_what_the_api_server_waits() {
        assert_eq!(deadline(Some("timeout=10s")), Duration::from_millis(9_500));
        assert_eq!(deadline(Some("a=b&timeout=1s")), Duration::from_millis(950));
        assert_eq!(deadline(None), deadline(Some("timeout=10s")));
        assert_eq!(deadline(Some("timeout=soon")), deadline(None));
        assert_eq!(deadline(Some("timeout=24h")), Duration::from_millis(28_500));
    }
}
