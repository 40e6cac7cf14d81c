//! The connect stage: upstream connections, made, kept and lent.

pub mod connector;
pub mod counted;
pub mod dial;
pub mod http2;
pub mod http_client;
mod idle;
mod keep_alive;
pub mod negotiate;
pub mod place;
pub mod pool;
pub mod reclaim;
mod secure;
mod shared;
pub mod tcp_pool;
#[cfg(test)]
mod tests;
mod upload;
pub mod wire;

use std::{io, sync::Arc};

use crate::{resilience::circuit_breaker::Overflow, tls::connect as tls};

/// Why no connection to an endpoint could be had. The request was not sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The TCP connection failed.
    #[error("connecting failed")]
    Tcp(#[source] Arc<io::Error>),
    /// Connect and handshake together took longer than the cluster's `connect_timeout`.
    #[error("no connection within the connect timeout")]
    Timeout,
    /// The TLS handshake failed, or the peer is somebody else.
    #[error("no trusted connection")]
    Tls(#[source] Arc<tls::Error>),
    /// We have no certificate yet, or not any more.
    #[error("this sidecar has no certificate to show")]
    NoIdentity,
    /// The files of `tls: public` could not be read yet.
    #[error("no certificates to judge the server by yet; the log says what is wrong with the files")]
    NoPublicTls,
    /// The endpoint closed the connection before it said anything: it does not take our certificate, or does not speak
    /// HTTP/2.
    #[error("the endpoint closed the new connection without a word; it may not take our certificate")]
    Refused,
    /// The HTTP connection could not be set up.
    #[error("setting up HTTP failed")]
    Http(#[source] Arc<hyper::Error>),
    /// HTTP/2 could not be set up.
    #[error("setting up HTTP/2 failed")]
    Http2(#[source] Arc<h2::Error>),
    /// One of the cluster's caps is reached.
    #[error(transparent)]
    Overflow(#[from] Overflow),
    /// The endpoint closed the connection before anything could be sent on it.
    #[error("the new connection was closed at once")]
    ClosedAtOnce,
    /// Whoever was connecting on our behalf went away.
    #[error("connecting was given up")]
    GivenUp,
}

impl Error {
    /// Whether the endpoint proved to be somebody it must not be.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        matches!(self, Self::Tls(error) if error.is_identity())
    }
}
