//! What says that a message is gRPC's.

use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

/// Whether a head speaks gRPC (gRPC over HTTP/2, "Requests" and "Responses").
#[must_use]
pub fn is_call(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(is_type)
}

/// Whether that content type is gRPC's: `application/grpc`, or that with a format (`+proto`) or parameters, spaces before
/// which are nothing (RFC 9110 §5.6.6). Not gRPC-Web, whose status is in the body.
#[must_use]
pub fn is_type(kind: &HeaderValue) -> bool {
    let Some(rest) = kind.as_bytes().strip_prefix(b"application/grpc") else { return false };
    matches!(rest.first(), None | Some(b'+')) || matches!(rest.trim_ascii_start().first(), None | Some(b';'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::fixture::headers;

    #[test]
    fn one_type_is_grpcs_however_it_goes_on() {
        for (kind, is_grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc ;charset=utf-8", true),
            ("application/grpc\t; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grpcs", false),
            ("application/grpc proto", false),
            ("application/grpc +proto", false),
            ("text/plain", false),
        ] {
            assert_eq!(is_call(&headers(&[("content-type", kind)])), is_grpc, "{kind}");
        }
        assert!(!is_call(&HeaderMap::new()));
    }
}
