//! Relays one opaque stream between a plain connection and a framed one, or between two plain ones.
//!
//! Half-close travels as half-close and a reset as a reset. There is no idle timeout: databases keep connections
//! silent for hours (the connections' own keepalive finds dead ones).

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{
    frame::Kind,
    session::{FrameReader, FrameWriter, Session, Side},
};
use crate::net::Stream;

/// How a relayed stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both directions ended orderly; a framed connection may carry the next stream.
    Orderly,
    /// The plain side was reset or failed.
    PlainReset,
    /// The far side reset the stream or its connection failed.
    FarReset,
}

/// Bytes carried, seen from the plain side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Plain to far.
    pub sent: u64,
    /// Far to plain.
    pub received: u64,
}

/// Relays between an app's plain connection and a framed one until both directions have ended.
pub async fn framed<P, S>(plain: &mut P, session: &mut Session<S>) -> (End, Carried)
where
    P: Stream,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut carried = Carried::default();
    let (mut read, mut write) = tokio::io::split(&mut *plain);
    let end = {
        let up = upward(&mut read, &mut session.writer, &mut carried.sent);
        let down = downward(&mut session.reader, &mut write, &mut carried.received);
        tokio::try_join!(up, down)
    };
    let end = match end {
        Ok(_both) => End::Orderly,
        Err(end) => end,
    };
    match end {
        End::Orderly => {}
        End::PlainReset => {
            // The far side may be gone as well; then nobody needs to be told.
            drop(session.writer.control(Kind::Rst, &[]).await);
        }
        End::FarReset => plain.reset_on_close(),
    }
    (end, carried)
}

async fn upward<R, S>(read: &mut R, writer: &mut FrameWriter<S>, sent: &mut u64) -> Result<(), End>
where
    R: AsyncRead + Unpin,
    S: AsyncWrite,
{
    loop {
        match writer.forward(read).await {
            Ok(0) => return writer.control(Kind::Fin, &[]).await.map_err(|_gone| End::FarReset),
            Ok(bytes) => *sent += bytes as u64,
            Err((Side::Plain, _reset)) => return Err(End::PlainReset),
            Err((Side::Framed, _gone)) => return Err(End::FarReset),
        }
    }
}

async fn downward<W, S>(reader: &mut FrameReader<S>, write: &mut W, received: &mut u64) -> Result<(), End>
where
    W: AsyncWrite + Unpin,
    S: AsyncRead,
{
    loop {
        match reader.next().await {
            Ok(Some((Kind::Data, payload))) => {
                write.write_all(payload).await.map_err(|_reset| End::PlainReset)?;
                *received += payload.len() as u64;
            }
            Ok(Some((Kind::Fin, _empty))) => {
                // The app may have closed this direction already: that is its right, and no reset.
                drop(write.shutdown().await);
                return Ok(());
            }
            Ok(Some((Kind::Rst | Kind::Open | Kind::Accepted | Kind::NotProcessed, _)))
            | Ok(None)
            | Err(_) => {
                return Err(End::FarReset);
            }
        }
    }
}

/// Bytes per direction of a plain relay: as many as a TLS record holds.
const PLAIN_BUFFER_BYTES: usize = 16 * 1024;

/// Relays between two plain byte streams (a standard peer's TLS stream and an app's connection) until both directions
/// have ended.
///
/// # Errors
/// The first error of either side; the caller resets the app's connection.
pub async fn plain<A, B>(a: &mut A, b: &mut B) -> io::Result<Carried>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (sent, received) =
        tokio::io::copy_bidirectional_with_sizes(a, b, PLAIN_BUFFER_BYTES, PLAIN_BUFFER_BYTES).await?;
    Ok(Carried { sent, received })
}
