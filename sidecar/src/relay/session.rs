//! One end of an `outrider-tcp/1` connection: frames in, frames out.
//!
//! A stream under way is read and written as bytes by a [`Source`] and a [`Sink`], so that it is relayed like any other.
//! Nothing is buffered here: payloads go straight between the connection and whoever reads or writes.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::frame::{HEADER_BYTES, Header, Kind, MAX_CONTROL_BYTES, MAX_PAYLOAD_BYTES};

/// Frames that one write may hold: with their payloads, what a buffer of ours holds.
const MAX_FRAMES_PER_WRITE: usize = 5;

/// A framed connection between two sidecars, used by one task.
#[derive(Debug)]
pub struct Session<S> {
    stream: S,
    reading: Reading,
    writing: Writing,
}

#[derive(Debug, Default)]
struct Reading {
    /// Of the next frame, as far as it has come.
    header: [u8; HEADER_BYTES],
    have: usize,
    /// Bytes of the frame under way that have not come yet.
    left: usize,
    /// The payload of a control frame, as far as it has come: at most [`MAX_CONTROL_BYTES`].
    control: Vec<u8>,
}

#[derive(Debug, Default)]
struct Writing {
    /// Of the frame under way, and how much of it has gone.
    header: [u8; HEADER_BYTES],
    gone: usize,
    /// Bytes of the frame under way that have not gone yet.
    left: usize,
    /// A frame is under way.
    is_mid_frame: bool,
    /// FIN has been written and not yet been flushed.
    has_ended: bool,
}

/// A frame without bytes of a stream, and its payload.
pub type Control = (Kind, Vec<u8>);

/// The bytes of the stream under way, from the peer; its end is the peer's FIN.
///
/// Anything else than data and FIN is an error, the connection's end too: [`io::ErrorKind::ConnectionReset`].
#[derive(Debug)]
pub struct Source<'a, S>(pub &'a mut Session<S>);

/// The bytes of the stream under way, to the peer. Its shutdown sends FIN and leaves the connection open.
#[derive(Debug)]
pub struct Sink<'a, S>(pub &'a mut Session<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Frames over `stream`.
    #[must_use]
    pub fn new(stream: S) -> Self {
        Self { stream, reading: Reading::default(), writing: Writing::default() }
    }

    /// The stream again, after the last frame.
    #[must_use]
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Whether a frame may have been left half written. Nothing may be written then: the peer would take it for the
    /// rest of that frame. The connection is done for.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.writing.is_mid_frame
    }

    /// Sends a frame without bytes of the stream; `payload` is cut to [`MAX_CONTROL_BYTES`].
    ///
    /// # Errors
    /// As the connection reports them.
    pub async fn control(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let payload = payload.get(..MAX_CONTROL_BYTES).unwrap_or(payload);
        let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
        frame.extend_from_slice(&header_of(kind, payload.len()));
        frame.extend_from_slice(payload);
        self.writing.is_mid_frame = true;
        self.stream.write_all(&frame).await?;
        self.writing.is_mid_frame = false;
        self.stream.flush().await
    }

    /// Waits for the next frame between two streams. `None` when the peer closed the connection between two frames.
    /// Of a data frame, which nobody waits for there, only the kind is told. Cancel-safe.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for a malformed frame, [`io::ErrorKind::UnexpectedEof`] for half a frame.
    pub async fn next(&mut self) -> io::Result<Option<Control>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Control>>> {
        let Some(kind) = ready!(self.poll_header(cx))? else { return Poll::Ready(Ok(None)) };
        if kind != Kind::Data {
            let mut chunk = [0; MAX_CONTROL_BYTES];
            while self.reading.left > 0 {
                let room = chunk.get_mut(..self.reading.left).unwrap_or_default();
                let mut read = ReadBuf::new(room);
                ready!(self.poll_payload(cx, &mut read))?;
                self.reading.control.extend_from_slice(read.filled());
            }
            self.reading.have = 0;
        }
        Poll::Ready(Ok(Some((kind, std::mem::take(&mut self.reading.control)))))
    }

    /// The header of the frame under way, or of the next one; `None` at the connection's end.
    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Kind>>> {
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
    fn poll_payload(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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
            put(bytes.get(..self.writing.left).unwrap_or_default());
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
}

/// The headers of the frames that `bytes` make.
fn headers(bytes: &[u8]) -> [[u8; HEADER_BYTES]; MAX_FRAMES_PER_WRITE - 1] {
    let mut headers = [[0; HEADER_BYTES]; MAX_FRAMES_PER_WRITE - 1];
    for (header, payload) in headers.iter_mut().zip(bytes.chunks(MAX_PAYLOAD_BYTES)) {
        *header = header_of(Kind::Data, payload.len());
    }
    headers
}

fn header_of(kind: Kind, bytes: usize) -> [u8; HEADER_BYTES] {
    Header { kind, length: u16::try_from(bytes).unwrap_or(u16::MAX) }.encode()
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

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Source<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let session = &mut *self.0;
        loop {
            match ready!(session.poll_header(cx))? {
                Some(Kind::Data) if session.reading.left > 0 => return session.poll_payload(cx, buf),
                // All of this frame has come; the next one.
                Some(Kind::Data) => session.reading.have = 0,
                Some(Kind::Fin) => {
                    session.reading.have = 0;
                    return Poll::Ready(Ok(()));
                }
                Some(Kind::Rst | Kind::Open | Kind::Accepted | Kind::NotProcessed) | None => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
            }
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
