//! Reading the first bytes of a connection whose next step depends on them.

use std::{future::poll_fn, io, pin::Pin, task::ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

use super::Buffer;

/// Adds to `bytes` what comes next, for as long as they are fewer than `max`. Returns how much that was: nothing at the
/// stream's end. Cancel-safe, and holds a buffer only while there is something to put in it.
///
/// # Errors
/// As the stream reports them.
pub async fn append<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut BytesMut,
    max: usize,
) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut buffer = Buffer::take();
        let room = max.saturating_sub(bytes.len());
        let space = buffer.bytes_mut();
        let room = room.min(space.len());
        let mut read = ReadBuf::new(space.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
        bytes.extend_from_slice(read.filled());
        Ok(read.filled().len()).into()
    })
    .await
}
