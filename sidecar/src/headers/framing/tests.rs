use http::{HeaderValue, Request, Response, request::Builder};
use proptest::prelude::*;

use super::*;
use crate::headers::fixture::headers;

fn request(version: Version, target: &str, fields: &[(&str, &str)]) -> request::Parts {
    let builder = Request::builder().version(version).uri(target);
    with(builder, fields)
}

fn with(builder: Builder, fields: &[(&str, &str)]) -> request::Parts {
    fields
        .iter()
        .fold(builder, |builder, (name, value)| builder.header(*name, *value))
        .body(())
        .unwrap()
        .into_parts()
        .0
}

fn framing(version: Version, fields: &[(&str, &str)]) -> Result<(), FramingError> {
    let response = fields
        .iter()
        .fold(Response::builder().version(version), |builder, (name, value)| builder.header(*name, *value))
        .body(())
        .unwrap()
        .into_parts()
        .0;
    let result = check_request(&request(version, "/", fields));
    assert_eq!(check_response(&response), result, "requests and responses are framed alike");
    result
}

#[test]
fn one_plain_length_or_one_chunked_is_a_message() {
    for fields in [
        vec![],
        vec![("content-length", "0")],
        vec![("content-length", "18446744073709551615")],
        vec![("transfer-encoding", "chunked")],
        vec![("transfer-encoding", "Chunked")],
    ] {
        assert_eq!(framing(Version::HTTP_11, &fields), Ok(()), "{fields:?}");
    }
}

#[test]
fn a_length_that_can_be_read_in_two_ways_is_refused() {
    for values in [
        vec![""],
        vec!["+5"],
        vec!["-1"],
        vec!["0x5"],
        vec!["5, 5"],
        vec!["5 "],
        vec!["05"],
        vec!["00"],
        vec!["5", "5"],
        vec!["5", "6"],
        vec!["18446744073709551616"],
        vec!["\u{b2}"],
    ] {
        let fields: Vec<_> = values.iter().map(|value| ("content-length", *value)).collect();
        assert_eq!(framing(Version::HTTP_11, &fields), Err(FramingError::ContentLength), "{values:?}");
    }
}

#[test]
fn an_encoding_other_than_chunked_is_refused() {
    for values in [
        vec![""],
        vec!["identity"],
        vec!["gzip, chunked"],
        vec!["chunked, chunked"],
        vec!["chunked", "chunked"],
        vec!["xchunked"],
        vec!["chunked;q=1"],
        vec!["\tchunked"],
    ] {
        let fields: Vec<_> = values.iter().map(|value| ("transfer-encoding", *value)).collect();
        assert_eq!(framing(Version::HTTP_11, &fields), Err(FramingError::TransferEncoding), "{values:?}");
    }
}

#[test]
fn only_http_1_1_has_transfer_encoding() {
    for version in [Version::HTTP_10, Version::HTTP_2] {
        assert_eq!(
            framing(version, &[("transfer-encoding", "chunked")]),
            Err(FramingError::TransferEncoding)
        );
    }
}

#[test]
fn length_and_encoding_together_are_refused() {
    let fields = [("content-length", "5"), ("transfer-encoding", "chunked")];
    assert_eq!(framing(Version::HTTP_11, &fields), Err(FramingError::LengthAndEncoding));
}

#[test]
fn fields_are_counted_each_time_they_are_repeated_and_with_what_they_cost() {
    let of = |count: usize| {
        let fields = vec![("cookie", "a=1"); count];
        request(Version::HTTP_2, "/", &fields).headers
    };
    assert!(fits(&of(100), 0, 100, usize::MAX) && !fits(&of(101), 0, 100, usize::MAX));
    // A crumb of a cookie is one byte in HPACK, and so much in memory.
    let bytes = 100 * (32 + "cookie".len() + "a=1".len());
    assert!(fits(&of(100), 0, 100, bytes) && !fits(&of(100), 0, 100, bytes - 1));
    assert!(fits(&of(100), 9, 100, bytes + 9) && !fits(&of(100), 10, 100, bytes + 9));
}

