//! One direction of a relayed stream, as far as both kinds of relay share it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    buffer::{Buffer, Held},
    telemetry::Moved,
};

/// How far one direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Bytes may come.
    Open,
    /// The source has ended; the sink is being told.
    Closing,
    /// The sink has been told.
    Closed,
}

/// What was before the relay in one direction.
#[derive(Debug, Default)]
pub struct Before {
    /// Bytes that have been read of the source and not been sent.
    pub bytes: Bytes,
    /// How the source ended behind them, if it has.
    pub ended: Option<io::Result<()>>,
    /// The sink knows of the end.
    pub is_closed: bool,
}

/// Which side of a relay failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// Where bytes come from.
    Source(io::Error),
    /// Where they go.
    Sink(io::Error),
}

/// Bytes from a source to a sink as they are. It holds a buffer only while the sink does not take what it has.
#[derive(Debug)]
pub(super) struct Lane {
    held: Option<Held>,
    /// Read before; they go first.
    before: Bytes,
    /// How the source ended, after the bytes that are held.
    ended: Option<io::Result<()>>,
    stage: Stage,
    is_flushed: bool,
    /// Bytes carried.
    pub(super) carried: u64,
    /// Where else they are counted.
    count: Option<Count>,
}

/// Where the bytes of a direction are counted.
#[derive(Debug)]
pub(super) struct Count {
    /// There.
    pub(super) moved: Arc<Moved>,
    /// As bytes from the caller; else to it.
    pub(super) is_from_caller: bool,
}

impl Lane {
    /// One that goes on from what was before.
    pub(super) fn new(before: Before, count: Option<Count>) -> Self {
        let Before { bytes, ended, is_closed } = before;
        let stage = if is_closed { Stage::Closed } else { Stage::Open };
        Self { held: None, before: bytes, ended, stage, is_flushed: true, carried: 0, count }
    }

    /// Whether the source has said anything that goes or went to the sink, its end included.
    pub(super) fn has_moved(&self) -> bool {
        self.carried > 0 || self.held.is_some() || self.ended.is_some() || self.stage != Stage::Open
    }

    /// Whether the sink knows of the end.
    pub(super) fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// Whether everything has gone to the sink, and only the end has not.
    pub(super) fn is_closing(&self) -> bool {
        self.stage == Stage::Closing
    }

    /// The sink need not know of the end.
    pub(super) fn close(&mut self) {
        self.stage = Stage::Closed;
    }

    /// Carries what there is; ready when the direction has ended and the sink knows.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
    ) -> Poll<Result<(), Failed>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while let Some(held) = &mut self.held {
                let written =
                    ready!(Pin::new(&mut *sink).poll_write(cx, held.bytes())).map_err(Failed::Sink)?;
                if written == 0 {
                    return Poll::Ready(Err(Failed::Sink(io::ErrorKind::WriteZero.into())));
                }
                held.consume(written);
                self.carried += written as u64;
                match &self.count {
                    Some(Count { moved, is_from_caller: true }) => moved.from_caller(written),
                    Some(Count { moved, is_from_caller: false }) => moved.to_caller(written),
                    None => {}
                }
                self.is_flushed = false;
                if held.is_empty() {
                    self.held = None;
                }
            }
            if !self.before.is_empty() {
                let mut held = Held::new(Buffer::take(), 0);
                let count = held.put(&self.before);
                self.before.advance(count);
                self.held = Some(held);
                if self.before.is_empty() {
                    // Even of no bytes it keeps the buffer that they were in.
                    self.before = Bytes::new();
                }
                continue;
            }
            match (self.stage, self.ended.take()) {
                (Stage::Closed, _) => return Poll::Ready(Ok(())),
                (Stage::Closing, _) => {
                    ready!(Pin::new(&mut *sink).poll_shutdown(cx)).map_err(Failed::Sink)?;
                    self.stage = Stage::Closed;
                }
                (Stage::Open, Some(Ok(()))) => self.stage = Stage::Closing,
                (Stage::Open, Some(Err(error))) => return Poll::Ready(Err(Failed::Source(error))),
                (Stage::Open, None) => {
                    if self.poll_fill(cx, source).is_pending() {
                        if !self.is_flushed {
                            ready!(Pin::new(&mut *sink).poll_flush(cx)).map_err(Failed::Sink)?;
                            self.is_flushed = true;
                        }
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Reads as much as there is at once, up to a buffer; pending if there is nothing, not even the end.
    fn poll_fill<R: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, source: &mut R) -> Poll<()> {
        let mut held = Held::new(Buffer::take(), 0);
        let mut is_pending = false;
        while !(is_pending || self.ended.is_some() || held.room().is_empty()) {
            let mut read = ReadBuf::new(held.room());
            let polled = Pin::new(&mut *source).poll_read(cx, &mut read);
            let count = read.filled().len();
            held.added(count);
            match polled {
                Poll::Ready(Ok(())) if count > 0 => {}
                // Kept, because a socket tells of a reset only once.
                Poll::Ready(ended) => self.ended = Some(ended),
                Poll::Pending => is_pending = true,
            }
        }
        if held.is_empty() && is_pending {
            return Poll::Pending;
        }
        self.held = (!held.is_empty()).then_some(held);
        Poll::Ready(())
    }
}
