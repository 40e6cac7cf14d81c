use std::sync::Arc;

use outrider_certs::rustls_verify;
use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore, version::TLS13};

use super::*;
use crate::{
    canonical,
    detect::{self, Spoken, Verdict},
};

/// What a rustls client begins with, X25519MLKEM768 in it.
fn rustls_hello(name: &'static str, alpn: &[&[u8]]) -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(rustls_verify::provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let mut client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The handshake message in `bytes`, cut into records of at most `size` bytes.
fn cut(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut message = Vec::new();
    let mut rest = bytes;
    while let Some((&[_, _, _, high, low], behind)) = rest.split_first_chunk::<5>() {
        let (part, behind) = behind.split_at(usize::from(u16::from_be_bytes([high, low])));
        message.extend(part);
        rest = behind;
    }
    records(&message, size)
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record =
        |part: &[u8]| [&[22, 3, 1][..], &u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat();
    message.chunks(size).flat_map(record).collect()
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &with_length(body)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &with_length(&[&[0][..], &with_length(name)].concat()))
}

/// Algorithms that every client since TLS 1.2 names.
fn signature_algorithms() -> Vec<u8> {
    extension(13, &with_length(&[4, 3, 8, 4]))
}

/// The handshake message of a client of TLS 1.2.
fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let fixed = [&[3, 3][..], &[7; 32], &[0], &with_length(&[0xc0, 0x2f]), &[1, 0]].concat();
    let body = [fixed, with_length(&extensions.concat())].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1][..], &length[1..], &body].concat()
}

fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    records(&message(extensions), usize::from(MAX_PLAINTEXT_BYTES))
}

fn parsed(bytes: &[u8]) -> ClientHello {
    ClientHello::parse(bytes).unwrap().unwrap()
}

#[test]
fn a_clients_name_and_protocols_are_read() {
    let bytes = rustls_hello("Users.Default.SVC", &[b"h2", b"http/1.1"]);
    assert!(bytes.len() > 1_400, "with a post-quantum key share: {}", bytes.len());
    let hello = parsed(&bytes);
    assert_eq!(hello.server_name.as_deref(), Some("users.default.svc"));
    assert_eq!(canonical::authority("users.default.svc").as_deref(), Some("users.default.svc"));
    assert_eq!(hello.alpn, [Box::from(&b"h2"[..]), Box::from(&b"http/1.1"[..])]);
    assert!(hello.offers(b"h2") && !hello.offers(b"h"));
    assert_eq!(parsed(&rustls_hello("192.0.2.1", &[])), ClientHello { server_name: None, alpn: Vec::new() });
}

#[test]
fn a_hello_is_read_as_soon_as_its_last_byte_is_there_wherever_it_is_cut() {
    let bytes = rustls_hello("users", &[b"outrider-h2/1"]);
    let whole = parsed(&bytes);
    for size in [bytes.len(), 1_000, 100, 5, 4, 3, 1] {
        let bytes = cut(&bytes, size);
        assert_eq!(detect::client(&bytes, detect::MAX_BYTES), Verdict::Decided(Spoken::Tls));
        for end in 0..bytes.len() {
            assert_eq!(ClientHello::parse(&bytes[..end]), Ok(None), "records of {size}, {end} bytes");
        }
        assert_eq!(parsed(&bytes), whole, "records of {size}");
        assert_eq!(parsed(&[&bytes, &b"\x14\x03\x03\0\x01\x01 and more"[..]].concat()), whole);
    }
}

#[test]
fn a_client_of_tls_1_2_is_read_as_well() {
    let alpn = extension(16, &with_length(b"\x02h2"));
    let read = parsed(&hello(&[server_name(b"Db.Example."), signature_algorithms(), alpn]));
    assert_eq!(read.server_name.as_deref(), Some("db.example"));
    assert!(read.offers(b"h2"));
}

#[test]
fn a_name_that_is_none_is_refused_and_an_address_is_no_name() {
    let read = |name: &[u8]| ClientHello::parse(&hello(&[server_name(name), signature_algorithms()]));
    assert_eq!(read(b"192.0.2.1").unwrap().unwrap().server_name, None);
    for name in [&b""[..], b"a b", b"a\0", b"a\n", b"-", b"users:443", "größe".as_bytes(), &[b'a'; 300]] {
        let read = read(name);
        assert!(matches!(read, Err(ClientHelloError::Malformed(_))), "{name:?}: {read:?}");
    }
}

#[test]
fn what_is_no_hello_is_refused_at_once() {
    let whole = hello(&[signature_algorithms()]);
    let with = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        ClientHello::parse(&bytes)
    };
    for (at, byte) in [(0, 23), (1, 2), (3, 0xff), (5, 2)] {
        assert_eq!(with(at, byte), Err(ClientHelloError::Other), "{at}");
    }
    assert_eq!(with(6, 1), Err(ClientHelloError::TooLarge), "of 64 KiB and more");
    assert_eq!(ClientHello::parse(&[22, 3, 1, 0, 0]), Err(ClientHelloError::Other), "an empty record");
    let old = ClientHello::parse(&hello(&[]));
    assert!(matches!(old, Err(ClientHelloError::Malformed(_))), "{old:?}");
    let two = records(&message(&[signature_algorithms()]).repeat(2), 1 << 14);
    assert!(matches!(ClientHello::parse(&two), Err(ClientHelloError::Malformed(_))), "two in one record");
    for end in 0..two.len() {
        assert_eq!(ClientHello::parse(&two[..end]), Ok(None), "the record is judged whole: {end}");
    }
}

#[test]
fn a_hello_is_read_up_to_its_bound_and_refused_beyond() {
    let of = |bytes: usize| {
        hello(&[server_name(b"users"), signature_algorithms(), extension(0xfafa, &vec![0; bytes])])
    };
    for padding in [1 << 14, 1 << 15, 65_400] {
        let bytes = of(padding);
        assert!(bytes.len() <= MAX_CLIENT_HELLO_BYTES, "{}", bytes.len());
        assert_eq!(parsed(&bytes).server_name.as_deref(), Some("users"), "{padding}");
    }
    // Small records make it larger.
    let small = cut(&of(1 << 14), 1);
    assert!(small.len() > MAX_CLIENT_HELLO_BYTES);
    assert_eq!(ClientHello::parse(&small[..MAX_CLIENT_HELLO_BYTES - 1]), Ok(None));
    for end in [MAX_CLIENT_HELLO_BYTES, MAX_CLIENT_HELLO_BYTES + 1, small.len()] {
        assert_eq!(ClientHello::parse(&small[..end]), Err(ClientHelloError::TooLarge));
    }
    assert_eq!(parsed(&cut(&of(8_000), 1)).server_name.as_deref(), Some("users"), "in 8,000 records");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_reading_a_hello_panic_or_change_its_mind(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        size in 1..600usize,
    ) {
        let mut bytes = cut(&rustls_hello("users", &[b"h2"]), size);
        for (at, byte) in flips {
            *at.get_mut(&mut bytes) = byte;
        }
        let mut first = None;
        for end in 0..=bytes.len() {
            let read = ClientHello::parse(&bytes[..end]);
            match &first {
                None if read == Ok(None) => {}
                None => first = Some(read),
                Some(first) => prop_assert_eq!(first, &read),
            }
        }
    }
}
