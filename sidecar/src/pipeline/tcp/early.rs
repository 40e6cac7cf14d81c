//! What the downstream says before the upstream has taken its stream: sent at once, and kept until it is taken.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::ReadBuf;

use crate::{
    buffer::Buffer,
    net::Stream,
    relay::{copy::Before, frame::MAX_EARLY_BYTES},
};

/// The beginning of one stream.
#[derive(Debug)]
pub(super) struct Early<'a, S> {
    /// Where more of it comes from; `None`: nothing does before the stream is taken.
    stream: Option<&'a mut S>,
    bytes: BytesMut,
    /// How it ended behind them, if it has.
    ended: Option<io::Result<()>>,
    /// So many of the bytes have gone out in this attempt.
    sent: usize,
    has_sent_end: bool,
}

impl<'a, S: Stream> Early<'a, S> {
    /// Of a stream of which `first` has been read.
    pub(super) fn new(stream: &'a mut S, first: Bytes) -> Self {
        // Not copied if nobody else holds them.
        Self { stream: Some(stream), bytes: first.into(), ..Self::nothing() }
    }

    /// Nothing, and nothing comes.
    pub(super) fn nothing() -> Self {
        Self { stream: None, bytes: BytesMut::new(), ended: None, sent: 0, has_sent_end: false }
    }

    /// Another attempt begins: nothing of it has been sent.
    pub(super) fn rewind(&mut self) {
        (self.sent, self.has_sent_end) = (0, false);
    }

    /// Whether this attempt has sent something, be it only the end.
    pub(super) fn has_sent(&self) -> bool {
        self.has_sent_bytes() || self.has_sent_end
    }

    /// Whether this attempt has sent bytes, which must not arrive twice.
    pub(super) fn has_sent_bytes(&self) -> bool {
        self.sent > 0
    }

    /// Bytes that this attempt has sent.
    pub(super) fn sent_bytes(&self) -> usize {
        self.sent
    }

    /// What can go out now and has not, and whether the end does with it. It counts as sent.
    pub(super) fn send(&mut self) -> (&[u8], bool) {
        let end = self.bytes.len().min(MAX_EARLY_BYTES);
        let unsent = self.bytes.get(self.sent..end).unwrap_or_default();
        self.sent = end;
        let is_all = matches!(self.ended, Some(Ok(()))) && end == self.bytes.len();
        let sends_end = is_all && !self.has_sent_end;
        self.has_sent_end |= is_all;
        (unsent, sends_end)
    }

    /// Takes in what waits already.
    pub(super) fn hear_now(&mut self) {
        while self.hear().now_or_never().is_some() {}
    }

    /// Waits until there is more to send; for ever once there is as much as may go out. Cancel-safe.
    pub(super) async fn hear(&mut self) {
        poll_fn(|cx| self.poll_hear(cx)).await;
    }

    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let room = MAX_EARLY_BYTES.saturating_sub(self.bytes.len());
        let Some(stream) = self.stream.as_mut().filter(|_| room > 0 && self.ended.is_none()) else {
            return Poll::Pending;
        };
        let mut buffer = Buffer::take();
        let mut read = ReadBuf::new(buffer.bytes_mut().get_mut(..room).unwrap_or_default());
        let ended = std::task::ready!(Pin::new(&mut **stream).poll_read(cx, &mut read));
        if read.filled().is_empty() {
            // Kept, because a socket tells of a reset only once.
            self.ended = Some(ended);
        }
        self.bytes.extend_from_slice(read.filled());
        Poll::Ready(())
    }

    /// What the relay goes on from, once the stream is taken.
    pub(super) fn into_before(self) -> Before {
        let mut bytes = self.bytes.freeze();
        let unsent = bytes.split_off(self.sent.min(bytes.len()));
        // Even of no bytes it would keep the buffer that they were in.
        let bytes = if unsent.is_empty() { Bytes::new() } else { unsent };
        Before { bytes, ended: self.ended.filter(|_| !self.has_sent_end), is_closed: self.has_sent_end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::TcpNet;

    type Nobody = <TcpNet as crate::net::Net>::Stream;

    fn early(bytes: &[u8], ended: Option<io::Result<()>>) -> Early<'static, Nobody> {
        Early { bytes: bytes.into(), ended, ..Early::nothing() }
    }

    #[test]
    fn each_attempt_sends_all_from_the_beginning_and_the_relay_what_is_left() {
        let mut early = early(b"hello", Some(Ok(())));
        for _attempt in 0..2 {
            early.rewind();
            assert!(!early.has_sent());
            assert_eq!(early.send(), (&b"hello"[..], true));
            assert_eq!(early.send(), (&b""[..], false));
            assert!(early.has_sent());
        }
        let before = early.into_before();
        assert!(before.bytes.is_empty() && before.ended.is_none() && before.is_closed);
    }

    #[test]
    fn over_the_bound_the_rest_and_the_end_are_left_to_the_relay() {
        let mut early = early(&[7; MAX_EARLY_BYTES + 3], Some(Ok(())));
        let (bytes, has_ended) = early.send();
        assert_eq!((bytes.len(), has_ended), (MAX_EARLY_BYTES, false));
        let before = early.into_before();
        assert_eq!((&before.bytes[..], before.is_closed), (&[7; 3][..], false));
        assert!(matches!(before.ended, Some(Ok(()))));
    }

    #[test]
    fn an_abort_is_no_end_and_stays_known() {
        let mut early = early(b"x", Some(Err(io::ErrorKind::ConnectionReset.into())));
        assert_eq!(early.send(), (&b"x"[..], false));
        let before = early.into_before();
        assert!(matches!(before.ended, Some(Err(_))) && !before.is_closed);
    }
}
