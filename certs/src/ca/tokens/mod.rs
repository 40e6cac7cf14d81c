//! Join tokens on disk: one file each, used up by a rename.
//!
//! ```text
//! tokens/<id>.json    good, until it expires
//! tokens/<id>.used    used up; kept for a day so that a second use is named
//! ```
//!
//! Only SHA-256 of the secret is stored. Using a token up is one rename, of
//! which only one of two attempts can succeed, flushed to disk before anything
//! is signed: after a crash a used token is still used.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::constant_time;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::join_token::{Credential, TokenId};
use crate::spiffe_id::SpiffeId;

/// Most tokens, good and used, in the folder.
pub(super) const MAX_TOKENS: usize = 10_000;
/// How long a used or expired token's file stays, so that whoever comes with
/// it is told what is wrong with it.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Largest token file that is read.
const MAX_FILE_BYTES: u64 = 8 * 1024;
/// Endings of the files of good and of used tokens.
const GOOD: &str = "json";
const USED: &str = "used";

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
}

/// What a good token proves.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) id: TokenId,
    pub(super) spiffe_id: SpiffeId,
}

/// A token's file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    spiffe_id: SpiffeId,
    secret_sha256: [u8; 32],
    /// Whole seconds since 1970.
    expires_at: u64,
}

/// The folder of tokens.
#[derive(Debug)]
pub(super) struct TokenStore {
    folder: PathBuf,
    /// Most files in it.
    capacity: usize,
}

impl TokenStore {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, capacity: MAX_TOKENS }
    }

    /// Stores a new token, after sweeping old ones.
    pub(super) fn add(
        &self,
        credential: &Credential,
        spiffe_id: &SpiffeId,
        expires_at: SystemTime,
        now: SystemTime,
    ) -> Result<(), Error> {
        if self.sweep(now)? >= self.capacity {
            return Err(Error::TooMany);
        }
        let file = TokenFile {
            spiffe_id: spiffe_id.clone(),
            secret_sha256: credential.secret_sha256(),
            expires_at: seconds(expires_at),
        };
        let place = self.place(credential.id(), GOOD);
        let text = serde_json::to_vec(&file).map_err(|e| at(&place, io::Error::other(e)))?;
        files::write_new(&place, &text).map_err(|source| at(&place, source))
    }

    /// What a credential proves, without using it up.
    pub(super) fn check(&self, credential: &Credential, now: SystemTime) -> Result<Grant, Error> {
        let id = credential.id();
        let good = self.read(&self.place(id, GOOD))?;
        let is_used = good.is_none();
        let file = match good {
            Some(file) => file,
            None => self.read(&self.place(id, USED))?.ok_or(Error::Unknown)?,
        };
        let secret = credential.secret_sha256();
        constant_time::verify_slices_are_equal(&secret, &file.secret_sha256).map_err(|_| Error::Unknown)?;
        if is_used {
            return Err(Error::Used);
        }
        let expired = seconds(now).checked_sub(file.expires_at).map(Duration::from_secs);
        match expired {
            Some(expired) => Err(Error::Expired { expired }),
            None => Ok(Grant { id, spiffe_id: file.spiffe_id }),
        }
    }

    /// Uses a token up. When this returns, it is used even after a crash.
    pub(super) fn use_up(&self, grant: &Grant) -> Result<(), Error> {
        let (good, used) = (self.place(grant.id, GOOD), self.place(grant.id, USED));
        fs::rename(&good, &used).map_err(|source| {
            // Another request with the same token was faster.
            let is_gone = source.kind() == io::ErrorKind::NotFound;
            if is_gone { Error::Used } else { at(&good, source) }
        })?;
        files::flush_folder(&self.folder).map_err(|source| at(&self.folder, source))
    }

    /// Removes files of tokens that expired a day ago; returns how many files
    /// are left.
    pub(super) fn sweep(&self, now: SystemTime) -> Result<usize, Error> {
        let entries = fs::read_dir(&self.folder).map_err(|source| at(&self.folder, source))?;
        let mut left = 0;
        for entry in entries {
            let path = entry.map_err(|source| at(&self.folder, source))?.path();
            let is_old = match self.read(&path) {
                Ok(Some(file)) => seconds(now).saturating_sub(file.expires_at) > KEPT.as_secs(),
                // Swept by another process in the meantime.
                Ok(None) => continue,
                // Not ours to judge; it counts, so that somebody looks.
                Err(_) => false,
            };
            if is_old {
                match fs::remove_file(&path) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(at(&path, source)),
                    Ok(()) | Err(_) => {}
                }
            } else {
                left += 1;
            }
        }
        Ok(left)
    }

    fn place(&self, id: TokenId, ending: &str) -> PathBuf {
        // An ID prints as hexadecimal digits: no way out of the folder.
        self.folder.join(format!("{id}.{ending}"))
    }

    fn read(&self, place: &Path) -> Result<Option<TokenFile>, Error> {
        let missing = |source: io::Error| {
            if source.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(at(place, source)) }
        };
        let size = match fs::metadata(place) {
            Ok(found) => found.len(),
            Err(source) => return missing(source),
        };
        if size > MAX_FILE_BYTES {
            return Err(at(place, io::Error::other("too large for a token's file")));
        }
        match fs::read(place) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|e| at(place, io::Error::other(e))),
            Err(source) => missing(source),
        }
    }
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

#[cfg(test)]
mod tests;
