//! The CA's own side of TLS: 1.3 only, no resumption, a leaf that renews itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ServerConfig, version};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use tokio_rustls::TlsAcceptor;

use super::issue::{self, ServerSan};
use super::issuer;
use super::refusal::Refusal;
use super::service::States;
use super::state::CaState;
use crate::clock::WallClock;
use crate::rustls_verify::{ClientAuth, SpiffeClientVerifier, provider};
use crate::trust_bundle::TrustBundles;

/// Lifetime of the CA's own leaf; its key is never stored.
const OWN_VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The CA could not sign its own certificate.
    #[error("making the CA's own certificate: {0}")]
    Own(#[from] Refusal),
    /// rustls did not take the settings or the key.
    #[error("setting TLS up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// TLS by the newest state: another root, or another bundle, makes another
/// configuration with the next connection.
pub(super) struct Secure {
    states: States,
    names: Vec<ServerSan>,
    clock: Arc<dyn WallClock>,
    current: Mutex<(Arc<CaState>, TlsAcceptor)>,
}

impl Secure {
    /// # Errors
    /// When the CA cannot make its own certificate.
    pub(super) fn new(
        states: States,
        names: Vec<ServerSan>,
        clock: Arc<dyn WallClock>,
    ) -> Result<Self, Error> {
        let state = Arc::clone(&states.borrow());
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&state, names.clone(), &clock)?));
        Ok(Self { states, names, clock, current: Mutex::new((state, acceptor)) })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let newest = Arc::clone(&self.states.borrow());
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&newest, &current.0) {
            match server_config(&newest, self.names.clone(), &self.clock) {
                Ok(config) => *current = (newest, TlsAcceptor::from(Arc::new(config))),
                // The old root still stands; the next connection tries again.
                Err(error) => tracing::warn!(%error, "the CA's own certificate could not be made anew"),
            }
        }
        current.1.clone()
    }
}

/// Makes the configuration. Client certificates are optional: a workload with
/// a join token has none yet.
fn server_config(
    state: &Arc<CaState>,
    names: Vec<ServerSan>,
    clock: &Arc<dyn WallClock>,
) -> Result<ServerConfig, Error> {
    let bundles = Arc::new(TrustBundles::single(state.bundle().clone()));
    let verifier = SpiffeClientVerifier::new(bundles, ClientAuth::Optional);
    let own = OwnLeaf::new(Arc::clone(state), names, Arc::clone(clock))?;
    let time = Arc::new(WallTime(Arc::clone(clock)));
    let mut config = ServerConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(own));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would outlive the client's certificate unnoticed.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

#[derive(Debug)]
struct WallTime(Arc<dyn WallClock>);

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        let now = self.0.now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(now))
    }
}

/// The leaf of the CA's server, made anew by the first handshake after 60 % of
/// its life: no timer, and right under any clock.
#[derive(Debug)]
struct OwnLeaf {
    state: Arc<CaState>,
    names: Vec<ServerSan>,
    clock: Arc<dyn WallClock>,
    current: Mutex<Current>,
}

#[derive(Clone, Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

impl OwnLeaf {
    fn new(state: Arc<CaState>, names: Vec<ServerSan>, clock: Arc<dyn WallClock>) -> Result<Self, Error> {
        let current = Mutex::new(make(&state, &names, clock.now())?);
        Ok(Self { state, names, clock, current })
    }
}

impl ResolvesServerCert for OwnLeaf {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = self.clock.now();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= current.renew_at {
            match make(&self.state, &self.names, now) {
                Ok(new) => *current = new,
                // The old one still stands for a while; the next handshake tries again.
                Err(error) => tracing::warn!(%error, "the CA's own certificate could not be renewed"),
            }
        }
        Some(Arc::clone(&current.key))
    }
}

fn make(state: &CaState, names: &[ServerSan], now: SystemTime) -> Result<Current, Error> {
    let signing = |e| Error::Own(Refusal::Signing(issue::Error::Signing(e)));
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(signing)?;
    let leaf = issuer::issue_own(state, &pair, names, OWN_VALIDITY, now)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    // The root goes along, for clients that know only the hash of its key.
    let chain = vec![leaf.certificate, state.root().clone()];
    let lifetime = leaf.not_after.duration_since(now).unwrap_or_default();
    let renew_at = now.checked_add(lifetime.mul_f64(0.6)).unwrap_or(now);
    Ok(Current { key: Arc::new(CertifiedKey::new(chain, any_ecdsa_type(&key)?)), renew_at })
}
