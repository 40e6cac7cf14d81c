//! Relays one opaque stream between a plain connection and a framed one, or between two plain ones.
//!
//! Half-close travels as half-close and a reset as a reset. There is no idle timeout while both directions are open:
//! databases keep connections silent for hours, and TCP keepalive on the connections themselves finds the dead ones
//! (`net/tcp.rs`). Once one direction has ended, silence ends the stream ([`HALF_OPEN_LIMIT`]).
//!
//! A side that does not take what is sent to it holds the other one back, and nobody reads from that one meanwhile: its
//! abort is noticed with the next byte that either of them moves, or by the connection's end.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
};

use super::{
    frame::Kind,
    session::{FrameReader, FrameWriter, Session, Side},
};
use crate::net::Stream;

/// A stream of which one direction has ended is reset when the other has not moved for so long (to within a
/// `HALF_OPEN_CHECKS`th). Apps that forget to close their half would fill the process up with half-closed connections
/// else. Ten times as long as Linux's connection tracking (`nf_conntrack_tcp_timeout_close_wait`: 60 s) keeps such a
/// connection, so whoever works without a sidecar on the way has met a shorter limit.
pub const HALF_OPEN_LIMIT: Duration = Duration::from_secs(600);
/// So often is a half-closed stream looked at within its limit.
const HALF_OPEN_CHECKS: u32 = 10;
/// Time for telling the far side of an abort. It may read slowly or not at all; it learns from the connection's end
/// then.
const RST_TIMEOUT: Duration = Duration::from_secs(1);

/// How a relayed stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both directions ended orderly; a framed connection may carry the next stream.
    Orderly,
    /// The plain side was reset or failed.
    PlainReset,
    /// The far side reset the stream or its connection failed.
    FarReset,
    /// One direction had ended and the other did not move: both sides are reset.
    Stalled,
}

/// Bytes carried, seen from the plain side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Plain to far.
    pub sent: u64,
    /// Far to plain.
    pub received: u64,
}

/// Whether a stream moves, for both of its directions.
#[derive(Debug, Default)]
struct Movement {
    bytes: AtomicU64,
    is_half_open: Notify,
}

impl Movement {
    fn moved(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Waits until one direction has ended, and then until the other has not moved for [`HALF_OPEN_LIMIT`].
    async fn stalled(&self) {
        self.is_half_open.notified().await;
        let mut seen = self.bytes.load(Ordering::Relaxed);
        let mut quiet = 0;
        while quiet < HALF_OPEN_CHECKS {
            tokio::time::sleep(HALF_OPEN_LIMIT / HALF_OPEN_CHECKS).await;
            let now = self.bytes.load(Ordering::Relaxed);
            quiet = if now == seen { quiet + 1 } else { 0 };
            seen = now;
        }
    }
}

/// Relays between an app's plain connection and a framed one until both directions have ended. Unless they ended orderly
/// the framed connection is done for: drop it.
pub async fn framed<P, S>(plain: &mut P, session: &mut Session<S>) -> (End, Carried)
where
    P: Stream,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut carried = Carried::default();
    let movement = Movement::default();
    let (mut read, mut write) = tokio::io::split(&mut *plain);
    let end = {
        let up = async {
            upward(&mut read, &mut session.writer, &mut carried.sent, &movement).await?;
            movement.is_half_open.notify_one();
            Ok(())
        };
        let down = async {
            downward(&mut session.reader, &mut write, &mut carried.received, &movement).await?;
            movement.is_half_open.notify_one();
            Ok(())
        };
        tokio::select! {
            biased;
            both = async { tokio::try_join!(up, down) } => both.map_or_else(|end| end, |_both| End::Orderly),
            () = movement.stalled() => End::Stalled,
        }
    };
    match end {
        End::Orderly => {}
        End::PlainReset => tell_reset(&mut session.writer).await,
        End::FarReset => plain.reset_on_close(),
        End::Stalled => {
            plain.reset_on_close();
            tell_reset(&mut session.writer).await;
        }
    }
    (end, carried)
}

/// Tells the far side that the stream was aborted, if that can be said: in the middle of a frame it would be taken for
/// bytes of the stream, and the connection's end says it instead. So it does if it cannot be said in time.
async fn tell_reset<S: AsyncWrite>(writer: &mut FrameWriter<S>) {
    if !writer.is_mid_frame() {
        drop(tokio::time::timeout(RST_TIMEOUT, writer.control(Kind::Rst, &[])).await);
    }
}

