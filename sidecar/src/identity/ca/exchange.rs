//! One exchange with the CA: connect, verify that it is the CA, ask, and doubt the answer.
//!
//! What comes back is used only if it is what was asked for: the CA may be down, slow, broken, or not the CA.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use outrider_certs::{
    certificate::spki_sha256,
    client::{self, IssuedChain, SvidRequest},
    join_token::{JoinToken, ca_spiffe_id},
    pem, request,
    request::KeyPairAndCsr,
    rustls_verify::{PinnedRootVerifier, SpiffeServerVerifier},
    spiffe_id::{SpiffeId, TrustDomain},
    svid::{self, X509Svid},
    trust_bundle::{TrustBundle, TrustBundles},
    verify::{self, Role},
};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::super::{
    store::{self, Store},
    tls_configs::{self, TlsBase},
};
use crate::{
    clock::Clock,
    model::wire::ALPN_STANDARD_H2,
    net::{Net, Purpose},
};

/// One exchange, from the name look-up to the last byte; for a certificate, to the end of the handshake.
const DEADLINE: Duration = Duration::from_secs(10);
/// One address of the CA; leaves time for a second one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Addresses of the CA's name that are tried.
const MAX_ADDRESSES: usize = 4;
/// Longest lifetime that is believed: the longest that can be asked for, with some room for backdating.
const MAX_LIFETIME: Duration = Duration::from_secs(91 * 24 * 3600);

