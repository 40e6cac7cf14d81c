//! Fewer reads below TLS: rustls asks for 4 KiB at a time, four system calls for one full record.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::scratch::{BUFFER_BYTES, Buffer, Held};
use crate::net::{Stream, Waiting};

/// Reads as much as there is, and hands it out as it is asked for.
#[derive(Debug)]
pub struct ReadAhead<S> {
    inner: S,
    held: Option<Held>,
}

impl<S> ReadAhead<S> {
    /// Over `inner`.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { inner, held: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut held = match self.held.take() {
            Some(held) => held,
            None if buf.remaining() >= BUFFER_BYTES => return Pin::new(&mut self.inner).poll_read(cx, buf),
            None => {
                let mut buffer = Buffer::take();
                let mut read = ReadBuf::new(buffer.bytes_mut());
                ready!(Pin::new(&mut self.inner).poll_read(cx, &mut read))?;
                let end = read.filled().len();
                Held::new(buffer, end)
            }
        };
        let count = held.bytes().len().min(buf.remaining());
        buf.put_slice(held.bytes().get(..count).unwrap_or_default());
        held.consume(count);
        if !held.is_empty() {
            self.held = Some(held);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: Stream> Stream for ReadAhead<S> {
    fn reset_on_close(&self) {
        self.inner.reset_on_close();
    }

    fn has_ended(&self) -> bool {
        self.inner.has_ended()
    }

    fn waiting(&self) -> Waiting {
        if self.held.is_some() { Waiting::Bytes } else { self.inner.waiting() }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn small_reads_get_every_byte_in_order_and_the_end() {
        let (mut far, near) = duplex(10 * BUFFER_BYTES);
        let sent: Vec<u8> = (0..3 * BUFFER_BYTES).map(|n| n.to_le_bytes()[0]).collect();
        far.write_all(&sent).await.unwrap();
        drop(far);
        let mut near = ReadAhead::new(near);
        let mut got = Vec::new();
        let mut chunk = [0; 4099];
        loop {
            let count = near.read(&mut chunk).await.unwrap();
            if count == 0 {
                break;
            }
            got.extend_from_slice(&chunk[..count]);
        }
        assert!(got == sent);
        assert!(near.held.is_none(), "an idle one holds no buffer");
    }
}
