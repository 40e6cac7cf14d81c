//! Frames in: their headers, and the bytes of the stream under way.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Session;
use crate::{
    buffer::Buffer,
    relay::frame::{HEADER_BYTES, Header, Kind, StreamKind},
};

#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Of the next frame, as far as it has come.
    pub(super) header: [u8; HEADER_BYTES],
    pub(super) have: usize,
    /// Bytes of the frame under way that have not come yet.
    pub(super) left: usize,
    /// The payload of a control frame, as far as it has come: at most `MAX_CONTROL_BYTES`.
    pub(super) control: Vec<u8>,
    /// The peer may cancel the stream under way: it is undecided, and the peer has sent nothing of it.
    may_cancel: bool,
    /// It did.
    pub(super) is_cancelled: bool,
}

impl Reading {
    /// A stream begins.
    pub(super) fn accepted(&mut self, kind: StreamKind) {
        self.may_cancel = kind == StreamKind::Undecided;
        self.is_cancelled = false;
    }
}

/// The bytes of the stream under way, from the peer; its end is the peer's FIN.
///
/// Anything else than data and FIN is an error, the connection's end too: [`io::ErrorKind::ConnectionReset`]. So is the
/// caller's [`Kind::Cancel`] in its place, of which [`Session::is_cancelled`] tells.
#[derive(Debug)]
pub struct Source<'a, S>(pub &'a mut Session<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// The header of the frame under way, or of the next one; `None` at the connection's end.
    pub(super) fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Kind>>> {
        let reading = &mut self.reading;
        while reading.have < HEADER_BYTES {
            let room = reading.header.get_mut(reading.have..).unwrap_or_default();
            let mut read = ReadBuf::new(room);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            match (read.filled().len(), reading.have) {
                (0, 0) => return Poll::Ready(Ok(None)),
                (0, _) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                (count, _) => reading.have += count,
            }
            if reading.have == HEADER_BYTES {
                reading.left = usize::from(Header::decode(reading.header)?.length);
            }
        }
        Poll::Ready(Header::decode(reading.header).map(|header| Some(header.kind)))
    }

    /// Bytes of the frame under way; `buf` must not be empty, nor the frame.
    pub(super) fn poll_payload(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buf.remaining().min(self.reading.left);
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        buf.advance(count);
        self.reading.left = self.reading.left.saturating_sub(count);
        Poll::Ready(Ok(()))
    }

    /// Throws the rest of the frame under way away.
    pub(super) fn poll_skip(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = Buffer::take();
        while self.reading.left > 0 {
            ready!(self.poll_payload(cx, &mut ReadBuf::new(buffer.bytes_mut())))?;
        }
        self.reading.have = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Source<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let session = &mut *self.0;
        loop {
            let kind = ready!(session.poll_header(cx))?;
            let reading = &mut session.reading;
            let may_cancel = std::mem::take(&mut reading.may_cancel);
            match kind {
                Some(Kind::Data) if reading.left > 0 => return session.poll_payload(cx, buf),
                // All of this frame has come; the next one.
                Some(Kind::Data) => reading.have = 0,
                Some(Kind::Fin) => {
                    reading.have = 0;
                    return Poll::Ready(Ok(()));
                }
                Some(Kind::Cancel) if may_cancel => {
                    reading.have = 0;
                    reading.is_cancelled = true;
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                Some(Kind::Rst | Kind::Open | Kind::Accepted | Kind::NotProcessed | Kind::Cancel) | None => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
            }
        }
    }
}
