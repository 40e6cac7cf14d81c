//! What a server speaks that speaks before its client does.

/// `SETTINGS` (RFC 9113 §6.5).
const SETTINGS: u8 = 4;
/// Length, type, flags and stream of a frame (RFC 9113 §4.1).
const FRAME_HEADER_BYTES: usize = 9;
/// A frame's payload where nothing else was agreed on: `SETTINGS_MAX_FRAME_SIZE` at first (RFC 9113 §4.2).
const MAX_FRAME_BYTES: u32 = 1 << 14;
/// A setting: its identifier and its value (RFC 9113 §6.5.1).
const SETTING_BYTES: u32 = 6;
/// What an HTTP/1 answer begins with: some servers send 408 to a client that says nothing.
const STATUS_LINE: &[u8] = b"HTTP/";

/// What [`server`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerVerdict {
    /// It speaks HTTP, where the client is to speak first: wait for the client. Some gRPC servers send their settings
    /// without waiting for the preface, which RFC 9113 §3.4 allows.
    Http,
    /// It speaks first and no HTTP: the connection is opaque.
    Opaque,
    /// The bytes so far fit both.
    More,
}

/// Tells what a server speaks by `bytes`: all that it has sent so far, its client having sent nothing.
///
/// HTTP is an HTTP/2 SETTINGS frame as a server begins with (type 4, stream 0, whole settings of at most 16 KiB, and no
/// flag: an acknowledgement would answer something, and other flags must not be sent, RFC 9113 §4.1), or `HTTP/`.
///
/// Every prefix of `bytes` gives [`ServerVerdict::More`] or the same decision, and 9 bytes always decide. Constant time.
#[must_use]
pub fn server(bytes: &[u8]) -> ServerVerdict {
    if bytes.starts_with(STATUS_LINE) {
        return ServerVerdict::Http;
    }
    let header = bytes.get(..FRAME_HEADER_BYTES).unwrap_or(bytes);
    if is_settings(header) {
        return if header.len() == FRAME_HEADER_BYTES { ServerVerdict::Http } else { ServerVerdict::More };
    }
    if STATUS_LINE.starts_with(bytes) { ServerVerdict::More } else { ServerVerdict::Opaque }
}

/// Whether a frame header, as far as it has come, can be that of a server's first settings.
fn is_settings(header: &[u8]) -> bool {
    let at = |index: usize| header.get(index).copied();
    let is_length = match (at(0), at(1), at(2)) {
        (Some(high), Some(middle), Some(low)) => {
            let length = u32::from_be_bytes([0, high, middle, low]);
            length <= MAX_FRAME_BYTES && length.is_multiple_of(SETTING_BYTES)
        }
        (high, middle, _) => {
            let least = u32::from_be_bytes([0, high.unwrap_or(0), middle.unwrap_or(0), 0]);
            least <= MAX_FRAME_BYTES
        }
    };
    is_length
        && at(3).is_none_or(|kind| kind == SETTINGS)
        && header.iter().skip(4).all(|flags_or_stream| *flags_or_stream == 0)
}

#[cfg(test)]
mod tests;
