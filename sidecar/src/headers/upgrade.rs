//! `Upgrade`: the protocols that a request asks to switch to (RFC 9110 §7.8).
//!
//! The field is hop-by-hop, so what is read here is written anew for the next hop. Other versions of HTTP are taken out
//! of the list: a switch to HTTP/2 (`h2c`, given up by RFC 9113 §3.1), or to TLS with more of HTTP inside (RFC 2817), would
//! carry requests past everything that judges them here.

use http::{
    HeaderMap, HeaderValue, Version,
    header::{CONNECTION, UPGRADE},
};

/// The protocols that an HTTP/1.1 request asks to switch to, in its order and without versions of HTTP and TLS; `None` if none is
/// left, or if `Connection` does not name the field (RFC 9110 §7.8: then it is not meant for us). One look-up where the
/// field is absent.
#[must_use]
pub fn wanted(headers: &HeaderMap, version: Version) -> Option<HeaderValue> {
    let first = headers.get(UPGRADE)?;
    // RFC 9110 §7.8: "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0 request."
    let is_meant = version == Version::HTTP_11 && list(headers, CONNECTION.as_str()).any(is_upgrade_option);
    if !is_meant {
        return None;
    }
    let is_single = headers.get_all(UPGRADE).iter().nth(1).is_none();
    let mut protocols = items(first).peekable();
    if is_single && protocols.peek().is_some() && protocols.all(is_carried) {
        return Some(first.clone());
    }
    let mut left = Vec::new();
    for protocol in list(headers, UPGRADE.as_str()).filter(|protocol| is_carried(protocol)) {
        if !left.is_empty() {
            left.extend_from_slice(b", ");
        }
        left.extend_from_slice(protocol);
    }
    // Made of pieces of values, so it is one.
    HeaderValue::from_bytes(&left).ok().filter(|left| !left.is_empty())
}

/// Whether it asks for that protocol and no other; letter case is ignored.
#[must_use]
pub fn is_only(wanted: &HeaderValue, protocol: &str) -> bool {
    wanted.as_bytes().trim_ascii().eq_ignore_ascii_case(protocol.as_bytes())
}

/// The protocols that a 101 switches to, if each of them was wanted (RFC 9110 §7.8: a server must not switch to another)
/// and `Connection` says so.
#[must_use]
pub fn agreed(headers: &HeaderMap, wanted: &HeaderValue) -> Option<HeaderValue> {
    let agreed = headers.get(UPGRADE)?;
    let is_single = headers.get_all(UPGRADE).iter().nth(1).is_none();
    let was_wanted = |protocol: &[u8]| items(wanted).any(|wanted| wanted.eq_ignore_ascii_case(protocol));
    let mut protocols = items(agreed).peekable();
    let is_agreed = is_single
        && protocols.peek().is_some()
        && protocols.all(was_wanted)
        && list(headers, CONNECTION.as_str()).any(is_upgrade_option);
    is_agreed.then(|| agreed.clone())
}

fn list<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().flat_map(items)
}

fn items(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

fn is_upgrade_option(option: &[u8]) -> bool {
    option.eq_ignore_ascii_case(b"upgrade")
}

/// Whether a protocol is none that carries requests: no HTTP, and no TLS that HTTP would go on in (RFC 2817).
fn is_carried(protocol: &[u8]) -> bool {
    let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default().trim_ascii();
    // Drafts of HTTP/2 have names as `h2c-14`.
    let is_draft = name.get(..3).is_some_and(|begin| begin.eq_ignore_ascii_case(b"h2c"));
    !is_draft && ![&b"h2"[..], b"h3", b"http", b"tls"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::fixture::headers;

    fn asked(fields: &[(&str, &str)]) -> Option<String> {
        let wanted = wanted(&headers(fields), Version::HTTP_11)?;
        Some(wanted.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_list_is_read_as_it_was_sent() {
        for (upgrade, left) in [
            ("websocket", Some("websocket")),
            ("foo/1, bar", Some("foo/1, bar")),
            ("h2c", None),
            ("H2C", None),
            ("HTTP/2.0", None),
            ("h2c-14", None),
            ("H2C-17/1, foo", Some("foo")),
            ("TLS/1.2, HTTP/1.1", None),
            ("tls, websocket", Some("websocket")),
            ("tlsx, h2", Some("tlsx")),
            ("h2c,websocket", Some("websocket")),
            ("foo, h2c , , bar/2", Some("foo, bar/2")),
            (" , ", None),
            ("", None),
        ] {
            let found = asked(&[("connection", "keep-alive, Upgrade"), ("upgrade", upgrade)]);
            assert_eq!(found.as_deref().map(str::trim), left, "{upgrade}");
        }
        let twice = [("connection", "upgrade"), ("upgrade", "foo"), ("upgrade", "bar")];
        assert_eq!(asked(&twice).as_deref(), Some("foo, bar"));
    }

    #[test]
    fn what_connection_does_not_name_and_what_http_10_says_is_not_meant() {
        assert_eq!(asked(&[("upgrade", "websocket")]), None);
        assert_eq!(asked(&[("upgrade", "websocket"), ("connection", "keep-alive")]), None);
        assert_eq!(asked(&[("connection", "upgrade")]), None);
        let fields = headers(&[("connection", "upgrade"), ("upgrade", "foo")]);
        assert_eq!(wanted(&fields, Version::HTTP_10), None);
    }

    #[test]
    fn only_what_was_wanted_can_be_agreed_on() {
        let wanted = HeaderValue::from_static("foo/1, Bar");
        for (fields, is_agreed) in [
            (vec![("connection", "Upgrade"), ("upgrade", "bar")], true),
            (vec![("connection", "upgrade"), ("upgrade", "foo/1")], true),
            (vec![("connection", "upgrade"), ("upgrade", "foo")], false),
            (vec![("connection", "upgrade"), ("upgrade", "h2c")], false),
            (vec![("connection", "upgrade"), ("upgrade", "")], false),
            (vec![("connection", "upgrade"), ("upgrade", "bar"), ("upgrade", "bar")], false),
            (vec![("upgrade", "bar")], false),
            (vec![("connection", "upgrade")], false),
        ] {
            assert_eq!(agreed(&headers(&fields), &wanted).is_some(), is_agreed, "{fields:?}");
        }
        assert!(is_only(&HeaderValue::from_static("WebSocket"), "websocket"));
        assert!(!is_only(&wanted, "foo/1"));
    }
}
