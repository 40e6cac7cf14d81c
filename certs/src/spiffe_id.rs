//! SPIFFE IDs and trust domains: parsed once, valid for ever.
//!
//! Implements SPIFFE-ID §2. A value of these types holds every rule of that
//! section, so nothing later has to look at the text again, and two IDs are
//! the same exactly when their bytes are: no case folding, no percent-decoding,
//! no globbing.
//!
//! §2.4 calls scheme and trust domain case-insensitive for *parsers of URIs*,
//! while §2.1 demands that the host be lower case. This parser holds §2.1 and
//! refuses upper case (as go-spiffe does), so there is one spelling of an ID.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest trust domain name, in bytes (SPIFFE-ID §2.3).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// Longest SPIFFE ID, in bytes (SPIFFE-ID §2.3).
pub const MAX_ID_BYTES: usize = 2048;

const SCHEME: &str = "spiffe://";

/// Which rule of SPIFFE-ID §2 a text breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More than [`MAX_ID_BYTES`].
    #[error("longer than {MAX_ID_BYTES} bytes")]
    TooLong,
    /// Does not start with `spiffe://`.
    #[error("does not start with \"spiffe://\"")]
    Scheme,
    /// Nothing between `spiffe://` and the path.
    #[error("the trust domain is empty")]
    EmptyTrustDomain,
    /// More than [`MAX_TRUST_DOMAIN_BYTES`].
    #[error("the trust domain is longer than {MAX_TRUST_DOMAIN_BYTES} bytes")]
    TrustDomainTooLong,
    /// A character outside `[a-z0-9._-]`; so also a port, user info, upper
    /// case, a query or percent-encoding.
    #[error("the trust domain may hold only lower-case letters, digits, '.', '-' and '_'")]
    TrustDomainCharacter,
    /// The path ends in `/`.
    #[error("the path ends in '/'")]
    TrailingSlash,
    /// Two `/` in a row.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// A segment is `.` or `..`.
    #[error("the path has a segment '.' or '..'")]
    RelativeSegment,
    /// A character outside `[a-zA-Z0-9._-]`; so also a query, a fragment or
    /// percent-encoding.
    #[error("path segments may hold only letters, digits, '.', '-' and '_'")]
    PathCharacter,
    /// A path handed in alone does not start with `/`.
    #[error("the path does not start with '/'")]
    RelativePath,
}

/// The name of a trust domain, such as `prod.example.com` (SPIFFE-ID §2.1).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Reads a trust domain's name.
    ///
    /// # Errors
    /// The rule of SPIFFE-ID §2.1 or §2.3 that `name` breaks. `name` is the
    /// bare name, without `spiffe://`.
    pub fn parse(name: &str) -> Result<Self, Error> {
        check_trust_domain(name)?;
        Ok(Self(Arc::from(name)))
    }

    /// The name, as it stands in an ID.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain's own ID, `spiffe://<name>`: that of its signing
    /// certificates, never of a workload.
    pub fn id(&self) -> SpiffeId {
        SpiffeId::from_checked(self.clone(), "")
    }
}

/// A SPIFFE ID, such as `spiffe://prod.example.com/ns/shop/sa/cart`.
///
/// Cheap to clone. Compared by its bytes.
#[derive(Clone)]
pub struct SpiffeId(Arc<Parts>);

struct Parts {
    /// The whole ID.
    text: String,
    trust_domain: TrustDomain,
}

impl SpiffeId {
    /// Reads a SPIFFE ID.
    ///
    /// # Errors
    /// The rule of SPIFFE-ID §2 that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_ID_BYTES {
            return Err(Error::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(Error::Scheme)?;
        let (name, path) = match rest.split_once('/') {
            Some((name, _)) => (name, rest.strip_prefix(name).unwrap_or_default()),
            None => (rest, ""),
        };
        let trust_domain = TrustDomain::parse(name)?;
        check_path(path)?;
        Ok(Self::from_checked(trust_domain, path))
    }

