//! An HTTP/2 connection to one endpoint, and requests over it.
//!
//! By the `h2` crate itself, below hyper: a request is then one stream and no task, and everything that the streams of
//! one turn write goes out in one write (`buffer::batch`). hyper's client takes a channel, a task and a wake-up more for
//! each request.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason, SendStream,
    client::{self, ResponseFuture, SendRequest},
};
use http::{HeaderValue, Method, Request, Response, header};
use http_body::Body;
use tokio::time::Sleep;

use super::{
    Error,
    dial::Connection,
    http_client::{SendError, is_refusal},
    place::Place,
    upload::Upload,
};
use crate::{
    buffer::{self, Batch, Flusher},
    drain,
    model::{settings::Limits, wire},
    net::Stream,
    relay::{
        received::Received,
        replay::{self, RequestBody},
    },
};

/// RFC 9113 §6.9.1.
const MAX_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// Bytes of one stream that wait to be sent.
const MAX_SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Streams before the peer has said how many it allows.
const INITIAL_STREAMS: usize = 100;
/// So often within [`wire::PING_INTERVAL`] is looked whether the peer has said something.
const LOOKS_PER_PING: u32 = 4;

/// Window of a connection: that of all its streams together, so that streams that nobody reads, however many, hold up no
/// others. What is held for them is bounded by the cluster's `max_requests`: a stream window each.
#[must_use]
pub fn connection_window_bytes(limits: &Limits) -> u32 {
    limits.stream_window_bytes.saturating_mul(limits.max_streams).min(MAX_WINDOW_BYTES)
}

/// What HTTP/2 takes of a header block before it answers or resets by itself, without a word or a count of ours: twice
/// what we take, so that in practice it is we who answer. Beyond four times of it, the connection ends.
#[must_use]
pub fn header_list_bytes(limits: &Limits) -> u32 {
    u32::try_from(limits.header_bytes).unwrap_or(u32::MAX).saturating_mul(2)
}

/// A multiplexed connection; clones share it.
#[derive(Clone, Debug)]
pub struct Http2(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Copied for each request: a copy is a count in the connection's state.
    sender: Mutex<SendRequest<Bytes>>,
    /// Streams that we have under way on it.
    streams: Arc<AtomicU32>,
    /// Streams that the peer allows (its SETTINGS_MAX_CONCURRENT_STREAMS), as the driver last saw it.
    allowed: Arc<AtomicU32>,
    max_streams: u32,
    place: Arc<Place>,
}

