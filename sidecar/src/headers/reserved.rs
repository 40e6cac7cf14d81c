//! Reserved fields: what sidecars tell each other, under one prefix.
//!
//! Nobody else may speak in our name: everything under [`RESERVED_PREFIX`] is stripped where a head comes in from an app
//! or from the network. The few fields that a verified peer's sidecar may set are taken out first, one by one.

use http::{HeaderMap, HeaderName, HeaderValue};

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

fn is_reserved(name: &HeaderName) -> bool {
    // Names are held in lower case.
    name.as_str().starts_with(RESERVED_PREFIX)
}

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
        for name in [wire::APP_VERSION, wire::ATTEMPT, wire::REASON, wire::PROCESSED, wire::DECLINED] {
            assert!(is_reserved(&HeaderName::from_static(name)));
        }
    }
}
