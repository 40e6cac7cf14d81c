//! The admin socket's file: made private, taken over without a gap, removed only by its owner.
//!
//! A new sidecar starts while the old one still runs. It binds under a name of its own and renames that over the old
//! name: whoever connects reaches either the old process or the new one, never nobody. The old process then must not
//! remove the file, which is why it looks whether the inode is still its own.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

/// A listening admin socket. Dropping it removes the file, if it is still this socket's.
#[derive(Debug)]
pub struct BoundSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of our file.
    file: (u64, u64),
}

impl BoundSocket {
    /// What it accepts on.
    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

/// Binds the admin socket: mode 0600, in a folder that is made with 0700 if it is missing. A socket that is there
/// already, of a dead process or of one that we replace, is taken over. Call inside a runtime; touches the file system.
///
/// # Errors
/// Something other than a socket is there (it is left alone), or as the operating system reports.
pub fn bind_socket(path: &Path) -> io::Result<BoundSocket> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is there and is no socket", path.display()),
            ));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let own_name = own_name(path);
    match fs::remove_file(&own_name) {
        // Left by a dead process with our process ID.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(&own_name)?;
    // Before the rename, so that it is never reachable under its known name with a wider mode.
    fs::set_permissions(&own_name, Permissions::from_mode(0o600))?;
    let metadata = fs::symlink_metadata(&own_name)?;
    fs::rename(&own_name, path)?;
    Ok(BoundSocket { listener, path: path.to_owned(), file: (metadata.dev(), metadata.ino()) })
}

/// The name it is bound under first. `config` leaves room for it in the longest path.
fn own_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    name.into()
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == self.file);
        if !is_ours {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "admin socket stays behind");
        }
    }
}