async fn upward<R, S>(
    read: &mut R,
    writer: &mut FrameWriter<S>,
    sent: &mut u64,
    movement: &Movement,
) -> Result<(), End>
where
    R: AsyncRead + Unpin,
    S: AsyncWrite,
{
    loop {
        match writer.forward(read).await {
            Ok(0) => return writer.control(Kind::Fin, &[]).await.map_err(|_gone| End::FarReset),
            Ok(bytes) => {
                *sent += bytes as u64;
                movement.moved(bytes);
            }
            Err((Side::Plain, _reset)) => return Err(End::PlainReset),
            Err((Side::Framed, _gone)) => return Err(End::FarReset),
        }
    }
}

async fn downward<W, S>(
    reader: &mut FrameReader<S>,
    write: &mut W,
    received: &mut u64,
    movement: &Movement,
) -> Result<(), End>
where
    W: AsyncWrite + Unpin,
    S: AsyncRead,
{
    loop {
        match reader.next().await {
            Ok(Some((Kind::Data, payload))) => {
                write.write_all(payload).await.map_err(|_reset| End::PlainReset)?;
                *received += payload.len() as u64;
                movement.moved(payload.len());
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
/// The first error of either side, and [`io::ErrorKind::TimedOut`] for a half-closed stream that did not move for
/// [`HALF_OPEN_LIMIT`]; the caller resets the app's connection.
pub async fn plain<A, B>(a: &mut A, b: &mut B) -> io::Result<Carried>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let movement = Movement::default();
    let (mut from_a, mut to_a) = tokio::io::split(a);
    let (mut from_b, mut to_b) = tokio::io::split(b);
    let both = async {
        tokio::try_join!(
            one_way(&mut from_a, &mut to_b, &movement),
            one_way(&mut from_b, &mut to_a, &movement)
        )
    };
    tokio::select! {
        biased;
        ended = both => ended.map(|(sent, received)| Carried { sent, received }),
        () = movement.stalled() => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Carries one direction to its end and closes it; returns how many bytes it were.
async fn one_way<R, W>(read: &mut R, write: &mut W, movement: &Movement) -> io::Result<u64>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; PLAIN_BUFFER_BYTES];
    let mut carried = 0;
    loop {
        let bytes = read.read(&mut buffer).await?;
        if bytes == 0 {
            write.shutdown().await?;
            movement.is_half_open.notify_one();
            return Ok(carried);
        }
        write.write_all(buffer.get(..bytes).unwrap_or_default()).await?;
        write.flush().await?;
        carried += bytes as u64;
        movement.moved(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use tokio::io::{DuplexStream, ReadBuf, duplex};

    use super::*;
    use crate::{
        clock::Clock,
        relay::frame::{HEADER_BYTES, Header, MAX_PAYLOAD_BYTES},
    };

    const ROOM: usize = 1024 * 1024;

    /// An app's connection, as the sidecar holds it.
    struct App {
        inner: DuplexStream,
        is_broken: bool,
        is_reset: AtomicU64,
    }

    impl App {
        fn new(inner: DuplexStream) -> Self {
            Self { inner, is_broken: false, is_reset: AtomicU64::new(0) }
        }

        /// One that has been reset, which nobody has read yet.
        fn broken(inner: DuplexStream) -> Self {
            Self { is_broken: true, ..Self::new(inner) }
        }

        fn is_reset(&self) -> bool {
            self.is_reset.load(Ordering::Relaxed) > 0
        }
    }

    impl std::fmt::Debug for App {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("App")
        }
    }

    impl AsyncRead for App {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for App {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.is_broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            Pin::new(&mut self.inner).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_shutdown(cx)
        }
    }

    impl Stream for App {
        fn reset_on_close(&self) {
            self.is_reset.store(1, Ordering::Relaxed);
        }
    }

    fn data(length: usize) -> Vec<u8> {
        frame(Kind::Data, length)
    }

    fn frame(kind: Kind, length: usize) -> Vec<u8> {
        let mut frame = Header { kind, length: length.try_into().unwrap() }.encode().to_vec();
        frame.resize(HEADER_BYTES + length, b'x');
        frame
    }

    async fn all_of(mut far: DuplexStream) -> Vec<u8> {
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        all
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_written_into_the_middle_of_a_frame() {
        let (mut app, plain) = duplex(ROOM);
        let (mut far, framed_side) = duplex(64);
        app.write_all(&[b'x'; 4 * MAX_PAYLOAD_BYTES]).await.unwrap();
        far.write_all(&data(1)).await.unwrap();
        let mut session = Session::new(framed_side);
        let (end, _) = framed(&mut App::broken(plain), &mut session).await;
        assert_eq!(end, End::PlainReset);
        assert!(session.writer.is_mid_frame());
        drop(session);
        assert_eq!(all_of(far).await, data(MAX_PAYLOAD_BYTES)[..64], "what fitted, and the end");
    }

    #[tokio::test(start_paused = true)]
    async fn an_abort_between_two_frames_is_told() {
        let (_app, plain) = duplex(ROOM);
        let (mut far, framed_side) = duplex(64);
        far.write_all(&data(1)).await.unwrap();
        let mut session = Session::new(framed_side);
        assert_eq!(framed(&mut App::broken(plain), &mut session).await.0, End::PlainReset);
        drop(session);
        assert_eq!(all_of(far).await, frame(Kind::Rst, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_far_side_that_does_not_read_is_not_waited_for() {
        let (mut app, plain) = duplex(ROOM);
        let (mut far, framed_side) = duplex(64);
        app.write_all(&[b'x'; 64 - HEADER_BYTES]).await.unwrap();
        let clock = Clock::system();
        let begin = clock.now();
        let mut session = Session::new(framed_side);
        let mut plain = App::broken(plain);
        let relayed = framed(&mut plain, &mut session);
        let told = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            far.write_all(&data(1)).await.unwrap();
            std::future::pending::<()>().await;
        };
        let (end, carried) =
            tokio::select! { biased; relayed = relayed => relayed, () = told => unreachable!() };
        assert_eq!((end, carried.sent), (End::PlainReset, 61));
        assert_eq!(clock.now() - begin, Duration::from_secs(5) + RST_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_closed_stream_that_does_not_move_is_reset_on_both_sides() {
        let (_app, plain) = duplex(ROOM);
        let (mut far, framed_side) = duplex(ROOM);
        far.write_all(&frame(Kind::Fin, 0)).await.unwrap();
        let clock = Clock::system();
        let begin = clock.now();
        let mut session = Session::new(framed_side);
        let mut plain = App::new(plain);
        assert_eq!(framed(&mut plain, &mut session).await.0, End::Stalled);
        assert_eq!((clock.now() - begin).as_secs(), HALF_OPEN_LIMIT.as_secs());
        assert!(plain.is_reset());
        drop(session);
        assert_eq!(all_of(far).await, frame(Kind::Rst, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_closed_stream_may_go_on_for_as_long_as_it_moves() {
        let (app, plain) = duplex(ROOM);
        let (mut far, framed_side) = duplex(ROOM);
        far.write_all(&frame(Kind::Fin, 0)).await.unwrap();
        let mut session = Session::new(framed_side);
        let mut plain = App::new(plain);
        let speak = async {
            let mut app = app;
            for _ in 0..100 {
                tokio::time::sleep(HALF_OPEN_LIMIT * 9 / 10).await;
                app.write_all(b"x").await.unwrap();
            }
        };
        let ((end, carried), ()) = tokio::join!(framed(&mut plain, &mut session), speak);
        assert_eq!((end, carried.sent), (End::Orderly, 100));
        assert!(!plain.is_reset());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_open_both_ways_may_be_silent() {
        let (app, plain) = duplex(ROOM);
        let (mut far, framed_side) = duplex(ROOM);
        let mut session = Session::new(framed_side);
        let mut plain = App::new(plain);
        let speak = async {
            let mut app = app;
            tokio::time::sleep(Duration::from_secs(7 * 24 * 3600)).await;
            app.write_all(b"x").await.unwrap();
            far.write_all(&frame(Kind::Fin, 0)).await.unwrap();
        };
        let ((end, carried), ()) = tokio::join!(framed(&mut plain, &mut session), speak);
        assert_eq!((end, carried.sent), (End::Orderly, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bare_stream_has_the_same_limit_and_carries_both_ways() {
        let ((mut near, mut a), (mut far, mut b)) = (duplex(64), duplex(64));
        let talk = async {
            near.write_all(&[b'x'; 100]).await.unwrap();
            near.shutdown().await.unwrap();
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            far.write_all(&got[..50]).await.unwrap();
            far.shutdown().await.unwrap();
        };
        let (carried, ()) = tokio::join!(plain(&mut a, &mut b), talk);
        assert_eq!(carried.unwrap(), Carried { sent: 100, received: 50 });

        let ((mut near, mut a), (_far, mut b)) = (duplex(64), duplex(64));
        near.shutdown().await.unwrap();
        let error = plain(&mut a, &mut b).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