#[test]
fn a_target_is_a_path_or_a_star_with_options() {
    let check = |method, target| {
        let request = with(Request::builder().method(method).uri(target), &[]);
        check_request(&request)
    };
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/a?b"),
        ("GET", "http://orders/a"),
        ("GET", "http://orders"),
        ("OPTIONS", "*"),
    ] {
        assert_eq!(check(method, target), Ok(()), "{method} {target}");
    }
    assert_eq!(check("CONNECT", "orders:80"), Ok(()));
    for (method, target) in [("GET", "*"), ("GET", "orders:80"), ("options", "*")] {
        assert_eq!(check(method, target), Err(FramingError::Target), "{method} {target}");
    }
    // gRPC's CVE-2026-33186: a path without its slash matches no policy, and the app serves it.
    let mut parts = http::uri::Parts::default();
    if let Ok(path) = "pkg.Service/Method".parse() {
        parts.path_and_query = Some(path);
        let request = with(Request::builder().uri(http::Uri::from_parts(parts).unwrap()), &[]);
        assert_eq!(check_request(&request), Err(FramingError::Target));
    }
}

#[test]
fn the_target_wins_over_host_in_http_1() {
    let request = request(Version::HTTP_11, "http://orders:80/", &[("host", "evil")]);
    assert_eq!(authority(&request), Ok("orders:80"));
}

#[test]
fn authority_and_host_must_agree_in_http_2() {
    let check = |host| {
        authority(&request(Version::HTTP_2, "http://orders:80/", &[("host", host)])).map(str::to_owned)
    };
    assert_eq!(check("orders:80"), Ok("orders:80".to_owned()));
    assert_eq!(check("Orders:80"), Ok("orders:80".to_owned()));
    assert_eq!(check("orders"), Err(FramingError::HostMismatch));
    assert_eq!(check("evil"), Err(FramingError::HostMismatch));
    assert_eq!(check(""), Err(FramingError::HostMismatch));
}

#[test]
fn either_of_them_will_do_in_http_2() {
    assert_eq!(authority(&request(Version::HTTP_2, "http://orders/", &[])), Ok("orders"));
    assert_eq!(authority(&request(Version::HTTP_2, "/", &[("host", "orders")])), Ok("orders"));
    assert_eq!(authority(&request(Version::HTTP_2, "/", &[])), Err(FramingError::HostMissing));
}

#[test]
fn http_1_1_demands_a_host_and_http_1_0_does_not() {
    // RFC 9112 §3.2: 400 "to any HTTP/1.1 request message that lacks a Host header field".
    assert_eq!(authority(&request(Version::HTTP_11, "/", &[])), Err(FramingError::HostMissing));
    assert_eq!(authority(&request(Version::HTTP_11, "http://orders/", &[])), Err(FramingError::HostMissing));
    assert_eq!(authority(&request(Version::HTTP_10, "/", &[])), Ok(""));
    assert_eq!(authority(&request(Version::HTTP_11, "/", &[("host", "")])), Ok(""));
    assert_eq!(authority(&request(Version::HTTP_2, "/", &[("host", "")])), Err(FramingError::HostMalformed));
}

#[test]
fn a_repeated_host_is_refused_even_if_it_is_the_same() {
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        let request = request(version, "/", &[("host", "orders"), ("host", "orders")]);
        assert_eq!(authority(&request), Err(FramingError::HostRepeated));
    }
}

