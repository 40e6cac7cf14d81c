//! Makes certificates: roots and leaves. Pure but for the random numbers.
//!
//! Nothing here decides who may have what. Extensions of a request are never
//! looked at; a leaf's content is this file's and the proven ID alone.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::spiffe_id::{SpiffeId, TrustDomain};

/// How far back validity starts, for peers whose clock is behind.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Longest validity of a leaf, whatever is configured or asked for.
pub const MAX_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);

/// Why no certificate could be made. Never the caller's fault.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The signing library refused.
    #[error("signing failed: {0}")]
    Signing(#[from] rcgen::Error),
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
    /// The root's own validity does not cover this time.
    #[error("the CA's root is not valid at this time (until {})", rfc3339(*.not_after))]
    RootNotValid {
        /// The end of the root's validity.
        not_after: SystemTime,
    },
}

impl From<Unspecified> for Error {
    fn from(_: Unspecified) -> Self {
        Self::Random
    }
}

/// Random bytes of the operating system's seeded generator.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Unspecified> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes)?;
    Ok(bytes)
}

/// A certificate's number: 128 random bits, so that two never meet (RFC 5280
/// §4.1.2.2 allows 160).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Serial([u8; 16]);

impl Serial {
    fn random() -> Result<Self, Unspecified> {
        random().map(Self)
    }
}

/// Hexadecimal digits, as `openssl x509 -serial` shows them.
impl std::fmt::Display for Serial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032X}", u128::from_be_bytes(self.0))
    }
}

/// A new root: its certificate in PEM and its key.
pub(super) struct NewRoot {
    pub(super) certificate_pem: String,
    pub(super) key: KeyPair,
}

/// Makes a self-signed root for a trust domain.
///
/// It may sign leaves only (path length 0) and carries the trust domain's own
/// ID (X509-SVID §3.2). It has no name constraints: path building in the field
/// refuses those on URIs, and every verifier of this crate checks the trust
/// domain itself.
pub(super) fn root(
    trust_domain: &TrustDomain,
    now: SystemTime,
    lifetime: Duration,
) -> Result<NewRoot, Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let serial = Serial::random()?;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial.0));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Outrider");
    // Roots of one domain differ in name, so path building picks the right one.
    let number = serial.to_string().get(..8).unwrap_or_default().to_owned();
    params.distinguished_name.push(DnType::CommonName, format!("Outrider CA {number}"));
    params.subject_alt_names = vec![uri(&trust_domain.id())?];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date(now.checked_sub(BACKDATE).unwrap_or(now));
    params.not_after = date(now.checked_add(lifetime).unwrap_or(now));
    let certificate_pem = params.self_signed(&key)?.pem();
    Ok(NewRoot { certificate_pem, key })
}

/// A root that signs, with the time it may do so.
pub(super) struct SigningRoot {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

/// What goes into a leaf.
pub(super) struct LeafContent<'a, K> {
    /// Whom it names; proven by the caller.
    pub(super) id: &'a SpiffeId,
    pub(super) public_key: &'a K,
    /// From now on; [`BACKDATE`] comes on top.
    pub(super) validity: Duration,
    /// Further names; empty but for the CA's own server certificate.
    pub(super) names: &'a [ServerSan],
}

/// A DNS name or address in a server's certificate, for clients that check
/// those instead of SPIFFE IDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerSan {
    /// A DNS name.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
}

/// Reads an address, or else takes the text as a DNS name.
impl std::str::FromStr for ServerSan {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        let name = rustls_pki_types::DnsName::try_from(text).map_err(|_| "not a DNS name or IP address")?;
        Ok(Self::Dns(name.as_ref().to_owned()))
    }
}

/// A signed leaf and what the log needs to know of it.
pub(super) struct SignedLeaf {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) serial: Serial,
    pub(super) not_after: SystemTime,
}

/// Signs a leaf (X509-SVID §3.1, §4). Its validity ends with the root's at the
/// latest; its subject is empty, which makes the names critical.
pub(super) fn leaf<K: PublicKeyData>(
    root: &SigningRoot,
    content: &LeafContent<'_, K>,
    now: SystemTime,
) -> Result<SignedLeaf, Error> {
    if now < root.not_before || now >= root.not_after {
        return Err(Error::RootNotValid { not_after: root.not_after });
    }
    let end = now.checked_add(content.validity.min(MAX_VALIDITY)).unwrap_or(root.not_after);
    let not_after = end.min(root.not_after);
    let not_before = now.checked_sub(BACKDATE).unwrap_or(now).max(root.not_before);
    let serial = Serial::random()?;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial.0));
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(content.id)?];
    for name in content.names {
        params.subject_alt_names.push(match name {
            ServerSan::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
            ServerSan::Ip(address) => SanType::IpAddress(*address),
        });
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date(not_before);
    params.not_after = date(not_after);
    let certificate = params.signed_by(content.public_key, &root.issuer)?.der().clone();
    Ok(SignedLeaf { certificate, serial, not_after })
}

fn uri(id: &SpiffeId) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(id.as_str().try_into()?))
}

/// Whole seconds, for certificates have no others.
fn date(time: SystemTime) -> OffsetDateTime {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A time as people and logs want it, such as `2026-11-22T17:00:00Z`.
pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
