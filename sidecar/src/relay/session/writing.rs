//! Frames out: as many as the connection takes at once.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Session, header_of};
use crate::relay::frame::{HEADER_BYTES, Kind, MAX_PAYLOAD_BYTES};

/// Frames that one write may hold: with their payloads, what a buffer of ours holds.
const MAX_FRAMES_PER_WRITE: usize = 5;

#[derive(Debug, Default)]
pub(super) struct Writing {
    /// Of the frame under way, and how much of it has gone.
    header: [u8; HEADER_BYTES],
    gone: usize,
    /// Bytes of the frame under way that have not gone yet.
    left: usize,
    /// A frame is under way.
    pub(super) is_mid_frame: bool,
    /// FIN has been written and not yet been flushed.
    has_ended: bool,
}

/// The bytes of the stream under way, to the peer. Its shutdown sends FIN and leaves the connection open.
#[derive(Debug)]
pub struct Sink<'a, S>(pub &'a mut Session<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Writes as many frames as the connection takes at once; returns how many bytes of `bytes` have gone. If it is not
    /// done with a frame, the next call must begin with the rest.
    fn poll_frames(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            if !self.writing.is_mid_frame {
                self.writing.begin(Kind::Data, bytes.len().min(MAX_PAYLOAD_BYTES));
            }
            let rest = bytes.get(self.writing.left..).unwrap_or_default();
            let headers = headers(rest);
            let mut slices = [IoSlice::new(&[]); 2 * MAX_FRAMES_PER_WRITE];
            let mut places = slices.iter_mut();
            let mut put = |part| {
                if let Some(place) = places.next() {
                    *place = IoSlice::new(part);
                }
            };
            put(self.writing.header.get(self.writing.gone..).unwrap_or_default());
            put(bytes.get(..self.writing.left).unwrap_or(bytes));
            for (header, payload) in headers.iter().zip(rest.chunks(MAX_PAYLOAD_BYTES)) {
                put(header);
                put(payload);
            }
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let gone = self.writing.wrote(written, bytes.len());
            if gone > 0 {
                return Poll::Ready(Ok(gone));
            }
        }
    }

    /// Completes a data frame that was left half written, with zeros in place of the bytes that it was to hold.
    pub(super) fn poll_fill_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        const ZEROS: &[u8] = &[0; 1024];
        let writing = &mut self.writing;
        // Nothing of it has gone: there is no such frame.
        writing.is_mid_frame &= writing.gone > 0;
        while writing.is_mid_frame && writing.header != header_of(Kind::Fin, 0) {
            let mut rest = writing.header.get(writing.gone..).unwrap_or_default();
            if rest.is_empty() {
                rest = ZEROS.get(..writing.left).unwrap_or(ZEROS);
            }
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            writing.wrote(written, written);
        }
        Poll::Ready(Ok(()))
    }
}

/// The headers of the frames that `bytes` make.
fn headers(bytes: &[u8]) -> [[u8; HEADER_BYTES]; MAX_FRAMES_PER_WRITE - 1] {
    let mut headers = [[0; HEADER_BYTES]; MAX_FRAMES_PER_WRITE - 1];
    for (header, payload) in headers.iter_mut().zip(bytes.chunks(MAX_PAYLOAD_BYTES)) {
        *header = header_of(Kind::Data, payload.len());
    }
    headers
}

impl Writing {
    fn begin(&mut self, kind: Kind, bytes: usize) {
        *self = Self {
            header: header_of(kind, bytes),
            gone: 0,
            left: bytes,
            is_mid_frame: true,
            has_ended: false,
        };
    }

    /// Takes note of `written` bytes of frames that hold `total` bytes of the stream; returns how many of those have
    /// gone.
    fn wrote(&mut self, mut written: usize, total: usize) -> usize {
        let mut gone = 0;
        loop {
            let of_header = written.min(HEADER_BYTES.saturating_sub(self.gone));
            self.gone += of_header;
            written -= of_header;
            let of_payload = written.min(self.left);
            self.left -= of_payload;
            gone += of_payload;
            written -= of_payload;
            if self.gone < HEADER_BYTES || self.left > 0 {
                return gone;
            }
            self.is_mid_frame = false;
            if written == 0 {
                return gone;
            }
            self.begin(Kind::Data, (total - gone).min(MAX_PAYLOAD_BYTES));
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Sink<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_frames(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let session = &mut *self.0;
        let writing = &mut session.writing;
        if !writing.is_mid_frame && !writing.has_ended {
            writing.begin(Kind::Fin, 0);
        }
        while writing.is_mid_frame {
            let rest = writing.header.get(writing.gone..).unwrap_or_default();
            let written = ready!(Pin::new(&mut session.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            writing.wrote(written, 0);
        }
        writing.has_ended = true;
        ready!(Pin::new(&mut session.stream).poll_flush(cx))?;
        writing.has_ended = false;
        Poll::Ready(Ok(()))
    }
}
