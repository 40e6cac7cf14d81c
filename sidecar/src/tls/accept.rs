//! Server side: a peer's handshake, within a time.

use std::{io, sync::Arc, time::Duration};

use outrider_certs::Peer;
use rustls::{Error as TlsError, PeerIncompatible, ServerConfig};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    buffer::ReadAhead,
    model::runtime::{Refusal, TlsFacts},
    net::Stream,
};

/// Decrypted bytes of a peer. Boxed: a TLS session is over a kilobyte, and it is moved from hand to hand.
pub type Secured<S> = Box<TlsStream<ReadAhead<S>>>;

/// A peer's connection after its handshake.
#[derive(Debug)]
pub struct Accepted<S> {
    /// Decrypted bytes.
    pub stream: Secured<S>,
    /// Who it is.
    pub peer: Peer,
    /// What was agreed on.
    pub facts: TlsFacts,
}

/// Lets a peer in, or says why not.
///
/// # Errors
/// The [`Refusal`] to count and, for the log, its cause in words. The peer has got a TLS alert where TLS has one.
pub async fn accept<S: Stream>(
    stream: S,
    config: Arc<ServerConfig>,
    timeout: Duration,
) -> Result<Accepted<S>, (Refusal, String)> {
    let handshake = TlsAcceptor::from(config).accept(ReadAhead::new(stream));
    let stream = match tokio::time::timeout(timeout, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err((refusal(&error), error.to_string())),
        Err(_elapsed) => return Err((Refusal::Timeout, format!("no TLS handshake within {timeout:?}"))),
    };
    match super::facts(stream.get_ref().1) {
        Ok((peer, facts)) => Ok(Accepted { stream: Box::new(stream), peer, facts }),
        Err(error) => Err((Refusal::BadCertificate, error.to_string())),
    }
}

impl<S: Stream> Stream for TlsStream<S> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }

    fn has_ended(&self) -> bool {
        self.get_ref().0.has_ended()
    }
}

fn refusal(error: &io::Error) -> Refusal {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    match tls {
        Some(TlsError::InvalidMessage(_)) => Refusal::Plaintext,
        Some(TlsError::NoCertificatesPresented) => Refusal::NoCertificate,
        Some(TlsError::InvalidCertificate(_)) => Refusal::BadCertificate,
        Some(TlsError::NoApplicationProtocol) => Refusal::NoProtocol,
        Some(TlsError::PeerIncompatible(what)) => incompatible(what),
        _ => Refusal::Tls,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library's list may grow; the rest has one counter")]
fn incompatible(what: &PeerIncompatible) -> Refusal {
    match what {
        PeerIncompatible::NoCipherSuitesInCommon | PeerIncompatible::NoKxGroupsInCommon => {
            Refusal::NoAlgorithm
        }
        PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => Refusal::OldTls,
        _ => Refusal::Tls,
    }
}
