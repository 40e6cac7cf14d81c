//! The identify stage: mutual TLS on either side of a connection, and who is at the other end.

pub mod accept;
pub mod connect;
pub mod trust;

use std::sync::Arc;

use outrider_certs::{Peer, verify};
use rustls::CommonState;

use crate::model::runtime::TlsFacts;

/// Reads the verified peer and what the handshake agreed on.
///
/// Our verifiers have judged the chain during the handshake; this only reads the leaf again.
fn facts(connection: &CommonState) -> Result<(Peer, TlsFacts), verify::Error> {
    let peer = verify::peer_of_verified(connection.peer_certificates().unwrap_or_default())?;
    let facts = agreed(connection, peer.id().as_str().into());
    Ok((peer, facts))
}

/// What the handshake with `peer` agreed on.
fn agreed(connection: &CommonState, peer: Arc<str>) -> TlsFacts {
    TlsFacts {
        peer,
        version: connection.protocol_version().map(|v| format!("{v:?}")).unwrap_or_default(),
        cipher_suite: connection
            .negotiated_cipher_suite()
            .map(|suite| format!("{:?}", suite.suite()))
            .unwrap_or_default(),
        key_exchange: connection
            .negotiated_key_exchange_group()
            .map(|group| format!("{:?}", group.name()))
            .unwrap_or_default(),
        alpn: connection.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned()).unwrap_or_default(),
    }
}
