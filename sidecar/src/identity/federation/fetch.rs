//! One look at a bundle endpoint: connect, verify that it is the endpoint, ask, and bound what comes (SPIFFE Federation
//! §5.2).
//!
//! Redirects are not followed: the specification lets a client do so, and each hop would be one more server whose word is
//! taken for a whole trust domain.

use std::{future::Future, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use outrider_certs::{
    rustls_verify::SpiffeServerVerifier,
    spiffe_id::{SpiffeId, TrustDomain},
    trust_bundle::{self, MAX_DOCUMENT_BYTES, TrustBundle, TrustBundles},
    verify,
};
use rustls::{
    ClientConfig,
    client::WebPkiServerVerifier,
    pki_types::{InvalidDnsNameError, ServerName},
};
use tokio_rustls::TlsConnector;

use super::super::{
    file, public, reach,
    tls_configs::{self, TlsBase},
};
use super::update::Refused;
use crate::{
    model::{federation::BundleUrl, transport::Roots, wire::ALPN_STANDARD_H1},
    net::Net,
};

/// One look, from the name look-up to the last byte.
const DEADLINE: Duration = Duration::from_secs(10);
/// Largest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How we call ourselves.
const USER_AGENT: &str = concat!("Outrider/", env!("CARGO_PKG_VERSION"));

/// Why there is no newer bundle.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint's name has no address.
    #[error("its name cannot be found: {0}")]
    Resolve(#[source] io::Error),
    /// No connection to any address.
    #[error("it cannot be reached: {0}")]
    Connect(#[source] io::Error),
    /// The TLS handshake failed: most likely the server is not the endpoint.
    #[error("its server is not trusted: {0}")]
    Handshake(#[source] io::Error),
    /// The server is somebody else of the expected trust domain.
    #[error("its server is not {expected} but {found}")]
    NotTheServer {
        /// Whom we asked for.
        expected: SpiffeId,
        /// Who answered.
        found: SpiffeId,
    },
    /// The server has shown no SPIFFE ID.
    #[error("its server is not trusted: {0}")]
    Unverified(#[from] verify::Error),
    /// Nothing vouches for the server yet.
    #[error("there is no bundle of {0} yet, which has to vouch for the endpoint's server")]
    NoTrust(TrustDomain),
    /// It took too long.
    #[error("it gave no answer within {DEADLINE:?}")]
    Timeout,
    /// The exchange broke.
    #[error("the exchange broke: {0}")]
    Http(#[from] hyper::Error),
    /// It answers, but not with a bundle.
    #[error("it answers {0} instead of a bundle")]
    Status(StatusCode),
    /// It sends us elsewhere.
    #[error("it redirects ({0}), which is not followed: name the address where the bundle is")]
    Redirected(StatusCode),
    /// The answer broke off, or is too large.
    #[error("its answer cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The answer, or the file, is no bundle of that domain.
    #[error("it gives no usable bundle: {0}")]
    Bundle(#[from] trust_bundle::Error),
    /// The bundle does not take the place of the one held.
    #[error("its bundle is refused: {0}")]
    Refused(#[from] Refused),
    /// The file with a bundle, or with roots, cannot be read.
    #[error(transparent)]
    File(#[from] file::Error),
    /// Roots for `https_web` cannot be used.
    #[error(transparent)]
    Roots(#[from] public::Error),
    /// The roots do not make a verifier.
    #[error("the roots cannot be used: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    /// No TLS configuration could be made.
    #[error(transparent)]
    Tls(#[from] tls_configs::Error),
    /// The URL's host is neither a name nor an address.
    #[error("its host is not a name that a certificate can have: {0}")]
    Host(#[from] InvalidDnsNameError),
    /// The URL does not make a request.
    #[error("it cannot be asked: {0}")]
    Request(#[from] http::Error),
}

/// How an endpoint's server is believed.
#[derive(Debug)]
pub(super) struct Belief {
    config: Arc<ClientConfig>,
    /// Who it must be, beside what the configuration verifies.
    expected: Option<SpiffeId>,
}

impl Belief {
    /// `https_web`: the server's certificate is for the URL's host, as in a browser.
    pub(super) fn web(base: &TlsBase, roots: &Roots) -> Result<Self, Error> {
        let roots = match roots {
            Roots::System => public::system_roots()?,
            Roots::File(path) => public::file_roots(path)?,
        };
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), base.provider()).build()?;
        Ok(Self { config: Arc::new(base.public(verifier, None, &[ALPN_STANDARD_H1])?), expected: None })
    }

    /// `https_spiffe`: the server is that workload, by the bundle of its trust domain. Our own certificate is not shown:
    /// no endpoint may ask for one (SPIFFE Federation §5.2.2.3).
    pub(super) fn spiffe(base: &TlsBase, server: &SpiffeId, bundle: &TrustBundle) -> Result<Self, Error> {
        let verifier = SpiffeServerVerifier::new(Arc::new(TrustBundles::single(bundle.clone())));
        let mut config = base.client_with(Arc::new(verifier), None, &[ALPN_STANDARD_H1])?;
        // Outside the mesh, something in between may go by the name.
        config.enable_sni = true;
        Ok(Self { config: Arc::new(config), expected: Some(server.clone()) })
    }
}

/// What the endpoint gives now.
pub(super) async fn fetch<N: Net>(net: &N, url: &BundleUrl, belief: &Belief) -> Result<Bytes, Error> {
    within(exchange(net, url, belief)).await
}

async fn within<T>(exchange: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    // On the heap: it is waited for all day by those who wait for its next turn.
    tokio::time::timeout(DEADLINE, Box::pin(exchange)).await.unwrap_or(Err(Error::Timeout))
}

async fn exchange<N: Net>(net: &N, url: &BundleUrl, belief: &Belief) -> Result<Bytes, Error> {
    let (tcp, _) = reach::reach(net, &url.address()).await.map_err(|error| match error {
        reach::Error::Resolve(source) => Error::Resolve(source),
        reach::Error::Connect(source) => Error::Connect(source),
    })?;
    let name = ServerName::try_from(url.host.to_string())?;
    let connector = TlsConnector::from(Arc::clone(&belief.config));
    let stream = connector.connect(name, tcp).await.map_err(Error::Handshake)?;
    if let Some(expected) = &belief.expected {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = verify::peer_of_verified(chain)?;
        if peer.id() != expected {
            return Err(Error::NotTheServer { expected: expected.clone(), found: peer.id().clone() });
        }
    }
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD_BYTES);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let asked = async move {
        let answer = sender.send_request(request(url)?).await?;
        let status = answer.status();
        if status.is_redirection() {
            return Err(Error::Redirected(status));
        }
        if status != StatusCode::OK {
            return Err(Error::Status(status));
        }
        let body = Limited::new(answer.into_body(), MAX_DOCUMENT_BYTES).collect().await;
        body.map(|whole| whole.to_bytes()).map_err(Error::Body)
    };
    let mut asked = std::pin::pin!(asked);
    tokio::select! {
        biased;
        answer = &mut asked => answer,
        // Its last bytes may hold the answer; without one, whoever asks learns that the connection is gone.
        _ended = connection => asked.await,
    }
}

fn request(url: &BundleUrl) -> Result<Request<Empty<Bytes>>, http::Error> {
    Request::get(&*url.path)
        .header(header::HOST, url.authority())
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, USER_AGENT)
        .body(Empty::new())
}
