//! Relays one opaque stream between a plain connection and a framed one, or between two plain ones.
//!
//! Half-close travels as half-close and a reset as a reset. There is no idle timeout while both directions are open:
//! databases keep connections silent for hours, and TCP keepalive on the connections themselves finds the dead ones
//! (`net/tcp.rs`). Once one direction has ended, silence ends the stream ([`Setup::half_open`]).
//!
//! A side that does not take what is sent to it holds the other one back, and nobody reads from that one meanwhile: its
//! abort is noticed with the next byte that either of them moves, or by the connection's end.

use std::{future::poll_fn, io, sync::Arc, task::Poll, time::Duration};

use tokio::io::{AsyncRead, AsyncWrite};

pub use super::lane::Before;
use super::{
    frame::Kind,
    lane::{Count, Failed, Lane},
    session::{Session, Sink, Source},
    stall::Stall,
};
use crate::{net::Stream, telemetry::Moved};

/// Time for telling the far side of an abort. It may read slowly or not at all; it learns from the connection's end
/// then.
const RST_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for telling the caller that its [`Kind::Cancel`] has been heard. What the app has said before stands in the way,
/// megabytes perhaps, and the caller does nothing but read it.
const CANCELLED_TIMEOUT: Duration = Duration::from_secs(10);

/// What a relay goes on from, and goes by.
#[derive(Debug, Default)]
pub struct Setup {
    /// From the first side to the second.
    pub up: Before,
    /// From the second side to the first.
    pub down: Before,
    /// A stream of which one direction has ended is reset when the other has not moved for so long; `None`: never.
    pub half_open: Option<Duration>,
    /// Where the bytes are counted as they pass.
    pub count: Option<Counted>,
}

/// Where the bytes of both directions are counted, and which side is the caller's.
#[derive(Clone, Debug)]
pub enum Counted {
    /// The first.
    FirstCalls(Arc<Moved>),
    /// The second.
    SecondCalls(Arc<Moved>),
}

/// How a relayed stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both directions ended orderly; a framed connection may carry the next stream.
    Orderly,
    /// The far side had no use for the stream; the framed connection may carry the next one. What the plain side may have
    /// said was thrown away.
    Cancelled {
        /// It did say something.
        has_spoken: bool,
    },
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

