//! Frames of `outrider-tcp/1`: how an opaque stream travels between two sidecars.
//!
//! ```text
//!   +------+-----------+----------------+
//!   | type | length    | payload        |     type: 1 byte; length: 2 bytes, big endian
//!   +------+-----------+----------------+
//!
//!   caller                        callee
//!     OPEN(kind) ──────────────────▶       one stream at a time
//!     DATA* FIN? ──────────────────▶       early: the first bytes may follow at once
//!          ◀────────────────── ACCEPTED    the app is connected; or NOT_PROCESSED(reason)
//!     DATA* ◀─────────────────────▶ DATA*
//!     FIN   ◀─────────────────────▶ FIN    half-close, each direction for itself
//!     RST   ◀─────────────────────▶ RST    instead of FIN: an abort
//!     OPEN(kind) …                         after FIN both ways the connection is free again
//!
//!     OPEN(undecided) ─────────────▶       the app may speak first
//!          ◀─────────── ACCEPTED, DATA*
//!     CANCEL ──────────────────────▶       instead of the caller's DATA and FIN: not needed after all
//!          ◀───────────────────── FIN      unless it was sent before; the connection is free again
//!
//!     OPEN, DATA* FIN? ────────────▶
//!          ◀───────────── NOT_PROCESSED    early bytes are on their way, or are not
//!     CANCEL ──────────────────────▶       after early bytes: here they end, all are thrown away
//!          ◀───────────────────── FIN      the connection is free again
//!     OPEN(kind) …                         without early bytes it is so at once
//! ```
//! A frame with its header fits one TLS record. Unknown types close the connection, and so does a frame out of turn: `CANCEL`
//! after `DATA` or `FIN` of a stream that was accepted, among others.
//!
//! # What ends a stream, and where the next one begins
//! Each side says once, and last, that it is done: the caller by `FIN` or `CANCEL`, the callee by `FIN` or (if nothing followed
//! `OPEN`) by `NOT_PROCESSED`. So wherever the two cross, both know which frame is the first of the next stream, and a
//! connection whose app is down is not lost with each stream that tries it.
//!
//! # What may be repeated elsewhere
//! The callee hands no byte to its app before it has sent `ACCEPTED`, and ends an unused connection with TLS's
//! `close_notify`. So early bytes may be repeated after `NOT_PROCESSED`, and after whatever else the callee says that TLS puts
//! before an `ACCEPTED`: that orderly end, an alert, or `RST` (of the stream before, whose end the two saw differently). After
//! any other end, or a time without an answer, nobody knows whether the app has seen them, and they are not repeated.

use std::io;

/// Bytes before a frame's payload.
pub const HEADER_BYTES: usize = 3;
/// Payload of one frame: with its header it fits a TLS record (2^14 bytes, RFC 8446 §5.1).
pub const MAX_PAYLOAD_BYTES: usize = 16 * 1024 - HEADER_BYTES;
/// Payload of an `OPEN` or `NOT_PROCESSED` frame.
pub const MAX_CONTROL_BYTES: usize = 256;

/// Bytes of a stream that travel before it is accepted, and are kept until then: what a TLS record holds. It is much less
/// than what sockets on the way take, so that nobody waits for it to be read.
pub const MAX_EARLY_BYTES: usize = MAX_PAYLOAD_BYTES;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A stream begins; the payload is its session parameters.
    Open,
    /// The app is connected.
    Accepted,
    /// Bytes of the stream.
    Data,
    /// No more bytes this way.
    Fin,
    /// The stream was aborted.
    Rst,
    /// The app has not seen the stream; the payload says why. The caller may try elsewhere.
    NotProcessed,
    /// The caller has no use for the stream after all.
    Cancel,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Accepted => 2,
            Self::Data => 3,
            Self::Fin => 4,
            Self::Rst => 5,
            Self::NotProcessed => 6,
            Self::Cancel => 7,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Open,
            2 => Self::Accepted,
            3 => Self::Data,
            4 => Self::Fin,
            5 => Self::Rst,
            6 => Self::NotProcessed,
            7 => Self::Cancel,
            _ => return None,
        })
    }

    fn max_payload(self) -> usize {
        match self {
            Self::Data => MAX_PAYLOAD_BYTES,
            Self::Open | Self::NotProcessed => MAX_CONTROL_BYTES,
            Self::Accepted | Self::Fin | Self::Rst | Self::Cancel => 0,
        }
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Bytes that follow.
    pub length: u16,
}

