//! Trailers: fields after a body, which some frameworks merge into the head's fields.

use http::{
    HeaderMap,
    header::{
        AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderName, SET_COOKIE,
        TRAILER,
    },
};

use super::{hop_by_hop, reserved};

/// What only a head may say: it frames, routes or authenticates the message (RFC 9110 §6.5.1), or is ours to say.
static HEAD_ONLY: [HeaderName; 13] = [
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
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-client-cert"),
    HeaderName::from_static("x-request-id"),
];

/// Removes from trailers what only a head may say, hop-by-hop fields and the reserved prefix included.
pub fn clean(trailers: &mut HeaderMap) {
    hop_by_hop::strip_response(trailers);
    reserved::strip(trailers);
    for name in &HEAD_ONLY {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
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
}
