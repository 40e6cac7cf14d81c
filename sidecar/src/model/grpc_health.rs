//! The gRPC health protocol (`grpc/doc/health-checking.md`): one call, written and read by hand.
//!
//! ```text
//!   message HealthCheckRequest  { string service = 1; }
//!   message HealthCheckResponse { ServingStatus status = 1; }    // 0 UNKNOWN, 1 SERVING, 2 NOT_SERVING, …
//! ```

use bytes::{BufMut, Bytes, BytesMut};

/// The call.
pub const PATH: &str = "/grpc.health.v1.Health/Check";
/// Before a message: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;
/// Field 1, with a length before it.
const SERVICE_FIELD: u8 = 1 << 3 | 2;
/// Field 1, a varint.
const STATUS_FIELD: u64 = 1 << 3;
/// `ServingStatus.SERVING`.
pub const SERVING: u64 = 1;

/// The question, as the body of a request.
#[must_use]
pub fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(SERVICE_FIELD);
        put_varint(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut body = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or_default());
    body.put(message);
    body.freeze()
}

fn put_varint(to: &mut BytesMut, value: usize) {
    let mut rest = value;
    while rest >= 0x80 {
        to.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    to.put_u8(rest as u8);
}

/// The status that the one message of a body says; `None` if there is no such message.
#[must_use]
pub fn serving_status(body: &[u8]) -> Option<u64> {
    let (prefix, mut message) = body.split_at_checked(PREFIX_BYTES)?;
    let length = u32::from_be_bytes(prefix.get(1..)?.try_into().ok()?);
    if prefix.first() != Some(&0) || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match key & 7 {
            0 => {
                let value = varint(&mut message)?;
                // The last one counts, as in every protobuf reader.
                if key == STATUS_FIELD {
                    status = value;
                }
            }
            // What a newer version of the protocol may add.
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// A varint, of at most ten bytes.
fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
