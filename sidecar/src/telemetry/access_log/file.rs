//! What records are written to: standard output, or a file that may be moved away at any time.
//!
//! Whoever can write in a folder on the way to the file could put a symbolic link there and have us append to a file of
//! our own choosing. So such a way is gone without following any link, and only a plain file of our own with one name is
//! taken. Where nobody but us and root can write on the way, links, devices and pipes are as good as files.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Component, Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags, openat},
    process::geteuid,
};

use crate::clock::Clock;

/// Mode of a new file, less what the process's mask takes away: the log is nothing for everybody.
const MODE: u32 = 0o640;
/// Time between two looks whether the file is still in its place.
const LOOK: Duration = Duration::from_secs(1);
/// Written at once to standard output: what a pipe takes as a whole (PIPE_BUF), so that what others write into the same
/// pipe comes between records and not into them.
const CHUNK_BYTES: usize = 4096;

/// The place itself.
#[derive(Debug)]
pub(super) struct Outlet {
    /// `None`: standard output.
    path: Option<PathBuf>,
    clock: Clock,
    open: Option<Open>,
    looked: Option<Instant>,
    /// Why it is not open.
    problem: Option<io::Error>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Device and inode.
    identity: (u64, u64),
}

impl Outlet {
    /// Not open yet.
    pub(super) fn new(path: Option<PathBuf>, clock: &Clock) -> Self {
        Self { path, clock: clock.clone(), open: None, looked: None, problem: None }
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "standard output".to_owned(), |path| path.display().to_string())
    }

    /// Opens it if it is not open; once a second, or if it must, looks whether the file is still in its place and opens
    /// it anew if not. Returns whether another file is open than before. A file that cannot be opened anew leaves the
    /// one before: no record is lost by it.
    pub(super) fn renew(&mut self, must_look: bool) -> bool {
        let now = self.clock.now();
        let is_due = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK);
        if self.open.is_some() && (self.path.is_none() || !(is_due || must_look)) {
            return false;
        }
        self.looked = Some(now);
        if let (Some(open), Some(path)) = (&self.open, &self.path)
            && fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == open.identity)
        {
            return false;
        }
        match open(self.path.as_deref()) {
            Ok(new) => {
                self.problem = None;
                self.open.replace(new).is_some()
            }
            Err(error) => {
                self.problem = Some(error);
                false
            }
        }
    }

    /// Writes some of it.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let Some(open) = &mut self.open else {
            return Err(self.problem.take().unwrap_or_else(|| io::ErrorKind::NotFound.into()));
        };
        let chunk = if self.path.is_none() { whole_lines(lines) } else { lines };
        open.file.write(chunk)
    }
}

/// As many whole lines as may be written at once; of a line that is longer, all.
fn whole_lines(lines: &[u8]) -> &[u8] {
    let head = lines.get(..CHUNK_BYTES).unwrap_or(lines);
    let end = head.iter().rposition(|byte| *byte == b'\n');
    let end = end.or_else(|| lines.iter().position(|byte| *byte == b'\n')).map_or(lines.len(), |at| at + 1);
    lines.get(..end).unwrap_or(lines)
}

fn open(path: Option<&Path>) -> io::Result<Open> {
    let file = match path {
        None => File::from(io::stdout().as_fd().try_clone_to_owned()?),
        Some(path) => {
            let path = &from_root(path, std::env::current_dir)?;
            if is_private(path)? {
                OpenOptions::new().append(true).create(true).mode(MODE).open(path)?
            } else {
                open_among_others(path)?
            }
        }
    };
    let metadata = file.metadata()?;
    Ok(Open { file, identity: (metadata.dev(), metadata.ino()) })
}

/// The path from the root, of one that begins in the `working` folder: a bare name has no folder of its own.
fn from_root(path: &Path, working: impl FnOnce() -> io::Result<PathBuf>) -> io::Result<PathBuf> {
    Ok(if path.is_absolute() { path.to_owned() } else { working()?.join(path) })
}

