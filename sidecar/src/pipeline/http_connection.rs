//! One downstream HTTP connection: told apart, served, parked while nothing is asked on it.
//!
//! ```text
//!             first bytes            nothing for PARK_AFTER
//!   parked ───────────────▶ HTTP/1 ─────────────────────────▶ parked
//!          ╰──────────────▶ HTTP/2
//! ```
//! hyper keeps some 20 KiB of buffers and state for an HTTP/1 connection, whether anything happens on it or not; a parked
//! one is a socket and a small task. What has been read meanwhile is handed over, so no byte is lost on the way.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncRead;

use super::{
    age::Age,
    door::{Door, From},
    http::handle,
    misuse,
    pulse::{Beat, Pulse, Pulsed, State, Watched},
    switched::Near,
    worker::Worker,
};
use crate::{
    buffer::{self, Prefixed},
    connect::http2::{connection_window_bytes, header_list_bytes},
    detect::PREFACE,
    drain::{Phase, Watcher},
    model::{closed::Misuse, settings::Limits, wire},
    net::{Net, Stream},
};

/// Bytes of one response stream that wait to be sent.
const MAX_SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Streams of one connection, over its whole life, that HTTP/2's rules make us reset: refused ones over `max_streams`,
/// malformed ones (CVE-2025-8671). Then GOAWAY and close, for nothing else would ever end it. As hyper's own default.
const MAX_ERROR_RESETS: usize = 1024;
/// HTTP/1 read buffer at least so large, whatever the header limit.
const MIN_READ_BUFFER_BYTES: usize = 64 * 1024;
/// An HTTP/1 connection is looked at so often, and parked when nothing happened in between: after once to twice this.
/// Starting hyper again costs a microsecond or two; a connection that is used once a second can afford it.
const PARK_AFTER: Duration = Duration::from_millis(250);
/// An HTTP/2 connection is looked at so often.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// What HTTP version a connection may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// From the own app, or from a peer without ALPN: HTTP/1 or HTTP/2 with prior knowledge, told apart by the first
    /// bytes.
    Sniffed,
    /// Agreed on by ALPN.
    Http1,
    /// Agreed on by ALPN.
    Http2,
}

/// Serves HTTP until the connection ends or the drain ends it: HTTP/2 is told to go away when the drain begins, idle
/// HTTP/1 connections of the own app and of sidecars are served a while longer (`Phase::Closing`), so that none is closed under a
/// request on its way.
pub(super) async fn serve<N, S>(worker: Arc<Worker<N>>, door: Arc<Door>, stream: S, wire: Wire)
where
    N: Net,
    S: Stream,
{
    serve_begun(worker, door, stream, Bytes::new(), wire).await;
}

/// As [`serve`], of a connection of which `first` has been read already.
pub(super) async fn serve_begun<N, S>(
    worker: Arc<Worker<N>>,
    door: Arc<Door>,
    mut stream: S,
    mut first: Bytes,
    wire: Wire,
) where
    N: Net,
    S: Stream,
{
    let watcher = door.drain().watcher();
    let age = Age::new(&worker, &door);
    let mut connection = Connection { worker, door, watcher, age };
    if wire == Wire::Http2 {
        return Box::pin(connection.http2(Prefixed::new(first, stream), wire)).await;
    }
    if first.is_empty() {
        match connection.parked(&mut stream).await {
            Some(bytes) => first = bytes,
            None => return,
        }
    }
    if wire == Wire::Sniffed && PREFACE.starts_with(first.get(..PREFACE.len()).unwrap_or(&first)) {
        let limit = connection.limits().header_read_timeout;
        match tokio::time::timeout(limit, preface(&mut stream, first)).await {
            Ok(Some(bytes)) => first = bytes,
            Ok(None) => return,
            Err(_elapsed) => return connection.door.counts().closed.count_misuse(Misuse::HeadTimeout),
        }
        if first.starts_with(PREFACE) {
            return Box::pin(connection.http2(Prefixed::new(first, stream), wire)).await;
        }
    }
    loop {
        // Boxed, so that a parked connection does not keep the room.
        match Box::pin(connection.http1(Prefixed::new(first, stream))).await {
            Some((unread, back)) => (first, stream) = (unread, back),
            None => return,
        }
        if let Some(switched) = connection.door.switched() {
            let Connection { worker, watcher, .. } = connection;
            return Box::pin(switched.relay(worker, watcher, Near::Connection(stream, first))).await;
        }
        if first.is_empty() {
            match connection.parked(&mut stream).await {
                Some(bytes) => first = bytes,
                None => return,
            }
        }
    }
}

