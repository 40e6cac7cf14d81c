//! An HTTP/1 connection to one endpoint, and one request over it.

use std::{io, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, header};
use hyper::{
    body::Body as _,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use rustls::AlertDescription;

use super::{
    Error,
    dial::Connection,
    idle::{Said, State},
    keep_alive,
    place::Place,
    wire::{Look, Wire},
};
use crate::{
    drain,
    model::{pool_counts::Closed, settings::Limits},
    net::Stream,
    relay::{
        received::{Broken, Received},
        replay::{self, RequestBody},
    },
};

/// Responses' HTTP/1 read buffer, grown on need.
const MAX_READ_BUFFER_BYTES: usize = 256 * 1024;

/// What became of a request that got no response head.
#[derive(Debug)]
pub enum SendError {
    /// Never written: here it is again.
    NotSent(Box<Request<RequestBody>>),
    /// The peer says that it has not processed it: REFUSED_STREAM, or above GOAWAY's last stream (RFC 9113 §8.7).
    Refused,
    /// Reset or closed before a response head; it may have been processed.
    Reset(Broken),
    /// What came back is not HTTP.
    Protocol(Broken),
    /// Our own downstream broke off its body.
    Downstream,
}

/// A connection for one request at a time.
#[derive(Debug)]
pub struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    wire: Arc<dyn Look>,
    place: Arc<Place>,
    /// How long the peer lets it be unused, if it said so, our margin taken off.
    peer_idle: Option<Duration>,
    /// Requests sent on it.
    uses: u32,
    /// Requests that the peer takes on it in all.
    max_uses: u32,
}

impl Http1 {
    /// Starts HTTP/1.1 on a connection; its driver runs as a task until the connection ends.
    ///
    /// # Errors
    /// [`Error::Http`].
    pub async fn start<S: Stream>(connection: Connection<S>, limits: &Limits) -> Result<Self, Error> {
        let cut = connection.cut();
        let place = Arc::clone(connection.place());
        let (connection, wire) = Wire::split(connection);
        let (sender, driver) = http1::Builder::new()
            .max_headers(limits.header_count)
            .max_buf_size(MAX_READ_BUFFER_BYTES.max(limits.header_bytes))
            .handshake(TokioIo::new(connection))
            .await
            .map_err(|error| Error::Http(Arc::new(error)))?;
        let driver = driver.with_upgrades();
        let driven = Arc::clone(&place);
        drain::spawn_background(async move {
            // The connection goes with the driver: not before it is said why.
            let mut driver = std::pin::pin!(driver);
            // While nobody takes a response's body, the driver does not read, and would not see the cut.
            let ended = tokio::select! {
                biased;
                ended = &mut driver => ended,
                () = cut => return,
            };
            match ended {
                Ok(()) => driven.closing(Closed::Peer),
                Err(error) => {
                    tracing::debug!(%error, "upstream HTTP/1 connection ended");
                    if is_unasked(&error) {
                        driven.closing(Closed::UnexpectedBytes);
                    } else if error.is_user() || error.is_body_write_aborted() {
                        driven.closing(Closed::InUse);
                    }
                }
            }
        });
        Ok(Self { sender, wire, place, peer_idle: None, uses: 0, max_uses: u32::MAX })
    }

    /// Waits until it can take a request.
    ///
    /// # Errors
    /// [`Error::ClosedAtOnce`].
    pub async fn ready(&mut self) -> Result<(), Error> {
        self.sender.ready().await.map_err(|_closed| Error::ClosedAtOnce)
    }

    /// What it occupies.
    #[must_use]
    pub fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// How long the peer lets it be unused, if it said so.
    #[must_use]
    pub fn peer_idle(&self) -> Option<Duration> {
        self.peer_idle
    }

    /// Whether the message before is over in both directions, and the peer has not closed as far as the driver knows.
    pub(super) fn state(&self) -> State {
        if self.sender.is_closed() {
            State::Ended
        } else if self.sender.is_ready() {
            State::Ready
        } else {
            State::Busy
        }
    }

    /// What the peer has said out of turn, by the operating system's knowledge.
    pub(super) fn probe(&self) -> Said {
        self.wire.said()
    }

    /// Whether there is anything to gain by keeping it; the reason is noted if there is not.
    pub(super) fn is_fit_to_keep(&self) -> bool {
        let why = if self.sender.is_closed() {
            Closed::Peer
        } else if self.uses >= self.max_uses {
            Closed::Age
        } else if self.peer_idle.is_some_and(|idle| idle.is_zero()) {
            Closed::Idle
        } else {
            return true;
        };
        self.place.closing(why);
        false
    }

    /// Sends a request and waits for the response's head. Dropping the future closes the connection.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(
        &mut self,
        mut request: Box<Request<RequestBody>>,
    ) -> Result<Response<Received>, SendError> {
        self.uses = self.uses.saturating_add(1);
        frame(&mut request);
        let response = self.sender.try_send_request(*request).await.map_err(send_error)?;
        let said = keep_alive::parse(response.headers());
        self.peer_idle = said.idle.or(self.peer_idle);
        if let Some(more) = said.max {
            // Apache counts down, Node repeats the whole: the smallest sum is right for both.
            self.max_uses = self.max_uses.min(self.uses.saturating_add(more));
        }
        Ok(response.map(Received::Http1))
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        // The driver ends orderly when nobody sends any more, which is not the peer's doing.
        self.place.closing(Closed::InUse);
    }
}

/// Whether the driver ended because of bytes that no request had asked for. hyper has no name for that one: it is what
/// is left when all others are ruled out.
fn is_unasked(error: &hyper::Error) -> bool {
    let is_other = error.is_parse()
        || error.is_user()
        || error.is_canceled()
        || error.is_closed()
        || error.is_incomplete_message()
        || error.is_body_write_aborted()
        || error.is_shutdown()
        || error.is_timeout();
    !is_other && std::error::Error::source(error).is_none()
}

/// Says of a body of unknown length that there is one. Otherwise hyper sends none with the methods that hardly ever have
/// one (RFC 9110 §9.3.1), and what came in chunks, or over HTTP/2, would be lost.
fn frame(request: &mut Request<RequestBody>) {
    let is_rare = matches!(*request.method(), Method::GET | Method::HEAD);
    let body = request.body();
    if is_rare && !body.is_end_stream() && body.size_hint().exact().is_none() {
        let fields = request.headers_mut();
        // What follows a wish to leave HTTP is no body.
        if !fields.contains_key(header::CONTENT_LENGTH) && !fields.contains_key(header::UPGRADE) {
            fields.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

fn send_error(mut failed: TrySendError<Request<RequestBody>>) -> SendError {
    if let Some(mut request) = failed.take_message() {
        // It may be sent again in HTTP/2, which has no such field.
        request.headers_mut().remove(header::TRANSFER_ENCODING);
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
    if error.is_parse() { SendError::Protocol(error.into()) } else { SendError::Reset(error.into()) }
}

/// Whether the peer ended the handshake, which in TLS 1.3 we learn only after our first bytes: it has read none of them.
#[must_use]
pub fn is_refusal(error: &io::Error) -> bool {
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
