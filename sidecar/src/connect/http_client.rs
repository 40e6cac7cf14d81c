//! An HTTP/1 connection to one endpoint, and one request over it.

use std::{io, sync::Arc};

use http::{Request, Response};
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use rustls::AlertDescription;

use super::{Error, dial::Connection};
use crate::{
    drain,
    model::settings::Limits,
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

    /// Waits until it can take a request.
    ///
    /// # Errors
    /// [`Error::ClosedAtOnce`].
    pub async fn ready(&mut self) -> Result<(), Error> {
        self.sender.ready().await.map_err(|_closed| Error::ClosedAtOnce)
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
    pub async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Received>, SendError> {
        let response = self.sender.try_send_request(request).await.map_err(send_error)?;
        Ok(response.map(Received::Http1))
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
    if error.is_parse() { SendError::Protocol(error.into()) } else { SendError::Reset(error.into()) }
}

/// Whether the peer ended the handshake, which in TLS 1.3 we learn only after our first bytes: it has read none of them.
pub(super) fn is_refusal(error: &io::Error) -> bool {
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