/// Reads on until it is clear whether a connection begins as HTTP/2 does; `None` if it ends before.
async fn preface<S: AsyncRead + Unpin>(stream: &mut S, first: Bytes) -> Option<Bytes> {
    let mut bytes = BytesMut::from(first);
    while bytes.len() < PREFACE.len() && PREFACE.starts_with(&bytes) {
        more(stream, &mut bytes).await?;
    }
    Some(bytes.freeze())
}

/// Reads on; `None` at the end.
async fn more<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut BytesMut) -> Option<()> {
    matches!(buffer::append(stream, bytes, usize::MAX).await, Ok(1..)).then_some(())
}

struct Connection<N: Net> {
    worker: Arc<Worker<N>>,
    door: Arc<Door>,
    watcher: Watcher,
    age: Age,
}

impl<N: Net> Connection<N> {
    /// The newest: what is made with them holds for as long as it lives.
    fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.door.load(&self.worker.snapshots).config.settings.limits)
    }

    /// Whether the other end keeps HTTP/1 connections for as long as it likes: closing one could cross a request. Own
    /// apps do, and sidecars, which close them themselves.
    fn is_kept(&self) -> bool {
        match &self.door.from {
            From::App { .. } => true,
            From::Peer { is_sidecar, .. } => *is_sidecar,
            From::Plain { .. } => false,
        }
    }

    /// The phase in which an idle HTTP/1 connection is closed.
    fn last_phase(&self) -> Phase {
        if self.is_kept() { Phase::Closing } else { Phase::Draining }
    }

    /// Waits for bytes with next to nothing in hand; `None` if the connection has ended or is to be closed.
    async fn parked<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> Option<Bytes> {
        let limit = self.limits().idle_timeout;
        let last_phase = self.last_phase();
        let mut bytes = BytesMut::new();
        tokio::select! {
            biased;
            more = more(stream, &mut bytes) => more?,
            () = self.watcher.reached(last_phase) => return None,
            () = tokio::time::sleep(limit) => return None,
        }
        Some(bytes.freeze())
    }

    /// Serves HTTP/1 requests until nothing is asked any more, or until a switch of protocols: then what was read and not
    /// used, and the stream. `None` if the connection has ended.
    async fn http1<S>(&mut self, stream: Prefixed<S>) -> Option<(Bytes, S)>
    where
        S: Stream,
    {
        self.age.check(&self.door, self.worker.now());
        let pulse = Arc::new(Pulse::default());
        let (worker, door, beats) = (Arc::clone(&self.worker), Arc::clone(&self.door), Arc::clone(&pulse));
        let service =
            service_fn(move |request| answer(Arc::clone(&worker), Arc::clone(&door), beats.begin(), request));
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&pulse)));
        let mut connection = http1_builder(&self.limits()).serve_connection(io, service);
        let (header_limit, idle_limit) = {
            let limits = self.limits();
            (limits.header_read_timeout, limits.idle_timeout)
        };
        let mut look = pin!(tokio::time::sleep(PARK_AFTER));
        let mut last_phase = self.last_phase();
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut connection => break ended,
                () = self.watcher.reached(last_phase) => {
                    if last_phase == Phase::Forced {
                        return None;
                    }
                    Pin::new(&mut connection).graceful_shutdown();
                    last_phase = Phase::Forced;
                }
                () = look.as_mut() => {
                    self.age.check(&self.door, self.worker.now());
                    match pulse.look() {
                        State::Busy => pulse.doubt(),
                        State::HalfHead { looks } if PARK_AFTER * looks >= header_limit => {
                            self.door.counts().closed.count_misuse(Misuse::HeadTimeout);
                            tracing::debug!(listener = self.door.accepted.name(), "request head not read in time");
                            return None;
                        }
                        // Whoever takes nothing for so long never will; its system answers TCP's probes all the same.
                        State::Stuck { looks } if PARK_AFTER * looks >= idle_limit => return None,
                        State::HalfHead { .. } | State::Stuck { .. } => {}
                        State::Idle => {
                            pulse.park();
                            Pin::new(&mut connection).graceful_shutdown();
                            // hyper ends at once if it was idle. Else it was in the middle of something, and its end is
                            // the connection's.
                            if let Some(ended) = (&mut connection).now_or_never() {
                                break ended;
                            }
                            pulse.unpark();
                        }
                    }
                    let next = look.deadline() + PARK_AFTER;
                    look.as_mut().reset(next);
                }
            }
        };
        if let Err(error) = ended {
            self.broke(&error);
            return None;
        }
        if !pulse.is_parked() && !self.door.is_switched() {
            return None;
        }
        let parts = connection.into_parts();
        let (prefix, stream) = parts.io.into_inner().into_inner().into_parts();
        // A copy, and of nothing none: hyper's buffer goes.
        let unread = [parts.read_buf, prefix].concat().into();
        Some((unread, stream))
    }

    /// Serves HTTP/2 to its end.
    async fn http2<S>(mut self, stream: Prefixed<S>, wire: Wire)
    where
        S: Stream,
    {
        let pulse = Arc::new(Pulse::default());
        let (worker, door, beats) = (Arc::clone(&self.worker), Arc::clone(&self.door), Arc::clone(&pulse));
        // Boxed: hyper makes a task of it, and moves it several times on the way.
        let service = service_fn(move |request| {
            Box::pin(answer(Arc::clone(&worker), Arc::clone(&door), beats.begin(), request))
        });
        let (io, flusher) = buffer::batch(Watched::new(stream, Arc::clone(&pulse)));
        let mut connection =
            pin!(http2_builder(&self.limits(), wire).serve_connection(TokioIo::new(io), service));
        let mut look = pin!(tokio::time::sleep(LOOK_INTERVAL));
        let mut old = pin!(tokio::time::sleep(self.age.left(self.worker.now())));
        let (mut next, mut idle, mut strikes) = (Phase::Draining, Duration::ZERO, 0);
        let ended = loop {
            let driven = poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                // What this turn wrote goes out together. A failure ends the connection: nobody would read its answers.
                match flusher.poll_flush(cx) {
                    Poll::Ready(Err(_)) if polled.is_pending() => Poll::Ready(Ok(())),
                    Poll::Ready(_) | Poll::Pending => polled,
                }
            });
            tokio::select! {
                biased;
                ended = driven => break ended,
                () = self.watcher.reached(next) => {
                    if next == Phase::Forced {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                    next = Phase::Forced;
                }
                () = self.door.resets.struck(strikes) => {
                    strikes += 1;
                    // What is under way may be others' and honest: once it can end, and then it is cut.
                    if strikes > 1 {
                        return;
                    }
                    self.door.counts().closed.count_misuse(Misuse::Resets);
                    connection.as_mut().graceful_shutdown();
                }
                () = old.as_mut(), if self.age.is_limited() => {
                    self.age.check(&self.door, self.worker.now());
                    connection.as_mut().graceful_shutdown();
                }
                () = look.as_mut() => {
                    let is_idle = matches!(pulse.look(), State::Idle | State::HalfHead { .. });
                    idle = if is_idle { idle + LOOK_INTERVAL } else { Duration::ZERO };
                    if idle >= self.limits().idle_timeout {
                        connection.as_mut().graceful_shutdown();
                    }
                    let next = look.deadline() + LOOK_INTERVAL;
                    look.as_mut().reset(next);
                }
            }
        };
        if let Err(error) = ended {
            self.broke(&error);
        }
    }

    /// A connection that ended with an error counts if its other end is to blame.
    fn broke(&self, error: &hyper::Error) {
        if let Some(misuse) = misuse::of(error) {
            self.door.counts().closed.count_misuse(misuse);
        }
        tracing::debug!(listener = self.door.accepted.name(), %error, "downstream connection ended");
    }
}

/// Answers one request; its beat lasts until its response has ended.
fn answer<N: Net>(
    worker: Arc<Worker<N>>,
    door: Arc<Door>,
    beat: Beat,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Pulsed>, Infallible>> {
    handle(worker, door, request)
        .map(|answer| answer.map(|response| response.map(|body| Pulsed::new(body, beat))))
}

/// Slow heads are ours to end (see [`State::HalfHead`]): a timer of hyper's would be set and unset for every request.
fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_headers(limits.header_count)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(MIN_READ_BUFFER_BYTES))
        .half_close(false)
        .auto_date_header(false);
    builder
}

fn http2_builder(limits: &Limits, wire: Wire) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(connection_window_bytes(limits))
        .max_concurrent_streams(limits.max_streams)
        .max_pending_accept_reset_streams(limits.max_streams as usize)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .max_header_list_size(header_list_bytes(limits))
        .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
        .enable_connect_protocol()
        .auto_date_header(false);
    // Peers alone: the way to the own app cannot die without it, and one that is halted (a debugger) would be cut off.
    if wire == Wire::Http2 {
        builder.keep_alive_interval(wire::PING_INTERVAL).keep_alive_timeout(wire::PING_TIMEOUT);
    }
    builder
}
