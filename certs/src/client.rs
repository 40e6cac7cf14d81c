//! The workload's side of the CA: asks for certificates and for the bundle.
//!
//! Works over any TLS stream that is already connected, with ALPN `h2`, and
//! whose server the caller has verified to be the CA. One call is one
//! exchange: when it returns (or is dropped), the stream is closed. Nothing is
//! left running.
//!
//! Certificates come by Istio's service, the bundle by SPIFFE's endpoint. The
//! first alone does not make an identity, so Istio's own CA will not do.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use zeroize::Zeroizing;

use crate::api::istio_v1_auth::IstioCertificateRequest;
use crate::api::istio_v1_auth::istio_certificate_service_client::IstioCertificateServiceClient;
use crate::certificate::{Leaf, LeafError, parse};
use crate::spiffe_id::TrustDomain;
use crate::svid::MAX_CHAIN;
use crate::trust_bundle::{self, MAX_DOCUMENT_BYTES, TrustBundle};

/// Carries the sequence number of the bundle the caller holds; the CA takes it
/// as acknowledgement of that bundle.
pub const BUNDLE_SEQUENCE_HEADER: &str = "x-outrider-bundle-sequence";
/// Where the CA publishes the bundle of its trust domain.
pub const BUNDLE_PATH: &str = "/bundle";

/// How long one exchange may take, from the first byte to the last.
const DEADLINE: Duration = Duration::from_secs(15);
/// How long the bundle may take after the certificate is there.
const BUNDLE_DEADLINE: Duration = Duration::from_secs(5);
/// Largest answer: a chain of [`MAX_CHAIN`] certificates with RSA keys fits.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Largest header block of an answer; a few hundred bytes are usual.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// The authority of requests: who the server is was settled by TLS.
const ORIGIN: &str = "https://outrider-ca";

/// Why there is no certificate or bundle.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection failed; the CA may or may not have acted.
    #[error("the connection to the CA failed: {0}")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time; the CA may or may not have acted.
    #[error("the CA gave no answer within {DEADLINE:?}")]
    Deadline,
    /// The CA said no.
    #[error("the CA refused ({code:?}): {message}")]
    Rejected {
        /// The gRPC status.
        code: tonic::Code,
        /// The CA's reason.
        message: String,
    },
    /// The CA has answered, but not with a chain or bundle.
    #[error("the CA's answer cannot be used: {0}")]
    BadAnswer(String),
}

impl Error {
    /// Whether the same request may succeed later.
    ///
    /// False where the CA has judged the request itself: then a new token, a
    /// new key or an operator is needed.
    pub fn is_retryable(&self) -> bool {
        use tonic::Code as C;
        match self {
            Self::Transport(_) | Self::Deadline | Self::BadAnswer(_) => true,
            Self::Rejected { code, .. } => match code {
                C::Ok
                | C::InvalidArgument
                | C::NotFound
                | C::AlreadyExists
                | C::PermissionDenied
                | C::FailedPrecondition
                | C::OutOfRange
                | C::Unimplemented
                | C::DataLoss
                | C::Unauthenticated => false,
                C::Cancelled
                | C::Unknown
                | C::DeadlineExceeded
                | C::ResourceExhausted
                | C::Aborted
                | C::Internal
                | C::Unavailable => true,
            },
        }
    }
}

/// What to ask for.
#[derive(Clone, Copy)]
pub struct SvidRequest<'a> {
    /// The request, see [`KeyPairAndCsr`](crate::request::KeyPairAndCsr).
    pub csr_pem: &'a str,
    /// Wanted lifetime, in whole seconds; `None` = the CA's default. The CA
    /// may give less.
    pub validity: Option<Duration>,
    /// The proof, such as [`JoinToken::bearer`](crate::join_token::JoinToken::bearer)
    /// or a service-account token; `None` when the connection's client
    /// certificate is the proof.
    pub bearer: Option<&'a str>,
    /// Sequence of the bundle the caller holds; 0 = none.
    pub bundle_sequence: u64,
}

