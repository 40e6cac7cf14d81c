//! The PROXY protocol, read and written (HAProxy's `proxy-protocol.txt`, §2). Bytes in, verdict out; who may send one, and
//! who wants one, is said elsewhere ([`crate::model::proxy_protocol`]).

mod read;
mod write;

#[cfg(test)]
mod tests;

pub use read::{Look, MAX_HEADER_BYTES, Malformed, look};
pub use write::{Caller, SPIFFE_ID_TLV, header};

/// What a header of version 2 begins with (§2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What a header of version 1 begins with (§2.1).
const WORD: &[u8] = b"PROXY ";
/// `PP2_TYPE_CRC32C` (§2.2.3).
const CRC32C_TLV: u8 = 0x03;

/// The CRC-32C (RFC 3720 §12.1) of bytes, of which those in `blank` count as zeros.
fn crc32c(bytes: &[u8], blank: std::ops::Range<usize>) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut crc = u32::MAX;
    for (index, byte) in bytes.iter().enumerate() {
        crc ^= if blank.contains(&index) { 0 } else { u32::from(*byte) };
        for _bit in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
        }
    }
    !crc
}
