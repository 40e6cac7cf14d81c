//! Makes the rustls configurations of an identity: one per kind of connection, all equally strict.
//!
//! # Invariants
//! - TLS 1.3 and nothing below, by explicit version, not by a missing cargo feature.
//! - Both sides show a certificate, always.
//! - No resumption, tickets, session storage or early data: trust is checked on every connection, and an expired or
//!   untrusted certificate cannot live on in a ticket.
//! - No SNI: whom we call is not told to the network.
//! - Only the configured suites and groups, in the configured order.

use std::sync::Arc;

use outrider_certs::{
    rustls_verify::{ClientAuth, SpiffeClientVerifier, SpiffeServerVerifier},
    svid::X509Svid,
    trust_bundle::TrustBundles,
};
use rustls::{
    CipherSuite, ClientConfig, NamedGroup, ServerConfig,
    client::{Resumption, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    server::NoServerSessionStorage,
    version::TLS13,
};

use crate::{
    clock::Clock,
    model::{
        identity::TlsConfigs,
        settings::TlsSettings,
        wire::{ALPN_H2, ALPN_STANDARD_H1, ALPN_STANDARD_H2, ALPN_TCP},
    },
};

/// Why no TLS configuration can be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The provider does not have this cipher suite for TLS 1.3.
    #[error("the cipher suite {0:?} is not available")]
    CipherSuite(CipherSuite),
    /// The provider does not have this key exchange group.
    #[error("the key exchange group {0:?} is not available")]
    KeyExchange(NamedGroup),
    /// Nothing is left to agree on.
    #[error("at least one cipher suite and one key exchange group are needed")]
    Nothing,
    /// rustls does not take the provider, the certificate or the key.
    #[error("the certificate cannot be used for TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// What every configuration shares: algorithms and the clock that certificates are held against. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TlsBase {
    provider: Arc<CryptoProvider>,
    clock: Clock,
}

impl TlsBase {
    /// Restricts the provider to the configured suites and groups, in their order.
    ///
    /// # Errors
    /// When a name is not available, or nothing is named.
    pub fn new(settings: &TlsSettings, clock: &Clock) -> Result<Self, Error> {
        Ok(Self { provider: Arc::new(restricted(settings)?), clock: clock.clone() })
    }

    /// The configurations for one certificate and one set of bundles.
    ///
    /// # Errors
    /// [`Error::Rustls`] when key or certificate cannot be used.
    pub fn configs(&self, svid: &X509Svid, bundles: &Arc<TrustBundles>) -> Result<TlsConfigs, Error> {
        let server = |alpn: &[&[u8]]| self.server(svid, bundles, alpn).map(Arc::new);
        let client = |alpn: &[&[u8]]| self.client(svid, bundles, alpn).map(Arc::new);
        Ok(TlsConfigs {
            server_outrider: server(&[ALPN_H2, ALPN_TCP])?,
            server_standard_http: server(&[ALPN_STANDARD_H2, ALPN_STANDARD_H1])?,
            server_standard_tcp: server(&[])?,
            client_outrider_h2: client(&[ALPN_H2])?,
            client_outrider_tcp: client(&[ALPN_TCP])?,
            client_standard_h2: client(&[ALPN_STANDARD_H2])?,
            client_standard_h1: client(&[ALPN_STANDARD_H1])?,
            client_standard_tcp: client(&[])?,
        })
    }

    fn server(
        &self,
        svid: &X509Svid,
        bundles: &Arc<TrustBundles>,
        alpn: &[&[u8]],
    ) -> Result<ServerConfig, Error> {
        let verifier = SpiffeClientVerifier::new(Arc::clone(bundles), ClientAuth::Required);
        let mut config = ServerConfig::builder_with_details(Arc::clone(&self.provider), self.time())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(svid.chain().to_vec(), svid.key().clone_key())?;
        config.alpn_protocols = owned(alpn);
        config.send_tls13_tickets = 0;
        config.max_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// A configuration for calling peers, or the CA with the certificate that is to be renewed.
    ///
    /// # Errors
    /// [`Error::Rustls`] when key or certificate cannot be used.
    pub fn client(
        &self,
        svid: &X509Svid,
        bundles: &Arc<TrustBundles>,
        alpn: &[&[u8]],
    ) -> Result<ClientConfig, Error> {
        let verifier = Arc::new(SpiffeServerVerifier::new(Arc::clone(bundles)));
        self.client_with(verifier, Some(svid), alpn)
    }

    /// A configuration for calling a server that `verifier` judges; without an SVID no certificate is shown (first
    /// contact with the CA).
    ///
    /// # Errors
    /// [`Error::Rustls`] when key or certificate cannot be used.
    pub fn client_with(
        &self,
        verifier: Arc<dyn ServerCertVerifier>,
        svid: Option<&X509Svid>,
        alpn: &[&[u8]],
    ) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_details(Arc::clone(&self.provider), self.time())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match svid {
            Some(svid) => builder.with_client_auth_cert(svid.chain().to_vec(), svid.key().clone_key())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = owned(alpn);
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config.enable_early_data = false;
        Ok(config)
    }

    fn time(&self) -> Arc<Clock> {
        Arc::new(self.clock.clone())
    }
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.to_vec()).collect()
}

fn restricted(settings: &TlsSettings) -> Result<CryptoProvider, Error> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = settings
        .cipher_suites
        .iter()
        .map(|name| {
            let found = aws_lc_rs::ALL_CIPHER_SUITES.iter().find(|suite| suite.suite() == *name);
            found.filter(|suite| suite.tls13().is_some()).copied().ok_or(Error::CipherSuite(*name))
        })
        .collect::<Result<_, _>>()?;
    provider.kx_groups = settings
        .key_exchange
        .iter()
        .map(|name| {
            let found = aws_lc_rs::ALL_KX_GROUPS.iter().find(|group| group.name() == *name);
            found.copied().ok_or(Error::KeyExchange(*name))
        })
        .collect::<Result<_, _>>()?;
    if provider.cipher_suites.is_empty() || provider.kx_groups.is_empty() {
        return Err(Error::Nothing);
    }
    Ok(provider)
}
