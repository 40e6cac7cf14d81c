//! Fields whose values are never written down.

use http::{HeaderName, HeaderValue};

/// What stands for such a value.
pub(super) const REDACTED: &[u8] = b"[redacted]";

/// Fields that carry what somebody proves with who they are.
const SECRET: [&str; 30] = [
    "api-key",
    "apikey",
    "authentication-info",
    "authorization",
    "cookie",
    "dpop",
    "private-token",
    "proxy-authentication-info",
    "proxy-authorization",
    "set-cookie",
    "set-cookie2",
    "x-access-token",
    "x-amz-security-token",
    "x-amzn-oidc-accesstoken",
    "x-amzn-oidc-data",
    "x-api-key",
    "x-auth-token",
    "x-csrf-token",
    "x-forwarded-access-token",
    "x-gitlab-token",
    "x-goog-iap-jwt-assertion",
    "x-id-token",
    "x-jwt-assertion",
    "x-ms-token-aad-access-token",
    "x-ms-token-aad-id-token",
    "x-refresh-token",
    "x-secret",
    "x-session-token",
    "x-vault-token",
    "x-xsrf-token",
];

/// Whether a field's value is a secret, also where the configuration lists it.
#[must_use]
pub fn is_redacted(name: &HeaderName) -> bool {
    SECRET.binary_search(&name.as_str()).is_ok()
}

/// A value as it may be shown.
pub(super) fn shown<'a>(name: &HeaderName, value: &'a HeaderValue) -> &'a [u8] {
    if is_redacted(name) || value.is_sensitive() { REDACTED } else { value.as_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_field_is_found() {
        assert!(SECRET.is_sorted(), "it is searched by halves");
        for name in SECRET {
            assert!(is_redacted(&HeaderName::from_static(name)), "{name}");
        }
        assert!(!is_redacted(&HeaderName::from_static("user-agent")));
    }
}
