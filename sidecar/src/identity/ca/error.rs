//! Why the CA gave nothing that can be used.

use std::{io, time::Duration};

use outrider_certs::{
    client, request,
    spiffe_id::{SpiffeId, TrustDomain},
    svid, verify,
};

use super::{
    super::{file, store, tls_configs},
    exchange::DEADLINE,
};

/// Why there is no new certificate or bundle.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The CA's name has no address.
    #[error("the CA's address {address} cannot be found: {source}")]
    Resolve {
        /// As configured.
        address: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No connection to any address.
    #[error("the CA at {address} cannot be reached: {source}")]
    Connect {
        /// As configured.
        address: String,
        /// What the last attempt ended with.
        source: io::Error,
    },
    /// The TLS handshake failed: most likely the server is not the CA we trust.
    #[error("the server at {address} is not a CA we trust: {source}")]
    Handshake {
        /// As configured.
        address: String,
        /// What TLS said.
        source: io::Error,
    },
    /// The server is somebody else of our trust domain.
    #[error("the server at {address} is not the CA but {found}")]
    NotTheCa {
        /// As configured.
        address: String,
        /// Who it is.
        found: SpiffeId,
    },
    /// It took too long.
    #[error("the CA gave no answer within {DEADLINE:?}")]
    Timeout,
    /// The CA said no.
    #[error("the CA refused: {0}")]
    Refused(client::Error),
    /// The exchange broke.
    #[error("{0}")]
    Exchange(client::Error),
    /// The answer is no certificate for our key.
    #[error("the CA's answer is refused: {0}")]
    Svid(#[from] svid::Error),
    /// The answer is for somebody else.
    #[error("the CA's answer is refused: it is a certificate for {found}, not for {expected}")]
    WrongId {
        /// Who we are.
        expected: SpiffeId,
        /// Whom the certificate names.
        found: SpiffeId,
    },
    /// The answer's chain would convince no peer.
    #[error("the CA's answer is refused: {0}")]
    Unverified(#[from] verify::Error),
    /// The answer's lifetime makes no sense.
    #[error("the CA's answer is refused: its lifetime of {0:?} makes no sense")]
    Lifetime(Duration),
    /// The bundle is older than the one held.
    #[error("the CA's bundle is refused: its sequence {found} is lower than {held}")]
    BundleOlder {
        /// What is held.
        held: u64,
        /// What came.
        found: u64,
    },
    /// The bundle differs from the one held but has its sequence.
    #[error("the CA's bundle is refused: it differs from the one held, but both have the sequence {0}")]
    BundleForked(u64),
    /// The bundle does not vouch for the CA itself.
    #[error("the CA's bundle is refused: it does not vouch for the CA itself")]
    BundleWithoutCa,
    /// The join token is for another trust domain.
    #[error("the join token is for {found}, but our trust domain is {expected}")]
    TokenDomain {
        /// Ours.
        expected: TrustDomain,
        /// The token's ID.
        found: SpiffeId,
    },
    /// There is no usable join token.
    #[error("no certificate and no join token: {0}")]
    NoToken(String),
    /// There is no usable token of a service account.
    #[error("no service account's token: {0}")]
    NoServiceAccount(String),
    /// There are no roots to know the CA by.
    #[error("the CA cannot be known: {0}")]
    NoBundle(#[from] file::Error),
    /// No key could be made.
    #[error(transparent)]
    Key(#[from] request::Error),
    /// No TLS configuration could be made.
    #[error(transparent)]
    Tls(#[from] tls_configs::Error),
    /// Nothing can be kept, so no join token is spent.
    #[error("{0}")]
    Store(#[from] store::Error),
}

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Self {
        match error {
            refused @ client::Error::Rejected { .. } => Self::Refused(refused),
            broken
            @ (client::Error::Transport(_) | client::Error::Deadline | client::Error::BadAnswer(_)) => {
                Self::Exchange(broken)
            }
        }
    }
}