/// What the CA gave.
#[derive(Clone, Debug)]
pub struct IssuedChain {
    /// The leaf and any intermediates; for
    /// [`X509Svid::from_parts`](crate::svid::X509Svid::from_parts).
    pub chain: Vec<CertificateDer<'static>>,
    /// The root the CA sent at the end of the chain, if it did.
    pub root: Option<CertificateDer<'static>>,
    /// The CA's bundle; `None` when it publishes none or could not send it in
    /// time. The certificate is good without it.
    pub bundle: Option<TrustBundle>,
}

/// Gets a certificate for the key of a request, and with it the bundle.
///
/// A join token is used up even when the answer is lost on its way.
///
/// # Errors
/// See [`Error`]; [`Error::is_retryable`] says whether trying again can help.
pub async fn request_svid<IO>(io: IO, request: SvidRequest<'_>) -> Result<IssuedChain, Error>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    exchange(io, |sender| issue(sender, request)).await
}

/// Gets the bundle of a trust domain. `bundle_sequence` is that of the bundle
/// the caller holds (0 = none), which the CA takes as acknowledgement.
///
/// # Errors
/// See [`Error`]; an HTTP status other than 200 is [`Error::Rejected`] with the
/// gRPC code it stands for.
pub async fn fetch_bundle<IO>(
    io: IO,
    trust_domain: TrustDomain,
    bundle_sequence: u64,
) -> Result<TrustBundle, Error>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    exchange(io, |sender| get_bundle(sender, trust_domain, bundle_sequence)).await
}

/// An HTTP/2 connection as the generated client wants it.
#[derive(Clone)]
struct Sender(http2::SendRequest<Body>);

