//! What is not HTTP, or could be read in two ways, is answered and closed, and nobody else notices.

use std::time::Duration;

use http::StatusCode;

use super::Pair;
use crate::harness::{Client, HttpApp, client::exchange, soon};

/// How soon a connection that went wrong is closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);

/// What is sent, and the statuses that may answer it.
type Case = (&'static str, &'static [u8], &'static [&'static str]);

const CASES: &[Case] = &[
    (
        "two content lengths",
        b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        &["400"],
    ),
    (
        "a list of content lengths",
        b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 3, 3\r\n\r\nabc",
        &["400"],
    ),
    (
        "a signed content length",
        b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: +3\r\n\r\nabc",
        &["400"],
    ),
    (
        "another transfer coding",
        b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        &["400", "501"],
    ),
    (
        "an unknown transfer coding",
        b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        &["400", "501"],
    ),
    (
        "chunked in HTTP/1.0",
        b"POST / HTTP/1.0\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &["400"],
    ),
    ("a method with a control character", b"G\x01T / HTTP/1.1\r\nHost: orders\r\n\r\n", &["400"]),
    ("no host", b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", &["400"]),
    ("two hosts", b"GET / HTTP/1.1\r\nHost: orders\r\nHost: orders\r\n\r\n", &["400"]),
    ("a host with a user", b"GET / HTTP/1.1\r\nHost: me@orders\r\n\r\n", &["400"]),
    ("a host with a path", b"GET / HTTP/1.1\r\nHost: orders/x\r\n\r\n", &["400"]),
    ("a space before the colon", b"GET / HTTP/1.1\r\nHost : orders\r\n\r\n", &["400"]),
    ("a folded field", b"GET / HTTP/1.1\r\nHost: orders\r\nX-A: 1\r\n 2\r\n\r\n", &["400"]),
    ("a field without a colon", b"GET / HTTP/1.1\r\nHost: orders\r\nnonsense\r\n\r\n", &["400"]),
    ("a null in a field", b"GET / HTTP/1.1\r\nHost: orders\r\nX-A: 1\x002\r\n\r\n", &["400"]),
    ("a target that is no path", b"GET nonsense HTTP/1.1\r\nHost: orders\r\n\r\n", &["400"]),
    ("a version of the future", b"GET / HTTP/9.9\r\nHost: orders\r\n\r\n", &["400", "505"]),
    ("no HTTP at all", b"\x05\x01\x00nonsense\r\n\r\n", &["400"]),
];

#[tokio::test]
async fn malformed_requests_are_refused_and_closed_and_disturb_no_other_connection() {
    let pair = Pair::of(HttpApp::echo().await).await;
    let mut good = Client::http1(pair.web.address()).await;
    let mut wrong = Vec::new();
    for (what, bytes, expected) in CASES {
        let before = pair.app.count();
        let exchanged = tokio::time::timeout(CLOSED_WITHIN, exchange(pair.web.address(), bytes)).await;
        let Ok(answer) = exchanged else {
            wrong.push(format!("{what}: the connection stays open"));
            continue;
        };
        let text = String::from_utf8_lossy(&answer);
        let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).unwrap_or("none");
        let answers = text.lines().filter(|line| line.starts_with("HTTP/1.")).count();
        if !expected.contains(&status) || answers != 1 || pair.app.count() != before {
            wrong.push(format!(
                "{what}: {answers} answers, the first {status}; the app got {}",
                pair.app.count() - before
            ));
        }
        assert_eq!(soon(what, good.get("/good")).await.unwrap().status(), StatusCode::OK);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_length_beside_chunked_smuggles_nothing() {
    // RFC 9112 §6.3: it may be rejected, or read "in accordance with the Transfer-Encoding alone"; then the length must
    // not be forwarded, and "the server MUST close the connection after responding".
    for fields in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    ] {
        let pair = Pair::of(HttpApp::echo().await).await;
        let smuggled = "GET /evil HTTP/1.1\r\nHost: orders\r\n\r\n";
        let bytes = format!("POST / HTTP/1.1\r\nHost: orders\r\n{fields}\r\n0\r\n\r\n{smuggled}");
        let answer = exchange(pair.web.address(), bytes.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(text.lines().filter(|line| line.starts_with("HTTP/1.")).count(), 1, "{text}");
        for seen in pair.app.seen() {
            assert_eq!((seen.uri.path(), seen.header("content-length")), ("/", None));
        }
    }
}

#[tokio::test]
async fn the_same_content_length_twice_is_one_or_none() {
    // RFC 9110 §8.6: a recipient may reject it, or "replace the duplicated field values with a single valid" one.
    let pair = Pair::of(HttpApp::echo().await).await;
    let bytes = b"POST / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc";
    let answer = exchange(pair.web.address(), bytes).await;
    let text = String::from_utf8_lossy(&answer);
    if text.starts_with("HTTP/1.1 200") {
        assert_eq!(pair.app.only().header("content-length"), Some("3"));
    } else {
        assert!(text.starts_with("HTTP/1.1 400"), "{text}");
    }
}

#[tokio::test]
async fn a_head_over_the_limit_is_answered_with_431() {
    let pair = Pair::of(HttpApp::echo().await).await;
    let large = format!("GET / HTTP/1.1\r\nHost: orders\r\nX-Large: {}\r\n\r\n", "a".repeat(100 * 1024));
    let many = format!("GET / HTTP/1.1\r\nHost: orders\r\n{}\r\n", "X-Many: 1\r\n".repeat(150));
    for (what, request) in [("large", large), ("many", many)] {
        let answer = exchange(pair.web.address(), request.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 431"), "{what}: {}", &text[..text.len().min(200)]);
    }
    assert_eq!(pair.app.count(), 0);
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused_in_http2_and_the_connection_lives() {
    let pair = Pair::of(HttpApp::echo().await).await;
    let mut client = Client::http2(pair.web.address()).await;
    let mut large = crate::harness::client::request(http::Method::GET, "/", crate::harness::body::empty());
    for i in 0..20 {
        let name: http::HeaderName = format!("x-large-{i}").parse().unwrap();
        large.headers_mut().insert(name, "a".repeat(8 * 1024).parse().unwrap());
    }
    if let Ok(response) = soon("an answer", client.send(large)).await {
        assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    assert_eq!(pair.app.count(), 0);
    let mut other = Client::http2(pair.web.address()).await;
    assert_eq!(soon("another", other.get("/")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_malformed_chunk_breaks_its_own_request_only() {
    let pair = Pair::of(HttpApp::named("done").await).await;
    let bytes =
        b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nZZ\r\nrest";
    let answer = exchange(pair.web.address(), bytes).await;
    let text = String::from_utf8_lossy(&answer);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 400"), "{text}");
    let response = Client::http1(pair.web.address()).await.get("/good").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn nonsense_after_the_http2_preface_ends_that_connection_only() {
    let pair = Pair::of(HttpApp::echo().await).await;
    let mut good = Client::http2(pair.web.address()).await;
    let mut nonsense = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    nonsense.extend_from_slice(&[0xff; 64]);
    let answer = exchange(pair.web.address(), &nonsense).await;
    assert!(!answer.starts_with(b"HTTP"), "no HTTP/1 to an HTTP/2 client");
    assert_eq!(soon("the other", good.get("/")).await.unwrap().status(), StatusCode::OK);
}