/// A stream's place on a multiplexed connection, given back on drop.
#[derive(Debug)]
pub struct StreamSlot(Arc<AtomicU32>);

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Http2 {
    /// Starts HTTP/2 on a connection; its driver runs as a task until the last stream and the last clone are gone.
    ///
    /// # Errors
    /// [`Error::Http2`], or [`Error::Refused`] if the peer closes instead of speaking. The caller bounds the time.
    pub async fn start<S: Stream>(mut connection: Connection<S>, limits: &Limits) -> Result<Self, Error> {
        let first_byte = connection.first_byte();
        let place = Arc::clone(connection.place());
        let may_ping = connection.may_ping();
        let (io, flusher) = buffer::batch(connection);
        let (sender, mut connection) = client::Builder::new()
            .initial_window_size(limits.stream_window_bytes)
            .initial_connection_window_size(connection_window_bytes(limits))
            .initial_max_send_streams(INITIAL_STREAMS)
            .max_header_list_size(header_list_bytes(limits))
            .max_send_buffer_size(MAX_SEND_BUFFER_BYTES)
            .enable_push(false)
            .handshake(io)
            .await
            .map_err(|error| Error::Http2(Arc::new(error)))?;
        let allowed = Arc::new(AtomicU32::new(limits.max_streams));
        let driver = Driver {
            pings: connection.ping_pong().filter(|_| may_ping),
            connection,
            flusher,
            look: Box::pin(tokio::time::sleep(wire::PING_INTERVAL / LOOKS_PER_PING)),
            quiet_looks: 0,
            reads: 0,
            is_pinging: false,
            allowed: Arc::clone(&allowed),
        };
        drain::spawn_background(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "upstream HTTP/2 connection ended");
            }
        });
        // A server's first frame is SETTINGS (RFC 9113 §3.4): before it, nothing is known to have been accepted.
        first_byte.await.map_err(|_ended| Error::Refused)?;
        let (sender, streams) = (Mutex::new(sender), Arc::default());
        Ok(Self(Arc::new(Shared { sender, streams, allowed, max_streams: limits.max_streams, place })))
    }

    /// What it occupies.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// Whether it can take another stream now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let cap = self.0.allowed.load(Ordering::Relaxed).min(self.0.max_streams);
        self.streams() < cap && self.is_open()
    }

    /// Whether the peer allows no stream at all at the moment: another connection would do no better.
    #[must_use]
    pub fn allows_none(&self) -> bool {
        self.0.allowed.load(Ordering::Relaxed) == 0
    }

    /// Whether it is still good for new streams.
    #[must_use]
    pub fn is_open(&self) -> bool {
        // Waits for nothing: this sender has no stream of its own.
        matches!(self.sender().poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
    }

    /// Streams that we have under way on it.
    #[must_use]
    pub fn streams(&self) -> u32 {
        self.0.streams.load(Ordering::Relaxed)
    }

    /// Takes a place for a stream.
    #[must_use]
    pub fn slot(&self) -> StreamSlot {
        self.0.streams.fetch_add(1, Ordering::Relaxed);
        StreamSlot(Arc::clone(&self.0.streams))
    }

    /// Whether the peer takes extended CONNECTs, as its SETTINGS say (RFC 8441 §3).
    #[must_use]
    pub fn is_extended(&self) -> bool {
        self.sender().is_extended_connect_protocol_enabled()
    }

    fn sender(&self) -> MutexGuard<'_, SendRequest<Bytes>> {
        self.0.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sender for one stream; `None` if the connection takes no more.
    fn ready(&self) -> Option<SendRequest<Bytes>> {
        let mut sender = self.sender().clone();
        // Waits for nothing, as a new sender has no stream of its own.
        match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Some(sender),
            Poll::Ready(Err(_)) | Poll::Pending => None,
        }
    }

    /// Writes a request's head down. Not a part of `send`, whose future would keep room for all that passes here.
    fn begin(
        &self,
        request: Box<Request<RequestBody>>,
    ) -> Result<(ResponseFuture, Option<Upload>), SendError> {
        let Some(mut sender) = self.ready() else { return Err(SendError::NotSent(request)) };
        let (mut head, body) = request.into_parts();
        let is_whole = body.is_end_stream();
        if let Some(length) = body.size_hint().exact()
            && (length > 0 || !matches!(head.method, Method::GET | Method::HEAD | Method::DELETE))
        {
            head.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
        }
        let (response, stream) = sender
            .send_request(Request::from_parts(head, ()), is_whole)
            .map_err(|_closed| SendError::Refused)?;
        Ok((response, (!is_whole).then_some(Upload { body, stream })))
    }

    /// Sends a request and waits for the response's head. Dropping the future resets the stream.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&self, request: Box<Request<RequestBody>>) -> Result<Response<Received>, SendError> {
        let (mut response, mut upload) = self.begin(request)?;
        let answered = poll_fn(|cx| {
            if let Some(Poll::Ready(ended)) = upload.as_mut().map(|upload| upload.poll(cx)) {
                upload = None;
                if let Err(replay::Error::Downstream(_)) = ended {
                    return Poll::Ready(Err(SendError::Downstream));
                }
            }
            Pin::new(&mut response).poll(cx).map_err(send_error)
        });
        let response = answered.await?;
        if let Some(mut upload) = upload {
            // The stream is under way for as long as this is, whatever becomes of the answer.
            let slot = self.slot();
            drain::spawn_background(async move {
                drop(poll_fn(|cx| upload.poll(cx)).await);
                drop(slot);
            });
        }
        Ok(response.map(Received::Http2))
    }
}

/// An extended CONNECT that has been answered.
#[derive(Debug)]
pub struct Opened {
    /// The answer, with what comes from the peer.
    pub response: Response<Received>,
    /// What goes to the peer.
    pub stream: SendStream<Bytes>,
}

