//! One end of an `outrider-tcp/1` connection: frames in, frames out.
//!
//! A stream under way is read and written as bytes by a [`Source`] and a [`Sink`], so that it is relayed like any other.
//! Nothing is buffered here: payloads go straight between the connection and whoever reads or writes.

mod duplex;
mod reading;
mod writing;

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

pub use self::{
    duplex::{Duplex, Inner, Lent},
    reading::Source,
    writing::Sink,
};
use self::{reading::Reading, writing::Writing};
use super::frame::{HEADER_BYTES, Header, Kind, MAX_CONTROL_BYTES, MAX_EARLY_BYTES, StreamKind};

/// A framed connection between two sidecars, used by one task.
#[derive(Debug)]
pub struct Session<S> {
    stream: S,
    reading: Reading,
    writing: Writing,
}

/// A frame without bytes of a stream, and its payload.
pub type Control = (Kind, Vec<u8>);

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

    /// Whether the peer has ended the stream under way by [`Kind::Cancel`].
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.reading.is_cancelled
    }

    /// Caller: begins a stream, with the bytes and the end that are known already, in one write. Of `early`, at most
    /// [`MAX_EARLY_BYTES`] are sent.
    ///
    /// # Errors
    /// As the connection reports them.
    pub async fn open(&mut self, kind: StreamKind, early: &[u8], has_ended: bool) -> io::Result<()> {
        let mut frames = Vec::new();
        put(&mut frames, Kind::Open, kind.parameters());
        put_early(&mut frames, early, has_ended);
        self.write(&frames).await
    }

    /// Caller: sends bytes, and the end, of a stream that has not been accepted yet. Of `early`, at most
    /// [`MAX_EARLY_BYTES`] are sent.
    ///
    /// # Errors
    /// As the connection reports them.
    pub async fn early(&mut self, early: &[u8], has_ended: bool) -> io::Result<()> {
        let mut frames = Vec::new();
        put_early(&mut frames, early, has_ended);
        self.write(&frames).await
    }

    /// Callee: says that the app is connected. The caller of an undecided stream may cancel it from now on, as long as it
    /// has sent nothing else.
    ///
    /// # Errors
    /// As the connection reports them.
    pub async fn accept(&mut self, kind: StreamKind) -> io::Result<()> {
        self.reading.accepted(kind);
        self.control(Kind::Accepted, &[]).await
    }

    /// Sends a frame without bytes of the stream; `payload` is cut to [`MAX_CONTROL_BYTES`].
    ///
    /// # Errors
    /// As the connection reports them.
    pub async fn control(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::new();
        put(&mut frame, kind, payload.get(..MAX_CONTROL_BYTES).unwrap_or(payload));
        self.write(&frame).await
    }

    async fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        self.writing.is_mid_frame = true;
        self.stream.write_all(frames).await?;
        self.writing.is_mid_frame = false;
        self.stream.flush().await
    }

    /// Caller: ends a stream that is not needed, and throws away what the callee still says on it. If its end has been read
    /// already (`has_ended`), nothing more is. The connection is free for the next stream then.
    ///
    /// # Errors
    /// As the connection reports them, and [`io::ErrorKind::InvalidData`] for what no callee says then.
    pub async fn cancel(&mut self, has_ended: bool) -> io::Result<()> {
        self.control(Kind::Cancel, &[]).await?;
        let mut has_ended = has_ended;
        while !has_ended {
            match self.next().await? {
                Some((Kind::Data, _)) => drop(self.skip().await?),
                // The answer to OPEN, if that was not waited for.
                Some((Kind::Accepted | Kind::NotProcessed, _)) => {}
                Some((Kind::Fin, _)) => has_ended = true,
                Some((Kind::Open | Kind::Rst | Kind::Cancel, _)) | None => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
        Ok(())
    }

    /// Callee: answers the caller's [`Kind::Cancel`] by the stream's end, if that has not been said. A frame that was left
    /// half written is filled up: the caller throws it away.
    ///
    /// # Errors
    /// As the connection reports them.
    pub async fn cancelled(&mut self, has_ended: bool) -> io::Result<()> {
        if has_ended {
            return Ok(());
        }
        poll_fn(|cx| self.poll_fill_up(cx)).await?;
        poll_fn(|cx| Pin::new(&mut Sink(self)).poll_shutdown(cx)).await
    }

    /// Waits for the next frame between two streams. `None` when the peer closed the connection between two frames.
    /// Of a data frame, which is not expected there, only the kind is told: see [`Session::skip`]. Cancel-safe.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for a malformed frame, [`io::ErrorKind::UnexpectedEof`] for half a frame, and for an
    /// end of the connection that may not be the peer's.
    pub async fn next(&mut self) -> io::Result<Option<Control>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Throws the data frame away that [`Session::next`] told of; returns its bytes.
    ///
    /// # Errors
    /// As the connection reports them.
    pub async fn skip(&mut self) -> io::Result<usize> {
        let bytes = self.reading.left;
        poll_fn(|cx| self.poll_skip(cx)).await.map(|()| bytes)
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
}

/// Bytes and the end of a stream, as frames.
fn put_early(frames: &mut Vec<u8>, early: &[u8], has_ended: bool) {
    if !early.is_empty() {
        put(frames, Kind::Data, early.get(..MAX_EARLY_BYTES).unwrap_or(early));
    }
    if has_ended {
        put(frames, Kind::Fin, &[]);
    }
}

fn put(frames: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    frames.reserve(HEADER_BYTES + payload.len());
    frames.extend_from_slice(&header_of(kind, payload.len()));
    frames.extend_from_slice(payload);
}

fn header_of(kind: Kind, bytes: usize) -> [u8; HEADER_BYTES] {
    Header { kind, length: u16::try_from(bytes).unwrap_or(u16::MAX) }.encode()
}

#[cfg(test)]
mod tests;
