//! What is wrong with an app, as a file tells it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// How an app behaves; by default it is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Status of answers that fail; none fail without.
    pub status: Option<u16>,
    /// How many of a hundred answers fail; all of them, if that many is not given.
    pub percent: Option<u8>,
    /// Wait before each answer, in milliseconds.
    pub delay_ms: u64,
}

impl Fault {
    /// Where the app in that folder finds it.
    #[must_use]
    pub fn file(folder: &Path) -> PathBuf {
        folder.join("fault.json")
    }

    /// What the file says; an app without one is well.
    ///
    /// # Errors
    /// If it can't be read, or is not what a fault looks like.
    pub fn read(folder: &Path) -> io::Result<Self> {
        match fs::read(Self::file(folder)) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes the file, for an app to read when it is told to (SIGHUP).
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(self, folder: &Path) -> io::Result<()> {
        fs::write(Self::file(folder), serde_json::to_vec(&self)?)
    }

    /// The wait before each answer.
    #[must_use]
    pub fn delay(self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    /// The status of one answer that fails; `None`: this one is good.
    #[must_use]
    pub fn of_one(self, rng: &mut fastrand::Rng) -> Option<u16> {
        let is_failing = rng.u8(..100) < self.percent.unwrap_or(100);
        self.status.filter(|_| is_failing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_answers_fails_and_without_a_share_all_of_them() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut failing = |fault: Fault| (0..1000).filter(|_| fault.of_one(&mut rng).is_some()).count();
        assert_eq!(failing(Fault::default()), 0);
        assert_eq!(failing(Fault { status: Some(503), ..Fault::default() }), 1000);
        let tenth = failing(Fault { status: Some(500), percent: Some(10), delay_ms: 0 });
        assert!((60..140).contains(&tenth), "{tenth}");
    }

    #[test]
    fn a_fault_is_read_as_it_was_written_and_no_file_means_well() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(Fault::read(folder.path()).expect("well"), Fault::default());
        let fault = Fault { status: Some(503), percent: Some(7), delay_ms: 2000 };
        fault.write(folder.path()).expect("written");
        assert_eq!(Fault::read(folder.path()).expect("read"), fault);
    }
}
