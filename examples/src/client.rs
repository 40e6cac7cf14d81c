//! A small HTTP/1.1 client with keep-alive connections to one address, as a service would use.
//!
//! A kept connection may be closed by the other side at any moment. If that happens before a request was written to
//! it, the request is sent once more on a new connection; a request that was written is never repeated here, since
//! the other side may have acted on it.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::effects;

/// Connections kept for reuse; more than that are closed after their answer.
const MAX_IDLE: usize = 256;
/// A connection unused for this long is not used again: below the idle limits of the servers it talks to (a sidecar
/// waits 60 s).
const MAX_IDLE_AGE: Duration = Duration::from_secs(30);
/// Largest body of an answer that is read; the services here answer with about a kilobyte.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be made.
    #[error("connecting")]
    Connect(#[source] io::Error),
    /// The connection broke, or the other side broke the protocol.
    #[error("speaking HTTP")]
    Http(#[source] hyper::Error),
    /// The answer's body broke off, or is larger than [`MAX_BODY_BYTES`].
    #[error("reading the answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends requests to one address.
#[derive(Debug)]
pub struct Client {
    /// `host:port`.
    address: String,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

impl Client {
    /// A client without connections yet. `address` is `host:port`; a name is looked up with each new connection.
    #[must_use]
    pub fn new(address: String) -> Self {
        Self { address, idle: Mutex::new(Vec::new()) }
    }

    /// Sends `request` and reads the whole answer. The request's URI goes out as it is: absolute for a proxy.
    ///
    /// # Errors
    /// [`Error`]; there is no timeout here, callers set one.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Error> {
        let (mut sender, response) = self.dispatch(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(Error::Body)?.to_bytes();
        // An error here means that the connection is not to be used again, which is not this request's concern.
        if sender.ready().await.is_ok() {
            self.keep(sender);
        }
        Ok(Response::from_parts(head, body))
    }

    async fn dispatch(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), Error> {
        let Some(mut kept) = self.take_idle() else { return self.dispatch_afresh(request).await };
        match kept.try_send_request(request).await {
            Ok(response) => Ok((kept, response)),
            Err(mut error) => match error.take_message() {
                // It was never written: safe to send again, whatever the method.
                Some(unsent) => self.dispatch_afresh(unsent).await,
                None => Err(Error::Http(error.into_error())),
            },
        }
    }

    async fn dispatch_afresh(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), Error> {
        let stream = TcpStream::connect(&self.address).await.map_err(Error::Connect)?;
        stream.set_nodelay(true).map_err(Error::Connect)?;
        let mut sender = handshake(stream).await.map_err(Error::Http)?;
        let response = sender.send_request(request).await.map_err(Error::Http)?;
        Ok((sender, response))
    }

    /// The connection used last: those that are not needed age and go.
    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let now = effects::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|kept| !kept.sender.is_closed() && now.duration_since(kept.since) < MAX_IDLE_AGE);
        idle.pop().map(|kept| kept.sender)
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(Idle { sender, since: effects::now() });
        }
    }
}

/// Speaks HTTP/1.1 over `stream`; the connection's own task ends with it.
///
/// # Errors
/// Those of hyper's handshake.
pub async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its error is also the error of the request under way, where it is reported.
    drop(effects::spawn(connection));
    Ok(sender)
}
