//! The issuance log: one JSON object per line for every certificate signed.
//!
//! A line is appended and flushed before the certificate leaves the CA, so
//! what is not in the log was never handed out. Lines hold no secrets. A
//! file is opened for every line: it may be moved away at any time.
//!
//! In a container the lines go to standard output, where whoever runs the
//! container collects them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::review::Pod;
use crate::files;
use crate::spiffe_id::SpiffeId;

/// How the caller proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ProofKind {
    /// A join token.
    JoinToken,
    /// Its current SVID.
    Svid,
    /// A service account's token.
    ServiceAccount,
    /// The operator, with `outrider-ca issue`.
    Operator,
    /// None: it is the CA's own server certificate.
    CaItself,
}

/// A line.
#[derive(Debug, Serialize)]
pub(super) struct Entry<'a> {
    /// RFC 3339.
    pub(super) time: String,
    pub(super) serial: String,
    pub(super) spiffe_id: &'a SpiffeId,
    pub(super) proof: ProofKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_id: Option<String>,
    /// The pod that a service account's token is bound to.
    #[serde(flatten)]
    pub(super) pod: Option<&'a Pod>,
    /// RFC 3339.
    pub(super) not_after: String,
    /// SHA-256 of the certified public key, hexadecimal.
    pub(super) key_sha256: String,
    /// The sequence of the bundle that the caller holds; 0 = none or unknown.
    pub(super) bundle_sequence: u64,
}

/// Where the lines go to.
#[derive(Debug)]
pub(super) enum IssuanceLog {
    /// The file of that name.
    File(PathBuf),
    /// Standard output, and nothing else does.
    #[cfg(feature = "kubernetes")]
    Output,
}

impl IssuanceLog {
    pub(super) fn in_file(place: PathBuf) -> Self {
        Self::File(place)
    }

    /// Where that is, for messages.
    pub(super) fn place(&self) -> std::path::Display<'_> {
        match self {
            Self::File(place) => place.display(),
            #[cfg(feature = "kubernetes")]
            Self::Output => Path::new("standard output").display(),
        }
    }

    /// Writes a line and flushes it.
    pub(super) fn append(&self, entry: &Entry<'_>) -> io::Result<()> {
        match self {
            Self::File(place) => append(place, entry),
            #[cfg(feature = "kubernetes")]
            Self::Output => {
                let mut line = serde_json::to_vec(entry)?;
                line.push(b'\n');
                let mut output = io::stdout().lock();
                output.write_all(&line)?;
                output.flush()
            }
        }
    }
}

/// Several processes may do so at once: a line is one write to a file opened
/// for appending.
fn append(place: &Path, entry: &Entry<'_>) -> io::Result<()> {
    let is_new = !fs::exists(place)?;
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(place)?;
    let mut line = Vec::with_capacity(512);
    if ends_in_half_a_line(&file)? {
        line.push(b'\n');
    }
    serde_json::to_writer(&mut line, entry)?;
    line.push(b'\n');
    file.write_all(&line)?;
    file.sync_data()?;
    if is_new { files::flush_folder(files::folder_of(place)) } else { Ok(()) }
}

/// Whether a crash or a full disk cut the last line short.
fn ends_in_half_a_line(file: &File) -> io::Result<bool> {
    let Some(last) = file.metadata()?.len().checked_sub(1) else { return Ok(false) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte != *b"\n")
}