/// Relays between an app's plain connection and a framed one until both directions have ended. Unless they ended orderly
/// (or by being cancelled) the framed connection is done for: drop it.
pub async fn framed<P, S>(plain: &mut P, session: &mut Session<S>, setup: Setup) -> (End, Carried)
where
    P: Stream,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down, mut stall) = setup.begin();
    let mut end = poll_fn(|cx| {
        match up.poll(cx, plain, &mut Sink(session)) {
            Poll::Ready(Err(Failed::Source(_))) => return Poll::Ready(End::PlainReset),
            Poll::Ready(Err(Failed::Sink(_))) => return Poll::Ready(End::FarReset),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        match down.poll(cx, &mut Source(session), plain) {
            Poll::Ready(Err(Failed::Source(_))) if session.is_cancelled() => {
                return Poll::Ready(End::Cancelled { has_spoken: up.has_moved() });
            }
            Poll::Ready(Err(Failed::Source(_))) => return Poll::Ready(End::FarReset),
            // The app may have closed this direction already: that is its right, and no reset.
            Poll::Ready(Err(Failed::Sink(_))) if down.is_closing() => down.close(),
            Poll::Ready(Err(Failed::Sink(_))) => return Poll::Ready(End::PlainReset),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if up.is_closed() && down.is_closed() {
            return Poll::Ready(End::Orderly);
        }
        let is_half_open = up.is_closed() || down.is_closed();
        stall.poll(cx, is_half_open, up.carried + down.carried).map(|()| End::Stalled)
    })
    .await;
    if matches!(end, End::Cancelled { .. }) && !answer_cancel(session, up.is_closed()).await {
        end = End::FarReset;
    }
    match end {
        End::Orderly | End::Cancelled { .. } => {}
        End::PlainReset => tell_reset(session).await,
        End::FarReset => plain.reset_on_close(),
        End::Stalled => {
            plain.reset_on_close();
            tell_reset(session).await;
        }
    }
    (end, Carried { sent: up.carried, received: down.carried })
}

/// Tells the far side that the stream was aborted, if that can be said: in the middle of a frame it would be taken for
/// bytes of the stream, and the connection's end says it instead. So it does if it cannot be said in time.
async fn tell_reset<S: AsyncRead + AsyncWrite + Unpin>(session: &mut Session<S>) {
    if !session.is_mid_frame() {
        drop(tokio::time::timeout(RST_TIMEOUT, session.control(Kind::Rst, &[])).await);
    }
}

/// Tells the caller that its stream is over; whether that could be said in time.
async fn answer_cancel<S: AsyncRead + AsyncWrite + Unpin>(session: &mut Session<S>, has_ended: bool) -> bool {
    let answered = tokio::time::timeout(CANCELLED_TIMEOUT, session.cancelled(has_ended)).await;
    matches!(answered, Ok(Ok(())))
}

/// The counts of both directions.
fn both(moved: &Arc<Moved>, is_from_caller: bool) -> (Option<Count>, Option<Count>) {
    let count = |is_from_caller| Some(Count { moved: Arc::clone(moved), is_from_caller });
    (count(is_from_caller), count(!is_from_caller))
}

impl Setup {
    fn begin(self) -> (Lane, Lane, Stall) {
        let (up, down) = match self.count {
            None => (None, None),
            Some(Counted::FirstCalls(moved)) => both(&moved, true),
            Some(Counted::SecondCalls(moved)) => both(&moved, false),
        };
        (Lane::new(self.up, up), Lane::new(self.down, down), Stall::new(self.half_open))
    }
}

/// Relays between two plain byte streams (a standard peer's TLS stream and an app's connection) until both directions
/// have ended.
///
/// # Errors
/// The first error of either side, and [`io::ErrorKind::TimedOut`] for a half-closed stream that did not move for
/// [`Setup::half_open`]; the caller resets both.
pub async fn plain<A, B>(a: &mut A, b: &mut B, setup: Setup) -> io::Result<Carried>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down, mut stall) = setup.begin();
    poll_fn(|cx| {
        let ended = [up.poll(cx, a, b), down.poll(cx, b, a)];
        for (lane, ended) in [&mut up, &mut down].into_iter().zip(ended) {
            match ended {
                // Whoever has closed both directions need not be told of the end: that is no reset.
                Poll::Ready(Err(Failed::Sink(_))) if lane.is_closing() => lane.close(),
                Poll::Ready(Err(Failed::Source(error) | Failed::Sink(error))) => {
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        if up.is_closed() && down.is_closed() {
            return Poll::Ready(Ok(()));
        }
        let is_half_open = up.is_closed() || down.is_closed();
        stall.poll(cx, is_half_open, up.carried + down.carried).map(|()| Err(io::ErrorKind::TimedOut.into()))
    })
    .await?;
    Ok(Carried { sent: up.carried, received: down.carried })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::{
        clock::Clock,
        relay::{
            fixture::App,
            frame::{HEADER_BYTES, Header, MAX_PAYLOAD_BYTES},
        },
    };

    const ROOM: usize = 1024 * 1024;
    const HALF_OPEN: Duration = Duration::from_secs(600);

    fn setup() -> Setup {
        Setup { half_open: Some(HALF_OPEN), ..Setup::default() }
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
        let (end, _) = framed(&mut App::broken(plain), &mut session, setup()).await;
        assert_eq!(end, End::PlainReset);
        assert!(session.is_mid_frame());
        drop(session);
        assert_eq!(all_of(far).await, data(MAX_PAYLOAD_BYTES)[..64], "what fitted, and the end");
    }

    #[tokio::test(start_paused = true)]
    async fn an_abort_between_two_frames_is_told() {
        let (_app, plain) = duplex(ROOM);
        let (mut far, framed_side) = duplex(64);
        far.write_all(&data(1)).await.unwrap();
        let mut session = Session::new(framed_side);
        assert_eq!(framed(&mut App::broken(plain), &mut session, setup()).await.0, End::PlainReset);
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
        let relayed = framed(&mut plain, &mut session, setup());
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
        assert_eq!(framed(&mut plain, &mut session, setup()).await.0, End::Stalled);
        assert_eq!((clock.now() - begin).as_secs(), HALF_OPEN.as_secs());
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
                tokio::time::sleep(HALF_OPEN * 9 / 10).await;
                app.write_all(b"x").await.unwrap();
            }
        };
        let ((end, carried), ()) = tokio::join!(framed(&mut plain, &mut session, setup()), speak);
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
        let ((end, carried), ()) = tokio::join!(framed(&mut plain, &mut session, setup()), speak);
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
        let (carried, ()) = tokio::join!(plain(&mut a, &mut b, setup()), talk);
        assert_eq!(carried.unwrap(), Carried { sent: 100, received: 50 });

        let ((mut near, mut a), (_far, mut b)) = (duplex(64), duplex(64));
        near.shutdown().await.unwrap();
        let error = plain(&mut a, &mut b, setup()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