/// Whether nobody but us and root can change what the path leads to: by its own folders, and by those that links lead
/// to.
fn is_private(path: &Path) -> io::Result<bool> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let real = fs::canonicalize(folder)?;
    for folder in folder.ancestors().chain(real.ancestors()).filter(|path| !path.as_os_str().is_empty()) {
        let (link, itself) = (fs::symlink_metadata(folder)?, fs::metadata(folder)?);
        if !is_ours(link.uid()) || !is_ours(itself.uid()) || itself.mode() & 0o022 != 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_ours(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw()
}

/// Opens a file where others can write, too.
fn open_among_others(path: &Path) -> io::Result<File> {
    let refused = |problem: &str| {
        let problem = format!("others can write in a folder on the way to it, and {problem}");
        io::Error::new(io::ErrorKind::PermissionDenied, problem)
    };
    let strange = |error: rustix::io::Errno| match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => refused("a symbolic link is on the way"),
        other => other.into(),
    };
    let name = path.file_name().ok_or_else(|| refused("it names no file"))?;
    let folder = folder_without_links(path.parent().unwrap_or(Path::new("/")), &strange, &refused)?;
    // A pipe without a reader would block here.
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    let file = File::from(openat(folder, name, flags, Mode::from_raw_mode(MODE)).map_err(strange)?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(refused("it is no plain file"));
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(refused("the file belongs to another user"));
    }
    if metadata.nlink() > 1 {
        return Err(refused("the file has another name, too"));
    }
    Ok(file)
}

fn folder_without_links(
    folder: &Path,
    strange: &impl Fn(rustix::io::Errno) -> io::Error,
    refused: &impl Fn(&str) -> io::Error,
) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let enter = |from: &OwnedFd, name: &OsStr| openat(from, name, flags, Mode::empty()).map_err(strange);
    let mut at = rustix::fs::open("/", flags, Mode::empty())?;
    for component in folder.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => at = enter(&at, name)?,
            Component::ParentDir | Component::Prefix(_) => return Err(refused("`..` is on the way")),
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn shared_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        folder
    }

    #[test]
    fn a_file_among_others_is_ours_alone_or_refused() {
        let folder = shared_folder();
        let path = folder.path().join("access.log");
        let mut file = open(Some(&path)).unwrap().file;
        file.write_all(b"one\n").unwrap();
        open(Some(&path)).unwrap().file.write_all(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o027, 0, "nothing for everybody");

        let refusal = |name: &str| open(Some(&folder.path().join(name))).unwrap_err().to_string();
        symlink(&path, folder.path().join("link")).unwrap();
        assert!(refusal("link").contains("symbolic link"), "{}", refusal("link"));
        fs::hard_link(&path, folder.path().join("twin")).unwrap();
        assert!(refusal("twin").contains("another name"), "{}", refusal("twin"));
        symlink(folder.path(), folder.path().join("way")).unwrap();
        assert!(refusal("way/x").contains("symbolic link"), "{}", refusal("way/x"));
        assert!(refusal("../x/../y").contains("`..`") || refusal("../x/../y").contains("No such file"));
        assert!(open(Some(folder.path())).is_err(), "a folder");
    }

    #[test]
    fn a_relative_path_starts_at_the_working_folder() {
        let folder = tempfile::tempdir().unwrap();
        let working = || Ok(folder.path().to_owned());
        let path = from_root(Path::new("access.log"), working).unwrap();
        open(Some(&path)).unwrap().file.write_all(b"one\n").unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("access.log")).unwrap(), "one\n");
        let elsewhere = || Err(io::ErrorKind::NotFound.into());
        assert_eq!(from_root(&path, elsewhere).unwrap(), path, "a whole path needs no working folder");
    }

    #[test]
    fn where_only_we_can_write_a_device_is_as_good_as_a_file() {
        assert!(is_private(Path::new("/dev/null")).unwrap());
        open(Some(Path::new("/dev/null"))).unwrap();
    }

    #[test]
    fn what_goes_to_a_pipe_at_once_is_whole_lines() {
        let line = [vec![b'x'; 999], vec![b'\n']].concat();
        assert_eq!(whole_lines(&line.repeat(10)).len(), 4000);
        assert_eq!(whole_lines(&line).len(), 1000);
        let long = [vec![b'x'; 5000], vec![b'\n'], vec![b'y'; 10], vec![b'\n']].concat();
        assert_eq!(whole_lines(&long).len(), 5001);
    }
}
