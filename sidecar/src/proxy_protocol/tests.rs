use std::net::SocketAddr;

use outrider_certs::SpiffeId;
use proptest::prelude::*;

use super::*;
use crate::model::proxy_protocol::{Link, Version};

const VERSIONS: [Version; 2] = [Version::V1, Version::V2];
/// What 192.0.2.1:4711 says that dials 192.0.2.2:443, in version 2.
const IPV4: &[u8] = b"\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x12\x67\x01\xbb";

fn link(source: &str, destination: &str) -> Link {
    Link { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn web() -> SpiffeId {
    "spiffe://shop.mesh/ns/shop/sa/web".parse().unwrap()
}

/// A header of version 2 of what follows the signature.
fn v2(rest: &[u8]) -> Vec<u8> {
    [SIGNATURE, rest].concat()
}

/// One of `IPV4` with these TLVs.
fn with_tlvs(tlvs: &[u8]) -> Vec<u8> {
    let mut header = v2(IPV4);
    header.extend_from_slice(tlvs);
    let length = u16::try_from(header.len() - 16).unwrap();
    header[14..16].copy_from_slice(&length.to_be_bytes());
    header
}

fn said(look: Look) -> Option<Link> {
    let Look::Header { link, .. } = look else { panic!("{look:?}") };
    link
}

#[test]
fn what_is_written_is_read_again_byte_by_byte_and_whatever_follows_it() {
    let id = web();
    for link in [
        link("192.0.2.1:4711", "192.0.2.2:443"),
        link("[2001:db8::1]:65535", "[2001:db8::2]:1"),
        link("[2001:db8::1]:1", "192.0.2.2:443"),
        link("192.0.2.1:0", "[::1]:80"),
        link("255.255.255.255:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
    ] {
        for version in VERSIONS {
            for caller in [Caller::Verified(&id), Caller::Unverified] {
                let written = header(version, link, caller);
                let length = written.len();
                for cut in 0..length {
                    assert_eq!(look(&written[..cut]), Look::More, "{version:?} {link:?} {cut}");
                }
                for tail in [&b""[..], b"\x16\x03\x01", b"PROXY ", SIGNATURE] {
                    let sent = [&written, tail].concat();
                    assert_eq!(look(&sent), Look::Header { length, link: Some(link) }, "{version:?}");
                }
            }
        }
    }
}

#[test]
fn only_a_verified_caller_is_named() {
    let link = link("192.0.2.1:4711", "192.0.2.2:443");
    let id = web();
    let text = header(Version::V1, link, Caller::Verified(&id));
    assert_eq!(text, b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n");
    assert_eq!(header(Version::V2, link, Caller::Unverified), v2(IPV4));
    let named = header(Version::V2, link, Caller::Verified(&id));
    let parsed = ppp::v2::Header::try_from(&named[..]).unwrap();
    let tlvs: Vec<_> =
        parsed.tlvs().map(|tlv| tlv.unwrap()).map(|tlv| (tlv.kind, tlv.value.to_vec())).collect();
    let ssl = b"\x07\0\0\0\0\x21\0\x07TLSv1.3".to_vec();
    assert_eq!(tlvs, [(0x20, ssl), (0xe0, id.as_str().as_bytes().to_vec())]);
}

#[test]
fn who_says_nothing_of_use_speaks_for_itself() {
    for sent in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
        // LOCAL, with whatever else.
        v2(b"\x20\0\0\0"),
        v2(b"\x20\xff\0\x03abc"),
        v2(b"\x20\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\x01\0\x02"),
        // PROXY of no family, with TLVs; of datagrams; of Unix sockets.
        v2(b"\x21\0\0\x04\x04\0\x01x"),
        v2(b"\x21\x12\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\x01\0\x02"),
        v2(&[b"\x21\x31\0\xd8", &[b'/'; 216][..]].concat()),
    ] {
        let length = sent.len();
        assert_eq!(look(&sent), Look::Header { length, link: None }, "{}", sent.escape_ascii());
    }
}

#[test]
fn ipv4_in_the_clothes_of_ipv6_is_ipv4() {
    let said = said(look(b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 4711 443\r\n"));
    assert_eq!(said, Some(link("192.0.2.1:4711", "192.0.2.2:443")));
}

#[test]
fn what_is_no_header_is_known_by_its_first_bytes() {
    for sent in [
        &b"\x16\x03\x01"[..],
        b"GET / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0",
        b"PROXY\t",
        b"proxy ",
        b"\r\n\r\n\r\n",
    ] {
        assert_eq!(look(sent), Look::None, "{}", sent.escape_ascii());
    }
    assert_eq!(look(b""), Look::More);
    assert_eq!(look(b"P"), Look::More);
    assert_eq!(look(b"\r\n"), Look::More);
}

#[test]
fn malformed_headers_are_told_apart() {
    let too_long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 93]].concat();
    for (sent, expected) in [
        (too_long, Malformed::TooLong),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 4711\r\n".to_vec(), Malformed::Line),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 65536\r\n".to_vec(), Malformed::Line),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 +4711 443\r\n".to_vec(), Malformed::Line),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 04711 443\r\n".to_vec(), Malformed::Line),
        (b"PROXY TCP4 ::1 ::1 4711 443\r\n".to_vec(), Malformed::Line),
        (b"PROXY TCP6 192.0.2.1 192.0.2.2 4711 443\r\n".to_vec(), Malformed::Line),
        (b"PROXY TCP4  192.0.2.1 192.0.2.2 4711 443\r\n".to_vec(), Malformed::Line),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443 \r\n".to_vec(), Malformed::Line),
        (b"PROXY UDP4 192.0.2.1 192.0.2.2 4711 443\r\n".to_vec(), Malformed::Line),
        (b"PROXY UNKNOWN \xff\r\n".to_vec(), Malformed::Line),
        (b"PROXY \r\n".to_vec(), Malformed::Line),
        (v2(b"\x11\x11\0\x0c"), Malformed::Command),
        (v2(b"\x22\x11\0\x0c"), Malformed::Command),
        (v2(b"\x21\x11\0\x0babcdefghijk"), Malformed::Addresses),
        (v2(b"\x21\x41\0\0"), Malformed::Addresses),
        (v2(b"\x21\x13\0\x0cabcdefghijkl"), Malformed::Addresses),
        (v2(b"\x21\x11\x0f\xf1"), Malformed::TooLong),
        (v2(b"\x20\0\xff\xff"), Malformed::TooLong),
        (with_tlvs(b"\x04"), Malformed::Tlvs),
        (with_tlvs(b"\x04\0"), Malformed::Tlvs),
        (with_tlvs(b"\x04\0\x02x"), Malformed::Tlvs),
        (with_tlvs(b"\x04\xff\xffx"), Malformed::Tlvs),
        (with_tlvs(b"\x04\0\0\x01\0\x01"), Malformed::Tlvs),
        (with_tlvs(b"\x03\0\x03abc"), Malformed::Tlvs),
        (with_tlvs(b"\x03\0\x04abcd"), Malformed::Checksum),
    ] {
        assert_eq!(look(&sent), Look::Malformed(expected), "{}", sent.escape_ascii());
    }
}

#[test]
fn the_longest_header_is_read() {
    let fitting = MAX_HEADER_BYTES - 16 - 12 - 3;
    let tlv = |length: usize| {
        let length_bytes = u16::try_from(length).unwrap().to_be_bytes();
        [&[4][..], &length_bytes, &vec![0; length]].concat()
    };
    let longest = with_tlvs(&tlv(fitting));
    assert_eq!(longest.len(), MAX_HEADER_BYTES);
    assert!(said(look(&longest)).is_some());
    assert_eq!(look(&longest[..longest.len() - 1]), Look::More);
    assert_eq!(look(&with_tlvs(&tlv(fitting + 1))), Look::Malformed(Malformed::TooLong));
}

#[test]
fn a_checksum_is_looked_at() {
    // RFC 3720 §B.4 and the check value of the catalogues.
    assert_eq!(crc32c(&[0; 32], 0..0), 0x8a91_36aa);
    assert_eq!(crc32c(b"123456789", 0..0), 0xe306_9283);
    let mut header = with_tlvs(b"\x03\0\x04\0\0\0\0\x04\0\x01x");
    let sum = crc32c(&header, 0..0);
    let at = 16 + 12 + 3;
    header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    assert!(said(look(&header)).is_some());
    let last = header.len() - 1;
    header[last] ^= 1;
    assert_eq!(look(&header), Look::Malformed(Malformed::Checksum));

    let mut twice = with_tlvs(b"\x03\0\x04\0\0\0\0\x03\0\x04\0\0\0\0");
    let sum = crc32c(&twice, at..at + 4);
    twice[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(look(&twice), Look::Malformed(Malformed::Tlvs), "the first is right, and there is a second");
}

fn any_link() -> impl Strategy<Value = Link> {
    let v4 = any::<([u8; 4], u16)>().prop_map(SocketAddr::from);
    let v6 = any::<([u16; 8], u16)>().prop_map(SocketAddr::from);
    let end = prop_oneof![v4, v6];
    (end.clone(), end).prop_map(|(source, destination)| {
        let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        Link { source: plain(source), destination: plain(destination) }
    })
}

/// A valid header with a few bytes changed, cut or added; or anything.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let valid = prop_oneof![
        (any_link(), any::<bool>(), any::<bool>()).prop_map(|(link, is_v1, is_verified)| {
            let id = web();
            let caller = if is_verified { Caller::Verified(&id) } else { Caller::Unverified };
            header(if is_v1 { Version::V1 } else { Version::V2 }, link, caller)
        }),
        prop::collection::vec(any::<u8>(), 0..64).prop_map(|tlvs| with_tlvs(&tlvs)),
    ];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let changed =
        (valid, changes, prop::collection::vec(any::<u8>(), 0..16)).prop_map(|(mut bytes, changes, tail)| {
            for (index, byte) in changes {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            [bytes, tail].concat()
        });
    prop_oneof![4 => changed, 1 => prop::collection::vec(any::<u8>(), 0..300)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_connection_is_told_again(link in any_link(), is_v1: bool) {
        let version = if is_v1 { Version::V1 } else { Version::V2 };
        let written = header(version, link, Caller::Unverified);
        prop_assert_eq!(look(&written), Look::Header { length: written.len(), link: Some(link) });
    }

    /// However it arrives, a connection is the same: a verdict stands, and is never of more bytes than there are.
    #[test]
    fn a_verdict_stands_whatever_comes_behind(bytes in hostile()) {
        let mut before = Look::More;
        for end in 0..=bytes.len() {
            let now = look(&bytes[..end]);
            if before != Look::More {
                prop_assert_eq!(now, before, "at {}", end);
            }
            if let Look::Header { length, .. } = now {
                prop_assert!(length <= end);
            }
            before = now;
        }
        let (short, long) = (bytes.starts_with(WORD), bytes.len() >= MAX_HEADER_BYTES);
        prop_assert!(before != Look::More || !(long || short && bytes.len() >= 107));
    }
}
