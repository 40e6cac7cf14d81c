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
pub fn canonical(authority: &str) -> Option<Cow<'_, str>> {
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
pub(super) fn host(authority: &str) -> &str {
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
