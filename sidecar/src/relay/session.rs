//! One end of an `outrider-tcp/1` connection: frames in, frames out.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::frame::{HEADER_BYTES, Header, Kind, MAX_CONTROL_BYTES, MAX_PAYLOAD_BYTES};

/// A framed connection between two sidecars. Both halves are used by one task.
#[derive(Debug)]
pub struct Session<S> {
    /// Frames from the peer.
    pub reader: FrameReader<S>,
    /// Frames to the peer.
    pub writer: FrameWriter<S>,
}

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader<S> {
    half: ReadHalf<S>,
    payload: Vec<u8>,
}

/// Writes frames.
#[derive(Debug)]
pub struct FrameWriter<S> {
    half: WriteHalf<S>,
    /// A frame being built: the header's place, then the payload.
    frame: Vec<u8>,
    /// Part of a frame may have been written, and the rest not.
    is_mid_frame: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Frames over `stream`.
    #[must_use]
    pub fn new(stream: S) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: FrameReader { half: reader, payload: Vec::new() },
            writer: FrameWriter { half: writer, frame: Vec::new(), is_mid_frame: false },
        }
    }

    /// The stream again.
    #[must_use]
    pub fn into_stream(self) -> S {
        self.reader.half.unsplit(self.writer.half)
    }
}

impl<S: AsyncRead> FrameReader<S> {
    /// Waits for the next frame; its payload is valid until the next call. `None` when the peer closed the connection
    /// between two frames. Not cancel-safe: a dropped call may lose part of a frame, so the connection is done for.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for a malformed frame, [`io::ErrorKind::UnexpectedEof`] for half a frame.
    pub async fn next(&mut self) -> io::Result<Option<(Kind, &[u8])>> {
        let mut header = [0; HEADER_BYTES];
        let (first, rest) = header.split_at_mut(1);
        if self.half.read(first).await? == 0 {
            return Ok(None);
        }
        self.half.read_exact(rest).await?;
        let header = Header::decode(header)?;
        self.payload.resize(usize::from(header.length), 0);
        self.half.read_exact(&mut self.payload).await?;
        Ok(Some((header.kind, &self.payload)))
    }
}

impl<S: AsyncWrite> FrameWriter<S> {
    /// Whether a call that was dropped, or that failed, may have left a frame half written. Nothing may be written then:
    /// the peer would take it for the rest of that frame. The connection is done for.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.is_mid_frame
    }

    /// Sends a frame without bytes of the stream; `payload` is cut to [`MAX_CONTROL_BYTES`].
    ///
    /// # Errors
    /// As the connection reports them.
    pub async fn control(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let payload = payload.get(..MAX_CONTROL_BYTES).unwrap_or(payload);
        self.frame.clear();
        let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        self.frame.extend_from_slice(&Header { kind, length }.encode());
        self.frame.extend_from_slice(payload);
        self.is_mid_frame = true;
        self.half.write_all(&self.frame).await?;
        self.is_mid_frame = false;
        self.half.flush().await
    }

    /// Reads some bytes from `source` and sends them as one frame. Returns how many; 0 at the source's end.
    ///
    /// # Errors
    /// The source's or the connection's, told apart by [`Side`].
    pub async fn forward<R: AsyncRead + Unpin>(
        &mut self,
        source: &mut R,
    ) -> Result<usize, (Side, io::Error)> {
        self.frame.resize(HEADER_BYTES + MAX_PAYLOAD_BYTES, 0);
        let (header, payload) = self.frame.split_at_mut(HEADER_BYTES);
        let bytes = source.read(payload).await.map_err(|error| (Side::Plain, error))?;
        if bytes == 0 {
            return Ok(0);
        }
        let length = u16::try_from(bytes).unwrap_or(u16::MAX);
        header.copy_from_slice(&Header { kind: Kind::Data, length }.encode());
        let frame = self.frame.get(..HEADER_BYTES + bytes).unwrap_or_default();
        self.is_mid_frame = true;
        self.half.write_all(frame).await.map_err(|error| (Side::Framed, error))?;
        self.is_mid_frame = false;
        self.half.flush().await.map_err(|error| (Side::Framed, error))?;
        Ok(bytes)
    }
}

/// Which side of a relay failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The plain connection of an app.
    Plain,
    /// The connection between the sidecars.
    Framed,
}
