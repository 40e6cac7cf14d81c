//! Join tokens on disk: one file each, used up by a rename.
//!
//! ```text
//! tokens/<id>.json    good, until it expires
//! tokens/<id>.used    used up; kept for a day so that a second use is named
//! ```
//!
//! Using a token up is one rename, of which only one of two attempts can
//! succeed, flushed to disk before anything is signed: after a crash a used
//! token is still used.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Error, Grant, MAX_TOKENS, StoredToken, TokenStore, at};
use crate::files;
use crate::join_token::{Credential, TokenId};

/// Largest token file that is read.
const MAX_FILE_BYTES: u64 = 8 * 1024;
/// Endings of the files of good and of used tokens.
const GOOD: &str = "json";
const USED: &str = "used";

/// The folder of tokens.
#[derive(Debug)]
pub(in crate::ca) struct FolderTokens {
    folder: PathBuf,
    /// Most files in it.
    capacity: usize,
}

impl FolderTokens {
    pub(in crate::ca) fn new(folder: PathBuf) -> Self {
        Self { folder, capacity: MAX_TOKENS }
    }

    fn place(&self, id: TokenId, ending: &str) -> PathBuf {
        // An ID prints as hexadecimal digits: no way out of the folder.
        self.folder.join(format!("{id}.{ending}"))
    }

    fn read(&self, place: &Path) -> Result<Option<StoredToken>, Error> {
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

impl TokenStore for FolderTokens {
    fn add(&self, credential: &Credential, token: &StoredToken, now: SystemTime) -> Result<(), Error> {
        if self.sweep(now)? >= self.capacity {
            return Err(Error::TooMany);
        }
        let place = self.place(credential.id(), GOOD);
        let text = serde_json::to_vec(token).map_err(|e| at(&place, io::Error::other(e)))?;
        files::write_new(&place, &text).map_err(|source| at(&place, source))
    }

    fn check(&self, credential: &Credential, now: SystemTime) -> Result<Grant, Error> {
        let id = credential.id();
        let good = self.read(&self.place(id, GOOD))?;
        let is_used = good.is_none();
        let file = match good {
            Some(file) => file,
            None => self.read(&self.place(id, USED))?.ok_or(Error::Unknown)?,
        };
        file.grant(credential, is_used, now)
    }

    /// When this returns, it is used even after a crash.
    fn use_up(&self, grant: &Grant) -> Result<(), Error> {
        let (good, used) = (self.place(grant.id, GOOD), self.place(grant.id, USED));
        fs::rename(&good, &used).map_err(|source| {
            // Another request with the same token was faster.
            let is_gone = source.kind() == io::ErrorKind::NotFound;
            if is_gone { Error::Used } else { at(&good, source) }
        })?;
        files::flush_folder(&self.folder).map_err(|source| at(&self.folder, source))
    }

    fn sweep(&self, now: SystemTime) -> Result<usize, Error> {
        let entries = fs::read_dir(&self.folder).map_err(|source| at(&self.folder, source))?;
        let mut left = 0;
        for entry in entries {
            let path = entry.map_err(|source| at(&self.folder, source))?.path();
            let is_old = match self.read(&path) {
                Ok(Some(file)) => file.is_old(now),
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
}

#[cfg(test)]
mod tests;
