//! Whether anything happens on a downstream connection: what parking and the limit on slow heads go by.
//!
//! Everything here is touched by one task at a time; the atomics are plain loads and stores on the way.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    net::Stream,
    relay::body::{Error, ResponseBody},
};

/// One connection's.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Reads that brought bytes; wraps.
    reads: AtomicU32,
    /// `reads` when the last response ended.
    reads_at_rest: AtomicU32,
    /// `reads` at the last look.
    reads_at_look: AtomicU32,
    /// Requests begun; wraps.
    requests: AtomicU32,
    /// `requests` at the last look.
    requests_at_look: AtomicU32,
    /// Requests whose responses have not ended.
    in_flight: AtomicU32,
    /// Looks since the first that found a part of a head.
    half_heads: AtomicU32,
    /// A write waits for room.
    is_write_blocked: AtomicBool,
    /// Looks in a row that found it waiting.
    blocked_looks: AtomicU32,
    /// hyper is being taken off: its shutdown is not the connection's.
    is_parked: AtomicBool,
    /// Whether the other end is still there shall be found out.
    is_doubted: AtomicBool,
}

/// What a look at a connection finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A request is under way, or something moved since the last look.
    Busy,
    /// Bytes have come that are no request yet, for so many looks.
    HalfHead {
        /// At least one.
        looks: u32,
    },
    /// What is written is not taken, for so many looks.
    Stuck {
        /// At least one.
        looks: u32,
    },
    /// Nothing.
    Idle,
}

/// A request under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Beat(Arc<Pulse>);

impl Drop for Beat {
    fn drop(&mut self) {
        self.0.in_flight.store(self.0.in_flight.load(Relaxed).saturating_sub(1), Relaxed);
        self.0.reads_at_rest.store(self.0.reads.load(Relaxed), Relaxed);
    }
}

impl Pulse {
    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> Beat {
        self.requests.store(self.requests.load(Relaxed).wrapping_add(1), Relaxed);
        self.in_flight.store(self.in_flight.load(Relaxed).saturating_add(1), Relaxed);
        self.half_heads.store(0, Relaxed);
        Beat(Arc::clone(self))
    }

    /// What has happened since the last look.
    pub(super) fn look(&self) -> State {
        let (reads, requests) = (self.reads.load(Relaxed), self.requests.load(Relaxed));
        let has_read = self.reads_at_look.swap(reads, Relaxed) != reads;
        let has_begun = self.requests_at_look.swap(requests, Relaxed) != requests;
        if self.is_write_blocked.load(Relaxed) {
            let looks = self.blocked_looks.load(Relaxed).saturating_add(1);
            self.blocked_looks.store(looks, Relaxed);
            return State::Stuck { looks };
        }
        if self.in_flight.load(Relaxed) > 0 || has_begun {
            return State::Busy;
        }
        if reads != self.reads_at_rest.load(Relaxed) {
            let looks = self.half_heads.load(Relaxed).saturating_add(1);
            self.half_heads.store(looks, Relaxed);
            return State::HalfHead { looks };
        }
        if has_read { State::Busy } else { State::Idle }
    }

    /// If a request is under way, the next flush fails if the other end is gone. hyper finds that out only when it reads,
    /// and it does not read while the request's body has no room to go on to.
    pub(super) fn doubt(&self) {
        self.is_doubted.store(self.in_flight.load(Relaxed) > 0, Relaxed);
    }

    /// hyper is taken off from here on.
    pub(super) fn park(&self) {
        self.is_parked.store(true, Relaxed);
    }

    /// It was not idle after all: its end is the connection's again.
    pub(super) fn unpark(&self) {
        self.is_parked.store(false, Relaxed);
    }

    /// Whether it has been.
    pub(super) fn is_parked(&self) -> bool {
        self.is_parked.load(Relaxed)
    }
}

/// A connection's stream, seen by its pulse.
#[derive(Debug)]
pub(super) struct Watched<S> {
    inner: S,
    pulse: Arc<Pulse>,
}

impl<S> Watched<S> {
    pub(super) fn new(inner: S, pulse: Arc<Pulse>) -> Self {
        Self { inner, pulse }
    }

    pub(super) fn into_inner(self) -> S {
        self.inner
    }

    /// Whether the other end has been found to be gone.
    fn is_gone(&self) -> bool
    where
        S: Stream,
    {
        let is_doubted = self.pulse.is_doubted.load(Relaxed);
        if is_doubted {
            self.pulse.is_doubted.store(false, Relaxed);
        }
        is_doubted && self.inner.has_ended()
    }

    fn wrote<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.pulse.is_write_blocked.store(polled.is_pending(), Relaxed);
        if polled.is_ready() {
            self.pulse.blocked_looks.store(0, Relaxed);
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if polled.is_ready() {
            self.pulse.reads.store(self.pulse.reads.load(Relaxed).wrapping_add(1), Relaxed);
        }
        polled
    }
}

impl<S: Stream> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_gone() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        // TLS takes what it cannot write yet, and only its flush tells.
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.wrote(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pulse.is_parked() { Poll::Ready(Ok(())) } else { Pin::new(&mut self.inner).poll_shutdown(cx) }
    }
}

/// A response's body, and its request's beat until it is over.
pub(super) struct Pulsed {
    body: ResponseBody,
    _beat: Beat,
}

impl Pulsed {
    pub(super) fn new(body: ResponseBody, beat: Beat) -> Self {
        Self { body, _beat: beat }
    }
}

impl Body for Pulsed {
    type Data = Bytes;
    type Error = Arc<Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Arc<Error>>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pulse: &Pulse) {
        pulse.reads.fetch_add(1, Relaxed);
    }

    #[test]
    fn only_a_connection_on_which_nothing_happened_is_idle() {
        let pulse = Arc::new(Pulse::default());
        assert_eq!(pulse.look(), State::Idle);
        read(&pulse);
        let beat = pulse.begin();
        assert_eq!(pulse.look(), State::Busy);
        assert_eq!(pulse.look(), State::Busy, "a slow answer");
        read(&pulse);
        drop(beat);
        assert_eq!(pulse.look(), State::Busy, "something moved since the last look");
        assert_eq!(pulse.look(), State::Idle);
        pulse.is_write_blocked.store(true, Relaxed);
        assert_eq!(pulse.look(), State::Stuck { looks: 1 }, "the response is not out");
        assert_eq!(pulse.look(), State::Stuck { looks: 2 });
    }

    #[test]
    fn bytes_that_are_no_request_are_counted_from_the_first_look_that_finds_them() {
        let pulse = Arc::new(Pulse::default());
        for looks in 1..=3 {
            read(&pulse);
            assert_eq!(pulse.look(), State::HalfHead { looks });
        }
        drop(pulse.begin());
        assert_eq!(pulse.look(), State::Busy);
        assert_eq!(pulse.look(), State::Idle);
        read(&pulse);
        assert_eq!(pulse.look(), State::HalfHead { looks: 1 });
    }
}
