//! Connections of the API server's: accepted, capped, secured, answered, ended.
//!
//! Every wait has a bound: the handshake, a request's head, its answer. A new certificate is for new connections; those
//! that are open are ended in favour of them once their requests are answered.

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::{
    BoxError, Router,
    body::Body,
    error_handling::HandleErrorLayer,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_body_util::{BodyExt as _, Limited};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use outrider::clock::Clock;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{ServiceBuilder, ServiceExt as _};

use super::{
    Health,
    certificate::Newest,
    events::Events,
    metrics::Metrics,
    review::{self, Verdict},
};
use crate::installation::Installation;

/// Largest review. The API server takes objects of 3 MiB; a review has something around it.
pub const MAX_REVIEW_BYTES: usize = 3 * 1024 * 1024 + 512 * 1024;
/// Time for an answer where the API server does not say how long it waits; its own default.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
/// The longest that it may say (timeoutSeconds).
const MAX_DEADLINE: Duration = Duration::from_secs(30);
/// Pause after an error of accept(): too few file descriptors do not come back by asking at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time that an open connection goes on after it is over, so that a request which is on its way is not lost.
const SETTLE: Duration = Duration::from_secs(1);
/// Time for the head of an HTTP/1 request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// Largest request head, in bytes.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// How much there may be at a time, and how long it may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections; more are closed at once.
    pub connections: usize,
    /// Requests that are being answered; more are refused with 503.
    pub requests: usize,
    /// A TLS handshake.
    pub handshake_timeout: Duration,
    /// What is under way at the end.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            requests: 64,
            handshake_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(10),
        }
    }
}

/// What every request needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) installation: Installation,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: Option<Events>,
    pub(super) health: Health,
    pub(super) clock: Clock,
}

/// What the API server asks.
pub(super) fn reviews(shared: &Arc<Shared>, limits: &Limits) -> Router {
    let metrics = Arc::clone(&shared.metrics);
    let overload = HandleErrorLayer::new(move |_error: BoxError| {
        let metrics = Arc::clone(&metrics);
        async move {
            metrics.refused("overload");
            (StatusCode::SERVICE_UNAVAILABLE, "too many requests are being answered\n")
        }
    });
    let bounded = ServiceBuilder::new().layer(overload).load_shed().concurrency_limit(limits.requests);
    Router::new().route("/inject", post(inject)).layer(bounded).with_state(Arc::clone(shared))
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
async fn inject(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let begun = shared.clock.now();
    let deadline = deadline(request.uri().query());
    let answered = tokio::time::timeout(deadline, answer(&shared, request)).await;
    shared.metrics.seconds.observe(shared.clock.now().saturating_duration_since(begun).as_secs_f64());
    match answered {
        Ok(Ok(body)) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Ok(Err((status, reason, text))) => {
            shared.metrics.refused(reason);
            tracing::warn!(reason, "a review was not answered: {text}");
            (status, format!("{text}\n")).into_response()
        }
        Err(_) => {
            shared.metrics.refused("timeout");
            (StatusCode::GATEWAY_TIMEOUT, format!("no answer within {deadline:?}\n")).into_response()
        }
    }
}

/// Status, reason for the metrics, and text.
type Refused = (StatusCode, &'static str, String);

async fn answer(shared: &Arc<Shared>, request: Request) -> Result<Vec<u8>, Refused> {
    let kind =
        request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        let text = "reviews are application/json".to_owned();
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", text));
    }
    let body = Limited::new(request.into_body(), MAX_REVIEW_BYTES).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            let text = format!("the review has more than {MAX_REVIEW_BYTES} bytes");
            return (StatusCode::PAYLOAD_TOO_LARGE, "too_large", text);
        }
        (StatusCode::BAD_REQUEST, "broken", format!("the review did not arrive: {error}"))
    })?;
    let (bytes, state) = (body.to_bytes(), Arc::clone(shared));
    // Megabytes of JSON take their time: not on a thread that others wait for.
    let judged = tokio::task::spawn_blocking(move || review::answer(&bytes, &state.installation)).await;
    let answered = judged
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, "panic", error.to_string()))?
        .map_err(|error| (StatusCode::BAD_REQUEST, "no_review", error.to_string()))?;
    shared.metrics.answered(&answered.verdict);
    tell(shared, &answered);
    Ok(answered.body)
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

/// One listener and what it answers.
pub(super) struct Server {
    pub(super) router: Router,
    /// `None`: plaintext.
    pub(super) tls: Option<Newest>,
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: TaskTracker,
    /// Take nothing new.
    pub(super) stop: CancellationToken,
    /// End now.
    pub(super) force: CancellationToken,
}

impl Server {
    /// Until it is told to stop. Connections go on in their tasks.
    pub(super) async fn accept(self: Arc<Self>, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(self.limits.connections));
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _from)) => match Arc::clone(&permits).try_acquire_owned() {
                    Ok(permit) => {
                        let (server, force) = (Arc::clone(&self), self.force.clone());
                        self.tasks.spawn(async move {
                            tokio::select! {
                                biased;
                                () = force.cancelled() => {}
                                () = server.connection(stream, permit) => {}
                            }
                        });
                    }
                    Err(_) => self.metrics.refused("connections"),
                },
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, _permit: OwnedSemaphorePermit) {
        self.metrics.connections.inc();
        let served = match self.tls.clone() {
            None => Box::pin(self.serve(stream, None)).await,
            Some(newest) => match self.handshake(stream, newest).await {
                Ok((stream, newest)) => Box::pin(self.serve(stream, Some(newest))).await,
                Err(error) => {
                    self.metrics.handshakes_failed.inc();
                    tracing::debug!(%error, "a TLS handshake failed");
                    Ok(())
                }
            },
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a connection broke");
        }
        self.metrics.connections.dec();
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        mut newest: Newest,
    ) -> io::Result<(tokio_rustls::server::TlsStream<TcpStream>, Newest)> {
        let serving = newest.borrow_and_update().clone();
        let Some(serving) = serving else {
            return Err(io::Error::other("there is no certificate yet"));
        };
        let handshake = TlsAcceptor::from(Arc::clone(&serving.tls)).accept(stream);
        let stream = tokio::time::timeout(self.limits.handshake_timeout, Box::pin(handshake)).await??;
        Ok((stream, newest))
    }

    /// Answers requests until the other end is done, the process stops, or there is another certificate.
    async fn serve<IO>(&self, io: IO, newest: Option<Newest>) -> Result<(), BoxError>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let router = self.router.clone();
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            router.clone().oneshot(request.map(Body::new))
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_BYTES);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        let is_over = async {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = replaced(newest) => {}
            }
            tokio::time::sleep(SETTLE).await;
        };
        tokio::select! {
            served = connection.as_mut() => return served,
            () = is_over => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }
}

/// Returns when there is another certificate.
async fn replaced(newest: Option<Newest>) {
    if let Some(mut newest) = newest
        && newest.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
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
