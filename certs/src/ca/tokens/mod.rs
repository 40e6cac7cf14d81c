//! Join tokens: each is an object of its own, kept until it is used up.
//!
//! Only SHA-256 of the secret is stored. Of two attempts to use a token up one
//! succeeds, wherever they are made, and that is settled before anything is
//! signed. Where they are kept: a folder ([`folder`]), or Secrets of Kubernetes.

pub(super) mod folder;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::constant_time;
use serde::{Deserialize, Serialize};

use crate::join_token::{Credential, TokenId};
use crate::spiffe_id::SpiffeId;

/// Most tokens, good and used, at a time.
pub(super) const MAX_TOKENS: usize = 10_000;
/// How long a used or expired token's file stays, so that whoever comes with
/// it is told what is wrong with it.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Why a token is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// No such number, or another secret. Strangers are not told which.
    #[error("the join token is not known to this CA (of another CA, damaged, or expired long ago)")]
    Unknown,
    /// It was used before.
    #[error("the join token was used before; each is good for one certificate")]
    Used,
    /// Its time is over.
    #[error("the join token expired {} ago", ago(*.expired))]
    Expired {
        /// For how long it has been expired.
        expired: Duration,
    },
    /// Too many tokens are outstanding.
    #[error("there are {MAX_TOKENS} join tokens already; wait until some expire")]
    TooMany,
    /// The folder cannot be read or written.
    #[error("{place}: {source}")]
    Io {
        /// The file.
        place: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The API server did not do what was asked of it.
    #[cfg(feature = "kubernetes")]
    #[error("{0}")]
    Api(String),
}

/// What a good token proves.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) id: TokenId,
    pub(super) spiffe_id: SpiffeId,
    /// UID and version of the object it was read from, where it is one.
    pub(super) version: Option<(String, String)>,
}

/// What is stored of a token.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredToken {
    spiffe_id: SpiffeId,
    secret_sha256: [u8; 32],
    /// Whole seconds since 1970.
    expires_at: u64,
}

impl StoredToken {
    pub(super) fn new(credential: &Credential, spiffe_id: &SpiffeId, expires_at: SystemTime) -> Self {
        Self {
            spiffe_id: spiffe_id.clone(),
            secret_sha256: credential.secret_sha256(),
            expires_at: seconds(expires_at),
        }
    }

    /// What `credential` proves with this, if it is the right one and in time.
    pub(super) fn grant(
        &self,
        credential: &Credential,
        is_used: bool,
        now: SystemTime,
    ) -> Result<Grant, Error> {
        let secret = credential.secret_sha256();
        constant_time::verify_slices_are_equal(&secret, &self.secret_sha256).map_err(|_| Error::Unknown)?;
        if is_used {
            return Err(Error::Used);
        }
        let expired = seconds(now).checked_sub(self.expires_at).map(Duration::from_secs);
        match expired {
            Some(expired) => Err(Error::Expired { expired }),
            None => Ok(Grant { id: credential.id(), spiffe_id: self.spiffe_id.clone(), version: None }),
        }
    }

    /// Whether it expired so long ago that nobody needs to be told.
    pub(super) fn is_old(&self, now: SystemTime) -> bool {
        seconds(now).saturating_sub(self.expires_at) > KEPT.as_secs()
    }
}

/// Where tokens are kept. Its functions may block: they are called where that
/// is allowed.
pub(super) trait TokenStore: Send + Sync {
    /// Stores a new token, after sweeping old ones.
    fn add(&self, credential: &Credential, token: &StoredToken, now: SystemTime) -> Result<(), Error>;

    /// What a credential proves, without using it up.
    fn check(&self, credential: &Credential, now: SystemTime) -> Result<Grant, Error>;

    /// Uses a token up, for good.
    fn use_up(&self, grant: &Grant) -> Result<(), Error>;

    /// Removes tokens that expired a day ago; returns how many are left.
    fn sweep(&self, now: SystemTime) -> Result<usize, Error>;
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn ago(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(time)
}

fn at(place: &Path, source: io::Error) -> Error {
    Error::Io { place: place.to_owned(), source }
}
