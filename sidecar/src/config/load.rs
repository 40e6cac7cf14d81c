//! From a path to [`Settings`].

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use outrider_certs::certificate::sha256;

use super::{Environment, Fault, Settings, raw, validate};
use crate::model::{
    cluster::EndpointSource,
    file::{MAX_FILE_BYTES, lines, parse_endpoints, read as read_yaml},
};

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] Unreadable),
    /// The file is faulty. Shown with one line per fault (a fault in the YAML itself with the lines around it).
    #[error("{}", lines(.0))]
    Faults(Vec<Fault>),
}

/// The file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}")]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// The text of a configuration file, as it was read.
#[derive(Clone, Debug)]
pub struct Text {
    path: PathBuf,
    text: String,
    sha256: String,
}

/// Reads a configuration file. Blocks on file I/O.
///
/// # Errors
/// It cannot be read, or is too large.
pub fn read(path: &Path) -> Result<Text, Unreadable> {
    let unreadable = |source| Unreadable { path: path.to_owned(), source };
    let text = read_bounded(path).map_err(unreadable)?;
    let sha256 = sha256(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Text { path: path.to_owned(), text, sha256 })
}

impl Text {
    /// Where it was read.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its SHA-256 in hexadecimal, as `sha256sum` shows it.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// What it says, with what the process's environment adds to it. Relative paths in it start at its folder. Blocks on file I/O: endpoints files that exist are checked
    /// too; one that does not exist yet is no fault, since whatever writes it may start later.
    ///
    /// # Errors
    /// [`Error::Faults`] with everything that is wrong.
    pub fn settings(&self) -> Result<Settings, Error> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let settings = parse_in(&self.text, folder, &Environment::of_process())?;
        let faults = endpoints_file_faults(&settings);
        if faults.is_empty() { Ok(settings) } else { Err(Error::Faults(faults)) }
    }
}

/// Reads and checks a configuration file: [`read`], then [`Text::settings`].
///
/// # Errors
/// The file cannot be read, or everything that is wrong with it.
pub fn load(path: &Path) -> Result<Settings, Error> {
    read(path)?.settings()
}

/// Checks a configuration's text. Relative paths in it start at `folder`. Touches no file and no environment.
///
/// # Errors
/// [`Error::Faults`] with everything that is wrong.
pub fn parse(text: &str, folder: &Path) -> Result<Settings, Error> {
    parse_in(text, folder, &Environment::default())
}

/// The same with the variables of an environment.
///
/// # Errors
/// As [`parse`]. What is wrong with a variable is no fault, but among the warnings of `telemetry`.
pub fn parse_in(text: &str, folder: &Path, environment: &Environment) -> Result<Settings, Error> {
    let file: raw::File = read_yaml(text).map_err(|fault| Error::Faults(vec![fault]))?;
    validate::settings(&file, folder, environment).map_err(Error::Faults)
}

/// Reads a text file of at most [`MAX_FILE_BYTES`].
fn read_bounded(path: &Path) -> io::Result<String> {
    let bound = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
    let mut text = String::new();
    // One byte more than allowed, so that a file that is too long is told from one that just fits.
    File::open(path)?.take(bound.saturating_add(1)).read_to_string(&mut text)?;
    if text.len() > MAX_FILE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {MAX_FILE_BYTES} bytes"),
        ));
    }
    Ok(text)
}

fn endpoints_file_faults(settings: &Settings) -> Vec<Fault> {
    let mut faults = Vec::new();
    for cluster in &settings.clusters {
        let EndpointSource::File { path, default_spiffe_ids } = &cluster.source else { continue };
        match read_bounded(path) {
            Ok(text) => {
                let found =
                    parse_endpoints(&text, &cluster.expected(default_spiffe_ids)).err().unwrap_or_default();
                // Each names its file, since its path and line are those of that file.
                faults.extend(found.into_iter().map(|fault| in_file(path, fault)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => faults.push(Fault {
                path: path.display().to_string(),
                line: None,
                problem: format!("cannot be read: {error}"),
                remedy: "make it readable for the sidecar's user".to_owned(),
            }),
        }
    }
    faults
}

fn in_file(file: &Path, fault: Fault) -> Fault {
    let separator = if fault.path.is_empty() { "" } else { ": " };
    Fault { path: format!("{}{separator}{}", file.display(), fault.path), ..fault }
}
