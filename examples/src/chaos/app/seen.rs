//! How many requests an app has seen: kept in a file, so that killing the app does not lose the count.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

const NAME: &str = "seen";

/// The count of one app; the app after it in the same folder goes on where it ended.
#[derive(Debug)]
pub(super) struct Seen {
    file: File,
    count: AtomicU64,
}

impl Seen {
    /// Opens the count in that folder.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let count = AtomicU64::new(read(folder));
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(NAME))?;
        Ok(Self { file, count })
    }

    /// One more. The file is in memory until the system gets round to writing it; that is all a count needs.
    pub(super) fn raise(&self) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        // A count that can't be written shows up as too few attempts, not as a failed request.
        self.file.write_all_at(&count.to_le_bytes(), 0).unwrap_or_default();
    }
}

/// The count in that folder; 0 if there is none.
#[must_use]
pub fn read(folder: &Path) -> u64 {
    let mut bytes = [0; 8];
    let file = File::open(folder.join(NAME)).and_then(|file| file.read_exact_at(&mut bytes, 0));
    file.map_or(0, |()| u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_app_in_the_folder_counts_on() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(read(folder.path()), 0);
        (0..3).for_each(|_| Seen::open(folder.path()).expect("opened").raise());
        assert_eq!(read(folder.path()), 3);
    }
}
