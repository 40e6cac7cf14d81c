//! An X.509-SVID: a certificate chain, its private key, and the one SPIFFE ID
//! it stands for.
//!
//! Implements X509-SVID §2 to §4 for one's own identity: what
//! [`X509Svid::from_parts`] lets through is a leaf that peers who hold the
//! bundle will accept. Whether the chain leads to a root is theirs to say.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::certificate::{Leaf, LeafError};
use crate::pem;
use crate::spiffe_id::SpiffeId;

/// Most certificates of a chain, the leaf included. Three are usual.
pub const MAX_CHAIN: usize = 8;

/// Why a chain and a key are no SVID.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The chain holds no certificate.
    #[error("there is no certificate in it")]
    Empty,
    /// The chain holds more than [`MAX_CHAIN`] certificates.
    #[error("the chain has more than {MAX_CHAIN} certificates")]
    TooLong,
    /// The text is not PEM, or holds no private key.
    #[error("it cannot be read as PEM: {0}")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// The first certificate is no SVID leaf.
    #[error("the first certificate cannot be used: {0}")]
    Leaf(#[from] LeafError),
    /// The key is of a kind TLS cannot sign with.
    #[error("the private key cannot be used: {0}")]
    Key(rustls::Error),
    /// The key is not the one the leaf was made for.
    #[error("the private key does not belong to the certificate of {0}")]
    KeyMismatch(SpiffeId),
}

/// A SPIFFE identity with its proof. Cheap to clone; `Debug` shows no key.
#[derive(Clone)]
pub struct X509Svid(Arc<Inner>);

struct Inner {
    leaf: Leaf,
    chain: Vec<CertificateDer<'static>>,
    key: KeyBytes,
}

/// A private key whose memory is wiped when it goes.
struct KeyBytes(PrivateKeyDer<'static>);

impl Drop for KeyBytes {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.0.zeroize();
    }
}

impl X509Svid {
    /// Puts a chain (leaf first) and the leaf's private key together.
    ///
    /// # Errors
    /// When the leaf breaks a rule of X509-SVID §2, §4 or §5.2, when the key
    /// is not the leaf's, or when the chain is empty or longer than
    /// [`MAX_CHAIN`]. Validity is not checked: the holder of an expired SVID
    /// has to be able to read it.
    pub fn from_parts(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, Error> {
        let key = KeyBytes(key);
        if chain.len() > MAX_CHAIN {
            return Err(Error::TooLong);
        }
        let leaf = Leaf::read(chain.first().ok_or(Error::Empty)?)?;
        let signer = any_supported_type(&key.0).map_err(Error::Key)?;
        let public_key = signer.public_key();
        if public_key.is_none_or(|spki| spki.as_ref() != leaf.spki.as_slice()) {
            return Err(Error::KeyMismatch(leaf.id));
        }
        Ok(Self(Arc::new(Inner { leaf, chain, key })))
    }

    /// Reads chain and key from PEM. Text around the sections is ignored.
    ///
    /// # Errors
    /// As [`X509Svid::from_parts`], and when either is not PEM.
    pub fn from_pem(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, Error> {
        // One more than allowed, so that a long file is refused, not cut.
        let chain =
            CertificateDer::pem_slice_iter(chain_pem).take(MAX_CHAIN + 1).collect::<Result<Vec<_>, _>>()?;
        Self::from_parts(chain, PrivateKeyDer::from_pem_slice(key_pem)?)
    }

    /// Who this SVID is for.
    pub fn id(&self) -> &SpiffeId {
        &self.0.leaf.id
    }

    /// The certificates, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.chain
    }

    /// The leaf's private key.
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.0.key.0
    }

    /// The first moment of the leaf's validity.
    pub fn not_before(&self) -> SystemTime {
        self.0.leaf.validity.not_before
    }

    /// The last moment of the leaf's validity.
    pub fn not_after(&self) -> SystemTime {
        self.0.leaf.validity.not_after
    }

    /// The chain in PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        self.0.chain.iter().map(|der| pem::encode("CERTIFICATE", der)).collect()
    }

    /// The private key in PEM. The text is wiped when it is dropped.
    pub fn key_pem(&self) -> Zeroizing<String> {
        pem::encode_key(self.key())
    }
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("id", self.id())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
