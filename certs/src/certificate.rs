//! What the X509-SVID rules ask about one certificate.
//!
//! The TLS side's path building (webpki) reads neither key usage nor URI
//! names, so they are read here, once, by a second parser. Both parsers work
//! on the same bytes and both refuse an extension that occurs twice.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::spiffe_id::{self, SpiffeId};

/// Tag number of a URI among the kinds of general names (RFC 5280 §4.2.1.6).
const URI_TAG: u32 = 6;

/// Why a certificate cannot be an X.509-SVID leaf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// Not a certificate, or one with malformed or doubled extensions.
    #[error("not a well-formed X.509 certificate ({0})")]
    Malformed(String),
    /// The number of URI names is not one (X509-SVID §2).
    #[error("it has {count} URI names; an SVID has exactly one")]
    UriSans {
        /// How many there are.
        count: usize,
    },
    /// The one URI name is not a SPIFFE ID.
    #[error("its URI name {uri:?} is not a SPIFFE ID: {source}")]
    NotSpiffe {
        /// The name, shortened.
        uri: String,
        /// The rule it breaks.
        source: spiffe_id::Error,
    },
    /// The ID has no path: it is a trust domain's own (X509-SVID §5.2).
    #[error("its SPIFFE ID {0} is that of a trust domain, not of a workload")]
    NoPath(SpiffeId),
    /// It is a CA or may sign certificates or CRLs (X509-SVID §5.2).
    #[error("it is a signing certificate (CA), which may not identify anybody")]
    Signing,
    /// It has no key usage, or one without digitalSignature (X509-SVID §4.3).
    #[error("its key usage lacks digitalSignature")]
    NoDigitalSignature,
}

/// The facts of a certificate that passed all rules of X509-SVID §5.2.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) validity: Validity,
    /// Whether it may be used by a TLS client and server; true if it says
    /// nothing about it (X509-SVID §4.4).
    pub(crate) for_client: bool,
    pub(crate) for_server: bool,
    /// DER of the SubjectPublicKeyInfo.
    pub(crate) spki: Vec<u8>,
}

/// From when until when a certificate is valid, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Leaf {
    /// Reads a leaf and holds it against X509-SVID §2, §4 and §5.2.
    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, LeafError> {
        let certificate = parse(der)?;
        let malformed = |e: x509_parser::error::X509Error| LeafError::Malformed(e.to_string());
        let id = only_spiffe_id(&certificate)?;
        let constraints = certificate.basic_constraints().map_err(malformed)?;
        let usage = certificate.key_usage().map_err(malformed)?.map(|usage| usage.value);
        if constraints.is_some_and(|found| found.value.ca)
            || usage.is_some_and(|found| found.key_cert_sign() || found.crl_sign())
        {
            return Err(LeafError::Signing);
        }
        if !usage.is_some_and(|found| found.digital_signature()) {
            return Err(LeafError::NoDigitalSignature);
        }
        if !id.is_workload() {
            return Err(LeafError::NoPath(id));
        }
        let extended = certificate.extended_key_usage().map_err(malformed)?.map(|usage| usage.value);
        Ok(Self {
            id,
            validity: Validity::of(&certificate),
            for_client: extended.is_none_or(|usage| usage.client_auth),
            for_server: extended.is_none_or(|usage| usage.server_auth),
            spki: certificate.public_key().raw.to_vec(),
        })
    }
}

impl Validity {
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { not_before: system_time(validity.not_before), not_after: system_time(validity.not_after) }
    }

    pub(crate) fn contains(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// Parses one certificate and nothing after it.
pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, LeafError> {
    match X509Certificate::from_der(der.as_ref()) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(LeafError::Malformed("bytes follow it".to_owned())),
        Err(e) => Err(LeafError::Malformed(e.to_string())),
    }
}

/// The last second in which a certificate is valid.
///
/// # Errors
/// When `der` is not a certificate.
pub fn not_after(der: &CertificateDer<'_>) -> Result<SystemTime, LeafError> {
    Ok(Validity::of(&parse(der)?).not_after)
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo: the form in which join
/// tokens pin a root.
///
/// # Errors
/// When `der` is not a certificate.
pub fn spki_sha256(der: &CertificateDer<'_>) -> Result<[u8; 32], LeafError> {
    Ok(sha256(parse(der)?.public_key().raw))
}

/// SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

fn only_spiffe_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, LeafError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|e| LeafError::Malformed(e.to_string()))?
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    only_uri(names)
}

/// The SPIFFE ID among a certificate's or request's names, which must be the
/// only URI. A URI that is not even ASCII counts too.
pub(crate) fn only_uri(names: &[GeneralName<'_>]) -> Result<SpiffeId, LeafError> {
    let mut uris = names.iter().filter_map(uri_of);
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => SpiffeId::parse(&uri)
            .map_err(|source| LeafError::NotSpiffe { uri: uri.chars().take(120).collect(), source }),
        (Some(_), more) => Err(LeafError::UriSans { count: more + 1 }),
        (None, _) => Err(LeafError::UriSans { count: 0 }),
    }
}

/// The text of a URI name; `None` for names of other kinds.
pub(crate) fn uri_of(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::URI(uri) = name {
        return Some((*uri).to_owned());
    }
    if let GeneralName::Invalid(tag, bytes) = name
        && tag.0 == URI_TAG
    {
        return Some(String::from_utf8_lossy(bytes).into_owned());
    }
    None
}

/// Certificates may name years before 1970; they count as its first second.
fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}
