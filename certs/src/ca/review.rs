//! Service accounts as proof: who a token stands for, said by somebody who can
//! judge it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use serde::Serialize;
use tonic::Code;

use crate::spiffe_id::{SpiffeId, TrustDomain};

/// Longest token that is reviewed; usual ones have some hundred bytes.
pub(super) const MAX_TOKEN_BYTES: usize = 12 * 1024;
/// What service accounts are called by the API server.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// The pod that a token is bound to, for the issuance log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pod {
    /// Its name.
    pub pod: String,
    /// Its UID.
    pub pod_uid: String,
}

/// Whom a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewed {
    /// The workload.
    pub id: SpiffeId,
    /// Its pod, if the token is bound to one.
    pub pod: Option<Pod>,
}

/// Why a token proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Whoever judges tokens cannot be asked now.
    #[error("the service account's token cannot be reviewed now: {0}")]
    Unavailable(String),
    /// Too many reviews are under way.
    #[error("too many tokens are being reviewed")]
    Busy,
    /// Expired, of a pod that is gone, for another audience, or forged.
    #[error("the service account's token is not good: {0}")]
    NotAuthenticated(String),
    /// A good token of somebody who is no service account.
    #[error("the token is that of {0:?}, which is no service account")]
    NotAServiceAccount(String),
}

impl Error {
    pub(super) fn code(&self) -> Code {
        match self {
            Self::Unavailable(_) => Code::Unavailable,
            Self::Busy => Code::ResourceExhausted,
            Self::NotAuthenticated(_) => Code::Unauthenticated,
            Self::NotAServiceAccount(_) => Code::PermissionDenied,
        }
    }

    /// The label of `outrider_ca_refused_total`.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "review_unavailable",
            Self::Busy => "review_busy",
            Self::NotAuthenticated(_) => "service_account_token",
            Self::NotAServiceAccount(_) => "no_service_account",
        }
    }
}

/// A review under way.
pub type Reviewing<'a> = Pin<Box<dyn Future<Output = Result<Reviewed, Error>> + Send + 'a>>;

/// Judges service accounts' tokens. Asked for every certificate; remembers
/// nothing.
pub trait Reviewer: Send + Sync + fmt::Debug {
    /// Whom `token` stands for now.
    fn review<'a>(&'a self, token: &'a str) -> Reviewing<'a>;
}

/// The ID of a service account, by the name the API server gives it.
///
/// # Errors
/// [`Error::NotAServiceAccount`] for any other name.
pub fn id_of(username: &str, trust_domain: &TrustDomain) -> Result<SpiffeId, Error> {
    let no = || Error::NotAServiceAccount(username.chars().take(200).collect());
    let (namespace, name) =
        username.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':')).ok_or_else(no)?;
    // No segment may bring in a further one: neither holds '/' or ':', by SPIFFE's rules for paths and by this.
    if name.contains(':') || [namespace, name].iter().any(|part| part.is_empty() || part.contains('/')) {
        return Err(no());
    }
    let text = format!("spiffe://{trust_domain}/ns/{namespace}/sa/{name}");
    SpiffeId::parse(&text).map_err(|_| no())
}

/// Whether an ID is of the form that service accounts have.
pub(super) fn is_of_service_account(id: &SpiffeId) -> bool {
    let mut parts = id.as_str().split('/').skip(3);
    matches!(
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()),
        (Some("ns"), Some(_), Some("sa"), Some(_), None)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_has_one_id() {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let id = id_of("system:serviceaccount:shop:orders.v2", &domain).unwrap();
        assert_eq!(id.as_str(), "spiffe://cluster.local/ns/shop/sa/orders.v2");
        assert!(is_of_service_account(&id));
        for other in [
            "",
            "admin",
            "system:node:a",
            "system:serviceaccount:shop",
            "system:serviceaccount::orders",
            "system:serviceaccount:shop:",
            "system:serviceaccount:shop:a:b",
            "system:serviceaccount:shop/sa/x:b",
            "system:serviceaccount:shop:..",
            "xsystem:serviceaccount:shop:a",
        ] {
            assert!(matches!(id_of(other, &domain), Err(Error::NotAServiceAccount(_))), "{other}");
        }
        for other in ["spiffe://a/ns/x/sa", "spiffe://a/ns/x/sa/y/z", "spiffe://a/vm/x/sa/y", "spiffe://a/x"]
        {
            assert!(!is_of_service_account(&SpiffeId::parse(other).unwrap()), "{other}");
        }
    }
}
