//! Client side: a handshake with an endpoint that must be who discovery says it is.

use std::{io, net::IpAddr, sync::Arc};

use outrider_certs::{SpiffeId, verify};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{model::runtime::TlsFacts, net::Stream};

/// Why a handshake with an endpoint failed. No byte of any request was sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The handshake itself failed: no TLS there, a certificate that does not verify, no common protocol.
    #[error("TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// The peer's certificate holds no usable identity.
    #[error("the peer's certificate is not an SVID")]
    NotAnSvid(#[source] verify::Error),
    /// The peer is somebody else: its address was recycled, or discovery is wrong.
    #[error("the peer is {found}, expected {}", list(.expected))]
    WrongPeer {
        /// Who answered.
        found: SpiffeId,
        /// Who should have.
        expected: Arc<[SpiffeId]>,
    },
    /// The peer did not agree to the protocol we need.
    #[error("the peer chose the application protocol {found:?}, expected {expected:?}")]
    WrongProtocol {
        /// What it chose; empty if nothing.
        found: String,
        /// What we offered.
        expected: String,
    },
}

impl Error {
    /// Whether the endpoint proved to be somebody it must not be.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        match self {
            Self::NotAnSvid(_) | Self::WrongPeer { .. } => true,
            Self::Handshake(error) => error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                .is_some_and(|tls| matches!(tls, rustls::Error::InvalidCertificate(_))),
            Self::WrongProtocol { .. } => false,
        }
    }
}

/// Makes the handshake and checks that the peer is one of `expected` before anything else is sent.
///
/// No SNI goes out; the name given to rustls is the address and only a formality. The caller bounds the time.
///
/// # Errors
/// [`Error`], one variant per cause.
pub async fn connect<S: Stream>(
    stream: S,
    config: Arc<ClientConfig>,
    address: IpAddr,
    expected: &Arc<[SpiffeId]>,
) -> Result<(TlsStream<S>, TlsFacts), Error> {
    let alpn = config.alpn_protocols.first().map(|p| String::from_utf8_lossy(p).into_owned());
    let stream = TlsConnector::from(config)
        .connect(ServerName::IpAddress(address.into()), stream)
        .await
        .map_err(Error::Handshake)?;
    let (peer, facts) = super::facts(stream.get_ref().1).map_err(Error::NotAnSvid)?;
    if !expected.contains(peer.id()) {
        return Err(Error::WrongPeer { found: peer.id().clone(), expected: Arc::clone(expected) });
    }
    // RFC 7301 §3.2: a server that ignores ALPN chooses nothing; then we do not know what it would read.
    match alpn {
        Some(expected) if expected != facts.alpn => Err(Error::WrongProtocol { found: facts.alpn, expected }),
        Some(_) | None => Ok((stream, facts)),
    }
}

fn list(ids: &[SpiffeId]) -> String {
    ids.iter().map(SpiffeId::as_str).collect::<Vec<_>>().join(" or ")
}
