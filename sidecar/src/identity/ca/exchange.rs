//! One exchange with the CA: connect, verify that it is the CA, ask, and doubt the answer.
//!
//! What comes back is used only if it is what was asked for: the CA may be down, slow, broken, or not the CA.

use std::{
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use outrider_certs::{
    certificate::spki_sha256,
    client::{self, IssuedChain, SvidRequest},
    join_token::{JoinToken, ca_spiffe_id},
    pem,
    request::KeyPairAndCsr,
    rustls_verify::{PinnedRootVerifier, SpiffeServerVerifier},
    spiffe_id::{SpiffeId, TrustDomain},
    svid::X509Svid,
    trust_bundle::{TrustBundle, TrustBundles},
    verify::{self, Role},
};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    super::{reach, store::Store, tls_configs::TlsBase},
    error::Error,
};
use crate::{clock::Clock, model::wire::ALPN_STANDARD_H2, net::Net};

/// One exchange, from the name look-up to the last byte; for a certificate, to the end of the handshake.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// Longest lifetime that is believed: the longest that can be asked for, with some room for backdating.
const MAX_LIFETIME: Duration = Duration::from_secs(91 * 24 * 3600);

/// What a certificate is asked for with.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) validity: Duration,
    /// Where the key is kept before it is sent for; `None`: nowhere.
    pub(super) store: Option<&'a Store>,
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

/// Whom a certificate is asked for, if that is known, and by what proof; without a bearer the connection's certificate is
/// the proof.
struct Ask<'a> {
    id: Option<&'a SpiffeId>,
    bearer: Option<&'a str>,
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
        let bearer = token.bearer();
        let ask = Ask { id: Some(id), bearer: Some(bearer.as_str()), bundle_sequence: bundle.sequence() };
        let (key, issued, _ca) = self.issue(&config, wish, &ask).await?;
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
        let ask = Ask { id: Some(held.id()), bearer: None, bundle_sequence: bundle.sequence() };
        let (key, issued, _ca) = self.issue(&config, wish, &ask).await?;
        // A bundle of a wrong kind is not the certificate's fault: the next look at the bundle reports it.
        let newest = newer(bundle, issued.bundle);
        let svid = self.accept(issued.chain, &key, held.id(), &newest)?;
        Ok((svid, newest))
    }

    /// By a service account's token, the first certificate and every further one. `roots` are those the CA is known by,
    /// `held` what there is to be renewed: it stays the same workload.
    pub(super) async fn prove(
        &self,
        token: &str,
        roots: &TrustBundle,
        held: Option<(&SpiffeId, u64)>,
        wish: &Wish<'_>,
    ) -> Result<Obtained, Error> {
        let config = self.anonymous(roots)?;
        let (id, bundle_sequence) = held.map_or((None, 0), |(id, sequence)| (Some(id), sequence));
        let ask = Ask { id, bearer: Some(token), bundle_sequence };
        let (key, issued, mut ca) = self.issue(&config, wish, &ask).await?;
        let bundle = match issued.bundle {
            Some(bundle) => bundle,
            None => {
                let (bundle, chain) = within(self.bundle(&config, bundle_sequence)).await?;
                ca = chain;
                bundle
            }
        };
        self.vouches_for_ca(&bundle, &ca)?;
        let svid = X509Svid::from_parts(issued.chain, key.key().clone_key())?;
        if svid.id().trust_domain() != &self.trust_domain {
            let (expected, found) = (self.trust_domain.id(), svid.id().clone());
            return Err(Error::WrongId { expected, found });
        }
        let expected = id.unwrap_or(svid.id()).clone();
        let svid = self.believe(svid, &expected, &bundle)?;
        Ok((svid, bundle))
    }

    /// The newest bundle, if it differs from the one held. Looking is also the acknowledgement of the one held. The CA is
    /// known by `roots`.
    pub(super) async fn refresh(
        &self,
        svid: &X509Svid,
        held: &TrustBundle,
        roots: &TrustBundle,
    ) -> Result<Option<TrustBundle>, Error> {
        let config = self.own(svid, roots)?;
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
        self.vouches_for_ca(&found, &ca)?;
        Ok(Some(found))
    }

    fn vouches_for_ca(&self, bundle: &TrustBundle, ca: &[CertificateDer<'static>]) -> Result<(), Error> {
        let bundles = TrustBundles::single(bundle.clone());
        let vouched = verify::peer(ca, &bundles, Role::Server, self.clock.wall());
        vouched.map(drop).map_err(|_why| Error::BundleWithoutCa)
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

    /// TLS without a certificate of ours, to a CA that is known by these roots.
    fn anonymous(&self, roots: &TrustBundle) -> Result<Arc<ClientConfig>, Error> {
        let verifier = SpiffeServerVerifier::new(Arc::new(TrustBundles::single(roots.clone())));
        Ok(Arc::new(self.tls.client_with(Arc::new(verifier), None, &[ALPN_STANDARD_H2])?))
    }

    /// A certificate, its key, and the chain of the CA it came from.
    async fn issue(
        &self,
        config: &Arc<ClientConfig>,
        wish: &Wish<'_>,
        ask: &Ask<'_>,
    ) -> Result<(KeyPairAndCsr, IssuedChain, Vec<CertificateDer<'static>>), Error> {
        let (stream, ca) = within(self.connect(config)).await?;
        let key = match ask.id {
            Some(id) => KeyPairAndCsr::generate(id)?,
            None => KeyPairAndCsr::generate_unnamed()?,
        };
        if let Some(store) = wish.store {
            store.keep_next_key(&pem::encode_key(key.key()))?;
        }
        let request = SvidRequest {
            csr_pem: key.csr_pem(),
            validity: Some(wish.validity),
            bearer: ask.bearer,
            bundle_sequence: ask.bundle_sequence,
        };
        // Bounded by the client library (15 s); cut off sooner, an answer on its way would cost the token.
        let issued = Box::pin(client::request_svid(stream, request)).await?;
        Ok((key, issued, ca))
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
        let address = || self.address.clone();
        reach::reach(&self.net, &self.address).await.map_err(|error| match error {
            reach::Error::Resolve(source) => Error::Resolve { address: address(), source },
            reach::Error::Connect(source) => Error::Connect { address: address(), source },
        })
    }

    /// Lets an answer through only if it is ours and peers will believe it.
    fn accept(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: &KeyPairAndCsr,
        expected: &SpiffeId,
        bundle: &TrustBundle,
    ) -> Result<X509Svid, Error> {
        self.believe(X509Svid::from_parts(chain, key.key().clone_key())?, expected, bundle)
    }

    fn believe(&self, svid: X509Svid, expected: &SpiffeId, bundle: &TrustBundle) -> Result<X509Svid, Error> {
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