#[test]
fn hosts_are_plain() {
    for host in [
        "orders",
        "Orders.default.svc:8080",
        "10.0.0.1:1",
        "[::1]",
        "[2001:db8::1]:80",
        "a_b",
        "orders.",
        "orders:",
    ] {
        assert_eq!(authority(&request(Version::HTTP_11, "/", &[("host", host)])), Ok(host));
    }
    for host in [
        "user@orders",
        "orders,evil",
        "orders/",
        "orders?",
        "orders#a",
        "a b",
        "orders:80:80",
        "orders:x",
        "orders:123456",
        ":80",
        "%6frders",
        "[::1",
        "[::1]x",
        "[]",
        "[fe80::1%25eth0]",
        "[orders]",
        "orders\\evil",
        "a\tb",
        "\u{f6}rders",
        "http://orders",
        "::1",
    ] {
        let request = request(Version::HTTP_11, "/", &[("host", host)]);
        assert_eq!(authority(&request), Err(FramingError::HostMalformed), "{host:?}");
    }
    let target = request(Version::HTTP_2, "http://user@orders/", &[]);
    assert_eq!(authority(&target), Err(FramingError::HostMalformed));
}

#[test]
fn header_values_hold_no_control_character_but_the_tab() {
    for byte in 0..=u8::MAX {
        let is_control = byte.is_ascii_control() && byte != b'\t';
        assert_eq!(HeaderValue::from_bytes(&[b'a', byte, b'b']).is_err(), is_control, "{byte:#x}");
    }
}

proptest! {
    #[test]
    fn no_host_panics_and_what_is_accepted_is_plain(host in "\\PC{0,20}|[a-z0-9:.\\[\\]@%]{0,20}") {
        let Ok(value) = HeaderValue::from_str(&host) else { return Ok(()) };
        let mut request = request(Version::HTTP_11, "/", &[]);
        request.headers.insert(HOST, value);
        if let Ok(accepted) = authority(&request) {
            prop_assert_eq!(accepted, host.as_str());
            prop_assert!(!accepted.contains(['@', '%', '/', '?', '#', ' ', '\\']));
            // What we accept and is not empty, the URI parser of the HTTP stack reads alike.
            if !accepted.is_empty() {
                let read: http::uri::Authority = accepted.parse().unwrap();
                prop_assert_eq!(read.as_str(), accepted);
            }
        }
    }

    #[test]
    fn at_most_one_framing_is_accepted(
        lengths in proptest::collection::vec("[0-9]{0,3}|\\+1|1, 1", 0..3),
        encodings in proptest::collection::vec("chunked|gzip|", 0..3),
    ) {
        let fields: Vec<_> = lengths.iter().map(|value| ("content-length", value.as_str()))
            .chain(encodings.iter().map(|value| ("transfer-encoding", value.as_str())))
            .collect();
        if framing(Version::HTTP_11, &fields).is_ok() {
            prop_assert!(lengths.len() + encodings.len() <= 1);
        }
    }
}

#[test]
fn who_asks_and_what_is_sent_is_said_once() {
    for name in ["authorization", "content-type", "origin"] {
        assert_eq!(check_single(&headers(&[(name, "a")])), Ok(()));
        // The very same twice as well: who joins the lines reads neither.
        for second in ["a", "b"] {
            assert_eq!(
                check_single(&headers(&[(name, "a"), (name, second)])),
                Err(FramingError::Repeated),
                "{name}"
            );
        }
    }
    assert_eq!(check_single(&headers(&[("accept", "a"), ("accept", "b")])), Ok(()));
}

#[test]
fn spaces_and_tabs_around_a_value_are_no_part_of_it() {
    let mut headers = HeaderMap::new();
    for (name, value) in [("a", " 1"), ("b", "1 \t"), ("c", "\t 1 2 "), ("d", " "), ("e", ""), ("f", "1")] {
        let mut value = HeaderValue::from_static(value);
        value.set_sensitive(name == "b");
        headers.append(HeaderName::from_static(name), value);
    }
    headers.append("a", HeaderValue::from_static("2 "));
    trim(&mut headers);
    let left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(left, [("a", "1"), ("a", "2"), ("b", "1"), ("c", "1 2"), ("d", ""), ("e", ""), ("f", "1")]);
    assert!(headers["b"].is_sensitive() && !headers["a"].is_sensitive());
}
