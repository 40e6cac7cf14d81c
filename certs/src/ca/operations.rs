//! What the operator does with the CA's state: tokens, and certificates by
//! hand. Works beside a running server.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;

use super::issue;
use super::issuer::{self, Proof, Wish};
use super::refusal::Refusal;
use super::review;
use super::state::CaState;
use super::tokens::{self, StoredToken};
use crate::join_token::{Credential, JoinToken, TokenId};
use crate::spiffe_id::SpiffeId;

/// Why an operator's command failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OperatorError(String);

/// A certificate made by hand.
#[derive(Clone, Debug)]
pub struct IssuedByHand {
    /// The leaf.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its number, hexadecimal.
    pub serial: String,
    /// When it runs out.
    pub not_after: SystemTime,
}

impl CaState {
    /// Makes a join token for one workload, good for `ttl`.
    ///
    /// # Errors
    /// When the ID is not one this CA certifies, when there are too many
    /// tokens, or when the state folder cannot be written.
    pub fn new_token(
        &self,
        id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<JoinToken, OperatorError> {
        issuer::check_id(self, id).map_err(refused)?;
        if self.has_service_accounts() && review::is_of_service_account(id) {
            return Err(refused(Refusal::NeedsServiceAccount(id.clone())));
        }
        let random = || OperatorError("no random bytes from the operating system".to_owned());
        let number = TokenId::from_bytes(issue::random().map_err(|_| random())?);
        let credential = Credential::new(number, issue::random().map_err(|_| random())?);
        let expires_at =
            now.checked_add(ttl).ok_or_else(|| OperatorError("the time is too long".to_owned()))?;
        let token = JoinToken::new(credential.clone(), self.root_spki_sha256(), id.clone(), expires_at)
            .map_err(|e| OperatorError(e.to_string()))?;
        self.tokens()
            .add(&credential, &StoredToken::new(&credential, id, token.expires_at()), now)
            .map_err(|e: tokens::Error| OperatorError(e.to_string()))?;
        Ok(token)
    }

    /// Removes the files of tokens that expired long ago; returns how many
    /// files are left.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn sweep_tokens(&self, now: SystemTime) -> Result<usize, OperatorError> {
        self.tokens().sweep(now).map_err(|e| OperatorError(e.to_string()))
    }

    /// Signs a request by hand, for `validity` (at most
    /// [`MAX_VALIDITY`](super::MAX_VALIDITY)).
    ///
    /// # Errors
    /// When the ID is not one this CA certifies, when the request is not
    /// usable or names another, or when the log cannot be written.
    pub fn issue_by_hand(
        self: &Arc<Self>,
        id: &SpiffeId,
        csr_pem: &str,
        validity: Duration,
        now: SystemTime,
    ) -> Result<IssuedByHand, OperatorError> {
        let wish = Wish {
            proof: Proof::Operator(id.clone()),
            csr_pem: csr_pem.to_owned(),
            validity,
            bundle_sequence: self.bundle().sequence(),
            names: Arc::default(),
        };
        let issued = issuer::issue(self, &wish, now).map_err(refused)?;
        Ok(IssuedByHand { chain: vec![issued.leaf], serial: issued.serial, not_after: issued.not_after })
    }
}

fn refused(refusal: Refusal) -> OperatorError {
    OperatorError(refusal.to_string())
}
