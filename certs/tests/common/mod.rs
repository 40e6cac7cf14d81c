//! What both suites need: TLS to a CA, and the workload's way to an SVID.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by several test programs, each of which uses a part"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrider_certs::client::{self, IssuedChain, SvidRequest, request_svid};
use outrider_certs::join_token::JoinToken;
use outrider_certs::request::KeyPairAndCsr;
use outrider_certs::rustls_verify::{PinnedRootVerifier, SpiffeServerVerifier, provider};
use outrider_certs::svid::X509Svid;
use outrider_certs::trust_bundle::{TrustBundle, TrustBundles};
use outrider_certs::{SpiffeId, TrustDomain};
use rustls::client::danger::ServerCertVerifier;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::{ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const ID: &str = "spiffe://example.org/ns/shop/sa/cart";

pub fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

pub fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

#[derive(Debug)]
struct Fixed(SystemTime);

impl TimeProvider for Fixed {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap()))
    }
}

/// How a client sees and proves itself to the CA.
pub struct Caller<'a> {
    pub address: SocketAddr,
    pub verifier: Arc<dyn ServerCertVerifier>,
    pub svid: Option<&'a X509Svid>,
    /// The client's clock.
    pub time: SystemTime,
    pub alpn: &'a [u8],
}

impl<'a> Caller<'a> {
    /// Knows only what the token says.
    pub fn with_token(address: SocketAddr, token: &JoinToken, time: SystemTime) -> Self {
        let expected = outrider_certs::join_token::ca_spiffe_id(token.spiffe_id().trust_domain());
        let verifier = Arc::new(PinnedRootVerifier::new(token.root_spki_sha256(), expected));
        Self { address, verifier, svid: None, time, alpn: b"h2" }
    }

    /// Knows the bundle, and may show an SVID.
    pub fn with_bundle(
        address: SocketAddr,
        bundle: &TrustBundle,
        svid: Option<&'a X509Svid>,
        time: SystemTime,
    ) -> Self {
        let bundles = Arc::new(TrustBundles::single(bundle.clone()));
        let verifier = Arc::new(SpiffeServerVerifier::new(bundles));
        Self { address, verifier, svid, time, alpn: b"h2" }
    }

    pub async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let builder = rustls::ClientConfig::builder_with_details(provider(), Arc::new(Fixed(self.time)))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&self.verifier));
        let mut config = match self.svid {
            Some(svid) => {
                builder.with_client_auth_cert(svid.chain().to_vec(), svid.key().clone_key()).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![self.alpn.to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("ignored.invalid").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Asks for a certificate.
    pub async fn request(&self, request: SvidRequest<'_>) -> Result<IssuedChain, client::Error> {
        let stream = self.connect().await.map_err(|e| client::Error::Transport(e.into()))?;
        request_svid(stream, request).await
    }

    pub async fn bundle(&self, sequence: u64) -> Result<TrustBundle, client::Error> {
        let stream = self.connect().await.map_err(|e| client::Error::Transport(e.into()))?;
        client::fetch_bundle(stream, domain(), sequence).await
    }
}

/// A request with the usual values.
pub fn wish(csr_pem: &str) -> SvidRequest<'_> {
    SvidRequest { csr_pem, validity: None, bearer: None, bundle_sequence: 0 }
}

/// The whole first contact: from a token to an SVID and the bundle.
pub async fn join(
    address: SocketAddr,
    token: &JoinToken,
    time: SystemTime,
) -> Result<(X509Svid, TrustBundle), client::Error> {
    let pair = KeyPairAndCsr::generate(token.spiffe_id()).unwrap();
    let bearer = token.bearer();
    let request = SvidRequest { bearer: Some(&bearer), ..wish(pair.csr_pem()) };
    let issued = Caller::with_token(address, token, time).request(request).await?;
    let svid = X509Svid::from_parts(issued.chain, pair.key().clone_key()).unwrap();
    Ok((svid, issued.bundle.expect("this CA publishes its bundle")))
}

/// Renews with the current SVID, or tries to become `wanted`.
pub async fn renew(
    address: SocketAddr,
    svid: &X509Svid,
    bundle: &TrustBundle,
    wanted: &SpiffeId,
    time: SystemTime,
) -> Result<X509Svid, client::Error> {
    let pair = KeyPairAndCsr::generate(wanted).unwrap();
    let caller = Caller::with_bundle(address, bundle, Some(svid), time);
    let request = SvidRequest { bundle_sequence: bundle.sequence(), ..wish(pair.csr_pem()) };
    let issued = caller.request(request).await?;
    Ok(X509Svid::from_parts(issued.chain, pair.key().clone_key()).unwrap())
}

/// The code and message of a refusal; panics for anything else.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, client::Error>) -> (tonic::Code, String) {
    match result {
        Err(client::Error::Rejected { code, message }) => (code, message),
        other => panic!("not refused: {other:?}"),
    }
}

/// Waits until `check` gives something, at most ten seconds.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "did not come to pass: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A GET over plaintext HTTP/1.1, head and body as text.
pub async fn http_get(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: ca\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}
