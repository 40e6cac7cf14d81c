//! HTTP/2 frame by frame, for what no library would do.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
/// On HEADERS and DATA.
pub(crate) const END_STREAM: u8 = 1;
/// On HEADERS and CONTINUATION.
pub(crate) const END_HEADERS: u8 = 4;
/// What a client says first, with empty SETTINGS.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The header block of `GET http://orders/` in HPACK (RFC 7541 §6.1, §6.2.2).
pub(crate) const GET_ORDERS: &[u8] = b"\x82\x86\x84\x01\x06orders";

/// RFC 9113 §4.1.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// RFC 9113 §6.4.
pub(crate) fn reset(stream: u32, reason: h2::Reason) -> Vec<u8> {
    frame(3, 0, stream, &u32::from(reason).to_be_bytes())
}

/// RFC 9113 §6.8.
pub(crate) fn goaway(last_stream: u32, reason: h2::Reason) -> Vec<u8> {
    let mut payload = last_stream.to_be_bytes().to_vec();
    payload.extend_from_slice(&u32::from(reason).to_be_bytes());
    frame(7, 0, 0, &payload)
}

/// Plays a server until the head of the next request is there; the request's stream. `None` when the client is gone.
pub(crate) async fn next_request<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Option<u32> {
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).await.ok()?;
        let [a, b, c, kind, flags, id @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await.ok()?;
        match kind {
            SETTINGS if flags & ACK == 0 => stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await.ok()?,
            HEADERS => return Some(u32::from_be_bytes(id)),
            _ => {}
        }
    }
}

/// Reads the client's preface and sends the server's.
pub(crate) async fn begin<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Option<()> {
    stream.read_exact(&mut [0; 24]).await.ok()?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.ok()
}

/// The next frame: kind, stream, payload. `None` when the other side has closed.
pub(crate) async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S) -> Option<(u8, u32, Vec<u8>)> {
    let mut header = [0; 9];
    stream.read_exact(&mut header).await.ok()?;
    let [a, b, c, kind, _flags, id @ ..] = header;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((kind, u32::from_be_bytes(id), payload))
}
