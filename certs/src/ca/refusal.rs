//! Why the CA says no: one gRPC status and one metric label per cause.

use std::io;

use tonic::{Code, Status};

use super::limits::Exceeded;
use super::{csr, issue, review, tokens};
use crate::spiffe_id::{SpiffeId, TrustDomain};

/// Why a request got no certificate. `Display` is for the CA's operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// Neither token nor client certificate.
    #[error("the caller has shown neither a join token (authorization: Bearer) nor a client certificate")]
    NoProof,
    /// The authorization header holds something else.
    #[error(
        "the authorization header does not hold a credential that this CA takes (Bearer and a join token's orc1..., or a service account's token where the CA runs in Kubernetes)"
    )]
    NotAToken,
    /// The service account's token is not taken.
    #[error(transparent)]
    Review(#[from] review::Error),
    /// A service account proves itself by its token, every time.
    #[error(
        "{0} is a service account's ID: a certificate for it is got with the service account's token alone: neither an earlier certificate nor a join token will do"
    )]
    NeedsServiceAccount(SpiffeId),
    /// The token is not taken.
    #[error(transparent)]
    Token(#[from] tokens::Error),
    /// The client certificate ran out while the connection was open.
    #[error("the client certificate of {0} has expired; a new join token is needed")]
    SvidExpired(SpiffeId),
    /// The proven ID is of a domain this CA does not sign for.
    #[error("{id} is not of the trust domain {expected}, for which this CA signs")]
    OtherTrustDomain {
        /// The proven ID.
        id: SpiffeId,
        /// The CA's domain.
        expected: TrustDomain,
    },
    /// The proven ID is the CA's own.
    #[error("{0} is the CA's own ID, which is certified to nobody")]
    Reserved(SpiffeId),
    /// The request is not usable or names somebody else.
    #[error(transparent)]
    Csr(#[from] csr::Error),
    /// The wanted lifetime is negative.
    #[error("validity_duration is negative; give seconds, or 0 for the default")]
    NegativeValidity,
    /// Too many requests.
    #[error("too many requests: {}", exceeded(*.0))]
    Rate(Exceeded),
    /// The certificate could not be logged, so it was not handed out.
    #[error("the certificate was not issued, for it could not be logged: {place}: {source}")]
    Log {
        /// The log file.
        place: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Signing failed.
    #[error("{0}")]
    Signing(#[from] issue::Error),
    /// The thread that signs has gone.
    #[error("the CA is stopping")]
    Stopping,
}

impl Refusal {
    /// The status the caller gets; its codes tell whether to try again, see
    /// [`client::Error::is_retryable`](crate::client::Error::is_retryable).
    pub(super) fn code(&self) -> Code {
        match self {
            Self::NoProof | Self::NotAToken | Self::SvidExpired(_) => Code::Unauthenticated,
            Self::Token(error) => match error {
                tokens::Error::Unknown | tokens::Error::Used | tokens::Error::Expired { .. } => {
                    Code::Unauthenticated
                }
                tokens::Error::TooMany => Code::ResourceExhausted,
                tokens::Error::Io { .. } => Code::Unavailable,
                #[cfg(feature = "kubernetes")]
                tokens::Error::Api(_) => Code::Unavailable,
            },
            Self::Review(error) => error.code(),
            Self::NeedsServiceAccount(_) => Code::Unauthenticated,
            Self::OtherTrustDomain { .. } | Self::Reserved(_) => Code::PermissionDenied,
            Self::Csr(error) => match error {
                csr::Error::OtherName { .. } => Code::PermissionDenied,
                csr::Error::TooLarge
                | csr::Error::NotPem
                | csr::Error::Malformed
                | csr::Error::Signature
                | csr::Error::Key => Code::InvalidArgument,
            },
            Self::NegativeValidity => Code::InvalidArgument,
            Self::Rate(_) => Code::ResourceExhausted,
            Self::Log { .. } | Self::Stopping => Code::Unavailable,
            Self::Signing(error) => match error {
                issue::Error::RootNotValid { .. } => Code::FailedPrecondition,
                issue::Error::Signing(_) | issue::Error::Random => Code::Internal,
            },
        }
    }

    /// The label of `outrider_ca_refused_total`.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NoProof => "no_proof",
            Self::NotAToken => "not_a_token",
            Self::Token(error) => match error {
                tokens::Error::Unknown => "token_unknown",
                tokens::Error::Used => "token_used",
                tokens::Error::Expired { .. } => "token_expired",
                tokens::Error::TooMany | tokens::Error::Io { .. } => "token_store",
                #[cfg(feature = "kubernetes")]
                tokens::Error::Api(_) => "token_store",
            },
            Self::Review(error) => error.reason(),
            Self::NeedsServiceAccount(_) => "needs_service_account",
            Self::SvidExpired(_) => "svid_expired",
            Self::OtherTrustDomain { .. } => "other_trust_domain",
            Self::Reserved(_) => "reserved_id",
            Self::Csr(csr::Error::OtherName { .. }) => "csr_name",
            Self::Csr(csr::Error::Key) => "csr_key",
            Self::Csr(_) => "csr_malformed",
            Self::NegativeValidity => "validity",
            Self::Rate(_) => "rate",
            Self::Log { .. } => "log",
            Self::Signing(_) => "signing",
            Self::Stopping => "stopping",
        }
    }

    /// The answer. Where the fault is the CA's, its file names stay with it.
    pub(super) fn status(&self) -> Status {
        let is_store = matches!(self, Self::Token(_)) && self.reason() == "token_store";
        let message = if is_store && self.code() == Code::Unavailable {
            "the CA cannot read its join tokens".to_owned()
        } else if matches!(self, Self::Log { .. }) {
            "the CA cannot write its issuance log, so it issues nothing".to_owned()
        } else {
            self.to_string()
        };
        Status::new(self.code(), message)
    }
}

fn exceeded(what: Exceeded) -> &'static str {
    match what {
        Exceeded::Caller => "over this caller's rate",
        Exceeded::Total => "over the rate of all callers of this kind (with an SVID, or without) together",
    }
}
