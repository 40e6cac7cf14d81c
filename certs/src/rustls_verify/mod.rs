//! The SPIFFE rules as verifiers for rustls.
//!
//! Each takes the wall time rustls hands in, so a `TimeProvider` in the TLS
//! config decides what is expired. Names are never compared: who a server is
//! follows from its SPIFFE ID, which the caller compares after the handshake
//! with [`peer_of_verified`](crate::verify::peer_of_verified).
//!
//! A refusal becomes the rustls error whose alert fits (expired, unknown CA);
//! where rustls has none, our cause travels inside, see [`cause`].

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certificate::{parse, spki_sha256};
use crate::spiffe_id::SpiffeId;
use crate::svid::MAX_CHAIN;
use crate::trust_bundle::{TrustBundle, TrustBundles};
use crate::verify::{self, Role, Trust};

/// The one cryptography provider: aws-lc-rs, X25519MLKEM768 first.
///
/// To be handed to `builder_with_provider`, so that nothing depends on a
/// process-wide default.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Our cause inside a rustls error, where rustls has no kind of its own for it.
pub fn cause(error: &rustls::Error) -> Option<&verify::Error> {
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = error else {
        return None;
    };
    inner.downcast_ref()
}

/// Verifies servers: any workload of the trusted domains passes.
#[derive(Debug)]
pub struct SpiffeServerVerifier {
    bundles: Arc<TrustBundles>,
    signatures: Signatures,
}

impl SpiffeServerVerifier {
    /// Trusts `bundles`, as they are now: a new bundle needs a new verifier,
    /// which also keeps sessions of the old trust from being resumed.
    pub fn new(bundles: Arc<TrustBundles>) -> Self {
        Self { bundles, signatures: Signatures::new() }
    }
}

/// Whether a server asks for a client certificate or insists on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Without one the handshake fails.
    Required,
    /// A client may come without; one that is shown must be valid.
    Optional,
}

/// Verifies clients: any workload of the trusted domains passes.
#[derive(Debug)]
pub struct SpiffeClientVerifier {
    bundles: Arc<TrustBundles>,
    auth: ClientAuth,
    signatures: Signatures,
}

impl SpiffeClientVerifier {
    /// Trusts `bundles`, as they are now.
    pub fn new(bundles: Arc<TrustBundles>, auth: ClientAuth) -> Self {
        Self { bundles, auth, signatures: Signatures::new() }
    }
}

/// Verifies one server by the hash of its root's key: first contact, when a
/// join token is all that is known.
///
/// The server must send its root along. Of what it sends, exactly a
/// self-signed CA certificate with the pinned key is trusted, and only for a
/// leaf with the expected SPIFFE ID.
#[derive(Debug)]
pub struct PinnedRootVerifier {
    spki_sha256: [u8; 32],
    expected: SpiffeId,
    signatures: Signatures,
}

impl PinnedRootVerifier {
    /// `spki_sha256` is the SHA-256 of the root's SubjectPublicKeyInfo.
    pub fn new(spki_sha256: [u8; 32], expected: SpiffeId) -> Self {
        Self { spki_sha256, expected, signatures: Signatures::new() }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<(), rustls::Error> {
        if others.len() >= MAX_CHAIN {
            return Err(to_rustls(verify::Error::ChainTooLong));
        }
        let is_pinned = |der: &&CertificateDer<'_>| {
            spki_sha256(der).is_ok_and(|hash| hash == self.spki_sha256)
                && parse(der).is_ok_and(|root| root.verify_signature(None).is_ok())
        };
        let unknown_issuer = || rustls::Error::from(CertificateError::UnknownIssuer);
        let root = others.iter().find(is_pinned).ok_or_else(unknown_issuer)?;
        let trust_domain = self.expected.trust_domain().clone();
        let bundle = TrustBundle::new(trust_domain, vec![root.clone().into_owned()], 0, None)
            .map_err(|e| other(Arc::new(e)))?;
        let bundles = TrustBundles::single(bundle);
        let trust = Trust { bundles: &bundles, role: Role::Server, now };
        let peer = verify::presented(leaf, others, &trust).map_err(to_rustls)?;
        if *peer.id() == self.expected {
            return Ok(());
        }
        Err(other(Arc::new(UnexpectedId { expected: self.expected.clone(), found: peer.id().clone() })))
    }
}

/// The server is somebody else than the one that was asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("expected {expected}, but the server is {found}")]
pub struct UnexpectedId {
    /// Who was asked for.
    pub expected: SpiffeId,
    /// Who answered.
    pub found: SpiffeId,
}

/// Checks the signatures of TLS 1.3 handshakes, with the provider's algorithms.
#[derive(Debug)]
struct Signatures(WebPkiSupportedAlgorithms);

impl Signatures {
    fn new() -> Self {
        Self(aws_lc_rs::default_provider().signature_verification_algorithms)
    }
}

/// The part in which all verifiers are the same.
macro_rules! handshake_signatures {
    () => {
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
            verify_tls13_signature(message, cert, dss, &self.signatures.0)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.signatures.0.supported_schemes()
        }
    };
}

impl ServerCertVerifier for SpiffeServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let trust = Trust { bundles: &self.bundles, role: Role::Server, now: wall_time(now) };
        verify::presented(end_entity, intermediates, &trust).map_err(to_rustls)?;
        Ok(ServerCertVerified::assertion())
    }

    handshake_signatures!();
}

impl ServerCertVerifier for PinnedRootVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, wall_time(now))?;
        Ok(ServerCertVerified::assertion())
    }

    handshake_signatures!();
}

impl ClientCertVerifier for SpiffeClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.auth == ClientAuth::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A workload has one SVID; a hint would only tell strangers our roots.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let trust = Trust { bundles: &self.bundles, role: Role::Client, now: wall_time(now) };
        verify::presented(end_entity, intermediates, &trust).map_err(to_rustls)?;
        Ok(ClientCertVerified::assertion())
    }

    handshake_signatures!();
}

fn wall_time(now: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs())
}

fn unix_time(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn other(cause: Arc<dyn std::error::Error + Send + Sync>) -> rustls::Error {
    CertificateError::Other(OtherError(cause)).into()
}

/// The rustls error that makes the fitting alert go out.
fn to_rustls(error: verify::Error) -> rustls::Error {
    use verify::Error as E;
    match error {
        E::Empty => rustls::Error::NoCertificatesPresented,
        E::Expired { not_after, now, .. } => {
            CertificateError::ExpiredContext { time: unix_time(now), not_after: unix_time(not_after) }.into()
        }
        E::NotValidYet { not_before, now, .. } => {
            CertificateError::NotValidYetContext { time: unix_time(now), not_before: unix_time(not_before) }
                .into()
        }
        E::UnknownIssuer { .. } => CertificateError::UnknownIssuer.into(),
        kept @ (E::ChainTooLong
        | E::Leaf(_)
        | E::Purpose { .. }
        | E::UnknownTrustDomain { .. }
        | E::NoValidRoot { .. }
        | E::Chain { .. }) => other(Arc::new(kept)),
    }
}

#[cfg(test)]
mod tests;