impl tower::Service<Request<Body>> for Sender {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Runs `work` over a connection that lives exactly as long.
async fn exchange<IO, W, F, T>(io: IO, work: W) -> Result<T, Error>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    W: FnOnce(Sender) -> F,
    F: Future<Output = Result<T, Error>>,
{
    // On the heap: ten kilobytes are too much for the callers' futures.
    let whole = Box::pin(async {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(MAX_HEADER_BYTES)
            .handshake(TokioIo::new(io))
            .await
            .map_err(transport)?;
        let mut work = pin!(work(Sender(sender)));
        tokio::select! {
            biased;
            result = &mut work => result,
            // Its last frames may hold the answer; without one, `work` learns
            // that the connection is gone.
            _ended = connection => work.await,
        }
    });
    tokio::time::timeout(DEADLINE, whole).await.unwrap_or(Err(Error::Deadline))
}

async fn issue(sender: Sender, request: SvidRequest<'_>) -> Result<IssuedChain, Error> {
    let mut client = IstioCertificateServiceClient::with_origin(sender.clone(), Uri::from_static(ORIGIN))
        .max_decoding_message_size(MAX_ANSWER_BYTES);
    let message = tonic_request(&request)?;
    let answer = client.create_certificate(message).await.map_err(rejected)?.into_inner();
    let mut issued = read_chain(&answer.cert_chain)?;
    let leaf = issued.chain.first().ok_or_else(|| BadChain::Empty.error())?;
    let trust_domain = Leaf::read(leaf).map_err(|e| BadChain::Leaf(e).error())?.id.trust_domain().clone();
    // The token is spent: whatever happens to the bundle, the chain is kept.
    let bundle = get_bundle(sender, trust_domain, request.bundle_sequence);
    issued.bundle = tokio::time::timeout(BUNDLE_DEADLINE, bundle).await.ok().and_then(Result::ok);
    Ok(issued)
}

fn tonic_request(request: &SvidRequest<'_>) -> Result<tonic::Request<IstioCertificateRequest>, Error> {
    // Rounded up: 0 would ask for the default.
    let seconds = request.validity.map_or(0, |validity| validity.as_secs().max(1));
    let mut message = tonic::Request::new(IstioCertificateRequest {
        csr: request.csr_pem.to_owned(),
        subject_id: String::new(),
        validity_duration: i64::try_from(seconds).unwrap_or(i64::MAX),
    });
    let metadata = message.metadata_mut();
    if let Some(bearer) = request.bearer {
        let text = Zeroizing::new(["Bearer ", bearer].concat());
        let mut value = HeaderValue::from_str(&text).map_err(transport)?;
        // Keeps it out of HTTP/2's header table and of debug output.
        value.set_sensitive(true);
        metadata.as_mut().insert(header::AUTHORIZATION, value);
    }
    metadata.insert(BUNDLE_SEQUENCE_HEADER, request.bundle_sequence.into());
    Ok(message)
}

async fn get_bundle(
    mut sender: Sender,
    trust_domain: TrustDomain,
    bundle_sequence: u64,
) -> Result<TrustBundle, Error> {
    let request = Request::get([ORIGIN, BUNDLE_PATH].concat())
        .header(BUNDLE_SEQUENCE_HEADER, bundle_sequence)
        .header(header::ACCEPT, "application/json")
        .body(Body::empty())
        .map_err(transport)?;
    let response = sender.0.send_request(request).await.map_err(transport)?;
    let status = response.status();
    let body = collect(response.into_body()).await?;
    if !status.is_success() {
        let text = String::from_utf8_lossy(&body);
        let message = format!("HTTP status {status}: {}", text.trim().chars().take(200).collect::<String>());
        return Err(Error::Rejected { code: grpc_code(status), message });
    }
    TrustBundle::from_jwks(trust_domain, &body)
        .map_err(|e: trust_bundle::Error| Error::BadAnswer(format!("the bundle: {e}")))
}

async fn collect(body: Incoming) -> Result<Bytes, Error> {
    let collected = Limited::new(body, MAX_DOCUMENT_BYTES).collect().await;
    collected.map(|whole| whole.to_bytes()).map_err(Error::Transport)
}

/// What an HTTP status means to a caller who thinks in gRPC codes.
fn grpc_code(status: http::StatusCode) -> tonic::Code {
    match status.as_u16() {
        401 => tonic::Code::Unauthenticated,
        403 => tonic::Code::PermissionDenied,
        404 => tonic::Code::Unimplemented,
        429 => tonic::Code::ResourceExhausted,
        400..=499 => tonic::Code::InvalidArgument,
        _ => tonic::Code::Unavailable,
    }
}

/// What can be wrong with a chain that came as the answer.
enum BadChain {
    Empty,
    Pem(rustls_pki_types::pem::Error),
    Leaf(LeafError),
    TooLong,
}

impl BadChain {
    fn error(self) -> Error {
        Error::BadAnswer(match self {
            Self::Empty => "it holds no certificate".to_owned(),
            Self::Pem(e) => format!("it is not PEM: {e}"),
            Self::Leaf(e) => format!("the certificate: {e}"),
            Self::TooLong => format!("it holds more than {MAX_CHAIN} certificates"),
        })
    }
}

fn read_chain(cert_chain: &[String]) -> Result<IssuedChain, Error> {
    let text = cert_chain.join("\n");
    let mut chain = CertificateDer::pem_slice_iter(text.as_bytes())
        .take(MAX_CHAIN + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| BadChain::Pem(e).error())?;
    if chain.len() > MAX_CHAIN {
        return Err(BadChain::TooLong.error());
    }
    let root = chain.pop_if(|last| is_self_signed_ca(last));
    Ok(IssuedChain { chain, root, bundle: None })
}

fn is_self_signed_ca(der: &CertificateDer<'_>) -> bool {
    parse(der).is_ok_and(|found| found.is_ca() && found.subject().as_raw() == found.issuer().as_raw())
}

fn transport(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Transport(error.into())
}

/// A status the CA sent, or one that stands for a broken connection.
fn rejected(status: tonic::Status) -> Error {
    use std::error::Error as _;
    if status.source().is_some() {
        return transport(status);
    }
    Error::Rejected { code: status.code(), message: status.message().to_owned() }
}

impl std::fmt::Debug for SvidRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SvidRequest")
            .field("validity", &self.validity)
            .field("bearer", &self.bearer.map(|_| "(hidden)"))
            .field("bundle_sequence", &self.bundle_sequence)
            .finish_non_exhaustive()
    }
}

/// Leaf of an issued chain: when to renew is reckoned from these.
impl IssuedChain {
    /// When the leaf runs out.
    ///
    /// # Errors
    /// [`Error::BadAnswer`] when the leaf cannot be read; never for a chain
    /// that [`request_svid`] returned.
    pub fn not_after(&self) -> Result<SystemTime, Error> {
        let leaf = self.chain.first().ok_or_else(|| BadChain::Empty.error())?;
        Ok(Leaf::read(leaf).map_err(|e| BadChain::Leaf(e).error())?.validity.not_after)
    }
}
