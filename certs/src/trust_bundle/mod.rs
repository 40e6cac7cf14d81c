//! Trust bundles: which roots may vouch for a trust domain.
//!
//! Implements SPIFFE Trust Domain and Bundle §3 and §4. A bundle belongs to
//! one trust domain and holds any number of roots up to [`MAX_ROOTS`], so that
//! a new root can be spread before the old one goes. A bundle without roots is
//! legal and trusts nobody (§4.1.3).
//!
//! [`TrustBundles`] holds several domains' bundles. An ID is always judged by
//! the bundle of its own trust domain; there is no "any root will do".

mod jwks;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::certificate::{self, LeafError, Validity};
use crate::pem;
use crate::spiffe_id::TrustDomain;

/// Most roots of one bundle. Two are usual while a root is being replaced.
pub const MAX_ROOTS: usize = 32;
/// Largest bundle document, PEM or JWKS, in bytes: [`MAX_ROOTS`] roots with
/// RSA-4096 keys in either form fit.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// Longest refresh hint that is believed. A longer one would keep a revoked
/// root trusted for as long.
const MAX_REFRESH_HINT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why something is no trust bundle.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The document has more than [`MAX_DOCUMENT_BYTES`].
    #[error("it is larger than {MAX_DOCUMENT_BYTES} bytes")]
    TooLarge,
    /// More than [`MAX_ROOTS`].
    #[error("it has more than {MAX_ROOTS} roots")]
    TooManyRoots,
    /// A PEM document holds no certificate.
    #[error("there is no certificate in it")]
    Empty,
    /// The text is not PEM.
    #[error("it cannot be read as PEM: {0}")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// The text is not a JWK set with the members of a SPIFFE bundle.
    #[error("it is not a SPIFFE bundle in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// An `x5c` value is not base64 text.
    #[error("key {index}: the certificate is not base64 text")]
    Base64 {
        /// Which key, counted from 0.
        index: usize,
    },
    /// A root is not a certificate.
    #[error("root {index} cannot be read: {source}")]
    Malformed {
        /// Which root, counted from 0.
        index: usize,
        /// What is wrong with it.
        source: LeafError,
    },
    /// A root has no `cA`, or a key usage without keyCertSign (X509-SVID §3.2).
    #[error("root {index} is not a CA certificate; give the root, not a workload's certificate")]
    NotACa {
        /// Which root, counted from 0.
        index: usize,
    },
    /// A root names a SPIFFE ID of another trust domain, or of a workload.
    #[error("root {index} is that of {found}, not of the trust domain {expected}")]
    OtherTrustDomain {
        /// Which root, counted from 0.
        index: usize,
        /// The URI in it.
        found: String,
        /// The domain the bundle was to be for.
        expected: TrustDomain,
    },
    /// A root's key is not RSA, EC (P-256, P-384, P-521) or Ed25519.
    #[error("root {index} has a key of a kind that is not supported")]
    UnsupportedKey {
        /// Which root, counted from 0.
        index: usize,
    },
}

/// The roots of one trust domain. Cheap to clone.
#[derive(Clone)]
pub struct TrustBundle(Arc<Inner>);

struct Inner {
    trust_domain: TrustDomain,
    sequence: u64,
    refresh_hint: Option<Duration>,
    /// As handed in, without doubles.
    roots: Vec<CertificateDer<'static>>,
    /// The same roots, as path building wants them.
    anchors: Vec<Anchor>,
}

/// A root, ready for path building.
struct Anchor {
    anchor: TrustAnchor<'static>,
    validity: Validity,
    key: jwks::PublicKey,
}

impl TrustBundle {
    /// Makes a bundle of roots.
    ///
    /// `sequence` grows with every change of the roots; 0 stands for unknown.
    /// `refresh_hint` tells holders how often to look for a newer bundle; it
    /// is cut to whole seconds, and to 30 days. A root that occurs twice
    /// counts once.
    ///
    /// # Errors
    /// When a root is no CA certificate, is of another trust domain, has a
    /// key of an unsupported kind, or when there are too many.
    pub fn new(
        trust_domain: TrustDomain,
        roots: Vec<CertificateDer<'static>>,
        sequence: u64,
        refresh_hint: Option<Duration>,
    ) -> Result<Self, Error> {
        let mut anchors = Vec::with_capacity(roots.len().min(MAX_ROOTS));
        let mut kept: Vec<CertificateDer<'static>> = Vec::with_capacity(roots.len().min(MAX_ROOTS));
        for (index, root) in roots.into_iter().enumerate() {
            if kept.contains(&root) {
                continue;
            }
            if kept.len() == MAX_ROOTS {
                return Err(Error::TooManyRoots);
            }
            anchors.push(Anchor::read(index, &root, &trust_domain)?);
            kept.push(root);
        }
        let refresh_hint = refresh_hint.map(|hint| Duration::from_secs(hint.min(MAX_REFRESH_HINT).as_secs()));
        Ok(Self(Arc::new(Inner { trust_domain, sequence, refresh_hint, roots: kept, anchors })))
    }

