//! What a client speaks, by its first bytes.

mod request_line;
#[cfg(test)]
mod samples;

use super::{
    Spoken,
    client_hello::{CLIENT_HELLO, HANDSHAKE_RECORD, MAX_PLAINTEXT_BYTES},
};
use request_line::Shape;

/// How an HTTP/2 connection begins (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many of a client's bytes are looked at, in bytes. RFC 9112 §3 recommends to take request lines of at least 8000
/// octets, and the usual servers take 8 KiB; a longer one is decided by how it begins. It is also what a connection
/// costs in memory, and each further byte in time, before anything is known of it.
pub const MAX_BYTES: usize = 8 * 1024;

/// What [`client`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is certain, and no further byte changes it.
    Decided(Spoken),
    /// The bytes so far fit more than one.
    More,
}

/// Tells what a client speaks by `bytes`: all that it has sent so far.
///
/// - TLS: the header of a handshake record of SSL 3.0 to TLS 1.3 that is not empty and not longer than allowed, and in
///   it a `ClientHello`: the first 6 bytes, whatever its length and however many records it is cut into.
/// - HTTP/2: the whole [`PREFACE`], 24 bytes.
/// - HTTP/1: a whole request line with any method and version, as widely as a recipient may read one: behind any empty lines,
///   and with any white space between its words (RFC 9112 §2.2, §3).
/// - Everything else is opaque as soon as a byte contradicts all three: HTTP/0.9 too, which has no version to know it
///   by.
///
/// At most `limit` bytes are looked at (1 or more; [`MAX_BYTES`] where nothing speaks against it), and so many always
/// decide: a request line that is longer is HTTP/1 if it begins with a method in capitals and a target, or with nothing but
/// empty lines; the rest is opaque.
///
/// Every prefix of `bytes` gives [`Verdict::More`] or the same decision. One pass over the bytes, no allocation: some
/// twenty nanoseconds for a usual request line, three microseconds for 8 KiB of an endless one. Who sends that byte by
/// byte therefore costs about as much here as by being read.
#[must_use]
pub fn client(bytes: &[u8], limit: usize) -> Verdict {
    let is_all = bytes.len() >= limit;
    let bytes = bytes.get(..limit).unwrap_or(bytes);
    let verdict = match bytes.first() {
        None => Verdict::More,
        Some(&HANDSHAKE_RECORD) => tls(bytes),
        Some(_) if bytes.starts_with(PREFACE) => Verdict::Decided(Spoken::Http2),
        // It begins with a whole request line.
        Some(_) if PREFACE.starts_with(bytes) => Verdict::More,
        Some(_) => match request_line::shape(bytes) {
            Shape::Whole => Verdict::Decided(Spoken::Http1),
            Shape::Part if is_all && request_line::is_clear_start(bytes) => Verdict::Decided(Spoken::Http1),
            Shape::Part => Verdict::More,
            Shape::Other => Verdict::Decided(Spoken::Opaque),
        },
    };
    match verdict {
        Verdict::More if is_all => Verdict::Decided(Spoken::Opaque),
        Verdict::More | Verdict::Decided(_) => verdict,
    }
}

/// The header of a record, and the first byte in it.
fn tls(bytes: &[u8]) -> Verdict {
    let at = |index: usize| bytes.get(index).copied();
    let length = at(3).zip(at(4)).map(|(high, low)| u16::from_be_bytes([high, low]));
    let is_possible = at(0).is_none_or(|kind| kind == HANDSHAKE_RECORD)
        && at(1).is_none_or(|major| major == 3)
        && at(2).is_none_or(|minor| minor <= 4)
        && at(3).is_none_or(|high| u16::from(high) <= MAX_PLAINTEXT_BYTES >> 8)
        && length.is_none_or(|length| (1..=MAX_PLAINTEXT_BYTES).contains(&length))
        && at(5).is_none_or(|kind| kind == CLIENT_HELLO);
    match (is_possible, at(5)) {
        (false, _) => Verdict::Decided(Spoken::Opaque),
        (true, Some(_)) => Verdict::Decided(Spoken::Tls),
        (true, None) => Verdict::More,
    }
}

#[cfg(test)]
mod tests;
