//! Trailers: fields after a body, which some frameworks merge into the head's fields.

use http::{
    HeaderMap,
    header::{
        AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderName, SET_COOKIE,
        TRAILER,
    },
};

use super::{framing, hop_by_hop, reserved};

/// What only a head may say: it frames, routes or authenticates the message (RFC 9110 §6.5.1), or is ours to say.
static HEAD_ONLY: [HeaderName; 16] = [
    CONTENT_LENGTH,
    CONTENT_TYPE,
    CONTENT_ENCODING,
    HOST,
    TRAILER,
    AUTHORIZATION,
    COOKIE,
    SET_COOKIE,
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-client-cert"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-request-id"),
];

/// Removes from trailers what only a head may say, hop-by-hop fields and the reserved prefix included, and spaces around
/// values.
pub fn clean(trailers: &mut HeaderMap) {
    framing::trim(trailers);
    hop_by_hop::strip_response(trailers);
    reserved::strip(trailers);
    reserved::strip_lookalikes(trailers);
    for name in &HEAD_ONLY {
        trailers.remove(name);
    }
}

/// Removes from a request's trailers fields that rules have looked for in its head, and what is taken for them: an app that
/// merges trailers into the head would find there what nobody judged.
pub fn remove_judged(trailers: &mut HeaderMap, judged: &[HeaderName]) {
    let is_judged = |name: &&HeaderName| judged.iter().any(|judged| reserved::is_alike(name, judged));
    while let Some(name) = trailers.keys().find(is_judged).cloned() {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_describes_the_body_or_its_outcome_stays() {
        let mut trailers = HeaderMap::new();
        for name in [
            "grpc-status",
            "grpc-message",
            "x-checksum",
            "x-outrider-processed",
            "x-forwarded-client-cert",
            "x-forwarded-host",
            "x_forwarded_for",
            "x_outrider_processed",
            "content-length",
            "transfer-encoding",
            "connection",
            "host",
        ] {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("0"));
        }
        clean(&mut trailers);
        let left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["grpc-status", "grpc-message", "x-checksum"]);
    }

    #[test]
    fn what_rules_look_for_in_a_head_does_not_come_behind_it() {
        let mut trailers = HeaderMap::new();
        for name in ["x-team", "x_team", "x.team", "x-teams", "x-checksum"] {
            trailers.append(HeaderName::from_static(name), HeaderValue::from_static("a"));
            trailers.append(HeaderName::from_static(name), HeaderValue::from_static("b"));
        }
        let all = trailers.clone();
        remove_judged(&mut trailers, &[]);
        assert_eq!(trailers, all);
        remove_judged(&mut trailers, &[HeaderName::from_static("x-team"), HeaderName::from_static("x-none")]);
        let left: HashSet<_> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, HashSet::from(["x-teams", "x-checksum"]));
    }
}
