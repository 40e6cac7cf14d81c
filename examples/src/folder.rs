//! The folder that a run's files are in.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;

/// The folder of a run: the one asked for, or a temporary one, which goes when nobody needs it any more.
#[derive(Debug)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    is_temporary: bool,
}

impl Folder {
    /// `name` is in the name of a temporary one, which is not made yet.
    ///
    /// # Errors
    /// If there is something in the one asked for.
    pub fn new(name: &str, asked: Option<&Path>) -> anyhow::Result<Self> {
        let Some(asked) = asked else {
            // Short, for the sockets in it; the folder itself is made with access for its owner only.
            let path = env::temp_dir().join(format!("outrider-{name}-{:08x}", fastrand::u32(..)));
            return Ok(Self { path, is_temporary: true });
        };
        let path = std::path::absolute(asked).with_context(|| format!("--dir {}", asked.display()))?;
        let is_empty = fs::read_dir(&path).map_or(true, |mut entries| entries.next().is_none());
        anyhow::ensure!(is_empty, "--dir {}: there is something in it; give an empty folder", path.display());
        Ok(Self { path, is_temporary: false })
    }

    /// Removes it if it is temporary, and passes the exit code on.
    #[must_use]
    pub fn leave(self, code: u8) -> ExitCode {
        if self.is_temporary {
            // What can't be removed stays in the system's temporary folder, where things are expected to be left.
            drop(fs::remove_dir_all(&self.path));
        }
        ExitCode::from(code)
    }
}