impl Http2 {
    /// Sends an extended CONNECT (RFC 8441 §4) and waits for the head of its answer. Dropping the future resets the stream.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn open(&self, request: Box<Request<RequestBody>>) -> Result<Opened, SendError> {
        let Some(mut sender) = self.ready() else { return Err(SendError::NotSent(request)) };
        // Such a request has no body: what follows its head is the stream's.
        let (response, stream) =
            sender.send_request(request.map(drop), false).map_err(|_closed| SendError::Refused)?;
        drop(sender);
        let response = response.await.map_err(send_error)?;
        Ok(Opened { response: response.map(Received::Http2), stream })
    }
}

/// Runs one connection.
struct Driver<S> {
    connection: client::Connection<Batch<Connection<S>>, Bytes>,
    flusher: Flusher<Connection<S>>,
    /// `None` where pings are not welcome.
    pings: Option<PingPong>,
    /// When to look next whether the peer is there, or when its answer to a ping is overdue.
    look: Pin<Box<Sleep>>,
    /// Looks in a row that found that nothing had come.
    quiet_looks: u32,
    reads: u64,
    is_pinging: bool,
    allowed: Arc<AtomicU32>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("a ping was not answered in time")]
    Silent,
    #[error(transparent)]
    Http2(h2::Error),
    #[error(transparent)]
    Io(io::Error),
}

impl<S: Stream> Driver<S> {
    /// Pings a peer that has been quiet. Call it after the connection was polled: what came during a stall of ours must be
    /// known before the peer is judged.
    fn poll_pings(&mut self, cx: &mut Context<'_>) -> Pinged {
        let Some(pings) = &mut self.pings else { return Pinged::Nothing };
        if self.is_pinging && pings.poll_pong(cx).is_ready() {
            self.is_pinging = false;
            self.quiet_looks = 0;
        }
        let mut pinged = Pinged::Nothing;
        while self.look.as_mut().poll(cx).is_ready() {
            let reads = self.flusher.reads();
            let is_quiet = std::mem::replace(&mut self.reads, reads) == reads;
            if self.is_pinging && is_quiet {
                return Pinged::Silent;
            }
            self.quiet_looks = if is_quiet { self.quiet_looks + 1 } else { 0 };
            if !self.is_pinging
                && self.quiet_looks >= LOOKS_PER_PING
                && pings.send_ping(Ping::opaque()).is_ok()
            {
                self.is_pinging = true;
                pinged = Pinged::Sent;
            }
            let wait =
                if self.is_pinging { wire::PING_TIMEOUT } else { wire::PING_INTERVAL / LOOKS_PER_PING };
            // From this moment, not from when it was due: after a stall nothing is made up for.
            self.look.as_mut().set(tokio::time::sleep(wait));
        }
        pinged
    }

    /// One turn of the connection. What all streams have written in it goes out together.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let polled = Pin::new(&mut self.connection).poll(cx);
        let allowed = u32::try_from(self.connection.max_concurrent_send_streams()).unwrap_or(u32::MAX);
        self.allowed.store(allowed, Ordering::Relaxed);
        match (polled, self.flusher.poll_flush(cx)) {
            (Poll::Ready(ended), _) => Poll::Ready(ended.map_err(Ended::Http2)),
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(Ended::Io(error))),
            (Poll::Pending, Poll::Ready(Ok(())) | Poll::Pending) => Poll::Pending,
        }
    }
}

/// What became of the look whether the peer is there.
enum Pinged {
    Nothing,
    /// A ping waits to be written.
    Sent,
    /// The peer has not answered one.
    Silent,
}

impl<S: Stream> Future for Driver<S> {
    type Output = Result<(), Ended>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let ended = self.turn(cx);
        if ended.is_ready() {
            return ended;
        }
        match self.poll_pings(cx) {
            Pinged::Nothing => Poll::Pending,
            Pinged::Sent => self.turn(cx),
            Pinged::Silent => Poll::Ready(Err(Ended::Silent)),
        }
    }
}

fn send_error(error: h2::Error) -> SendError {
    let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    let is_above_goaway = error.is_go_away() && error.is_remote();
    if is_refused || is_above_goaway || error.get_io().is_some_and(is_refusal) {
        return SendError::Refused;
    }
    // What broke HTTP/2's rules, or has a header block far beyond the limit, was reset by our side.
    let is_ours = error.is_library() && error.reason() == Some(Reason::PROTOCOL_ERROR);
    if is_ours { SendError::Protocol(error.into()) } else { SendError::Reset(error.into()) }
}
