//! Client side: a handshake with an endpoint that must be who discovery, or the configuration, says it is.

use std::{io, net::IpAddr, sync::Arc};

use outrider_certs::{SpiffeId, verify};
use rustls::{AlertDescription, ClientConfig, Error as TlsError, PeerIncompatible, pki_types::ServerName};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    model::{handshake::TlsFailure, runtime::TlsFacts},
    net::Stream,
};

/// Why a handshake with an endpoint failed. No byte of any request was sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The handshake itself failed: no TLS there, a certificate that does not verify, nothing in common.
    #[error("{}", .failure.explanation())]
    Handshake {
        /// What kind of failure that is.
        failure: TlsFailure,
        /// As the TLS library says it.
        #[source]
        source: io::Error,
    },
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
        match self.failure() {
            TlsFailure::BadCertificate | TlsFailure::WrongPeer => true,
            TlsFailure::Plaintext
            | TlsFailure::OldTls
            | TlsFailure::NoAlgorithm
            | TlsFailure::NoProtocol
            | TlsFailure::Refused
            | TlsFailure::Other => false,
        }
    }

    /// What it counts as.
    #[must_use]
    pub fn failure(&self) -> TlsFailure {
        match self {
            Self::Handshake { failure, .. } => *failure,
            Self::NotAnSvid(_) => TlsFailure::BadCertificate,
            Self::WrongPeer { .. } => TlsFailure::WrongPeer,
            Self::WrongProtocol { .. } => TlsFailure::NoProtocol,
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
    let stream = shake(stream, config, ServerName::IpAddress(address.into())).await?;
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

/// Makes the handshake with a server outside the mesh, which must prove to be `name`; that goes out as SNI if it is a
/// DNS name. A server that chooses no protocol speaks HTTP/1.1, if that was offered. The caller bounds the time.
///
/// # Errors
/// [`Error`], one variant per cause.
pub async fn connect_public<S: Stream>(
    stream: S,
    config: Arc<ClientConfig>,
    name: &ServerName<'static>,
) -> Result<(TlsStream<S>, TlsFacts), Error> {
    let needed = match config.alpn_protocols.as_slice() {
        [only] if only == crate::model::wire::ALPN_STANDARD_H2 => Some(only.clone()),
        _ => None,
    };
    let stream = shake(stream, config, name.clone()).await?;
    let facts = super::agreed(stream.get_ref().1, name.to_str().into());
    match needed {
        Some(needed) if needed != facts.alpn.as_bytes() => Err(Error::WrongProtocol {
            found: facts.alpn,
            expected: String::from_utf8_lossy(&needed).into_owned(),
        }),
        Some(_) | None => Ok((stream, facts)),
    }
}

async fn shake<S: Stream>(
    stream: S,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<TlsStream<S>, Error> {
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|source| Error::Handshake { failure: kind(&source), source })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's lists may grow; the rest is told in its words"
)]
fn kind(error: &io::Error) -> TlsFailure {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    let Some(tls) = tls else { return TlsFailure::Other };
    match tls {
        TlsError::InvalidMessage(_) => TlsFailure::Plaintext,
        TlsError::InvalidCertificate(_) => TlsFailure::BadCertificate,
        TlsError::NoApplicationProtocol => TlsFailure::NoProtocol,
        TlsError::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => TlsFailure::OldTls,
        TlsError::PeerIncompatible(
            PeerIncompatible::NoCipherSuitesInCommon | PeerIncompatible::NoKxGroupsInCommon,
        ) => TlsFailure::NoAlgorithm,
        TlsError::AlertReceived(alert) => match alert {
            AlertDescription::ProtocolVersion => TlsFailure::OldTls,
            // RFC 8446 §6.2: "unable to negotiate an acceptable set of security parameters".
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
                TlsFailure::NoAlgorithm
            }
            AlertDescription::NoApplicationProtocol => TlsFailure::NoProtocol,
            _ => TlsFailure::Refused,
        },
        _ => TlsFailure::Other,
    }
}

fn list(ids: &[SpiffeId]) -> String {
    ids.iter().map(SpiffeId::as_str).collect::<Vec<_>>().join(" or ")
}
