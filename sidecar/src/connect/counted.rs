//! A stream whose bytes are counted: nothing passes outside of mutual TLS unseen.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    model::runtime::ByteCounts,
    net::{Stream, Waiting},
};

/// A stream to a service outside the mesh, or from a caller outside of it.
#[derive(Debug)]
pub struct Counted<S> {
    stream: S,
    counts: Arc<ByteCounts>,
}

impl<S> Counted<S> {
    /// Counts the connection, and from here on its bytes.
    pub fn new(stream: S, counts: &Arc<ByteCounts>) -> Self {
        counts.connections.fetch_add(1, Ordering::Relaxed);
        Self { stream, counts: Arc::clone(counts) }
    }

    fn sent(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = polled {
            self.counts.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: Stream> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = buf.filled().len().saturating_sub(before);
        if bytes > 0 {
            self.counts.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: Stream> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.sent(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: Stream> Stream for Counted<S> {
    fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }

    fn waiting(&self) -> Waiting {
        self.stream.waiting()
    }
}
