//! The keys of WebSocket's HTTP/1.1 handshake (RFC 6455 §4): they prove that a server has understood it.
//!
//! They belong to one hop, and RFC 8441 §5 has none of them: each HTTP/1.1 hop has its own.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;

/// What a server appends to the key (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of a key before it is encoded.
const KEY_BYTES: usize = 16;

/// A key for one handshake.
#[must_use]
pub fn key(rng: &mut fastrand::Rng) -> HeaderValue {
    let mut bytes = [0; KEY_BYTES];
    rng.fill(&mut bytes);
    encoded(&bytes)
}

/// Whether it is a key: the encoding of 16 bytes.
#[must_use]
pub fn is_key(value: &HeaderValue) -> bool {
    STANDARD.decode(value.as_bytes()).is_ok_and(|bytes| bytes.len() == KEY_BYTES)
}

/// What a server answers to `key`, as `Sec-WebSocket-Accept`. SHA-1 is what RFC 6455 says; no secret depends on it.
#[must_use]
pub fn accept(key: &HeaderValue) -> HeaderValue {
    let text = [key.as_bytes(), GUID].concat();
    encoded(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text).as_ref())
}

fn encoded(bytes: &[u8]) -> HeaderValue {
    HeaderValue::from_str(&STANDARD.encode(bytes)).expect("base64 is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_that_of_the_specification() {
        // RFC 6455 §1.3.
        let sample = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert!(is_key(&sample));
        assert_eq!(accept(&sample), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys_are_16_bytes_and_each_is_another() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (one, two) = (key(&mut rng), key(&mut rng));
        assert!(is_key(&one) && is_key(&two) && one != two);
        for wrong in ["", "AAAA", "not base64 at all!!", "AAAAAAAAAAAAAAAAAAAAAAA="] {
            assert!(!is_key(&HeaderValue::from_static(wrong)), "{wrong}");
        }
    }
}
