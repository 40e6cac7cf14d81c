//! HTTP/2 as the files of cases write it, frame by frame and byte by byte, and what comes back.
//!
//! ```text
//! HEADERS end GET /a      a header block, here with END_STREAM; with the four pseudo-headers of a request for /a
//! x-a: 1                  a field of it, whatever it is; a pseudo-header is one whose name begins with :
//! DATA end abc            bytes of the body
//! ```
//! All frames of a case are of one stream. `HEADERS` without a method and a path has the fields that follow and no others;
//! a second one is a block of trailers.

use std::time::Duration;

use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{
    corpus::{Case, unescaped},
    outcome::LAST,
};
use crate::harness::raw_h2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, SETTINGS, frame, read_frame,
};

/// How soon a case is over.
const WITHIN: Duration = Duration::from_secs(8);
/// What a client says first; its SETTINGS say that it keeps no table of fields, so that each answer can be read by itself.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x01\0\0\0\0";
/// `RST_STREAM`.
const RST_STREAM: u8 = 3;
/// A frame's payload where nothing else was agreed on.
const MAX_FRAME_BYTES: usize = 1 << 14;
/// The stream of a case, and that of the request which follows.
const STREAMS: [u32; 2] = [1, 3];

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With an answer.
    Answer(u16),
    /// With a reset.
    Reset(Reason),
    /// With the connection.
    Closed,
}

/// A header block in the making.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    flags: u8,
}

impl Block {
    /// As a literal that is kept in no table, its name and its value as they are (RFC 7541 §6.2.2).
    fn add(&mut self, name: &[u8], value: &[u8]) {
        self.bytes.push(0);
        for text in [name, value] {
            length(text.len(), &mut self.bytes);
            self.bytes.extend_from_slice(text);
        }
    }

    fn add_request(&mut self, method: &str, path: &str) {
        for (name, value) in
            [(":method", method), (":scheme", "http"), (":path", path), (":authority", "orders")]
        {
            self.add(name.as_bytes(), &unescaped(value));
        }
    }

    /// As frames: one, and as many more as it takes.
    fn frames(&self, stream: u32) -> Vec<u8> {
        let mut pieces = self.bytes.chunks(MAX_FRAME_BYTES).peekable();
        let mut out = Vec::new();
        let mut kind = (HEADERS, self.flags);
        loop {
            let piece = pieces.next().unwrap_or_default();
            let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            out.extend(frame(kind.0, kind.1 | last, stream, piece));
            if last != 0 {
                return out;
            }
            kind = (CONTINUATION, 0);
        }
    }
}

/// A string's length, not compressed (RFC 7541 §5.1, §5.2).
fn length(mut length: usize, out: &mut Vec<u8>) {
    if length < 127 {
        return out.push(u8::try_from(length).unwrap());
    }
    out.push(127);
    length -= 127;
    while length > 127 {
        out.push(u8::try_from(length % 128).unwrap() | 128);
        length /= 128;
    }
    out.push(u8::try_from(length).unwrap());
}

/// The frames of a case.
fn frames(case: &Case, stream: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut block: Option<Block> = None;
    for line in &case.lines {
        let words: Vec<_> = line.split(' ').collect();
        let (kind, flags, rest) = match words[..] {
            [kind @ ("HEADERS" | "DATA"), "end", ref rest @ ..] => (kind, END_STREAM, rest),
            [kind @ ("HEADERS" | "DATA"), ref rest @ ..] => (kind, 0, rest),
            _ => {
                let colon = 1 + line[1..].find(": ").unwrap_or_else(|| panic!("{}: {line}", case.name));
                let (name, value) = (unescaped(&line[..colon]), unescaped(&line[colon + 2..]));
                block.as_mut().unwrap().add(&name, &value);
                continue;
            }
        };
        out.extend(block.take().iter().flat_map(|block| block.frames(stream)));
        if kind == "DATA" {
            for piece in unescaped(&rest.join(" ")).chunks(MAX_FRAME_BYTES) {
                out.extend(frame(DATA, flags, stream, piece));
            }
            if rest.is_empty() {
                out.extend(frame(DATA, flags, stream, &[]));
            }
            continue;
        }
        let mut new = Block { flags, ..Block::default() };
        if let [method, path] = rest {
            new.add_request(method, path);
        }
        block = Some(new);
    }
    out.extend(block.iter().flat_map(|block| block.frames(stream)));
    out
}

