//! Files that survive a crash and that nobody else can read.
//!
//! A file is written beside its name, flushed, renamed, and the folder is
//! flushed: after a crash either the old or the new content is there. Modes
//! are given when a file is made, so the umask cannot widen them. Temporary
//! names are random: processes that share a folder over a volume may share a
//! process ID, too.
//!
//! Calls block for as long as the disk takes, some milliseconds.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Bits of a mode that stand for others than the owner.
const OTHERS: u32 = 0o077;

/// Makes a folder for its owner alone, with the folders above it, unless it
/// is there.
///
/// # Errors
/// When it cannot be made.
pub fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Why a folder is not private.
#[derive(Debug, PartialEq, Eq)]
pub enum NotPrivate {
    /// Group or others have rights; the mode is given.
    Mode(u32),
    /// Another user owns it; the user's number is given.
    Owner(u32),
    /// It is not a folder.
    NotAFolder,
}

/// Whether a folder belongs to this process' user alone.
///
/// # Errors
/// When it cannot be looked at.
pub fn check_private(path: &Path) -> io::Result<Option<NotPrivate>> {
    check_private_to(path, rustix::process::geteuid().as_raw())
}

fn check_private_to(path: &Path, user: u32) -> io::Result<Option<NotPrivate>> {
    let found = fs::metadata(path)?;
    if !found.is_dir() {
        return Ok(Some(NotPrivate::NotAFolder));
    }
    if found.uid() != user {
        return Ok(Some(NotPrivate::Owner(found.uid())));
    }
    let mode = found.mode() & 0o7777;
    Ok((mode & OTHERS != 0).then_some(NotPrivate::Mode(mode)))
}

/// Writes a file, for its owner alone, so that readers see either the old or
/// the whole new content.
///
/// # Errors
/// When any step fails; then the old content is untouched.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    with_temporary(path, content, |temporary| fs::rename(temporary, path))
}

/// As [`write_atomically`], but never replaces a file.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if there is one.
pub fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    with_temporary(path, content, |temporary| {
        // Unlike rename, a link fails if the name is taken.
        fs::hard_link(temporary, path)?;
        fs::remove_file(temporary)
    })
}

fn with_temporary(
    path: &Path,
    content: &[u8],
    publish: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let (folder, name) = (folder_of(path), path.file_name().unwrap_or_default().to_string_lossy());
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(io::Error::other)?;
    let temporary = folder.join(format!(".{name}.{:016x}.tmp", u64::from_be_bytes(random)));
    let written = write_flushed(&temporary, content).and_then(|()| publish(&temporary));
    if let Err(error) = written {
        // The error of the write matters; the leftover is swept by nobody but harmless.
        drop(fs::remove_file(&temporary));
        return Err(error);
    }
    flush_folder(folder)
}

fn write_flushed(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes the names in a folder survive a crash.
///
/// # Errors
/// When the folder cannot be opened or flushed.
pub fn flush_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The folder a file is in; `.` for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_private_to_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = &folder.path().join("private");
        make_folder(path).unwrap();
        let owner = fs::metadata(path).unwrap().uid();
        assert!(check_private_to(path, owner).unwrap().is_none());
        assert!(
            matches!(check_private_to(path, owner + 1), Ok(Some(NotPrivate::Owner(found))) if found == owner)
        );
    }
}
