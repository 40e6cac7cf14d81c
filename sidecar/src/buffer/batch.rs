//! Fewer, fuller writes: what one turn of a connection's task writes goes out together.
//!
//! h2 writes each DATA frame for itself and flushes after it. Over TLS that is one record and one system call per
//! frame, though a turn of the task often has frames of many streams ready. So the protocol writes into a [`Batch`],
//! whose flush does nothing yet, and whoever drives the protocol flushes by the [`Flusher`] at the end of the turn.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::scratch::{Buffer, Held};

/// The protocol's end.
#[derive(Debug)]
pub struct Batch<S>(Arc<Mutex<Inner<S>>>);

/// The driver's end.
#[derive(Debug)]
pub struct Flusher<S>(Arc<Mutex<Inner<S>>>);

#[derive(Debug)]
struct Inner<S> {
    stream: S,
    /// Written by the protocol and not yet by us: at most one buffer.
    held: Option<Held>,
    /// Reads that brought something.
    reads: u64,
}

/// Both ends of a batch before `stream`. Both belong to one task; no lock is ever waited for.
#[must_use]
pub fn batch<S>(stream: S) -> (Batch<S>, Flusher<S>) {
    let inner = Arc::new(Mutex::new(Inner { stream, held: None, reads: 0 }));
    (Batch(Arc::clone(&inner)), Flusher(inner))
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(held) = &mut self.held {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, held.bytes()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            held.consume(written);
            if held.is_empty() {
                self.held = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        self.held.get_or_insert_with(|| Held::new(Buffer::take(), 0)).put(bytes)
    }
}

impl<S: AsyncWrite + Unpin> Flusher<S> {
    /// Writes what the protocol has written. Call it after each poll of the protocol, with the same context.
    ///
    /// # Errors
    /// The stream's; the protocol sees it too, with its next write.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.stream).poll_flush(cx)
    }
}

impl<S> Flusher<S> {
    /// How often something came from the stream.
    #[must_use]
    pub fn reads(&self) -> u64 {
        lock(&self.0).reads
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Batch<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        let polled = Pin::new(&mut inner.stream).poll_read(cx, buf);
        if polled.is_ready() {
            inner.reads += 1;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Batch<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        let mut written = 0;
        loop {
            for slice in slices {
                let count = inner.put(slice);
                written += count;
                if count < slice.len() {
                    break;
                }
            }
            if written > 0 || slices.iter().all(|slice| slice.is_empty()) {
                return Poll::Ready(Ok(written));
            }
            ready!(inner.poll_drain(cx))?;
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: see the [`Flusher`].
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

fn lock<S>(inner: &Mutex<Inner<S>>) -> MutexGuard<'_, Inner<S>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::buffer::BUFFER_BYTES;

    #[tokio::test]
    async fn nothing_goes_out_before_the_turn_ends() {
        let (mut far, near) = duplex(BUFFER_BYTES);
        let (mut protocol, driver) = batch(near);
        protocol.write_all(b"one ").await.unwrap();
        protocol.flush().await.unwrap();
        protocol.write_all(b"two").await.unwrap();
        assert!(far.read(&mut [0; 16]).now_or_never().is_none());
        poll_fn(|cx| driver.poll_flush(cx)).await.unwrap();
        let mut got = [0; 16];
        let count = far.read(&mut got).await.unwrap();
        assert_eq!(&got[..count], b"one two");
        assert!(lock(&driver.0).held.is_none(), "an idle one holds no buffer");
    }

    #[tokio::test]
    async fn a_full_buffer_holds_the_protocol_back() {
        let (mut far, near) = duplex(1000);
        let (mut protocol, _driver) = batch(near);
        let sent = vec![b'x'; 3 * BUFFER_BYTES];
        let write = async {
            protocol.write_all(&sent).await.unwrap();
            protocol.shutdown().await.unwrap();
        };
        let read = async {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            got.len()
        };
        let ((), got) = tokio::join!(write, read);
        assert_eq!(got, sent.len());
    }
}
