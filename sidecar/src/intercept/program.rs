//! Running `nft` and `ip`: by their path, never by a shell, and never for long.

use std::{io, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command};

/// Where the programs are if not on the path.
const FOLDERS: [&str; 2] = ["/usr/sbin/", "/sbin/"];
/// Longest run of a program. Each asks the kernel a few things; loading its modules may take a second.
const LIMIT: Duration = Duration::from_secs(10);

/// A program of the system that does what we have no crate for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Loads and lists the rules; of the package `nftables`.
    Nft,
    /// Routing rules; of the package `iproute2`.
    Ip,
}

impl Program {
    /// Its name and that of its package.
    #[must_use]
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Nft => ("nft", "nftables"),
            Self::Ip => ("ip", "iproute2"),
        }
    }
}

/// Why a program did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not here.
    #[error("there is no `{}` on the path, in /usr/sbin or in /sbin: install {}", .0.names().0, .0.names().1)]
    Missing(Program),
    /// It did not start, or could not be given its input.
    #[error("running `{}`", .0.names().0)]
    Run(Program, #[source] io::Error),
    /// It did not end in time and was ended.
    #[error("`{}` had not ended after {LIMIT:?}", .0.names().0)]
    Late(Program),
    /// It ended with a failure; what it said about it.
    #[error("`{}`: {}", .0.names().0, .1.trim())]
    Failed(Program, String),
}

/// Runs a program to its end and returns what it wrote.
///
/// # Errors
/// Every end but a good one.
pub(super) async fn run(program: Program, arguments: &[&str], input: &str) -> Result<String, Error> {
    let (name, _) = program.names();
    let paths = [name.to_owned()].into_iter().chain(FOLDERS.map(|folder| format!("{folder}{name}")));
    for path in paths {
        match tokio::time::timeout(LIMIT, run_at(&path, arguments, input)).await {
            Err(_elapsed) => return Err(Error::Late(program)),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(Err(error)) => return Err(Error::Run(program, error)),
            Ok(Ok(Ok(output))) => return Ok(output),
            Ok(Ok(Err(complaint))) => return Err(Error::Failed(program, complaint)),
        }
    }
    Err(Error::Missing(program))
}

async fn run_at(path: &str, arguments: &[&str], input: &str) -> io::Result<Result<String, String>> {
    let mut child = Command::new(path)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()).await {
            // It ended before it had read all: how, it says itself.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written?,
        }
    }
    let output = child.wait_with_output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}
