//! Reserved fields: what sidecars tell each other, under one prefix.
//!
//! Nobody else may speak in our name: everything under [`RESERVED_PREFIX`] is stripped where a head comes in from an app
//! or from the network. The few fields that a verified peer's sidecar may set are taken out first, one by one.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::hop_by_hop;
use crate::model::wire::RESERVED_PREFIX;

/// Removes every reserved field. One look at every name; no allocation if there is none.
pub fn strip(headers: &mut HeaderMap) {
    let reserved: Vec<HeaderName> = headers.keys().filter(|name| is_reserved(name)).cloned().collect();
    for name in reserved {
        headers.remove(name);
    }
}

/// Removes the field of that name (a constant of [`wire`](crate::model::wire)) and returns its value. `None` if it is
/// absent, or there more than once: then the sender is confused or lying, and it is as good as absent.
pub fn take(headers: &mut HeaderMap, name: &str) -> Option<HeaderValue> {
    let is_single = headers.get_all(name).iter().nth(1).is_none();
    headers.remove(name).filter(|_| is_single)
}

/// Whether a field of that name is between sidecars.
#[must_use]
pub fn is_reserved(name: &HeaderName) -> bool {
    // Names are held in lower case.
    name.as_str().starts_with(RESERVED_PREFIX)
}

/// Removes the look-alikes of all fields that we set or strip. One look at every name for anything but letters, digits and
/// `-`; no allocation without it.
pub fn strip_lookalikes(headers: &mut HeaderMap) {
    while let Some(name) = headers.keys().find(|name| is_lookalike(name)).cloned() {
        headers.remove(name);
    }
}

/// Whether a name is that of a field which we set or strip, but for another character in the place of `-`. Readers after
/// CGI's manner (RFC 3875 §4.1.18; WSGI, PHP, Ruby's Rack) make one name of both, and take the forged one for ours: all of
/// them have `_` for `-`, and some for everything that is no letter and no digit.
#[must_use]
pub fn is_lookalike(name: &HeaderName) -> bool {
    if name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return false;
    }
    let looks_like: String = name.as_str().bytes().map(|byte| char::from(plain(byte))).collect();
    looks_like.starts_with(RESERVED_PREFIX)
        || looks_like.starts_with("x-b3-")
        || SET_OR_STRIPPED.contains(&looks_like.as_str())
        || hop_by_hop::is_for_one_connection(&looks_like)
}

/// Whether two names are one to such readers; a name is alike to itself.
#[must_use]
pub fn is_alike(one: &HeaderName, other: &HeaderName) -> bool {
    one.as_str().bytes().map(plain).eq(other.as_str().bytes().map(plain))
}

/// What a byte of a name is to readers that know letters and digits alone.
fn plain(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte } else { b'-' }
}

/// What is set, checked or removed in a head, beside [`RESERVED_PREFIX`], B3's and the fields of a connection. Names without
/// a `-` have no look-alikes.
const SET_OR_STRIPPED: [&str; 10] = [
    "content-length",
    "content-type",
    "grpc-timeout",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{headers::fixture::headers, model::wire};

    #[test]
    fn everything_under_the_prefix_is_stripped() {
        let mut map = headers(&[
            (wire::ATTEMPT, "1"),
            (wire::ATTEMPT, "2"),
            (wire::PROCESSED, "no"),
            ("x-outrider-", ""),
            ("x-outrider-not-invented-yet", "1"),
            ("x-outride", "kept"),
            ("x-outriderish", "kept"),
        ]);
        map.append(HeaderName::from_bytes(b"X-Outrider-Reason").unwrap(), HeaderValue::from_static("r"));
        strip(&mut map);
        assert_eq!(map, headers(&[("x-outride", "kept"), ("x-outriderish", "kept")]));
    }

    #[test]
    fn look_alikes_of_what_is_ours_go_and_other_odd_names_stay() {
        let kept = [
            ("x_team", "a"),
            ("x.team", "a"),
            ("x-forwarded.", "a"),
            ("x-forwarded-for", "10.0.0.7"),
            ("x_forwarded", "a"),
            ("_", "a"),
        ];
        let mut map = headers(&kept);
        for name in [
            "x_forwarded-for",
            "x-forwarded_for",
            "x_forwarded_for",
            "x_forwarded_client_cert",
            "x_outrider_attempt",
            "x-outrider_",
            "x_real_ip",
            "content_length",
            "transfer_encoding",
            "x_b3_traceid",
            "x.forwarded.client.cert",
            "x-forwarded~for",
            "x!outrider|attempt",
            "transfer.encoding",
        ] {
            map.append(HeaderName::from_static(name), HeaderValue::from_static("forged"));
            map.append(HeaderName::from_static(name), HeaderValue::from_static("twice"));
        }
        strip_lookalikes(&mut map);
        assert_eq!(map, headers(&kept));
    }

    #[test]
    fn a_field_is_taken_once() {
        let mut map = headers(&[(wire::ATTEMPT, "2"), ("accept", "*/*")]);
        assert_eq!(take(&mut map, wire::ATTEMPT).unwrap(), "2");
        assert_eq!(take(&mut map, wire::ATTEMPT), None);
        assert_eq!(map.len(), 1);
    }

    #[test]
    fn a_repeated_field_is_taken_for_absent_and_removed() {
        let mut map = headers(&[(wire::ATTEMPT, "1"), (wire::ATTEMPT, "9")]);
        assert_eq!(take(&mut map, wire::ATTEMPT), None);
        assert!(map.is_empty());
    }

    #[test]
    fn the_names_on_the_wire_are_under_the_prefix() {
        for name in [
            wire::APP_VERSION,
            wire::ATTEMPT,
            wire::TIMEOUT_MS,
            wire::REASON,
            wire::PROCESSED,
            wire::DECLINED,
        ] {
            assert!(is_reserved(&HeaderName::from_static(name)));
        }
    }
}
