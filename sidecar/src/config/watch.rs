//! The configuration file, watched.
//!
//! It is looked at every second, not notified of: editors, `mv` and Kubernetes volumes (whose `..data` link is turned
//! to another folder) replace files in ways that a notification may miss. A change counts when two reads in a row,
//! [`SETTLE`] apart, find the same: whoever writes in place is given time to finish.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Text, Unreadable, read};

/// Time between two looks.
const POLL: Duration = Duration::from_secs(1);
/// Time between two reads of a file that has changed.
const SETTLE: Duration = Duration::from_millis(250);
/// Reads of a file that keeps changing; then it is taken as it is. What is half written is mostly a fault, which
/// changes nothing.
const MAX_READS: u32 = 20;
/// Looks after a change that read the file whatever its metadata say: a second change within the granularity of
/// timestamps leaves them as they are.
const RECHECKS: u32 = 2;

/// A watched configuration file.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    stamp: Option<Stamp>,
    rechecks: u32,
    taken: Seen,
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What one read found, as far as it is compared: the text's SHA-256, or why there is none.
type Seen = Result<String, io::ErrorKind>;

impl Watch {
    /// Watches the file that `text` was read from.
    #[must_use]
    pub fn new(text: &Text) -> Self {
        Self { path: text.path().to_owned(), stamp: None, rechecks: RECHECKS, taken: seen(&Ok(text.clone())) }
    }

    /// Waits until the file says something else than what was last taken, and reads it. Cancel-safe.
    ///
    /// # Errors
    /// It cannot be read any more; told once.
    pub async fn changed(&mut self) -> Result<Text, Unreadable> {
        loop {
            tokio::time::sleep(POLL).await;
            // Before the read: a change in between is seen at the next look.
            let stamp =
                blocking(&self.path, |path| fs::metadata(path).ok().map(|found| Stamp::of(&found))).await;
            if stamp != self.stamp {
                self.rechecks = RECHECKS;
            } else if self.rechecks == 0 {
                continue;
            }
            let text = self.settled().await;
            self.stamp = stamp;
            self.rechecks -= 1;
            if self.take(&text) {
                return text;
            }
        }
    }

    /// Reads the file now, whether it has changed or not. Cancel-safe.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn read(&mut self) -> Result<Text, Unreadable> {
        let text = blocking(&self.path, read).await;
        self.take(&text);
        text
    }

    /// Notes what was read; tells whether it is new.
    fn take(&mut self, text: &Result<Text, Unreadable>) -> bool {
        let seen = seen(text);
        let is_new = self.taken != seen;
        self.taken = seen;
        is_new
    }

    /// Reads until two reads in a row find the same.
    async fn settled(&self) -> Result<Text, Unreadable> {
        let mut text = blocking(&self.path, read).await;
        for _ in 1..MAX_READS {
            if seen(&text) == self.taken {
                break;
            }
            tokio::time::sleep(SETTLE).await;
            let again = blocking(&self.path, read).await;
            let stands = seen(&again) == seen(&text);
            text = again;
            if stands {
                break;
            }
        }
        text
    }
}

impl Stamp {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            file: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

fn seen(text: &Result<Text, Unreadable>) -> Seen {
    text.as_ref().map(|text| text.sha256().to_owned()).map_err(|error| error.source.kind())
}

/// Does file work where it may block: a volume that hangs must not hold up the control side.
async fn blocking<T: Send + 'static>(path: &Path, work: impl FnOnce(&Path) -> T + Send + 'static) -> T {
    let path = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    done.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;
    use tokio::time::Instant;

    use super::*;

    struct Bench {
        folder: TempDir,
        path: PathBuf,
        watch: Watch,
    }

    impl Bench {
        fn new(text: &str) -> Self {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join("outrider.yaml");
            fs::write(&path, text).unwrap();
            let watch = Watch::new(&read(&path).unwrap());
            Self { folder, path, watch }
        }

        fn write(&self, text: &str) {
            fs::write(&self.path, text).unwrap();
        }

        async fn changed(&mut self) -> Result<Text, Unreadable> {
            tokio::time::timeout(Duration::from_secs(30), self.watch.changed()).await.expect("a change")
        }

        async fn is_quiet(&mut self) -> bool {
            tokio::time::timeout(Duration::from_secs(30), self.watch.changed()).await.is_err()
        }
    }

    fn sha256_of(text: &str) -> String {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("same");
        fs::write(&path, text).unwrap();
        read(&path).unwrap().sha256().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_says_the_same_is_no_change() {
        let mut bench = Bench::new("one");
        assert!(bench.is_quiet().await);
        bench.write("one");
        assert!(bench.is_quiet().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_however_it_comes() {
        let mut bench = Bench::new("one");
        bench.write("two");
        assert_eq!(bench.changed().await.unwrap().sha256(), sha256_of("two"));
        let new = bench.folder.path().join("new");
        fs::write(&new, "three").unwrap();
        fs::rename(new, &bench.path).unwrap();
        assert_eq!(bench.changed().await.unwrap().sha256(), sha256_of("three"));
        assert!(bench.is_quiet().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_volumes_link_that_is_turned_is_a_change() {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("..v1", "one"), ("..v2", "two")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("outrider.yaml"), text).unwrap();
        }
        symlink("..v1", at("..data")).unwrap();
        symlink("..data/outrider.yaml", at("outrider.yaml")).unwrap();
        let mut watch = Watch::new(&read(&at("outrider.yaml")).unwrap());
        symlink("..v2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        assert_eq!(watch.changed().await.unwrap().sha256(), sha256_of("two"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_gone_is_told_once_and_its_return_is_seen() {
        let mut bench = Bench::new("one");
        fs::remove_file(&bench.path).unwrap();
        assert_eq!(bench.changed().await.unwrap_err().source.kind(), io::ErrorKind::NotFound);
        assert!(bench.is_quiet().await);
        bench.write("one");
        assert_eq!(bench.changed().await.unwrap().sha256(), sha256_of("one"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_writes_in_place_is_given_time_to_finish() {
        let mut bench = Bench::new("one");
        bench.write("");
        let path = bench.path.clone();
        tokio::spawn(async move {
            // From the first read on; no two reads find the same before all is written.
            tokio::time::sleep(POLL + SETTLE / 2).await;
            for text in ["t", "tw", "two"] {
                fs::write(&path, text).unwrap();
                tokio::time::sleep(SETTLE).await;
            }
        });
        assert_eq!(bench.changed().await.unwrap().sha256(), sha256_of("two"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_never_stands_still_is_taken_all_the_same() {
        let mut bench = Bench::new("0");
        let path = bench.path.clone();
        let writer = tokio::spawn(async move {
            for number in 1.. {
                fs::write(&path, number.to_string()).unwrap();
                tokio::time::sleep(SETTLE / 3).await;
            }
        });
        let started = Instant::now();
        bench.changed().await.unwrap();
        writer.abort();
        assert!(started.elapsed() < POLL * 2 + SETTLE * (MAX_READS + 1), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_when_asked_is_not_told_again() {
        let mut bench = Bench::new("one");
        bench.write("two");
        assert_eq!(bench.watch.read().await.unwrap().sha256(), sha256_of("two"));
        assert!(bench.is_quiet().await);
    }
}
