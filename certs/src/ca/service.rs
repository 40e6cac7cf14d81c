//! The CA's requests: `CreateCertificate` over gRPC and the bundle over HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::BoxError;
use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::extract::{Extension, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::watch;
use tonic::Status;
use tower::ServiceBuilder;
use tower::timeout::TimeoutLayer;
use zeroize::Zeroizing;

use super::acknowledgements::{Acknowledgements, Holder};
use super::issuer::{self, Issued, NamesOf, Proof, Validity, Wish};
use super::limits::{Caller, Limits, RateLimiter};
use super::metrics::Metrics;
use super::refusal::Refusal;
use super::review::{self, Reviewed, Reviewer};
use super::server::ADDRESS_PART;
use super::state::CaState;
use crate::api::istio_v1_auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use crate::api::istio_v1_auth::{IstioCertificateRequest, IstioCertificateResponse};
use crate::client::{BUNDLE_PATH, BUNDLE_SEQUENCE_HEADER};
use crate::clock::{WallClock, instant};
use crate::join_token::Credential;
use crate::pem;
use crate::program::quota::{Quota, Share};
use crate::verify::Peer;

/// Largest gRPC message; a request is a PEM text of at most 16 KiB.
const MAX_MESSAGE_BYTES: usize = 20 * 1024;
/// Largest body: a message, and the five bytes before it.
const MAX_BODY_BYTES: usize = MAX_MESSAGE_BYTES + 5;
/// Time for a request's body to arrive: it fits into one window, and whoever
/// asks has it at hand.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// The far end of a connection.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) address: SocketAddr,
    /// Who it is, if it showed an SVID.
    pub(super) peer: Option<Peer>,
    /// The leaf it has, and when that runs out: the one it showed, or a newer
    /// one it was given on this connection.
    leaf: Mutex<Option<(Holder, SystemTime)>>,
}

/// The CA's state, and whichever it becomes.
pub type States = watch::Receiver<Arc<CaState>>;

/// What all requests share.
pub(super) struct Ca {
    /// The newest state; a request sees one.
    pub(super) states: States,
    /// Judges service accounts' tokens, where there are any.
    pub(super) reviewer: Option<Arc<dyn Reviewer>>,
    pub(super) names: Arc<NamesOf>,
    pub(super) clock: Arc<dyn WallClock>,
    pub(super) validity: Validity,
    pub(super) rates: RateLimiter,
    pub(super) holders: Acknowledgements,
    pub(super) metrics: Metrics,
}

/// The routes of the TLS listener, with their limits.
pub(super) fn router(ca: &Arc<Ca>, limits: &Limits) -> axum::Router {
    let grpc = IstioCertificateServiceServer::new(CertificateService(Arc::clone(ca)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let late = Arc::clone(ca);
    let in_time = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(move |headers: HeaderMap, _: BoxError| {
            std::future::ready(shed(&late, &headers, true))
        }))
        .layer(TimeoutLayer::new(limits.request_timeout));
    let slots = Quota::new(limits.requests, limits.requests.div_ceil(ADDRESS_PART));
    let gate = Gate { ca: Arc::clone(ca), slots };
    axum::Router::new()
        .route_service("/istio.v1.auth.IstioCertificateService/{method}", grpc)
        .route(BUNDLE_PATH, get(bundle))
        .layer(in_time)
        .layer(middleware::from_fn_with_state(gate, enter))
        .with_state(Arc::clone(ca))
}

/// What a request passes before it is worked on.
#[derive(Clone)]
struct Gate {
    ca: Arc<Ca>,
    /// Requests that are worked on.
    slots: Arc<Quota>,
}

/// Admits a request by its head, then reads it, and has it take a slot only
/// then: whoever sends slowly has nobody else wait.
async fn enter(
    State(Gate { ca, slots }): State<Gate>,
    Extension(remote): Extension<Arc<Remote>>,
    Extension(place): Extension<Arc<Share>>,
    request: Request,
    next: Next,
) -> Response {
    let (head, body) = request.into_parts();
    if let Err(exceeded) = ca.rates.admit(remote.caller(), instant()) {
        let refusal = Refusal::Rate(exceeded);
        if is_grpc(&head.headers) {
            ca.log_refusal(&remote, &refusal);
        }
        let retry = [(header::RETRY_AFTER, "1")];
        let plain = (StatusCode::TOO_MANY_REQUESTS, retry, "too many requests\n").into_response();
        return answer(&head.headers, refusal.status(), plain);
    }
    let body = match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let status = Status::out_of_range(format!("the request has more than {MAX_BODY_BYTES} bytes"));
            return answer(&head.headers, status, StatusCode::PAYLOAD_TOO_LARGE.into_response());
        }
        Ok(Err(_broken)) => {
            let status = Status::invalid_argument("the request broke off");
            return answer(&head.headers, status, StatusCode::BAD_REQUEST.into_response());
        }
        Err(_elapsed) => return shed(&ca, &head.headers, true),
    };
    let address = remote.peer.is_none().then(|| remote.address.ip());
    let Some(slot) = slots.take(address, 1) else { return shed(&ca, &head.headers, false) };
    let _serving = (Arc::new(slot).serving(), place.serving());
    next.run(Request::from_parts(head, Body::from(body))).await
}

