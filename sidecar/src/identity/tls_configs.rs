//! Makes the rustls configurations of an identity: one per kind of connection, all equally strict.
//!
//! # Invariants
//! - TLS 1.3 and nothing below, by explicit version, not by a missing cargo feature.
//! - In the mesh, both sides show a certificate, always.
//! - No resumption, tickets, session storage or early data: trust is checked on every connection, and an expired or
//!   untrusted certificate cannot live on in a ticket.
//! - No SNI in the mesh: whom we call is not told to the network. Servers outside need it.
//! - Only the configured suites and groups, in the configured order.

use std::sync::Arc;

use outrider_certs::{
    rustls_verify::{ClientAuth, SpiffeClientVerifier, SpiffeServerVerifier},
    svid::X509Svid,
    trust_bundle::TrustBundles,
};
use rustls::{
    CipherSuite, ClientConfig, NamedGroup, ServerConfig,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    server::NoServerSessionStorage,
    version::TLS13,
};

use crate::{
    clock::Clock,
    model::{
        identity::TlsConfigs,
        settings::TlsSettings,
        wire::{ALPN_H1, ALPN_H2, ALPN_STANDARD_H1, ALPN_STANDARD_H2, ALPN_TCP},
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
            server_outrider: server(&[ALPN_H2, ALPN_H1, ALPN_TCP])?,
            server_standard_http: server(&[ALPN_STANDARD_H2, ALPN_STANDARD_H1])?,
            server_standard_tcp: server(&[])?,
            client_outrider_h2: client(&[ALPN_H2])?,
            client_outrider_h1: client(&[ALPN_H1])?,
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

    fn client(
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

    /// A configuration for calling a server outside the mesh, which `verifier` judges by its name. Names go out as SNI.
    ///
    /// # Errors
    /// [`Error::Rustls`] when key or certificate cannot be used.
    pub fn public(
        &self,
        verifier: Arc<WebPkiServerVerifier>,
        client: Option<(Vec<CertificateDer<'static>>, PrivatePkcs8KeyDer<'static>)>,
        alpn: &[&[u8]],
    ) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_details(self.provider(), self.time())
            .with_protocol_versions(&[&TLS13])?
            .with_webpki_verifier(verifier);
        let mut config = match client {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key.into())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = owned(alpn);
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok(config)
    }

    /// The restricted provider.
    #[must_use]
    pub fn provider(&self) -> Arc<CryptoProvider> {
        Arc::clone(&self.provider)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::{
        CertificateError, ClientConnection, ConnectionCommon, ProtocolVersion, ServerConnection,
        pki_types::ServerName,
    };

    use super::*;
    use crate::identity::testing::{DAY, ORDERS, Root, bundle, epoch, id, tls_settings};

    fn configs(root: &Root, trusted: &[&Root], settings: &TlsSettings) -> TlsConfigs {
        let bundles = Arc::new(TrustBundles::single(bundle(trusted, 1)));
        let clock = Clock::simulated(epoch(), 7);
        TlsBase::new(settings, &clock).unwrap().configs(&root.day_svid(ORDERS), &bundles).unwrap()
    }

    /// Moves bytes both ways until both are at rest.
    fn shake(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), rustls::Error> {
        for _ in 0..10 {
            carry(client, server)?;
            carry(server, client)?;
        }
        Ok(())
    }

    fn carry<A, B>(
        from: &mut ConnectionCommon<A>,
        to: &mut ConnectionCommon<B>,
    ) -> Result<(), rustls::Error> {
        let mut wire = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            to.read_tls(&mut rest).unwrap();
            to.process_new_packets()?;
        }
        Ok(())
    }

    fn pair(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> (ClientConnection, ServerConnection) {
        let name = ServerName::from(std::net::IpAddr::from([10, 0, 0, 2]));
        let client = ClientConnection::new(Arc::clone(client), name).unwrap();
        (client, ServerConnection::new(Arc::clone(server)).unwrap())
    }

    #[test]
    fn a_handshake_is_tls_13_post_quantum_mutual_and_leaves_no_ticket() {
        let root = Root::new("root");
        let tls = configs(&root, &[&root], &tls_settings());
        let (mut client, mut server) = pair(&tls.client_outrider_h2, &tls.server_outrider);
        shake(&mut client, &mut server).unwrap();
        assert!(!client.is_handshaking() && !server.is_handshaking());
        assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        let group = server.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, NamedGroup::X25519MLKEM768);
        let suite = server.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(server.alpn_protocol(), Some(ALPN_H2));
        assert_eq!(server.server_name(), None, "no SNI");
        assert!(server.peer_certificates().is_some() && client.peer_certificates().is_some());
        assert_eq!(client.tls13_tickets_received(), 0);
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        // A second connection finds nothing to resume.
        let (mut client, mut server) = pair(&tls.client_outrider_h2, &tls.server_outrider);
        shake(&mut client, &mut server).unwrap();
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }

    #[test]
    fn each_kind_speaks_its_own_protocols() {
        let root = Root::new("root");
        let tls = configs(&root, &[&root], &tls_settings());
        let agreed = |client: &Arc<ClientConfig>, server: &Arc<ServerConfig>| {
            let (mut client, mut server) = pair(client, server);
            shake(&mut client, &mut server).map(|()| client.alpn_protocol().map(<[u8]>::to_vec))
        };
        let tcp = agreed(&tls.client_outrider_tcp, &tls.server_outrider).unwrap();
        assert_eq!(tcp.as_deref(), Some(ALPN_TCP));
        let h1 = agreed(&tls.client_outrider_h1, &tls.server_outrider).unwrap();
        assert_eq!(h1.as_deref(), Some(ALPN_H1));
        let h2 = agreed(&tls.client_standard_h2, &tls.server_standard_http).unwrap();
        assert_eq!(h2.as_deref(), Some(ALPN_STANDARD_H2));
        let h1 = agreed(&tls.client_standard_h1, &tls.server_standard_http).unwrap();
        assert_eq!(h1.as_deref(), Some(ALPN_STANDARD_H1));
        let raw = agreed(&tls.client_standard_tcp, &tls.server_standard_tcp).unwrap();
        assert_eq!(raw, None);
        let mixed = agreed(&tls.client_standard_h2, &tls.server_outrider);
        assert!(mixed.is_err(), "a standard peer does not pass for a sidecar");
    }

    #[test]
    fn a_foreign_root_is_refused_on_both_sides() {
        let (ours, theirs) = (Root::new("ours"), Root::new("theirs"));
        let settings = tls_settings();
        let tls = configs(&ours, &[&ours], &settings);
        // It trusts us, but we do not know its root.
        let stranger = configs(&theirs, &[&ours], &settings);
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let (mut client, mut server) = pair(&stranger.client_outrider_h2, &tls.server_outrider);
        assert_eq!(shake(&mut client, &mut server), Err(unknown.clone()));
        let (mut client, mut server) = pair(&tls.client_outrider_h2, &stranger.server_outrider);
        assert_eq!(shake(&mut client, &mut server), Err(unknown));
    }

    #[test]
    fn a_peer_without_a_certificate_is_refused() {
        let root = Root::new("root");
        let tls = configs(&root, &[&root], &tls_settings());
        let base = TlsBase::new(&tls_settings(), &Clock::simulated(epoch(), 7)).unwrap();
        let bundles = Arc::new(TrustBundles::single(bundle(&[&root], 1)));
        let verifier = Arc::new(SpiffeServerVerifier::new(bundles));
        let bare = Arc::new(base.client_with(verifier, None, &[ALPN_H2]).unwrap());
        let (mut client, mut server) = pair(&bare, &tls.server_outrider);
        assert_eq!(shake(&mut client, &mut server), Err(rustls::Error::NoCertificatesPresented));
    }

    #[test]
    fn expiry_is_judged_by_the_clock_handed_in() {
        let root = Root::new("root");
        let bundles = Arc::new(TrustBundles::single(bundle(&[&root], 1)));
        let later = Clock::simulated(epoch() + DAY + Duration::from_secs(1), 7);
        let tls =
            TlsBase::new(&tls_settings(), &later).unwrap().configs(&root.day_svid(ORDERS), &bundles).unwrap();
        let (mut client, mut server) = pair(&tls.client_outrider_h2, &tls.server_outrider);
        let refused = shake(&mut client, &mut server).unwrap_err();
        assert!(
            matches!(refused, rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn only_the_configured_suites_and_groups_are_offered() {
        let root = Root::new("root");
        let narrow = TlsSettings {
            cipher_suites: vec![CipherSuite::TLS13_CHACHA20_POLY1305_SHA256],
            key_exchange: vec![NamedGroup::secp256r1],
        };
        let tls = configs(&root, &[&root], &narrow);
        let (mut client, mut server) = pair(&tls.client_outrider_h2, &tls.server_outrider);
        shake(&mut client, &mut server).unwrap();
        assert_eq!(server.negotiated_key_exchange_group().unwrap().name(), NamedGroup::secp256r1);
        let suite = server.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
        let wide = configs(&root, &[&root], &tls_settings());
        let (mut client, mut server) = pair(&wide.client_outrider_h2, &tls.server_outrider);
        assert!(shake(&mut client, &mut server).is_err(), "nothing in common");
    }

    #[test]
    fn names_that_are_not_available_are_refused() {
        let clock = Clock::simulated(epoch(), 7);
        let with = |cipher_suites: &[CipherSuite], key_exchange: &[NamedGroup]| {
            let settings =
                TlsSettings { cipher_suites: cipher_suites.to_vec(), key_exchange: key_exchange.to_vec() };
            TlsBase::new(&settings, &clock).map(drop)
        };
        let (suite, group) = (CipherSuite::TLS13_AES_128_GCM_SHA256, NamedGroup::X25519);
        let old = CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
        assert!(with(&[suite], &[group]).is_ok());
        assert!(matches!(with(&[old], &[group]), Err(Error::CipherSuite(found)) if found == old));
        assert!(matches!(with(&[suite], &[NamedGroup::FFDHE2048]), Err(Error::KeyExchange(_))));
        assert!(matches!(with(&[], &[group]), Err(Error::Nothing)));
        assert!(matches!(with(&[suite], &[]), Err(Error::Nothing)));
    }

    #[test]
    fn the_certificate_shown_is_ours() {
        let root = Root::new("root");
        let tls = configs(&root, &[&root], &tls_settings());
        let (mut client, mut server) = pair(&tls.client_standard_tcp, &tls.server_standard_tcp);
        shake(&mut client, &mut server).unwrap();
        let shown = server.peer_certificates().unwrap();
        let peer = outrider_certs::verify::peer_of_verified(shown).unwrap();
        assert_eq!(*peer.id(), id(ORDERS));
    }
}
