//! Authorities in one spelling.

use std::{borrow::Cow, net::Ipv6Addr};

/// The one spelling of an authority (RFC 3986 §3.2: `host` or `host:port`, no user information): lower case, without
/// the root's trailing dot, without an empty port, IPv6 literals as RFC 5952 writes them. Borrows if `authority` is
/// spelled so already.
///
/// `None` if it is not an authority, or one of which another reader could think differently: user information, a
/// percent-encoded host, an IPv6 zone, a port with leading zeros or above 65535. Configuration must pass its
/// authorities through here, so that they are found.
#[must_use]
pub fn authority(authority: &str) -> Option<Cow<'_, str>> {
    let (host, port) = split(authority)?;
    if let Some(literal) = host.strip_prefix('[') {
        let address: Ipv6Addr = literal.strip_suffix(']')?.parse().ok()?;
        return Some(join(&format!("[{address}]"), port));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.is_empty() || name.ends_with('.') || !name.bytes().all(is_name_byte) {
        return None;
    }
    let is_spelled_so = name.len() == host.len()
        && !name.bytes().any(|byte| byte.is_ascii_uppercase())
        && !authority.ends_with(':');
    if is_spelled_so {
        return Some(Cow::Borrowed(authority));
    }
    Some(join(&name.to_ascii_lowercase(), port))
}

/// The host of a canonical authority, brackets included.
#[must_use]
pub fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // A colon inside of an IPv6 literal separates no port.
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    }
}

/// The port of a canonical authority, if it has one.
#[must_use]
pub fn port(authority: &str) -> Option<u16> {
    split(authority)?.1?.parse().ok()
}

/// Host (brackets included) and port digits, the port checked.
fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    let host_end = match authority.strip_prefix('[') {
        Some(_) => authority.find(']')? + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at_checked(host_end)?;
    if rest.is_empty() {
        return Some((host, None));
    }
    let port = rest.strip_prefix(':')?;
    if port.is_empty() {
        return Some((host, None));
    }
    let is_plain = port.bytes().all(|byte| byte.is_ascii_digit()) && (port == "0" || !port.starts_with('0'));
    (is_plain && port.parse::<u16>().is_ok()).then_some((host, Some(port)))
}

fn join<'a>(host: &str, port: Option<&str>) -> Cow<'a, str> {
    Cow::Owned(match port {
        Some(port) => [host, ":", port].concat(),
        None => host.to_owned(),
    })
}

/// RFC 3986 §3.2.2 `reg-name` (unreserved characters and sub-delims) without percent-encoding and the comma.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_canonical_authority_tells_its_port() {
        for (authority, expected) in [
            ("orders:8080", Some(8080)),
            ("orders:0", Some(0)),
            ("orders", None),
            ("[2001:db8::1]:80", Some(80)),
            ("[2001:db8::1]", None),
        ] {
            assert_eq!(port(authority), expected, "{authority}");
        }
    }

    #[test]
    fn a_canonical_authority_is_borrowed() {
        for sent in ["orders", "orders.default.svc:8080", "10.0.0.1:1", "a_b-c~d:0"] {
            assert!(matches!(authority(sent), Some(Cow::Borrowed(same)) if same == sent));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,30}|[a-zA-Z0-9:.\\[\\]@-]{0,30}") {
            if let Some(once) = authority(&text) {
                let twice = authority(&once);
                prop_assert_eq!(twice.as_deref(), Some(&*once), "canonical is a fixed point");
            }
        }

        #[test]
        fn letter_case_and_trailing_dot_never_matter(
            host in "[a-z][a-z0-9-]{0,8}(\\.[a-z0-9]{1,5}){0,2}",
            port in proptest::option::of(0_u16..),
            upper in proptest::collection::vec(any::<bool>(), 40),
            dot in prop_oneof![Just(""), Just(".")],
        ) {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            let shouted: String = host
                .chars()
                .zip(upper)
                .map(|(char, upper)| if upper { char.to_ascii_uppercase() } else { char })
                .collect();
            let sent = format!("{shouted}{dot}{port}");
            let read = authority(&sent).map(Cow::into_owned);
            prop_assert_eq!(read, Some(format!("{host}{port}")));
        }
    }
}