/// The routes of the plaintext listener: nothing secret, nothing that changes.
pub(super) fn metrics_router(ca: &Arc<Ca>) -> axum::Router {
    axum::Router::new()
        .route("/live", get(|| std::future::ready("live\n")))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(ca))
}

struct CertificateService(Arc<Ca>);

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: tonic::Request<IstioCertificateRequest>,
    ) -> Result<tonic::Response<IstioCertificateResponse>, Status> {
        let remote = request.extensions().get::<Arc<Remote>>().cloned();
        let remote = remote.ok_or_else(|| Status::internal("the connection is not known"))?;
        match self.0.create(&remote, request).await {
            Ok(issued) => {
                self.0.note(&remote, &issued);
                Ok(tonic::Response::new(response(&issued)))
            }
            Err(refusal) => {
                self.0.log_refusal(&remote, &refusal);
                Err(refusal.status())
            }
        }
    }
}

/// What was issued, by what state, and the bundle sequence its holder told.
struct Told {
    issued: Issued,
    state: Arc<CaState>,
    sequence: u64,
}

/// What a caller shows.
enum Shown {
    /// What can be judged here.
    Proof(Proof),
    /// What looks like a service account's token.
    ServiceAccount(Zeroizing<String>),
}

impl Ca {
    pub(super) fn state(&self) -> Arc<CaState> {
        Arc::clone(&self.states.borrow())
    }

    async fn create(
        &self,
        remote: &Remote,
        request: tonic::Request<IstioCertificateRequest>,
    ) -> Result<Told, Refusal> {
        let (metadata, _, message) = request.into_parts();
        let headers = metadata.as_ref();
        let wanted = u64::try_from(message.validity_duration).map_err(|_| Refusal::NegativeValidity)?;
        let wanted = (wanted > 0).then(|| Duration::from_secs(wanted));
        let proof = match self.shown(headers, remote)? {
            Shown::Proof(proof) => proof,
            Shown::ServiceAccount(token) => Proof::Reviewed(self.reviewed(&token).await?),
        };
        let wish = Wish {
            proof,
            csr_pem: message.csr,
            validity: self.validity.of(wanted),
            bundle_sequence: bundle_sequence(headers),
            names: Arc::clone(&self.names),
        };
        let (state, now) = (self.state(), self.clock.now());
        // Flushing the token and the log to disk, or asking the API server, may take a while.
        let work = tokio::task::spawn_blocking(move || {
            let issued = issuer::issue(&state, &wish, now)?;
            Ok(Told { issued, state, sequence: wish.bundle_sequence })
        });
        work.await.unwrap_or(Err(Refusal::Stopping))
    }

    async fn reviewed(&self, token: &str) -> Result<Reviewed, Refusal> {
        let reviewer = self.reviewer.as_ref().ok_or(Refusal::NotAToken)?;
        Ok(reviewer.review(token).await?)
    }