impl Header {
    /// Writes it down.
    #[must_use]
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let [high, low] = self.length.to_be_bytes();
        [self.kind.code(), high, low]
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for an unknown type or a length over the type's bound.
    pub fn decode([code, high, low]: [u8; HEADER_BYTES]) -> io::Result<Self> {
        let length = u16::from_be_bytes([high, low]);
        let invalid =
            |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("outrider-tcp/1: {what}"));
        let kind = Kind::from_code(code).ok_or_else(|| invalid(&format!("unknown frame type {code}")))?;
        if usize::from(length) > kind.max_payload() {
            return Err(invalid(&format!("{kind:?} frame of {length} bytes")));
        }
        Ok(Self { kind, length })
    }
}

/// What a stream is, as its `OPEN` says: the parameter `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Bytes both ways.
    Opaque,
    /// No side has spoken yet: what the app says first decides, or the caller cancels.
    Undecided,
}

impl StreamKind {
    /// The session parameters that say it.
    #[must_use]
    pub fn parameters(self) -> &'static [u8] {
        match self {
            Self::Opaque => b"kind=opaque",
            Self::Undecided => b"kind=undecided",
        }
    }

    /// Reads the session parameters of an `OPEN`: `key=value`, separated by `;`. Keys that are not known are passed over: they
    /// are for those who know them.
    ///
    /// # Errors
    /// The reason to refuse the stream with: parameters that are not that, without a kind, with more than one, or with one
    /// that is not known.
    pub fn read(parameters: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(parameters).map_err(|_| "malformed_parameters")?;
        let mut kind = None;
        for parameter in text.split(';') {
            let (key, value) = parameter.split_once('=').ok_or("malformed_parameters")?;
            let read = match (key, value) {
                ("", _) => return Err("malformed_parameters"),
                ("kind", "opaque") => Self::Opaque,
                ("kind", "undecided") => Self::Undecided,
                ("kind", _) => return Err("unknown_kind"),
                _ => continue,
            };
            if kind.replace(read).is_some() {
                return Err("malformed_parameters");
            }
        }
        kind.ok_or("unknown_kind")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_say_the_kind_once_beside_what_is_not_known() {
        for kind in [StreamKind::Opaque, StreamKind::Undecided] {
            assert_eq!(StreamKind::read(kind.parameters()), Ok(kind));
        }
        assert_eq!(StreamKind::read(b"later=1;kind=undecided;x="), Ok(StreamKind::Undecided));
        for unknown in [&b"kind=http"[..], b"kind=", b"kind=Opaque", b"kind=opaque ", b"later=1"] {
            assert_eq!(StreamKind::read(unknown), Err("unknown_kind"), "{unknown:?}");
        }
        for malformed in [
            &b""[..],
            b"kind",
            b"=opaque",
            b"kind=opaque;",
            b"kind=opaque;kind=opaque",
            b"kind=opaque;\xff=1",
        ] {
            assert_eq!(StreamKind::read(malformed), Err("malformed_parameters"), "{malformed:?}");
        }
    }

    #[test]
    fn every_kind_survives_the_wire() {
        for code in 1..=7 {
            let kind = Kind::from_code(code).unwrap();
            assert_eq!(kind.code(), code);
            let header = Header { kind, length: u16::try_from(kind.max_payload()).unwrap() };
            assert_eq!(Header::decode(header.encode()).unwrap(), header);
        }
    }

    #[test]
    fn unknown_types_and_oversized_frames_are_refused() {
        assert!(Header::decode([0, 0, 0]).is_err());
        assert!(Header::decode([8, 0, 0]).is_err());
        assert!(Header::decode([7, 0, 1]).is_err());
        assert!(Header::decode([1, 1, 1]).is_err());
        assert!(Header::decode([4, 0, 1]).is_err());
        assert!(Header::decode([3, 0xff, 0xff]).is_err());
    }
}
