//! Trying to get past a sidecar without the right certificate.
//!
//! Each attempt speaks exactly as a peer's sidecar would, but for the one thing that is wrong with it. That the
//! attempts are good ones is shown by a control: the same code with the right certificate must get through.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    plan::{Plan, Service, TRUST_DOMAIN},
    processes::run_tool,
    programs::Programs,
};
use crate::{client::MAX_BODY_BYTES, effects};

/// Time for one attempt; silence is as good as a refusal.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Of the certificate that is to expire before it is tried.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// Of all others: longer than the longest load.
const LONG_LIFE: Duration = Duration::from_secs(2 * 3600);
/// The type of a TLS record that only says what is wrong (RFC 8446 §5.1).
const TLS_ALERT: u8 = 21;
/// What sidecars speak to each other: HTTP as HTTP/2 streams.
const PEER_PROTOCOL: &[u8] = b"outrider-h2/1";

/// One attempt to get in.
#[derive(Clone, Debug, Serialize)]
pub struct Attempt {
    /// What was wrong with it: `no_certificate` and so on.
    pub kind: &'static str,
    /// Whether an answer of the service came back.
    pub accepted: bool,
    /// What came back instead.
    pub answer: String,
    /// Whether it is the one with the right certificate, which must be accepted.
    #[serde(skip)]
    pub is_control: bool,
}

/// Certificates, right and wrong, and the sidecar to try them on.
#[derive(Debug)]
pub struct Intruders {
    target: SocketAddr,
    provider: Arc<CryptoProvider>,
    badges: Vec<Badge>,
    /// When the certificate that is to have expired surely has: certificates count whole seconds.
    expired_at: Instant,
}

/// A certificate that an intruder shows.
#[derive(Debug)]
struct Badge {
    kind: &'static str,
    certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Intruders {
    /// Has certificates made: by the mesh's own CA for `web` (the control, and one that expires within a second) and
    /// for a service that may not call `orders`, and by another CA, of the same name, for `web`.
    ///
    /// # Errors
    /// If the CA's program doesn't make them.
    pub async fn prepare(plan: &Plan, programs: &Programs) -> anyhow::Result<Self> {
        let (own, foreign) = (plan.dir.join("ca"), plan.dir.join("foreign-ca"));
        let init = ["init", "--dir", utf8(&foreign)?, "--trust-domain", TRUST_DOMAIN];
        run_tool(&programs.ca, &init).await?;
        let (web, inventory) = (Service::Web.spiffe_id(), Service::Inventory.spiffe_id());
        let mut badges = vec![Badge { kind: "no_certificate", certificate: None }];
        for (kind, ca, id, life) in [
            ("foreign_certificate", &foreign, &web, LONG_LIFE),
            ("expired_certificate", &own, &web, SHORT_LIFE),
            ("wrong_identity", &own, &inventory, LONG_LIFE),
            ("control", &own, &web, LONG_LIFE),
        ] {
            let out = plan.dir.join("intruders").join(kind);
            let certificate = issue(programs, ca, (id, life), &out).await?;
            badges.push(Badge { kind, certificate: Some(certificate) });
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let expired_at = effects::now() + SHORT_LIFE + Duration::from_secs(2);
        Ok(Self { target: plan.first(Service::Orders).inbound, provider, badges, expired_at })
    }

    /// Makes every attempt, one after the other.
    pub async fn attempt_all(&self) -> Vec<Attempt> {
        tokio::time::sleep_until(self.expired_at.into()).await;
        let mut attempts = vec![attempt("plaintext", plaintext(self.target)).await];
        for badge in &self.badges {
            attempts.push(attempt(badge.kind, Box::pin(self.request_with(badge))).await);
        }
        attempts
    }

    /// Asks `orders` for something over mutual TLS, as `web`'s sidecar would.
    async fn request_with(&self, badge: &Badge) -> anyhow::Result<String> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(Arc::clone(&self.provider))));
        let mut config = match &badge.certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key())?,
        };
        config.alpn_protocols = vec![PEER_PROTOCOL.to_vec()];
        config.enable_sni = false;

        let stream = TcpStream::connect(self.target).await.context("connecting")?;
        let name = ServerName::from(self.target.ip());
        let stream =
            TlsConnector::from(Arc::new(config)).connect(name, stream).await.context("TLS handshake")?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = Box::pin(handshake).await?;
        drop(effects::spawn(connection));
        let request = Request::get("http://orders/").body(Full::new(Bytes::new()))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
        accepted(status, &body)
    }
}

/// Makes an attempt; only an answer of the service makes it an accepted one.
async fn attempt(kind: &'static str, attempt: impl Future<Output = anyhow::Result<String>>) -> Attempt {
    let is_control = kind == "control";
    let outcome = match tokio::time::timeout(TIMEOUT, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(anyhow::anyhow!("no answer within {TIMEOUT:?}")),
    };
    match outcome {
        Ok(answer) => Attempt { kind, accepted: true, answer, is_control },
        Err(error) => Attempt { kind, accepted: false, answer: why(&error), is_control },
    }
}

/// Why it was refused, in as few words as there are for it.
fn why(error: &anyhow::Error) -> String {
    let cause = error.root_cause();
    match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            "connection closed".to_owned()
        }
        _ => cause.to_string(),
    }
}

/// An HTTP request without any TLS, as an app on another host would make it.
async fn plaintext(target: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(target).await.context("connecting")?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    let read = (&mut stream).take(MAX_BODY_BYTES as u64).read_to_end(&mut answer).await;
    // A reset after the answer takes nothing back.
    if answer.is_empty() {
        read?;
        anyhow::bail!("connection closed");
    }
    anyhow::ensure!(answer.first() != Some(&TLS_ALERT), "a TLS alert instead of an answer");
    let text = String::from_utf8_lossy(&answer).into_owned();
    anyhow::ensure!(text.starts_with("HTTP/1.1 200") || is_of_service(&answer), "refused with {text:?}");
    Ok(text)
}

fn accepted(status: StatusCode, body: &[u8]) -> anyhow::Result<String> {
    let text = String::from_utf8_lossy(body);
    anyhow::ensure!(
        status == StatusCode::OK || is_of_service(body),
        "refused with {status}: {}",
        text.trim_end()
    );
    Ok(format!("{status}"))
}

/// Whether bytes of the service itself are among these, under whatever status.
fn is_of_service(bytes: &[u8]) -> bool {
    let mark = b"\"replica\"";
    bytes.windows(mark.len()).any(|window| window == mark)
}

async fn issue(
    programs: &Programs,
    ca: &Path,
    (id, life): (&str, Duration),
    out: &Path,
) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let life = humantime::format_duration(life).to_string();
    let arguments = ["issue", "--dir", utf8(ca)?, "--spiffe-id", id, "--ttl", &life, "--out", utf8(out)?];
    run_tool(&programs.ca, &arguments).await?;
    let chain = CertificateDer::pem_file_iter(out.join("svid.pem"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(out.join("svid_key.pem"))?;
    Ok((chain, key))
}

fn utf8(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8; give another --dir", path.display()))
}

/// An intruder doesn't care whom it talks to.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