    /// Joins a trust domain and a path (`/ns/shop/sa/cart`, or empty).
    ///
    /// # Errors
    /// The rule of SPIFFE-ID §2.2 or §2.3 that the path breaks.
    pub fn new(trust_domain: &TrustDomain, path: &str) -> Result<Self, Error> {
        if SCHEME.len() + trust_domain.as_str().len() + path.len() > MAX_ID_BYTES {
            return Err(Error::TooLong);
        }
        check_path(path)?;
        Ok(Self::from_checked(trust_domain.clone(), path))
    }

    fn from_checked(trust_domain: TrustDomain, path: &str) -> Self {
        let text = [SCHEME, trust_domain.as_str(), path].concat();
        Self(Arc::new(Parts { text, trust_domain }))
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The path with its leading `/`, or `""` for a trust domain's own ID.
    pub fn path(&self) -> &str {
        let skipped = SCHEME.len() + self.0.trust_domain.as_str().len();
        self.0.text.get(skipped..).unwrap_or_default()
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// Whether this ID can be a workload's: it has a path (X509-SVID §3.1).
    pub fn is_workload(&self) -> bool {
        !self.path().is_empty()
    }
}

fn check_trust_domain(name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::EmptyTrustDomain);
    }
    if name.len() > MAX_TRUST_DOMAIN_BYTES {
        return Err(Error::TrustDomainTooLong);
    }
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if name.bytes().all(fits) { Ok(()) } else { Err(Error::TrustDomainCharacter) }
}

fn check_path(path: &str) -> Result<(), Error> {
    if path.is_empty() {
        return Ok(());
    }
    let segments = path.strip_prefix('/').ok_or(Error::RelativePath)?;
    if segments.is_empty() || segments.ends_with('/') {
        return Err(Error::TrailingSlash);
    }
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    for segment in segments.split('/') {
        if segment.is_empty() {
            return Err(Error::EmptySegment);
        }
        if segment == "." || segment == ".." {
            return Err(Error::RelativeSegment);
        }
        if !segment.bytes().all(fits) {
            return Err(Error::PathCharacter);
        }
    }
    Ok(())
}

impl PartialEq for SpiffeId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.text == other.0.text
    }
}

impl Eq for SpiffeId {}

impl Hash for SpiffeId {
    // As `str` hashes, so that `Borrow<str>` may be used for look-ups.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialOrd for SpiffeId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SpiffeId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

/// What both types have in common: they are text that was checked.
macro_rules! checked_text {
    ($type:ty) => {
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                Self::parse(text)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(|e| de::Error::custom(format_args!("{text:?}: {e}")))
            }
        }
    };
}

