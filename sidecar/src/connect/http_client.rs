//! An HTTP connection to one endpoint, and one request over it.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::AlertDescription;

use super::{Error, dial::Connection};
use crate::{
    drain,
    model::{settings::Limits, wire},
    net::Stream,
    relay::replay::{self, RequestBody},
};

/// The connection window is this many stream windows, so that one slow stream cannot starve the others (`design.md` §3).
pub const CONNECTION_WINDOWS: u32 = 4;
/// Bytes of one stream that wait to be sent.
const MAX_SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Responses' HTTP/1 read buffer, grown on need.
const MAX_READ_BUFFER_BYTES: usize = 256 * 1024;

/// So many polls of a new connection's driver look again whether the peer takes extended CONNECTs, should its first frame
/// have come in pieces; a look costs a lock.
const EXTENDED_LOOKS: u32 = 8;

/// What became of a request that got no response head.
#[derive(Debug)]
pub enum SendError {
    /// Never written: here it is again.
    NotSent(Box<Request<RequestBody>>),
    /// The peer says that it has not processed it: REFUSED_STREAM, or above GOAWAY's last stream (RFC 9113 §8.7).
    Refused,
    /// Reset or closed before a response head; it may have been processed.
    Reset(hyper::Error),
    /// What came back is not HTTP.
    Protocol(hyper::Error),
    /// Our own downstream broke off its body.
    Downstream,
}

/// A multiplexed connection; clones share it.
#[derive(Clone, Debug)]
pub struct Http2 {
    sender: http2::SendRequest<RequestBody>,
    /// Streams that we have under way on it.
    streams: Arc<AtomicU32>,
    /// Streams that the peer allows (its SETTINGS_MAX_CONCURRENT_STREAMS), as the driver last saw it.
    allowed: Arc<AtomicU32>,
    /// Whether the peer takes extended CONNECTs (RFC 8441 §3), as its first SETTINGS say.
    is_extended: Arc<AtomicBool>,
    max_streams: u32,
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
    /// [`Error::Http`], or [`Error::Refused`] if the peer closes instead of speaking. The caller bounds the time.
    pub async fn start<S: Stream>(mut connection: Connection<S>, limits: &Limits) -> Result<Self, Error> {
        let first_byte = connection.first_byte();
        let (sender, mut driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(limits.stream_window_bytes)
            .initial_connection_window_size(limits.stream_window_bytes.saturating_mul(CONNECTION_WINDOWS))
            .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
            .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
            .keep_alive_interval(wire::PING_INTERVAL)
            .keep_alive_timeout(wire::PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(connection))
            .await
            .map_err(|error| Error::Http(Arc::new(error)))?;
        // A server's first frame is SETTINGS (RFC 9113 §3.4): before it, nothing is known to have been accepted.
        first_byte.await.map_err(|_ended| Error::Refused)?;
        let allowed = Arc::new(AtomicU32::new(limits.max_streams));
        let is_extended = Arc::new(AtomicBool::new(driver.is_extended_connect_protocol_enabled()));
        let seen = (Arc::clone(&allowed), Arc::clone(&is_extended));
        drain::spawn_background(async move {
            let mut looks = 0..EXTENDED_LOOKS;
            let ended = poll_fn(|cx| {
                let polled = Pin::new(&mut driver).poll(cx);
                let streams = u32::try_from(driver.current_max_send_streams()).unwrap_or(u32::MAX);
                seen.0.store(streams, Ordering::Relaxed);
                if looks.next().is_some() {
                    seen.1.store(driver.is_extended_connect_protocol_enabled(), Ordering::Relaxed);
                }
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "upstream HTTP/2 connection ended");
            }
        });
        let streams = Arc::new(AtomicU32::new(0));
        Ok(Self { sender, streams, allowed, is_extended, max_streams: limits.max_streams })
    }

    /// Whether it can take another stream now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let cap = self.allowed.load(Ordering::Relaxed).min(self.max_streams);
        self.is_open() && self.streams.load(Ordering::Relaxed) < cap
    }

    /// Whether it is still good for new streams.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Whether the peer takes extended CONNECTs (RFC 8441 §3).
    #[must_use]
    pub fn is_extended(&self) -> bool {
        self.is_extended.load(Ordering::Relaxed)
    }

    /// Streams that we have under way on it.
    #[must_use]
    pub fn streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Takes a place for a stream.
    #[must_use]
    pub fn slot(&self) -> StreamSlot {
        self.streams.fetch_add(1, Ordering::Relaxed);
        StreamSlot(Arc::clone(&self.streams))
    }

    /// Sends a request and waits for the response's head. Dropping the future resets the stream.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, SendError> {
        self.sender.try_send_request(request).await.map_err(send_error)
    }
}

/// A connection for one request at a time.
#[derive(Debug)]
pub struct Http1 {
    sender: http1::SendRequest<RequestBody>,
}

impl Http1 {
    /// Starts HTTP/1.1 on a connection; its driver runs as a task until the connection ends.
    ///
    /// # Errors
    /// [`Error::Http`].
    pub async fn start<S: Stream>(connection: Connection<S>, limits: &Limits) -> Result<Self, Error> {
        let cut = connection.cut();
        let (sender, driver) = http1::Builder::new()
            .max_headers(limits.header_count)
            .max_buf_size(MAX_READ_BUFFER_BYTES.max(limits.header_bytes))
            .handshake(TokioIo::new(connection))
            .await
            .map_err(|error| Error::Http(Arc::new(error)))?;
        let driver = driver.with_upgrades();
        drain::spawn_background(async move {
            // While nobody takes a response's body, the driver does not read, and would not see the cut.
            let ended = tokio::select! {
                biased;
                ended = driver => ended,
                () = cut => return,
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "upstream HTTP/1 connection ended");
            }
        });
        Ok(Self { sender })
    }

    /// Whether the message before is over in both directions and the peer has not closed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Whether it is gone for good.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request and waits for the response's head. Dropping the future closes the connection.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, SendError> {
        self.sender.try_send_request(request).await.map_err(send_error)
    }
}

fn send_error(mut failed: TrySendError<Request<RequestBody>>) -> SendError {
    if let Some(request) = failed.take_message() {
        return SendError::NotSent(Box::new(request));
    }
    let error = failed.into_error();
    // Not every error that hyper calls the user's is one of ours: a driver that ended early is among them.
    if let Some(replay::Error::Downstream(_)) = caused_by::<replay::Error>(&error) {
        return SendError::Downstream;
    }
    if caused_by::<io::Error>(&error).is_some_and(is_refusal) {
        return SendError::Refused;
    }
    if let Some(h2) = caused_by::<h2::Error>(&error) {
        let is_refused = h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
        let is_above_goaway = h2.is_go_away() && h2.is_remote();
        if is_refused || is_above_goaway {
            return SendError::Refused;
        }
        return SendError::Reset(error);
    }
    if error.is_parse() { SendError::Protocol(error) } else { SendError::Reset(error) }
}

/// Whether the peer ended the handshake, which in TLS 1.3 we learn only after our first bytes: it has read none of them.
fn is_refusal(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        tls,
        Some(rustls::Error::AlertReceived(
            AlertDescription::AccessDenied
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRequired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::DecryptError
                | AlertDescription::HandshakeFailure
                | AlertDescription::UnknownCA
                | AlertDescription::UnsupportedCertificate
        ))
    )
}

fn caused_by<E: std::error::Error + 'static>(error: &hyper::Error) -> Option<&E> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref::<E>() {
            return Some(found);
        }
        source = cause.source();
    }
    None
}
