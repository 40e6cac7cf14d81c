//! The JSON form of a bundle: a JWK set (RFC 7517) with SPIFFE's members.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::public_key::PublicKey as ParsedKey;

use super::{Error, MAX_DOCUMENT_BYTES, MAX_ROOTS, TrustBundle};
use crate::spiffe_id::TrustDomain;

/// Value of `use` for roots of X.509-SVIDs (X509-SVID §6.1).
const X509_SVID: &str = "x509-svid";
/// Most keys of any use that are looked at: room for JWT keys beside the roots.
const MAX_KEYS: usize = 4 * MAX_ROOTS;

/// Object identifiers in dotted form: RFC 5480 §2.1.1.1, RFC 8410 §3.
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const P521: &str = "1.3.132.0.35";
const ED25519: &str = "1.3.101.112";

#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(default)]
    spiffe_sequence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spiffe_refresh_hint: Option<u64>,
    keys: Vec<Jwk>,
}

/// A key; members this crate does not need are skipped when reading.
#[derive(Serialize, Deserialize)]
struct Jwk {
    #[serde(default)]
    kty: String,
    #[serde(default, rename = "use")]
    usage: String,
    #[serde(default)]
    x5c: Vec<String>,
    #[serde(flatten, default, skip_deserializing)]
    key: Option<PublicKey>,
}

/// The members that stand for the public key itself (RFC 7518 §6, RFC 8037 §2).
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum PublicKey {
    Ec { crv: &'static str, x: String, y: String },
    Rsa { n: String, e: String },
    Okp { crv: &'static str, x: String },
}

impl PublicKey {
    /// The key of a certificate; `None` when it is of an unsupported kind.
    pub(super) fn read(certificate: &X509Certificate<'_>) -> Option<Self> {
        let spki = certificate.public_key();
        if spki.algorithm.algorithm.to_id_string() == ED25519 {
            return Some(Self::Okp { crv: "Ed25519", x: base64url(&spki.subject_public_key.data) });
        }
        let parsed = spki.parsed().ok()?;
        if let ParsedKey::RSA(key) = &parsed {
            let without_sign = |number: &[u8]| base64url(number.strip_prefix(&[0]).unwrap_or(number));
            return Some(Self::Rsa { n: without_sign(key.modulus), e: without_sign(key.exponent) });
        }
        let ParsedKey::EC(point) = &parsed else { return None };
        let curve = spki.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string();
        let (crv, bytes) = match curve.as_str() {
            P256 => ("P-256", 32),
            P384 => ("P-384", 48),
            P521 => ("P-521", 66),
            _ => return None,
        };
        // 4 marks an uncompressed point (SEC 1 §2.3.3): x and y follow.
        let (x, y) = point.data().strip_prefix(&[4])?.split_at_checked(bytes)?;
        (y.len() == bytes).then(|| Self::Ec { crv, x: base64url(x), y: base64url(y) })
    }

    fn kty(&self) -> &'static str {
        match self {
            Self::Ec { .. } => "EC",
            Self::Rsa { .. } => "RSA",
            Self::Okp { .. } => "OKP",
        }
    }
}

fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn read(trust_domain: TrustDomain, text: &[u8]) -> Result<TrustBundle, Error> {
    if text.len() > MAX_DOCUMENT_BYTES {
        return Err(Error::TooLarge);
    }
    let document: Document = serde_json::from_slice(text)?;
    if document.keys.len() > MAX_KEYS {
        return Err(Error::TooManyRoots);
    }
    let mut roots = Vec::new();
    for (index, jwk) in document.keys.iter().enumerate() {
        let known = matches!(jwk.kty.as_str(), "EC" | "RSA" | "OKP") && jwk.usage == X509_SVID;
        let Some(encoded) = jwk.x5c.first().filter(|_| known) else { continue };
        let der = STANDARD.decode(encoded).map_err(|_| Error::Base64 { index })?;
        roots.push(CertificateDer::from(der));
    }
    let hint = document.spiffe_refresh_hint.map(Duration::from_secs);
    TrustBundle::new(trust_domain, roots, document.spiffe_sequence, hint)
}

pub(super) fn write(bundle: &TrustBundle) -> String {
    let key = |(der, anchor): (&CertificateDer<'_>, &super::Anchor)| Jwk {
        kty: anchor.key.kty().to_owned(),
        usage: X509_SVID.to_owned(),
        x5c: vec![STANDARD.encode(der)],
        key: Some(anchor.key.clone()),
    };
    let document = Document {
        spiffe_sequence: bundle.sequence(),
        spiffe_refresh_hint: bundle.refresh_hint().map(|hint| hint.as_secs()),
        keys: bundle.roots().iter().zip(&bundle.0.anchors).map(key).collect(),
    };
    serde_json::to_string(&document).expect("text, numbers and lists of them are always JSON")
}