checked_text!(TrustDomain);
checked_text!(SpiffeId);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_specification_are_valid() {
        // SPIFFE-ID §2.2.
        for text in [
            "spiffe://staging.example.com/payments/mysql",
            "spiffe://staging.example.com/payments/web-fe",
            "spiffe://k8s-west.example.com/ns/staging/sa/default",
            "spiffe://example.com/9eebccd2-12bf-40a6-b262-65fe0487d453",
            // §2.1: "does not exclude IPv4 addresses"; all characters allowed.
            "spiffe://10.0.0.1/a",
            "spiffe://a_b-c.d/A-Z_a.z0/...",
            "spiffe://example.com",
        ] {
            assert_eq!(SpiffeId::parse(text).map(|id| id.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn each_rule_of_the_specification_is_held() {
        let long_domain = format!("spiffe://{}/a", "d".repeat(256));
        let long_id = format!("spiffe://example.com/{}", "a".repeat(2048));
        for (text, error) in [
            ("", Error::Scheme),
            ("example.com/a", Error::Scheme),
            ("http://example.com/a", Error::Scheme),
            ("SPIFFE://example.com/a", Error::Scheme),
            ("spiffe:/example.com/a", Error::Scheme),
            ("spiffe://", Error::EmptyTrustDomain),
            ("spiffe:///a", Error::EmptyTrustDomain),
            ("spiffe://Example.com/a", Error::TrustDomainCharacter),
            ("spiffe://example.com:443/a", Error::TrustDomainCharacter),
            ("spiffe://user@example.com/a", Error::TrustDomainCharacter),
            ("spiffe://[::1]/a", Error::TrustDomainCharacter),
            ("spiffe://ex%61mple.com/a", Error::TrustDomainCharacter),
            ("spiffe://example.com?a", Error::TrustDomainCharacter),
            ("spiffe://example.com#a", Error::TrustDomainCharacter),
            ("spiffe://exämple.com/a", Error::TrustDomainCharacter),
            ("spiffe://*.example.com/a", Error::TrustDomainCharacter),
            ("spiffe://example.com\0/a", Error::TrustDomainCharacter),
            ("spiffe://example.com/", Error::TrailingSlash),
            ("spiffe://example.com/a/", Error::TrailingSlash),
            ("spiffe://example.com//", Error::TrailingSlash),
            ("spiffe://example.com//a", Error::EmptySegment),
            ("spiffe://example.com/a//b", Error::EmptySegment),
            ("spiffe://example.com/.", Error::RelativeSegment),
            ("spiffe://example.com/a/../b", Error::RelativeSegment),
            ("spiffe://example.com/a%2fb", Error::PathCharacter),
            ("spiffe://example.com/a?b", Error::PathCharacter),
            ("spiffe://example.com/a#b", Error::PathCharacter),
            ("spiffe://example.com/a b", Error::PathCharacter),
            ("spiffe://example.com/a\0.evil", Error::PathCharacter),
            ("spiffe://example.com/ä", Error::PathCharacter),
            (&long_domain, Error::TrustDomainTooLong),
            (&long_id, Error::TooLong),
        ] {
            assert_eq!(SpiffeId::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn parts_of_an_id_can_be_read() {
        let id = SpiffeId::parse("spiffe://example.com/ns/a/sa/b").unwrap();
        assert_eq!((id.trust_domain().as_str(), id.path()), ("example.com", "/ns/a/sa/b"));
        assert!(id.is_workload());
        assert_eq!(SpiffeId::new(id.trust_domain(), id.path()), Ok(id.clone()));
        let own = id.trust_domain().id();
        assert_eq!((own.as_str(), own.path(), own.is_workload()), ("spiffe://example.com", "", false));
        assert_eq!(SpiffeId::new(id.trust_domain(), "a"), Err(Error::RelativePath));
    }

    #[test]
    fn the_longest_names_are_valid() {
        let domain = "d".repeat(255);
        assert!(TrustDomain::parse(&domain).is_ok());
        let id = format!("spiffe://{domain}/{}", "a".repeat(2048 - 9 - 255 - 1));
        assert_eq!(id.len(), 2048);
        assert!(SpiffeId::parse(&id).is_ok());
    }

    #[test]
    fn serde_reads_only_what_parse_reads() {
        let id: SpiffeId = serde_json::from_str("\"spiffe://a/b\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"spiffe://a/b\"");
        assert!(serde_json::from_str::<SpiffeId>("\"spiffe://a/b/\"").is_err());
        assert!(serde_json::from_str::<TrustDomain>("\"A\"").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".*") {
            drop(SpiffeId::parse(&text));
            drop(SpiffeId::parse(&format!("spiffe://{text}")));
        }

        #[test]
        fn what_is_displayed_is_read_back(text in "spiffe://[a-z0-9._-]{1,20}(/[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,9}){0,5}") {
            let id = SpiffeId::parse(&text).unwrap();
            prop_assert_eq!(id.to_string(), text);
            prop_assert_eq!(SpiffeId::parse(id.as_str()), Ok(id));
        }
    }
}