    /// A token counts before the SVID: who brings one wants a new beginning.
    fn shown(&self, headers: &HeaderMap, remote: &Remote) -> Result<Shown, Refusal> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            let peer = remote.peer.clone().ok_or(Refusal::NoProof)?;
            // Whose pod is gone shall not go on by what it once got.
            if self.state().has_service_accounts() && review::is_of_service_account(peer.id()) {
                return Err(Refusal::NeedsServiceAccount(peer.id().clone()));
            }
            return Ok(Shown::Proof(Proof::Svid(peer)));
        };
        let text = value.to_str().map_err(|_| Refusal::NotAToken)?;
        // RFC 9110 §11.1: the scheme's case does not matter.
        let (scheme, credential) = text.split_once(' ').ok_or(Refusal::NotAToken)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refusal::NotAToken);
        }
        let credential = credential.trim();
        if let Some(credential) = Credential::parse(credential) {
            return Ok(Shown::Proof(Proof::Token(credential)));
        }
        let is_reviewed = self.reviewer.is_some() && credential.len() <= review::MAX_TOKEN_BYTES;
        is_reviewed
            .then(|| Shown::ServiceAccount(Zeroizing::new(credential.to_owned())))
            .ok_or(Refusal::NotAToken)
    }

    fn note(&self, remote: &Remote, told: &Told) {
        let issued = &told.issued;
        self.metrics.issued(issued.proof);
        tracing::info!(
            spiffe_id = %issued.id,
            serial = %issued.serial,
            proof = ?issued.proof,
            from = %remote.address,
            "certificate issued"
        );
        let holder = Holder::of(&issued.leaf);
        if let Some((replaced, _)) = remote.leaf().replace((holder, issued.not_after)) {
            self.holders.forget(&replaced);
        }
        self.holders.note(holder, told.sequence, issued.not_after, self.clock.now());
    }

    fn log_refusal(&self, remote: &Remote, refusal: &Refusal) {
        self.metrics.refused(refusal.reason());
        let who = remote.peer.as_ref().map(|peer| peer.id().as_str());
        let (from, reason) = (remote.address, refusal.reason());
        if matches!(refusal, Refusal::Rate(_)) {
            // Counted; a line for each would make the flood worse.
            tracing::debug!(%from, who, reason, %refusal, "certificate refused");
        } else {
            tracing::warn!(%from, who, reason, %refusal, "certificate refused");
        }
    }
}

impl Remote {
    pub(super) fn new(address: SocketAddr, workload: Option<(Peer, Holder)>) -> Self {
        let leaf = workload.as_ref().map(|(peer, holder)| (*holder, peer.not_after()));
        Self { address, peer: workload.map(|(peer, _)| peer), leaf: Mutex::new(leaf) }
    }

    fn caller(&self) -> Caller {
        match &self.peer {
            Some(peer) => Caller::Workload(peer.id().clone()),
            None => Caller::Address(self.address.ip()),
        }
    }

    fn leaf(&self) -> std::sync::MutexGuard<'_, Option<(Holder, SystemTime)>> {
        self.leaf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The leaf and the root that signed it.
fn response(told: &Told) -> IstioCertificateResponse {
    let chain = [&told.issued.leaf, told.state.root()];
    IstioCertificateResponse { cert_chain: chain.map(|der| pem::certificate(der)).to_vec() }
}

/// 0 when the caller tells none, or nothing that is a number.
fn bundle_sequence(headers: &HeaderMap) -> u64 {
    let value = headers.get(BUNDLE_SEQUENCE_HEADER).and_then(|value| value.to_str().ok());
    value.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The SPIFFE bundle endpoint. Open to anybody who reaches it, for roots are
/// no secret; an SVID makes the caller's sequence count as acknowledgement.
async fn bundle(
    State(ca): State<Arc<Ca>>,
    Extension(remote): Extension<Arc<Remote>>,
    headers: HeaderMap,
) -> Response {
    ca.metrics.bundle_requests.inc();
    let now = ca.clock.now();
    let leaf = *remote.leaf();
    if let Some((holder, not_after)) = leaf.filter(|(_, not_after)| now <= *not_after) {
        ca.holders.note(holder, bundle_sequence(&headers), not_after, now);
    }
    let state = ca.state();
    let bundle = state.bundle();
    let age = bundle.refresh_hint().unwrap_or_default().as_secs();
    let answer = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CACHE_CONTROL, format!("max-age={age}")),
    ];
    (answer, bundle.to_jwks()).into_response()
}

/// Ready means: a certificate asked for now could be signed.
async fn ready(State(ca): State<Arc<Ca>>) -> Response {
    let state = ca.state();
    let root = state.signing_root();
    let now = ca.clock.now();
    if now < root.not_before || now >= root.not_after {
        return (StatusCode::SERVICE_UNAVAILABLE, "the CA's root is not valid at this time\n")
            .into_response();
    }
    "ready\n".into_response()
}

async fn metrics(State(ca): State<Arc<Ca>>) -> Response {
    let text = ca.metrics.render(&ca.state(), &ca.holders, ca.clock.now());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// The answer when a request was not started, or not finished in time.
fn shed(ca: &Ca, headers: &HeaderMap, is_late: bool) -> Response {
    ca.metrics.requests_shed.inc();
    let reason = if is_late { "the request or its answer took too long" } else { "the CA is overloaded" };
    let status = if is_late { Status::unavailable(reason) } else { Status::resource_exhausted(reason) };
    let plain = (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], reason).into_response();
    answer(headers, status, plain)
}

/// Who asks over gRPC is answered so.
fn answer(headers: &HeaderMap, status: Status, plain: Response) -> Response {
    if is_grpc(headers) { status.into_http::<Body>() } else { plain }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    kind.starts_with(b"application/grpc")
}