/// Why there is no new certificate or bundle.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The CA's name has no address.
    #[error("the CA's address {address} cannot be found: {source}")]
    Resolve {
        /// As configured.
        address: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No connection to any address.
    #[error("the CA at {address} cannot be reached: {source}")]
    Connect {
        /// As configured.
        address: String,
        /// What the last attempt ended with.
        source: io::Error,
    },
    /// The TLS handshake failed: most likely the server is not the CA we trust.
    #[error("the server at {address} is not a CA we trust: {source}")]
    Handshake {
        /// As configured.
        address: String,
        /// What TLS said.
        source: io::Error,
    },
    /// The server is somebody else of our trust domain.
    #[error("the server at {address} is not the CA but {found}")]
    NotTheCa {
        /// As configured.
        address: String,
        /// Who it is.
        found: SpiffeId,
    },
    /// It took too long.
    #[error("the CA gave no answer within {DEADLINE:?}")]
    Timeout,
    /// The CA said no.
    #[error("the CA refused: {0}")]
    Refused(client::Error),
    /// The exchange broke.
    #[error("{0}")]
    Exchange(client::Error),
    /// The answer is no certificate for our key.
    #[error("the CA's answer is refused: {0}")]
    Svid(#[from] svid::Error),
    /// The answer is for somebody else.
    #[error("the CA's answer is refused: it is a certificate for {found}, not for {expected}")]
    WrongId {
        /// Who we are.
        expected: SpiffeId,
        /// Whom the certificate names.
        found: SpiffeId,
    },
    /// The answer's chain would convince no peer.
    #[error("the CA's answer is refused: {0}")]
    Unverified(#[from] verify::Error),
    /// The answer's lifetime makes no sense.
    #[error("the CA's answer is refused: its lifetime of {0:?} makes no sense")]
    Lifetime(Duration),
    /// The bundle is older than the one held.
    #[error("the CA's bundle is refused: its sequence {found} is lower than {held}")]
    BundleOlder {
        /// What is held.
        held: u64,
        /// What came.
        found: u64,
    },
    /// The bundle differs from the one held but has its sequence.
    #[error("the CA's bundle is refused: it differs from the one held, but both have the sequence {0}")]
    BundleForked(u64),
    /// The bundle does not vouch for the CA itself.
    #[error("the CA's bundle is refused: it does not vouch for the CA itself")]
    BundleWithoutCa,
    /// The join token is for another trust domain.
    #[error("the join token is for {found}, but our trust domain is {expected}")]
    TokenDomain {
        /// Ours.
        expected: TrustDomain,
        /// The token's ID.
        found: SpiffeId,
    },
    /// There is no usable join token.
    #[error("no certificate and no join token: {0}")]
    NoToken(String),
    /// No key could be made.
    #[error(transparent)]
    Key(#[from] request::Error),
    /// No TLS configuration could be made.
    #[error(transparent)]
    Tls(#[from] tls_configs::Error),
    /// Nothing can be kept, so no join token is spent.
    #[error("{0}")]
    Store(#[from] store::Error),
}

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Self {
        match error {
            refused @ client::Error::Rejected { .. } => Self::Refused(refused),
            broken
            @ (client::Error::Transport(_) | client::Error::Deadline | client::Error::BadAnswer(_)) => {
                Self::Exchange(broken)
            }
        }
    }
}

/// What a certificate is asked for with.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) validity: Duration,
    pub(super) store: &'a Store,
}

/// The way to the CA.
#[derive(Debug)]
pub(super) struct Exchange<N> {
    pub(super) net: N,
    /// `host:port`.
    pub(super) address: String,
    pub(super) trust_domain: TrustDomain,
    pub(super) tls: TlsBase,
    pub(super) clock: Clock,
}

/// Whom a certificate is asked for, and by what proof; without a token the connection's certificate is the proof.
struct Ask<'a> {
    id: &'a SpiffeId,
    token: Option<&'a JoinToken>,
    bundle_sequence: u64,
}

/// A certificate and the bundle that vouches for it.
pub(super) type Obtained = (X509Svid, TrustBundle);

impl<N: Net> Exchange<N> {
    /// First contact: the token proves us to the CA, and the root's hash in it proves the CA to us.
    ///
    /// The bundle comes first and the key is written before the token is spent: what can fail shall fail while the
    /// token is still good.
    pub(super) async fn join(&self, token: &JoinToken, wish: &Wish<'_>) -> Result<Obtained, Error> {
        let id = token.spiffe_id();
        if *id.trust_domain() != self.trust_domain {
            return Err(Error::TokenDomain { expected: self.trust_domain.clone(), found: id.clone() });
        }
        let pin = token.root_spki_sha256();
        let verifier = Arc::new(PinnedRootVerifier::new(pin, self.ca_id()));
        let config = Arc::new(self.tls.client_with(verifier, None, &[ALPN_STANDARD_H2])?);
        let bundle = within(self.bundle(&config, 0)).await?.0;
        if !bundle.roots().iter().any(|root| spki_sha256(root).is_ok_and(|hash| hash == pin)) {
            return Err(Error::BundleWithoutCa);
        }
        let ask = Ask { id, token: Some(token), bundle_sequence: bundle.sequence() };
        let (key, issued) = self.issue(&config, wish, &ask).await?;
        let newest = newer(&bundle, issued.bundle);
        let svid = self.accept(issued.chain, &key, id, &newest)?;
        Ok((svid, newest))
    }

    /// Renewal: the certificate that is still valid proves us, with a new key.
    pub(super) async fn renew(
        &self,
        held: &X509Svid,
        bundle: &TrustBundle,
        wish: &Wish<'_>,
    ) -> Result<Obtained, Error> {
        let config = self.own(held, bundle)?;
        let ask = Ask { id: held.id(), token: None, bundle_sequence: bundle.sequence() };
        let (key, issued) = self.issue(&config, wish, &ask).await?;
        // A bundle of a wrong kind is not the certificate's fault: the next look at the bundle reports it.
        let newest = newer(bundle, issued.bundle);
        let svid = self.accept(issued.chain, &key, held.id(), &newest)?;
        Ok((svid, newest))
    }

    /// The newest bundle, if it differs from the one held. Looking is also the acknowledgement of the one held.
    pub(super) async fn refresh(
        &self,
        svid: &X509Svid,
        held: &TrustBundle,
    ) -> Result<Option<TrustBundle>, Error> {
        let config = self.own(svid, held)?;
        let (found, ca) = within(self.bundle(&config, held.sequence())).await?;
        if found.roots() == held.roots() && found.sequence() == held.sequence() {
            return Ok(None);
        }
        if found.sequence() < held.sequence() {
            return Err(Error::BundleOlder { held: held.sequence(), found: found.sequence() });
        }
        // 0 means that the publisher does not count.
        if found.sequence() == held.sequence() && found.sequence() != 0 {
            return Err(Error::BundleForked(found.sequence()));
        }
        // A bundle that does not vouch for the CA would be the last we could ever fetch.
        let bundles = TrustBundles::single(found.clone());
        verify::peer(&ca, &bundles, Role::Server, self.clock.wall())
            .map_err(|_why| Error::BundleWithoutCa)?;
        Ok(Some(found))
    }

    /// Whether peers that hold `bundle` would believe `svid` now.
    pub(super) fn vouches(&self, bundle: &TrustBundle, svid: &X509Svid) -> Result<(), verify::Error> {
        let bundles = TrustBundles::single(bundle.clone());
        let now = self.clock.wall();
        verify::peer(svid.chain(), &bundles, Role::Server, now)?;
        verify::peer(svid.chain(), &bundles, Role::Client, now).map(drop)
    }

    fn ca_id(&self) -> SpiffeId {
        ca_spiffe_id(&self.trust_domain)
    }

    /// TLS with our certificate and the bundle held.
    fn own(&self, svid: &X509Svid, bundle: &TrustBundle) -> Result<Arc<ClientConfig>, Error> {
        let verifier = SpiffeServerVerifier::new(Arc::new(TrustBundles::single(bundle.clone())));
        Ok(Arc::new(self.tls.client_with(Arc::new(verifier), Some(svid), &[ALPN_STANDARD_H2])?))
    }

    async fn issue(
        &self,
        config: &Arc<ClientConfig>,
        wish: &Wish<'_>,
        ask: &Ask<'_>,
    ) -> Result<(KeyPairAndCsr, IssuedChain), Error> {
        let (stream, _ca) = within(self.connect(config)).await?;
        let key = KeyPairAndCsr::generate(ask.id)?;
        wish.store.keep_next_key(&pem::encode_key(key.key()))?;
        let bearer = ask.token.map(JoinToken::bearer);
        let request = SvidRequest {
            csr_pem: key.csr_pem(),
            validity: Some(wish.validity),
            bearer: bearer.as_ref().map(|text| text.as_str()),
            bundle_sequence: ask.bundle_sequence,
        };
        // Bounded by the client library (15 s); cut off sooner, an answer on its way would cost the token.
        let issued = Box::pin(client::request_svid(stream, request)).await?;
        Ok((key, issued))
    }

    async fn bundle(
        &self,
        config: &Arc<ClientConfig>,
        sequence: u64,
    ) -> Result<(TrustBundle, Vec<CertificateDer<'static>>), Error> {
        let (stream, ca) = self.connect(config).await?;
        let found = Box::pin(client::fetch_bundle(stream, self.trust_domain.clone(), sequence)).await?;
        Ok((found, ca))
    }

    /// A connection whose other end is the CA, and the chain that shows it.
    async fn connect(
        &self,
        config: &Arc<ClientConfig>,
    ) -> Result<(TlsStream<N::Stream>, Vec<CertificateDer<'static>>), Error> {
        let address = || self.address.clone();
        let (tcp, peer) = self.reach().await?;
        // Not sent (no SNI) and not compared: who the server is follows from its SPIFFE ID.
        let name = ServerName::from(peer.ip());
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name, tcp)
            .await
            .map_err(|source| Error::Handshake { address: address(), source })?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let found = verify::peer_of_verified(&chain)?.id().clone();
        if found != self.ca_id() {
            return Err(Error::NotTheCa { address: address(), found });
        }
        Ok((stream, chain))
    }

    async fn reach(&self) -> Result<(N::Stream, SocketAddr), Error> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in self.resolve().await?.into_iter().take(MAX_ADDRESSES) {
            match self.net.connect(address, Purpose::Any, CONNECT_TIMEOUT).await {
                Ok(stream) => return Ok((stream, address)),
                Err(error) => last = error,
            }
        }
        Err(Error::Connect { address: self.address.clone(), source: last })
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, Error> {
        if let Ok(address) = self.address.parse() {
            return Ok(vec![address]);
        }
        let found = tokio::net::lookup_host(&self.address).await;
        let found = found.map_err(|source| Error::Resolve { address: self.address.clone(), source })?;
        Ok(found.collect())
    }

    /// Lets an answer through only if it is ours and peers will believe it.
    fn accept(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: &KeyPairAndCsr,
        expected: &SpiffeId,
        bundle: &TrustBundle,
    ) -> Result<X509Svid, Error> {
        let svid = X509Svid::from_parts(chain, key.key().clone_key())?;
        if svid.id() != expected {
            return Err(Error::WrongId { expected: expected.clone(), found: svid.id().clone() });
        }
        self.vouches(bundle, &svid)?;
        let lifetime = lifetime(&svid);
        if lifetime.is_zero() || lifetime > MAX_LIFETIME {
            return Err(Error::Lifetime(lifetime));
        }
        Ok(svid)
    }
}

fn lifetime(svid: &X509Svid) -> Duration {
    let (from, to): (SystemTime, SystemTime) = (svid.not_before(), svid.not_after());
    to.duration_since(from).unwrap_or_default()
}

/// The bundle that came along with a certificate, if it is newer than the one held.
fn newer(held: &TrustBundle, found: Option<TrustBundle>) -> TrustBundle {
    found.filter(|found| found.sequence() > held.sequence()).unwrap_or_else(|| held.clone())
}

async fn within<T>(exchange: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(DEADLINE, Box::pin(exchange)).await.unwrap_or(Err(Error::Timeout))
}
