//! Frames of `outrider-tcp/1`: how an opaque stream travels between two sidecars.
//!
//! ```text
//!   +------+-----------+----------------+
//!   | type | length    | payload        |     type: 1 byte; length: 2 bytes, big endian
//!   +------+-----------+----------------+
//!
//!   caller                        callee
//!     OPEN(kind) ──────────────────▶       one stream at a time
//!          ◀────────────────── ACCEPTED    the app is connected; or NOT_PROCESSED(reason)
//!     DATA* ◀─────────────────────▶ DATA*
//!     FIN   ◀─────────────────────▶ FIN    half-close, each direction for itself
//!     RST   ◀─────────────────────▶ RST    instead of FIN: an abort
//!     OPEN(kind) …                         after FIN both ways the connection is free again
//! ```
//! A frame with its header fits one TLS record. Unknown types close the connection.

use std::io;

/// Bytes before a frame's payload.
pub const HEADER_BYTES: usize = 3;
/// Payload of one frame: with its header it fits a TLS record (2^14 bytes, RFC 8446 §5.1).
pub const MAX_PAYLOAD_BYTES: usize = 16 * 1024 - HEADER_BYTES;
/// Payload of an `OPEN` or `NOT_PROCESSED` frame.
pub const MAX_CONTROL_BYTES: usize = 256;

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
            _ => return None,
        })
    }

    fn max_payload(self) -> usize {
        match self {
            Self::Data => MAX_PAYLOAD_BYTES,
            Self::Open | Self::NotProcessed => MAX_CONTROL_BYTES,
            Self::Accepted | Self::Fin | Self::Rst => 0,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for kind in [Kind::Open, Kind::Accepted, Kind::Data, Kind::Fin, Kind::Rst, Kind::NotProcessed] {
            let header = Header { kind, length: u16::try_from(kind.max_payload()).unwrap() };
            assert_eq!(Header::decode(header.encode()).unwrap(), header);
        }
    }

    #[test]
    fn unknown_types_and_oversized_frames_are_refused() {
        assert!(Header::decode([0, 0, 0]).is_err());
        assert!(Header::decode([7, 0, 0]).is_err());
        assert!(Header::decode([1, 1, 1]).is_err());
        assert!(Header::decode([4, 0, 1]).is_err());
        assert!(Header::decode([3, 0xff, 0xff]).is_err());
    }
}
