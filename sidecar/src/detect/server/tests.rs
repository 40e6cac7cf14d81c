use proptest::prelude::*;

use super::{
    ServerVerdict::{Http, More, Opaque},
    *,
};

const SERVERS: &[(&str, &[u8], ServerVerdict)] = &[
    ("empty settings", b"\0\0\0\x04\0\0\0\0\0", Http),
    ("three settings", b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64", Http),
    ("the most settings", b"\0\x3f\xfc\x04\0\0\0\0\0", Http),
    ("too many settings", b"\0\x40\x02\x04\0\0\0\0\0", Opaque),
    ("settings and a half", b"\0\0\x07\x04\0\0\0\0\0", Opaque),
    ("an acknowledgement", b"\0\0\0\x04\x01\0\0\0\0", Opaque),
    ("a flag that settings do not have", b"\0\0\0\x04\x04\0\0\0\0", Opaque),
    ("settings of a stream", b"\0\0\0\x04\0\0\0\0\x01", Opaque),
    ("settings with the reserved bit", b"\0\0\0\x04\0\x80\0\0\0", Opaque),
    ("a GOAWAY", b"\0\0\x08\x07\0\0\0\0\0", Opaque),
    ("a ping", b"\0\0\x08\x06\0\0\0\0\0", Opaque),
    ("408", b"HTTP/1.1 408 Request Timeout\r\n", Http),
    ("HTTP in small letters", b"http/1.1 200 OK\r\n", Opaque),
    ("MySQL", b"\x4a\0\0\0\x0a8.0.36\0", Opaque),
    ("MySQL, a length like an H", b"\x48\0\0\0\x0a8.0.36\0", Opaque),
    ("MariaDB", b"\x5b\0\0\0\x0a5.5.5-10.11.6-MariaDB\0", Opaque),
    ("SMTP", b"220 mail.example ESMTP\r\n", Opaque),
    ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n", Opaque),
    ("FTP", b"220 (vsFTPd 3.0.5)\r\n", Opaque),
    ("IMAP", b"* OK IMAP4rev1\r\n", Opaque),
    ("POP3", b"+OK ready\r\n", Opaque),
    ("NATS", b"INFO {\"server_id\":\"a\"}\r\n", Opaque),
    ("VNC", b"RFB 003.008\n", Opaque),
    ("rsync", b"@RSYNCD: 31.0\n", Opaque),
    ("a telnet negotiation", b"\xff\xfd\x18", Opaque),
    ("ZeroMQ", b"\xff\0\0\0\0\0\0\0\x01\x7f", Opaque),
    ("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x46", Opaque),
    ("zeros", &[0; 16], Opaque),
    ("nothing", b"", More),
    ("settings that break off", b"\0\0\x12\x04\0\0\0\0", More),
    ("half a status line", b"HTTP", More),
];

/// The first decision over growing prefixes, which every longer prefix must repeat.
fn decided_bytewise(bytes: &[u8]) -> ServerVerdict {
    let mut first = More;
    for end in 0..=bytes.len() {
        let verdict = server(&bytes[..end]);
        assert!(first == More || verdict == first, "{:?}", &bytes[..end]);
        first = verdict;
    }
    first
}

#[test]
fn a_server_that_speaks_first_is_http_only_if_it_begins_as_http_servers_do() {
    for (name, bytes, verdict) in SERVERS {
        assert_eq!(server(bytes), *verdict, "{name}");
        assert_eq!(decided_bytewise(bytes), *verdict, "{name}, byte by byte");
    }
}

proptest! {
    #[test]
    fn a_decision_about_a_server_stays_and_falls_within_nine_bytes(
        start in proptest::sample::select(vec![&b""[..], b"\0", b"\0\0\x0c\x04", b"\0\0\0\x04\0\0", b"HTT"]),
        rest in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let bytes = [start, &rest].concat();
        let verdict = decided_bytewise(&bytes);
        prop_assert!(verdict != More || bytes.len() < 9);
    }
}