    /// Reads roots from PEM. The sequence number is 0: PEM cannot hold one.
    ///
    /// # Errors
    /// As [`TrustBundle::new`]; also when there is no certificate, or when
    /// the text is not PEM or too large.
    pub fn from_pem(trust_domain: TrustDomain, text: &[u8]) -> Result<Self, Error> {
        if text.len() > MAX_DOCUMENT_BYTES {
            return Err(Error::TooLarge);
        }
        let roots = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>()?;
        if roots.is_empty() {
            return Err(Error::Empty);
        }
        Self::new(trust_domain, roots, 0, None)
    }

    /// The roots in PEM.
    pub fn to_pem(&self) -> String {
        self.0.roots.iter().map(pem::certificate).collect()
    }

    /// Reads a SPIFFE bundle document (a JWK set). Keys of other uses or
    /// unknown types are skipped, as §4.1.3 and §4.2 want; the first
    /// certificate of `x5c` counts (X509-SVID §6.2).
    ///
    /// # Errors
    /// As [`TrustBundle::new`]; also when the text is not such a document or
    /// too large. A document without keys is a bundle without roots.
    pub fn from_jwks(trust_domain: TrustDomain, text: &[u8]) -> Result<Self, Error> {
        jwks::read(trust_domain, text)
    }

    /// The SPIFFE bundle document (a JWK set), as a bundle endpoint serves it.
    pub fn to_jwks(&self) -> String {
        jwks::write(self)
    }

    /// The domain these roots vouch for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// The roots' certificates, without doubles, in the order given.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.0.roots
    }

    /// Grows with every change of the bundle; 0 when unknown.
    pub fn sequence(&self) -> u64 {
        self.0.sequence
    }

    /// How often its publisher wants holders to look for a newer one.
    pub fn refresh_hint(&self) -> Option<Duration> {
        self.0.refresh_hint
    }

    /// The roots that are valid at `now`. Path building itself ignores a
    /// root's validity.
    pub(crate) fn anchors_at(&self, now: SystemTime) -> Vec<TrustAnchor<'static>> {
        let valid = self.0.anchors.iter().filter(|root| root.validity.contains(now));
        valid.map(|root| root.anchor.clone()).collect()
    }
}

impl Anchor {
    fn read(index: usize, der: &CertificateDer<'_>, trust_domain: &TrustDomain) -> Result<Self, Error> {
        let malformed = |source| Error::Malformed { index, source };
        let broken = |e: String| Error::Malformed { index, source: LeafError::Malformed(e) };
        let root = certificate::parse(der).map_err(malformed)?;
        let constraints = root.basic_constraints().map_err(|e| broken(e.to_string()))?;
        let usage = root.key_usage().map_err(|e| broken(e.to_string()))?;
        if !constraints.is_some_and(|found| found.value.ca)
            || usage.is_some_and(|found| !found.value.key_cert_sign())
        {
            return Err(Error::NotACa { index });
        }
        let names = root.subject_alternative_name().map_err(|e| broken(e.to_string()))?;
        let names = names.map(|found| found.value.general_names.as_slice()).unwrap_or_default();
        for uri in names.iter().filter_map(certificate::uri_of) {
            // The specification's own example ends in '/', so both count.
            if uri.strip_suffix('/').unwrap_or(&uri) != trust_domain.id().as_str() {
                return Err(Error::OtherTrustDomain { index, found: uri, expected: trust_domain.clone() });
            }
        }
        let key = jwks::PublicKey::read(&root).ok_or(Error::UnsupportedKey { index })?;
        let anchor = webpki::anchor_from_trusted_cert(der).map_err(|e| broken(e.to_string()))?.to_owned();
        Ok(Self { anchor, validity: Validity::of(&root), key })
    }
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.0.trust_domain == other.0.trust_domain
            && self.0.sequence == other.0.sequence
            && self.0.refresh_hint == other.0.refresh_hint
            && self.0.roots == other.0.roots
    }
}

impl Eq for TrustBundle {}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle")
            .field("trust_domain", &self.0.trust_domain)
            .field("sequence", &self.0.sequence)
            .field("roots", &self.0.roots.len())
            .finish_non_exhaustive()
    }
}

/// The bundles of all trust domains whose workloads may be peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustBundles(BTreeMap<TrustDomain, TrustBundle>);

impl TrustBundles {
    /// Trusts one trust domain alone.
    pub fn single(bundle: TrustBundle) -> Self {
        Self::from_iter([bundle])
    }

    /// The bundle that judges IDs of `trust_domain`, if that is trusted.
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&TrustBundle> {
        self.0.get(trust_domain)
    }

    /// All bundles, ordered by trust domain.
    pub fn iter(&self) -> impl Iterator<Item = &TrustBundle> {
        self.0.values()
    }
}

/// The last bundle of a trust domain counts.
impl FromIterator<TrustBundle> for TrustBundles {
    fn from_iter<I: IntoIterator<Item = TrustBundle>>(bundles: I) -> Self {
        Self(bundles.into_iter().map(|bundle| (bundle.trust_domain().clone(), bundle)).collect())
    }
}

#[cfg(test)]
mod tests;
