//! Changes that a route makes to a head's fields.
//!
//! What is ours to write, and what a message's framing or its connection hangs on, is no route's to change: such names are
//! refused where a configuration is read, and the order of the stages sees to the rest. Edits come after the fields of the
//! connection before are off, and before what we know of the caller is written, so that none of them can pass for that.

use http::{HeaderMap, HeaderName, header};

use super::{hop_by_hop, reserved};
use crate::model::edits::FieldEdits;

/// Makes the changes: removed is first, added is last.
pub fn apply(headers: &mut HeaderMap, edits: &FieldEdits) {
    for name in &edits.remove {
        headers.remove(name);
    }
    // A map that can take no more names (24,576, far over every limit on header blocks) goes without.
    for (name, value) in &edits.set {
        headers.remove(name);
        headers.try_insert(name, value.clone()).ok();
    }
    for (name, value) in &edits.add {
        headers.try_append(name, value.clone()).ok();
    }
}

/// Whether routes may change a field of that name: it is nothing of the connection or the framing, nothing that proves
/// something or that we write ourselves whatever is there, and no look-alike of those.
#[must_use]
pub fn is_editable(name: &HeaderName) -> bool {
    let is_framing =
        [header::HOST, header::CONTENT_LENGTH, header::TE, header::TRAILER, header::EXPECT].contains(name);
    let is_ours = matches!(
        name.as_str(),
        "x-forwarded-client-cert"
            | "grpc-timeout"
            | "grpc-status"
            | "grpc-message"
            | "grpc-status-details-bin"
    );
    // The handshake that a switch of protocols is proved by.
    let is_handshake = name.as_str().starts_with("sec-websocket-");
    !is_framing
        && !is_ours
        && !is_handshake
        && !hop_by_hop::is_hop_by_hop(name)
        && !reserved::is_reserved(name)
        && !reserved::is_lookalike(name)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::{headers::fixture::headers, model::edits::Edits};

    fn field(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    }

    #[test]
    fn removed_is_gone_set_is_alone_and_added_is_beside() {
        let mut map =
            headers(&[("x-a", "1"), ("x-a", "2"), ("x-b", "1"), ("x-b", "2"), ("x-c", "1"), ("x-d", "1")]);
        let edits = FieldEdits {
            remove: vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-none")],
            set: vec![field("x-b", "3"), field("x-e", "1")],
            add: vec![field("x-c", "2"), field("x-c", "3"), field("x-b", "4")],
        };
        apply(&mut map, &edits);
        let left = [
            ("x-b", "3"),
            ("x-b", "4"),
            ("x-c", "1"),
            ("x-c", "2"),
            ("x-c", "3"),
            ("x-d", "1"),
            ("x-e", "1"),
        ];
        assert_eq!(map, headers(&left));
    }

    proptest! {
        #[test]
        fn changes_and_then_others_are_made_as_one(first in edits(), second in edits(), sent in fields()) {
            let mut one_by_one: HeaderMap = HeaderMap::new();
            for (name, value) in sent {
                one_by_one.append(name, value);
            }
            let mut at_once = one_by_one.clone();
            apply(&mut one_by_one, &first.request);
            apply(&mut one_by_one, &second.request);
            apply(&mut at_once, &first.then(&second).request);
            prop_assert_eq!(one_by_one, at_once);
        }
    }

    /// Fields of few names, so that they meet.
    fn fields() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
        let field = (0..4_usize, 0..3_usize)
            .prop_map(|(name, value)| field(["x-a", "x-b", "x-c", "x-d"][name], ["1", "2", "3"][value]));
        proptest::collection::vec(field, 0..5)
    }

    /// As they are read: nothing is removed that is set or added, and nothing set twice.
    fn edits() -> impl Strategy<Value = Edits> {
        (fields(), fields(), fields()).prop_map(|(mut set, add, remove)| {
            set.sort_by_key(|(name, _)| name.to_string());
            set.dedup_by_key(|(name, _)| name.clone());
            let is_named = |name: &HeaderName| set.iter().chain(&add).any(|(known, _)| known == name);
            let remove = remove.into_iter().map(|(name, _)| name).filter(|name| !is_named(name)).collect();
            Edits { request: FieldEdits { remove, set, add }, ..Edits::default() }
        })
    }

    #[test]
    fn what_is_ours_or_the_connections_is_not_a_routes_to_change() {
        for name in [
            "host",
            "connection",
            "keep-alive",
            "upgrade",
            "transfer-encoding",
            "content-length",
            "te",
            "trailer",
            "expect",
            "proxy-authorization",
            "x-forwarded-client-cert",
            "x_forwarded_for",
            "x-outrider-attempt",
            "x_outrider_attempt",
            "grpc-timeout",
            "grpc-status",
            "sec-websocket-accept",
        ] {
            assert!(!is_editable(&HeaderName::from_static(name)), "{name}");
        }
        for name in
            ["x-team", "x_team", "authorization", "content-type", "cookie", "set-cookie", "x-forwarded-for"]
        {
            assert!(is_editable(&HeaderName::from_static(name)), "{name}");
        }
    }
}
