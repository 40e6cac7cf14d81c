//! Hop-by-hop fields: meant for one connection, they end with it (RFC 9110 §7.6.1).
//!
//! Removed are the fields that `Connection` names, and those that are hop-by-hop by themselves. `Trailer` passes, and
//! of `TE` the one word `trailers`: without them trailers get lost on HTTP/1.1 legs.
//!
//! # Hop-by-hop abuse
//! `Connection` may name any field, so a caller could have us delete what the app relies on (`Connection:
//! x-forwarded-for`). Fields for all recipients are therefore kept whatever `Connection` says; RFC 9110 §7.6.1
//! forbids naming those.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, TE},
};

use crate::model::wire::RESERVED_PREFIX;

/// Fields that `Connection` cannot remove, with everything under [`RESERVED_PREFIX`]: framing and target, who is
/// asking, what the body is, where the trace is. `te` and `trailer` have rules of their own.
const KEPT: [&str; 21] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "cache-control",
    "te",
    "trailer",
    "authorization",
    "cookie",
    "set-cookie",
    "date",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-client-cert",
    "x-real-ip",
    "x-request-id",
    "traceparent",
    "tracestate",
];

/// Removes the hop-by-hop fields of a request.
pub fn strip_request(headers: &mut HeaderMap) {
    strip(headers);
    reduce_te(headers);
}

/// Removes the hop-by-hop fields of a response.
pub fn strip_response(headers: &mut HeaderMap) {
    strip(headers);
}

fn strip(headers: &mut HeaderMap) {
    // One look at every name: most messages (all of HTTP/2) have none of these.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    strip_named(headers);
    while let Some(name) = headers.keys().find(|name| is_hop_by_hop(name)).cloned() {
        headers.remove(name);
    }
}

/// Removes what `Connection` names, except what it may not name. `Connection` itself stays for now.
fn strip_named(headers: &mut HeaderMap) {
    let values: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    for option in values.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        match std::str::from_utf8(option.trim_ascii()) {
            Ok(name) if !is_kept(name) => drop(headers.remove(name)),
            // Not a name, so no field has it.
            Ok(_) | Err(_) => {}
        }
    }
}

/// Leaves of `TE` no more than `trailers`: the one word that is ours to promise on the next hop, as trailers are relayed.
fn reduce_te(headers: &mut HeaderMap) {
    let mut values = headers.get_all(TE).iter();
    match (values.next(), values.next()) {
        (None, _) => return,
        (Some(only), None) if only == "trailers" => return,
        (Some(_), _) => {}
    }
    let accepts_trailers = headers
        .get_all(TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"));
    if accepts_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(TE);
    }
}

/// Whether a field is for one connection only, or between one client and one proxy. `http2-settings` belongs to an
/// upgrade that HTTP/2 has given up (RFC 9113 §3.1) and that has been used to smuggle requests.
#[must_use]
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    is_for_one_connection(name.as_str())
}

/// The same by the name's text, in lower case.
pub(super) fn is_for_one_connection(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-authorization"
    )
}

fn is_kept(name: &str) -> bool {
    let is_reserved =
        name.get(..RESERVED_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED_PREFIX));
    is_reserved
        || KEPT.iter().any(|kept| name.eq_ignore_ascii_case(kept))
        || name.eq_ignore_ascii_case("connection")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::headers::fixture::headers;

    fn stripped(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = headers(fields);
        strip_request(&mut headers);
        headers
    }

    #[test]
    fn fields_for_one_connection_end_with_it() {
        let left = stripped(&[
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
            ("proxy-authorization", "Basic eA=="),
            ("proxy-authenticate", "Basic"),
            ("accept", "*/*"),
        ]);
        assert_eq!(left, headers(&[("accept", "*/*")]));
    }

    #[test]
    fn what_connection_names_goes_too_in_any_spelling() {
        let left = stripped(&[
            ("connection", "close, X-One ,,x-two"),
            ("connection", "\tx-three"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-two", "two"),
            ("x-three", "3"),
            ("x-four", "4"),
        ]);
        assert_eq!(left, headers(&[("x-four", "4")]));
    }

    #[test]
    fn connection_cannot_remove_what_is_for_all_recipients() {
        let kept = [
            ("host", "orders"),
            ("content-length", "3"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-outrider-attempt", "1"),
            ("authorization", "Bearer x"),
            ("traceparent", "00-x"),
        ];
        let named = "Host, CONTENT-LENGTH, x-forwarded-for, X-Outrider-Attempt, authorization, traceparent, connection";
        let mut fields = kept.to_vec();
        fields.push(("connection", named));
        assert_eq!(stripped(&fields), headers(&kept));
    }

    #[test]
    fn nonsense_in_connection_removes_nothing_else() {
        let left = stripped(&[("connection", ":authority, @, \"x-one\", a b, \u{e9}"), ("x-one", "1")]);
        assert_eq!(left, headers(&[("x-one", "1")]));
    }

    #[test]
    fn of_te_only_trailers_passes() {
        for (sent, left) in [
            (vec!["trailers"], Some("trailers")),
            (vec!["Trailers"], Some("trailers")),
            (vec!["deflate;q=0.5, trailers"], Some("trailers")),
            (vec!["gzip", "trailers"], Some("trailers")),
            (vec!["trailers", "trailers"], Some("trailers")),
            (vec!["gzip"], None),
            (vec!["trailers;q=0"], None),
            (vec![""], None),
        ] {
            let mut fields: Vec<_> = sent.iter().map(|value| ("te", *value)).collect();
            fields.push(("connection", "te"));
            let headers = stripped(&fields);
            let te: Vec<_> = headers.get_all(TE).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(te, Vec::from_iter(left), "{sent:?}");
        }
    }

    #[test]
    fn trailer_passes_in_both_directions() {
        let fields = [("trailer", "grpc-status"), ("connection", "trailer")];
        assert_eq!(stripped(&fields), headers(&[("trailer", "grpc-status")]));
        let mut response = headers(&fields);
        strip_response(&mut response);
        assert_eq!(response, headers(&[("trailer", "grpc-status")]));
    }

    proptest! {
        /// The model removes by the rules' words, field by field.
        #[test]
        fn it_leaves_what_a_list_of_rules_would(
            fields in proptest::collection::vec(("connection|keep-alive|upgrade|x-[ab]|host|accept", "x-[ab]|Host|close|x-a, X-B"), 0..12),
        ) {
            let mut map = HeaderMap::new();
            for (name, value) in &fields {
                map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
            }
            let named: Vec<String> = fields
                .iter()
                .filter(|(name, _)| name == "connection")
                .flat_map(|(_, value)| value.split(',').map(|option| option.trim().to_lowercase()))
                .collect();
            strip_response(&mut map);
            for (name, _) in &fields {
                let goes = ["connection", "keep-alive", "upgrade"].contains(&name.as_str())
                    || (named.contains(name) && name != "host");
                prop_assert_eq!(map.contains_key(name.as_str()), !goes, "{}", name);
            }
        }
    }
}
