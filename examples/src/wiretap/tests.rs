use super::{Kind, Stream, Wire, packet};

const HELLO: &[u8] = b"\x16\x03\x01\x00\x05hello";

/// An Ethernet frame with a TCP segment, padded as short ones are.
fn frame(is_v6: bool, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut tcp = vec![0x9C, 0x40, 0x00, 0x50]; // 40000 to 80
    tcp.extend(sequence.to_be_bytes());
    tcp.extend([0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    tcp.extend(payload);
    let length = u16::try_from(tcp.len()).unwrap();
    let mut frame = vec![0; 12];
    if is_v6 {
        frame.extend([0x86, 0xDD, 0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([6, 64]);
        frame.extend("fd43::11".parse::<std::net::Ipv6Addr>().unwrap().octets());
        frame.extend("fd43::12".parse::<std::net::Ipv6Addr>().unwrap().octets());
    } else {
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((length + 20).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 43, 0, 11, 10, 43, 0, 12]);
    }
    frame.extend(tcp);
    frame.resize(frame.len().max(60), 0);
    frame
}

#[test]
fn both_versions_of_ip_are_read_without_the_padding() {
    for (is_v6, from, to) in
        [(false, "10.43.0.11:40000", "10.43.0.12:80"), (true, "[fd43::11]:40000", "[fd43::12]:80")]
    {
        let frame = frame(is_v6, 7, 0x18, b"x");
        let segment = packet::segment(&frame).unwrap();
        assert_eq!((segment.from, segment.to), (from.parse().unwrap(), to.parse().unwrap()));
        assert_eq!((segment.sequence, segment.is_first, segment.payload), (7, false, &b"x"[..]));
    }
}

#[test]
fn frames_cut_anywhere_are_no_segments() {
    for is_v6 in [false, true] {
        let whole = frame(is_v6, 7, 0x18, &[b'x'; 40]);
        for length in 0..whole.len() {
            assert_eq!(packet::segment(&whole[..length]), None, "{length}");
        }
    }
}

#[test]
fn frames_seen_three_times_count_once_and_lost_ones_are_known() {
    let mut wire = Wire::new("hello");
    let segments =
        [(99, 2, &b""[..]), (100, 0x18, HELLO), (110, 0x18, HELLO), (120, 0x11, b""), (121, 0x10, b"")];
    for (sequence, flags, payload) in segments {
        for _ in 0..3 {
            wire.see(&frame(false, sequence, flags, payload));
        }
    }
    assert_eq!(wire.report(), "10.43.0.11:40000 10.43.0.12:80 tls 20 found=2\n");
    wire.see(&frame(false, 121, 0x18, HELLO));
    assert_eq!(wire.report(), "10.43.0.11:40000 10.43.0.12:80 partial 30 found=3\n");
}

#[test]
fn records_are_followed_however_they_are_cut() {
    let records = [HELLO, HELLO, b"\x17\x03\x03\x00\x00", HELLO].concat();
    for piece in 1..=records.len() {
        let mut stream = Stream::default();
        let mut sequence = u32::MAX - 3; // it wraps on the way
        for part in records.chunks(piece) {
            stream.take(sequence, part, b"hello");
            sequence = sequence.wrapping_add(u32::try_from(part.len()).unwrap());
        }
        assert_eq!((stream.kind(), stream.found()), (Kind::Tls, 3), "in pieces of {piece}");
        stream.take(sequence, b"GET / HTTP/1.1\r\n", b"hello");
        assert_eq!(stream.kind(), Kind::Plain, "in pieces of {piece}");
    }
}

#[test]
fn what_is_no_record_is_plain() {
    for plain in
        [&b"GET / HTTP/1.1\r\n"[..], b"220 ready\r\n", b"\x16\x02\x00\x00\x01", b"\x17\x03\x03\x50\x00"]
    {
        let mut stream = Stream::default();
        stream.take(0, plain, b"");
        assert_eq!(stream.kind(), Kind::Plain, "{plain:?}");
    }
}

#[test]
fn a_connection_after_another_between_the_same_ports_starts_afresh() {
    let mut stream = Stream::default();
    stream.start(5);
    stream.take(5, &HELLO[..7], b"");
    stream.start(900_000);
    stream.take(900_000, HELLO, b"");
    assert_eq!((stream.kind(), stream.bytes()), (Kind::Tls, 17));
}
