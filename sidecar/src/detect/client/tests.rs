use std::ops::Range;

use proptest::prelude::*;

use super::{samples::CLIENTS, *};

fn decided(bytes: &[u8]) -> Option<Spoken> {
    match client(bytes, MAX_BYTES) {
        Verdict::Decided(spoken) => Some(spoken),
        Verdict::More => None,
    }
}

/// The first decision over growing prefixes, which every longer prefix must repeat.
fn decided_bytewise(bytes: &[u8], limit: usize) -> Option<(usize, Spoken)> {
    let mut first = None;
    for end in 0..=bytes.len() {
        let verdict = client(&bytes[..end], limit);
        match (first, verdict) {
            (None, Verdict::Decided(spoken)) => first = Some((end, spoken)),
            (None, Verdict::More) => {}
            (Some((_, spoken)), verdict) => {
                assert_eq!(
                    verdict,
                    Verdict::Decided(spoken),
                    "{:?}",
                    bytes[..end].escape_ascii().to_string()
                );
            }
        }
    }
    first
}

#[test]
fn each_protocol_is_told_apart() {
    for (name, bytes, spoken) in CLIENTS {
        assert_eq!(decided(bytes), Some(*spoken), "{name}");
    }
}

/// Only their senders' silence tells that nothing follows.
#[test]
fn what_may_still_become_a_request_is_not_decided() {
    for bytes in [
        &b""[..],
        b"\r",
        b"\r\n",
        b"ruok",
        b"P",
        b"PRI * HTTP/2.0\r\n\r\nSM",
        b"GET / HTTP/1.1\r",
        b"\x16\x03\x01\x00",
    ] {
        assert_eq!(client(bytes, MAX_BYTES), Verdict::More, "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_decision_is_the_same_wherever_the_bytes_are_cut() {
    for (name, bytes, _) in CLIENTS {
        let first = decided_bytewise(bytes, MAX_BYTES);
        assert_eq!(first.map(|(_, spoken)| spoken), decided(bytes), "{name}");
    }
}

#[test]
fn tls_is_decided_by_six_bytes_and_http_by_its_line() {
    let at = |bytes: &[u8]| decided_bytewise(bytes, MAX_BYTES);
    assert_eq!(at(b"\x16\x03\x01\x06\xc2\x01\x00\x06"), Some((6, Spoken::Tls)));
    assert_eq!(at(b"\x16\x03\x05"), Some((3, Spoken::Opaque)));
    assert_eq!(at(b"\x16\x03\x01\x41\x00"), Some((4, Spoken::Opaque)));
    assert_eq!(at(&[PREFACE, b"\0\0\0"].concat()), Some((24, Spoken::Http2)));
    assert_eq!(at(b"GET / HTTP/1.1\nhost"), Some((15, Spoken::Http1)));
    assert_eq!(at(b"*1\r\n$4\r\n"), Some((4, Spoken::Opaque)), "at the feed");
    assert_eq!(at(b"CONNECT {\"verbose"), Some((9, Spoken::Opaque)), "at the brace");
    assert_eq!(at(b"\x00\x00\x00\x08"), Some((1, Spoken::Opaque)));
}

fn line(method: &str, target_start: &str, length: usize) -> Vec<u8> {
    let fill = "a".repeat(length - method.len() - target_start.len() - " / HTTP/1.1\r\n".len() + 1);
    format!("{method} {target_start}{fill} HTTP/1.1\r\n").into_bytes()
}

#[test]
fn a_request_line_longer_than_the_limit_is_decided_by_how_it_begins() {
    let over = 2 * MAX_BYTES;
    for (method, start, spoken) in [
        ("GET", "/", Spoken::Http1),
        ("UNHEARD-OF", "/", Spoken::Http1),
        ("POST", "http://users/", Spoken::Http1),
        ("GET", "https://users/", Spoken::Http1),
        ("get", "/", Spoken::Opaque),
        ("Get", "http://users/", Spoken::Opaque),
    ] {
        let bytes = line(method, start, over);
        assert_eq!(bytes.len(), over);
        assert_eq!(decided(&bytes[..MAX_BYTES - 1]), None, "{method} {start}");
        for end in [MAX_BYTES, MAX_BYTES + 1, over] {
            assert_eq!(decided(&bytes[..end]), Some(spoken), "{method} {start}");
        }
    }
    let within = line("get", "/", MAX_BYTES);
    assert_eq!((decided(&within[..MAX_BYTES - 1]), decided(&within)), (None, Some(Spoken::Http1)));
    assert_eq!(decided_bytewise(&[b'A'; 70], MAX_BYTES), Some((65, Spoken::Opaque)), "no method is so long");
    // Servers skip as much of it as there is.
    for start in ["", "G", "GET", "GET ", "GET ht"] {
        let before = ["\n".repeat(MAX_BYTES - start.len()).as_str(), start].concat();
        assert_eq!(decided(before.as_bytes()), Some(Spoken::Http1), "{start:?} behind nothing");
    }
    assert_eq!(decided(format!("GET{:8190}/ HTTP/1.1\r\n", "").as_bytes()), Some(Spoken::Http1));
    let long_host = line("CONNECT", "users:", 400);
    assert_eq!(decided_bytewise(&long_host, MAX_BYTES), Some((270, Spoken::Opaque)), "no host is so long");
    let long_scheme = line("GET", "http", 400);
    assert_eq!(decided_bytewise(&long_scheme, MAX_BYTES), Some((21, Spoken::Opaque)), "no scheme is so long");
}

#[test]
fn so_many_bytes_as_are_looked_at_always_decide() {
    for limit in 1..=64 {
        for (name, bytes, _) in CLIENTS.iter().filter(|(_, bytes, _)| bytes.len() >= limit) {
            assert_ne!(client(bytes, limit), Verdict::More, "{name} {limit}");
        }
    }
}

/// Bytes that come close to what is looked for: pieces of it in any order.
fn near_misses() -> impl Strategy<Value = Vec<u8>> {
    let pieces: &[&[u8]] = &[
        b"GET",
        b"PRI",
        b"CONNECT",
        b" ",
        b"*",
        b"/",
        b"http://",
        b"a:1",
        b"HTTP/",
        b"1.",
        b"2.0",
        b"1",
        b"\r",
        b"\n",
        b"\r\n",
        b"SM",
        b"\x16",
        b"\x03",
        b"\x01",
        b"\0",
        b"\xff",
        b"{",
        b"aaaaaaaa",
    ];
    proptest::collection::vec(proptest::sample::select(pieces), 0..24).prop_map(|parts| parts.concat())
}

const LIMITS: Range<usize> = 1..100;

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_change_its_mind(bytes in proptest::collection::vec(any::<u8>(), 0..300), limit in LIMITS) {
        decided_bytewise(&bytes, limit);
    }

    #[test]
    fn nor_do_bytes_that_come_close(bytes in near_misses(), limit in LIMITS) {
        decided_bytewise(&bytes, limit);
        decided_bytewise(&bytes, MAX_BYTES);
    }

    #[test]
    fn every_request_line_is_http1(
        method in "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}",
        target in "/[!-~]{0,200}",
        version in "[0-9]{1,3}\\.[0-9]{1,3}",
        (space, other_space) in ("[ \t\x0b\x0c\r]{1,9}", "[ \t\x0b\x0c\r]{1,9}"),
        ending in "[ \t\x0b\x0c\r]{0,9}\n",
        before in "[\r\n]{0,99}",
    ) {
        let bytes = format!("{before}{method}{space}{target}{other_space}HTTP/{version}{ending}");
        let first = decided_bytewise(bytes.as_bytes(), MAX_BYTES);
        prop_assert_eq!(first, Some((bytes.len(), Spoken::Http1)));
    }
}