/// Sends a case, and a last request when it is over; how each ended. `None`: not at all.
pub(super) async fn over<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, case: &Case) -> Option<[End; 2]> {
    let mut last = Block { flags: END_STREAM, ..Block::default() };
    last.add_request("GET", LAST);
    let [first, second] = STREAMS;
    let exchange = async {
        drop(stream.write_all(PREFACE).await);
        let case = ended(&mut stream, frames(case, first), first).await;
        if case == End::Closed {
            return [case, End::Closed];
        }
        [case, ended(&mut stream, last.frames(second), second).await]
    };
    tokio::time::timeout(WITHIN, exchange).await.ok()
}

/// Sends the frames of a stream, and reads until it has ended.
async fn ended<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, frames: Vec<u8>, id: u32) -> End {
    // It may be closed already.
    drop(stream.write_all(&frames).await);
    drop(stream.flush().await);
    let mut status = None;
    while let Some((kind, of, payload)) = read_frame(stream).await {
        match kind {
            SETTINGS if !payload.is_empty() => drop(stream.write_all(&frame(SETTINGS, 1, 0, &[])).await),
            HEADERS if of == id => {
                status = status.or(Some(status_of(&payload)).filter(|status| *status >= 200))
            }
            // After an answer it only says that no more of the request is wanted.
            RST_STREAM if of == id => {
                let reason = Reason::from(u32::from_be_bytes(payload[..].try_into().unwrap()));
                return status.map_or(End::Reset(reason), End::Answer);
            }
            // Who says NO_ERROR goes on with what is under way.
            GOAWAY if payload[4..8] != [0; 4] => return status.map_or(End::Closed, End::Answer),
            DATA | HEADERS => {}
            _ => continue,
        }
        // An answer's end may come with its head, its body or its trailers; whatever comes first is enough here.
        if let Some(status) = status {
            return End::Answer(status);
        }
    }
    End::Closed
}

/// The status of a block in which it stands first, made without a table of fields.
fn status_of(block: &[u8]) -> u16 {
    // RFC 7541 §6.3: a table of another size.
    let block = &block[block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count()..];
    // RFC 7541, appendix A.
    match *block {
        [byte @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(byte - 0x88)],
        [0x08 | 0x18 | 0x48, length, ref rest @ ..] => {
            let text = &rest[..usize::from(length & 0x7f)];
            if length & 0x80 == 0 {
                return std::str::from_utf8(text).unwrap().parse().unwrap();
            }
            digits(text)
        }
        _ => panic!("no status: {block:?}"),
    }
}

/// Three digits in RFC 7541's code (appendix B): 0 to 2 are as many bits as five, the others six.
fn digits(text: &[u8]) -> u16 {
    let bits = text.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    let mut left = 8 * text.len();
    let mut take = |count: usize| {
        left -= count;
        u16::try_from(bits >> left & ((1 << count) - 1)).unwrap()
    };
    let mut digit = || match take(5) {
        short @ 0..=2 => short,
        long => (long << 1 | take(1)) - 0b01_1001 + 3,
    };
    [digit(), digit(), digit()].into_iter().fold(0, |number, digit| 10 * number + digit)
}

#[test]
fn a_status_is_read_in_every_form() {
    for (block, status) in [
        (&b"\x88"[..], 200),
        (b"\x20\x8c", 400),
        (b"\x08\x03403", 403),
        // RFC 7541 §C.6.1 and §C.6.2.
        (b"\x48\x82\x64\x02", 302),
        (b"\x48\x83\x64\x0e\xff", 307),
    ] {
        assert_eq!(status_of(block), status);
    }
}

#[test]
fn a_long_length_is_in_several_bytes() {
    // RFC 7541 §C.1.2, with a prefix of seven bits.
    let bytes = |number| {
        let mut out = Vec::new();
        length(number, &mut out);
        out
    };
    assert_eq!(bytes(10), [10]);
    assert_eq!(bytes(127), [127, 0]);
    assert_eq!(bytes(1337), [127, 0b1011_1010, 0b0000_1001]);
}
