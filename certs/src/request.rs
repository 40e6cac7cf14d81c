//! A new key and the request to have it certified.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroize;

use crate::spiffe_id::SpiffeId;

/// Why no key or request could be made.
#[derive(Debug, thiserror::Error)]
#[error("making a key and a certificate request: {0}")]
pub struct Error(#[from] rcgen::Error);

/// A fresh P-256 key and a PKCS#10 request (RFC 2986) for it.
///
/// The request names the SPIFFE ID as its only URI; a CA may take that as a
/// wish but never as proof. `Debug` does not show the key.
pub struct KeyPairAndCsr {
    key: PrivateKeyDer<'static>,
    csr_pem: String,
}

impl KeyPairAndCsr {
    /// Makes a key nobody else has, and the request.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn generate(id: &SpiffeId) -> Result<Self, Error> {
        Self::make(Some(id))
    }

    /// The same without a name: for who learns from the CA what it is called.
    ///
    /// # Errors
    /// As [`KeyPairAndCsr::generate`].
    pub fn generate_unnamed() -> Result<Self, Error> {
        Self::make(None)
    }

    fn make(id: Option<&SpiffeId>) -> Result<Self, Error> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(id) = id {
            params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        }
        let csr_pem = params.serialize_request(&pair)?.pem()?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        Ok(Self { key, csr_pem })
    }

    /// The private key.
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// The request in PEM.
    pub fn csr_pem(&self) -> &str {
        &self.csr_pem
    }
}

impl Drop for KeyPairAndCsr {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl std::fmt::Debug for KeyPairAndCsr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPairAndCsr").finish_non_exhaustive()
    }
}
