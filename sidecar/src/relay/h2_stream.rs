//! The bytes of one stream of HTTP/2 that has left HTTP, as our client has it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Both directions of a stream. Dropped before both have ended, it is reset.
#[derive(Debug)]
pub struct H2Stream {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// Received and not yet read.
    held: Bytes,
    /// The peer's `NO_ERROR` behind its end is an abort: a sidecar of ours has no other way to say so. Others end a stream
    /// so that they have no more use for (RFC 9113 §8.1).
    is_sidecar: bool,
    is_ending: bool,
    has_ended: bool,
    is_shut: bool,
}

impl H2Stream {
    /// The stream of a successful extended CONNECT.
    #[must_use]
    pub fn new(send: SendStream<Bytes>, receive: RecvStream, is_sidecar: bool) -> Self {
        let held = Bytes::new();
        Self { send, receive, held, is_sidecar, is_ending: false, has_ended: false, is_shut: false }
    }

    /// Whether the peer has reset what looked like an orderly end.
    fn is_aborted(&mut self, cx: &mut Context<'_>) -> bool {
        match self.send.poll_reset(cx) {
            Poll::Ready(Ok(Reason::NO_ERROR)) => self.is_sidecar,
            Poll::Ready(Ok(_)) => true,
            // Our direction has ended, or nothing has happened.
            Poll::Ready(Err(_)) | Poll::Pending => false,
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_ending {
            // An abort may be an end and a reset right behind it: let the connection's task read that, too.
            self.is_ending = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.is_aborted(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        self.has_ended = true;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for H2Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.held.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(data)) => self.held = data,
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) && !self.is_sidecar => {
                    self.has_ended = true;
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error)));
                }
                None => return self.poll_end(cx),
            }
        }
        let count = self.held.remaining().min(buf.remaining());
        buf.put_slice(&self.held.split_to(count));
        // Fails only for a stream that is gone, whose window nobody needs.
        let _released = self.receive.flow_control().release_capacity(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H2Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(bytes.len());
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_room)) => {}
                Some(Err(error)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error)));
                }
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let count = self.send.capacity().min(bytes.len());
        let data = Bytes::copy_from_slice(bytes.get(..count).unwrap_or_default());
        let sent = self.send.send_data(data, false);
        Poll::Ready(sent.map(|()| count).map_err(|error| io::Error::new(io::ErrorKind::BrokenPipe, error)))
    }

    /// Nothing to do: the connection's task sends what it is given at the end of its turn.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_shut {
            return Poll::Ready(Ok(()));
        }
        let sent = self.send.send_data(Bytes::new(), true);
        self.is_shut = sent.is_ok();
        Poll::Ready(sent.map_err(|error| io::Error::new(io::ErrorKind::BrokenPipe, error)))
    }
}

impl Drop for H2Stream {
    fn drop(&mut self) {
        if !(self.has_ended && self.is_shut) {
            self.send.send_reset(Reason::CANCEL);
        }
    }
}
