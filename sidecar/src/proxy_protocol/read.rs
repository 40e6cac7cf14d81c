//! What a connection begins with.

use std::net::SocketAddr;

use ppp::{v1, v2};

use super::{CRC32C_TLV, SIGNATURE, WORD, crc32c};
use crate::model::proxy_protocol::Link;

/// A line of version 1 with its end (§2.1).
const MAX_LINE_BYTES: usize = 107;
/// Signature, command, family and length of version 2 (§2.2).
const FIXED_BYTES: usize = 16;
/// The longest header that is read, in bytes. Version 2 could say 64 KiB; addresses and what proxies add to them fit in a
/// few hundred.
pub const MAX_HEADER_BYTES: usize = 4096;

/// What one look at the first bytes says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// They may become a header.
    More,
    /// They are none.
    None,
    /// They begin with one.
    Header {
        /// It takes so many bytes.
        length: usize,
        /// What it says; `None` if it says nothing of use (`UNKNOWN`, `LOCAL`, no TCP): the connection speaks for itself.
        link: Option<Link>,
    },
    /// They begin as one, and are none; no further byte changes it.
    Malformed(Malformed),
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is longer than version 1 may be, or than [`MAX_HEADER_BYTES`].
    #[error("longer than a header may be")]
    TooLong,
    /// A line that is none of version 1's.
    #[error("a malformed line")]
    Line,
    /// Another version than 2, or another command than `LOCAL` and `PROXY`.
    #[error("an unknown version or command")]
    Command,
    /// An unknown family or protocol, or fewer bytes than its addresses take.
    #[error("malformed addresses")]
    Addresses,
    /// What follows the addresses is no sequence of type, length and value.
    #[error("malformed TLVs")]
    Tlvs,
    /// Its checksum is not that of its bytes.
    #[error("a wrong checksum")]
    Checksum,
}

/// Looks at `bytes`, all that a connection has sent so far.
#[must_use]
pub fn look(bytes: &[u8]) -> Look {
    if begins(bytes, SIGNATURE) {
        return if bytes.len() < FIXED_BYTES { Look::More } else { binary(bytes) };
    }
    if begins(bytes, WORD) {
        return if bytes.len() < WORD.len() { Look::More } else { line(bytes) };
    }
    Look::None
}

/// Whether bytes begin so, as far as they go.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let common = bytes.len().min(with.len());
    bytes.get(..common) == with.get(..common)
}

fn line(bytes: &[u8]) -> Look {
    // Looked for here: of a line that is cut off between its numbers, the parser says that it is wrong.
    let first = bytes.get(..MAX_LINE_BYTES).unwrap_or(bytes);
    let Some(end) = first.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < MAX_LINE_BYTES { Look::More } else { Look::Malformed(Malformed::TooLong) };
    };
    let length = end + 2;
    let text = bytes.get(..length).unwrap_or_default();
    // `u16` would take a sign, and the parser any UTF-8.
    if !text.is_ascii() || text.contains(&b'+') {
        return Look::Malformed(Malformed::Line);
    }
    let Ok(header) = v1::Header::try_from(text) else { return Look::Malformed(Malformed::Line) };
    let link = match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(said) => Some(link(
            (said.source_address, said.source_port).into(),
            (said.destination_address, said.destination_port).into(),
        )),
        v1::Addresses::Tcp6(said) => Some(link(
            (said.source_address, said.source_port).into(),
            (said.destination_address, said.destination_port).into(),
        )),
    };
    Look::Header { length, link }
}

fn binary(bytes: &[u8]) -> Look {
    let &[.., command, _family, high, low] = bytes.get(..FIXED_BYTES).unwrap_or_default() else {
        return Look::More;
    };
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_HEADER_BYTES {
        return Look::Malformed(Malformed::TooLong);
    }
    // §2.2: of a proxy's own connection, whatever else stands there is to be skipped.
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Look::Malformed(Malformed::Command),
    };
    let Some(bytes) = bytes.get(..length) else { return Look::More };
    if is_local {
        return Look::Header { length, link: None };
    }
    let Ok(header) = v2::Header::try_from(bytes) else { return Look::Malformed(Malformed::Addresses) };
    let is_stream = header.protocol == v2::Protocol::Stream;
    let link = match header.addresses {
        // The parser takes all that follows for addresses of a family that it does not know.
        v2::Addresses::Unspecified => return Look::Header { length, link: None },
        v2::Addresses::Unix(_) => None,
        v2::Addresses::IPv4(said) => Some(link(
            (said.source_address, said.source_port).into(),
            (said.destination_address, said.destination_port).into(),
        )),
        v2::Addresses::IPv6(said) => Some(link(
            (said.source_address, said.source_port).into(),
            (said.destination_address, said.destination_port).into(),
        )),
    };
    let end_of_addresses = FIXED_BYTES + header.address_bytes().len();
    match check_tlvs(bytes, end_of_addresses) {
        Ok(()) => Look::Header { length, link: link.filter(|_| is_stream) },
        Err(malformed) => Look::Malformed(malformed),
    }
}

/// Whether a header's TLVs, which begin at `at`, fill it to its last byte, and its checksum is right, if it has one.
fn check_tlvs(header: &[u8], mut at: usize) -> Result<(), Malformed> {
    let mut has_checksum = false;
    while let Some(rest) = header.get(at..).filter(|rest| !rest.is_empty()) {
        let Some((&[kind, high, low], behind)) = rest.split_first_chunk::<3>() else {
            return Err(Malformed::Tlvs);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let value = behind.get(..length).ok_or(Malformed::Tlvs)?;
        let begin = at + 3;
        if kind == CRC32C_TLV {
            // It is there once (§2.2.3), and each would be worked out of all bytes.
            if std::mem::replace(&mut has_checksum, true) {
                return Err(Malformed::Tlvs);
            }
            let said = <[u8; 4]>::try_from(value).map_err(|_length| Malformed::Tlvs)?;
            if u32::from_be_bytes(said) != crc32c(header, begin..begin + said.len()) {
                return Err(Malformed::Checksum);
            }
        }
        at = begin + length;
    }
    Ok(())
}

/// IPv4 in the clothes of IPv6 is IPv4.
fn link(source: SocketAddr, destination: SocketAddr) -> Link {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    Link { source: plain(source), destination: plain(destination) }
}
