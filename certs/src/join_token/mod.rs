//! Join tokens: how a workload without Kubernetes gets its first certificate.
//!
//! A token is made by the CA for one SPIFFE ID, can be used once, and carries
//! what the first contact needs: a secret to prove the workload to the CA, and
//! the SHA-256 of the root's public key to prove the CA to the workload.
//!
//! ```text
//! orj1.<base64url of a JSON object>      the token, handed to the workload
//! orc1.<id>.<secret>                     the credential, sent to the CA
//! ```
//!
//! Only the credential goes over the wire (after the CA was verified by the
//! pinned root), so a CA that reads it learns nothing it does not know.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::spiffe_id::{SpiffeId, TrustDomain};

/// Longest token text that is read, in bytes. The longest SPIFFE ID fits.
pub const MAX_TOKEN_BYTES: usize = 4096;
/// Longest credential that is read, in bytes.
pub const MAX_CREDENTIAL_BYTES: usize = 128;

const TOKEN_PREFIX: &str = "orj1.";
const CREDENTIAL_PREFIX: &str = "orc1.";
/// Path of the CA's own SPIFFE ID in every trust domain.
const CA_PATH: &str = "/outrider/ca";

/// The CA's own SPIFFE ID: `spiffe://<trust domain>/outrider/ca`.
///
/// # Panics
/// Never: the longest trust domain leaves room for the path.
pub fn ca_spiffe_id(trust_domain: &TrustDomain) -> SpiffeId {
    SpiffeId::new(trust_domain, CA_PATH).expect("a fixed path that fits any trust domain")
}

/// Why a text is no join token or credential. Shows nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than any token.
    #[error("it is longer than a join token can be")]
    TooLong,
    /// Another prefix.
    #[error("it does not start with {TOKEN_PREFIX:?}; was it copied whole?")]
    Prefix,
    /// Not base64url, or not the JSON object that is expected in it.
    #[error("it is damaged; was it copied whole?")]
    Damaged,
    /// The ID in it is a trust domain's own.
    #[error("its SPIFFE ID is not a workload's")]
    NotAWorkload,
}

/// The number of a token, not secret: it names the token in state and logs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId([u8; 16]);

/// What is shown to the CA: a token's number and its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    id: TokenId,
    secret: Secret,
}

/// A join token. `Display` is the secret text; `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    credential: Credential,
    root_spki_sha256: [u8; 32],
    spiffe_id: SpiffeId,
    /// Whole seconds since 1970.
    expires_at: u64,
}

/// 32 random bytes that are wiped when they go.
#[derive(Clone, PartialEq, Eq)]
struct Secret([u8; 32]);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The JSON object inside a token. Names are short: people copy these.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    id: String,
    secret: String,
    root: String,
    spiffe_id: SpiffeId,
    exp: u64,
}

impl Drop for Fields {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl TokenId {
    /// Makes a number of random bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Reads the form [`Display`](fmt::Display) writes: 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = digits.then(|| u128::from_str_radix(text, 16).ok())??;
        Some(Self(number.to_be_bytes()))
    }
}

impl Credential {
    /// Joins a number and a secret, both random.
    pub fn new(id: TokenId, secret: [u8; 32]) -> Self {
        Self { id, secret: Secret(secret) }
    }

    /// Reads what [`JoinToken::bearer`] writes; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(CREDENTIAL_PREFIX).filter(|_| text.len() <= MAX_CREDENTIAL_BYTES)?;
        let (id, secret) = rest.split_once('.')?;
        Some(Self { id: TokenId::parse(id)?, secret: Secret(decode(secret).ok()?) })
    }

    /// Which token it is of.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// SHA-256 of the secret: what the CA stores.
    pub fn secret_sha256(&self) -> [u8; 32] {
        crate::certificate::sha256(&self.secret.0)
    }
}

impl JoinToken {
    /// Makes a token for one workload. `expires_at` is cut to whole seconds.
    ///
    /// # Errors
    /// [`Error::NotAWorkload`] if the ID has no path.
    pub fn new(
        credential: Credential,
        root_spki_sha256: [u8; 32],
        spiffe_id: SpiffeId,
        expires_at: SystemTime,
    ) -> Result<Self, Error> {
        if !spiffe_id.is_workload() {
            return Err(Error::NotAWorkload);
        }
        let expires_at = expires_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Self { credential, root_spki_sha256, spiffe_id, expires_at })
    }

    /// Reads a token; white space around it is ignored.
    ///
    /// # Errors
    /// When the text is not a whole join token. Whether it has expired is not
    /// looked at: that is the CA's to say.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Error::TooLong);
        }
        let encoded = text.strip_prefix(TOKEN_PREFIX).ok_or(Error::Prefix)?;
        let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Error::Damaged)?);
        let fields: Fields = serde_json::from_slice(&json).map_err(|_| Error::Damaged)?;
        if !fields.spiffe_id.is_workload() {
            return Err(Error::NotAWorkload);
        }
        let id = TokenId::parse(&fields.id).ok_or(Error::Damaged)?;
        Ok(Self {
            credential: Credential { id, secret: Secret(decode(&fields.secret)?) },
            root_spki_sha256: decode(&fields.root)?,
            spiffe_id: fields.spiffe_id.clone(),
            expires_at: fields.exp.min(MAX_SECONDS),
        })
    }

    /// The token's number, for logs.
    pub fn id(&self) -> TokenId {
        self.credential.id
    }

    /// Whose certificate the token is good for.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// SHA-256 of the CA root's SubjectPublicKeyInfo, see
    /// [`PinnedRootVerifier`](crate::rustls_verify::PinnedRootVerifier).
    pub fn root_spki_sha256(&self) -> [u8; 32] {
        self.root_spki_sha256
    }

    /// When the CA stops taking it.
    pub fn expires_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.expires_at)
    }

    /// What to send as `authorization: Bearer <this>`; wiped when dropped.
    pub fn bearer(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.credential.secret.0));
        Zeroizing::new([CREDENTIAL_PREFIX, &self.credential.id.to_string(), ".", &secret].concat())
    }
}

/// Latest expiry that is kept, so that it stays a `SystemTime`: year 9999.
const MAX_SECONDS: u64 = 253_402_300_799;

fn decode(text: &str) -> Result<[u8; 32], Error> {
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::Damaged)?);
    <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| Error::Damaged)
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The text to hand to the workload, secret included.
impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = Fields {
            id: self.credential.id.to_string(),
            secret: URL_SAFE_NO_PAD.encode(self.credential.secret.0),
            root: URL_SAFE_NO_PAD.encode(self.root_spki_sha256),
            spiffe_id: self.spiffe_id.clone(),
            exp: self.expires_at,
        };
        let json = Zeroizing::new(serde_json::to_vec(&fields).map_err(|_| fmt::Error)?);
        let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(&*json));
        write!(f, "{TOKEN_PREFIX}{}", *encoded)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.credential.id)
            .field("spiffe_id", &self.spiffe_id)
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;
