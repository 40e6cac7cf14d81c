//! One process of the mesh: started with a log file, watched, ended for certain.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{
    process::{Child, Command},
    sync::watch,
};

use crate::effects;

/// Time for a process to be ready after its start.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at something that is awaited.
const POLL: Duration = Duration::from_millis(20);
/// Lines of a log that an error message shows.
const SHOWN_LOG_LINES: usize = 12;

/// How to start a process.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its name in messages, and of its log file.
    pub name: String,
    /// Its program's file.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Folder of logs.
    pub logs: PathBuf,
}

/// A process that was started. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    pid: Pid,
    /// Signals go through this: a number might stand for someone else after the process ended.
    pidfd: OwnedFd,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Starts a process in a group of its own, so that Ctrl-C in the terminal reaches only the demo, which then stops
    /// things in order. What it writes goes to its log file. Must be called inside a runtime.
    ///
    /// # Errors
    /// If its program can't be started or its log can't be written.
    pub fn start(start: Start) -> anyhow::Result<Self> {
        let log = start.logs.join(format!("{}.log", start.name));
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening the log {}", log.display()))?;
        let child = Command::new(&start.program)
            .args(&start.arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {} ({})", start.name, start.program.display()))?;
        let pid =
            child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).context("it has no process ID")?;
        let pidfd =
            pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("watching {}", start.name))?;
        let (told, exit) = watch::channel(None);
        drop(effects::spawn(wait(child, told)));
        Ok(Self { name: start.name, log, pid, pidfd, exit })
    }

    /// Its name in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process ID.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Asks it to stop (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it without asking (SIGKILL).
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Freezes it (SIGSTOP): its sockets stay open, and nobody reads them.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Tells it that something it has read has changed (SIGHUP).
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Makes a `service` ill, or well again (SIGUSR1, SIGUSR2).
    pub fn set_ill(&self, is_ill: bool) {
        self.signal(if is_ill { Signal::USR1 } else { Signal::USR2 });
    }

    fn signal(&self, signal: Signal) {
        // The one thing that can go wrong is that it ended before.
        let _already_gone = pidfd_send_signal(&self.pidfd, signal);
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits until it ends. Cancel-safe.
    pub async fn exited(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        // The task that waits for the process only goes away with the runtime, or with a failed wait.
        status.unwrap_or_else(|| ExitStatus::from_raw(-1))
    }

    /// Waits until `is_there`. `what` says it after the process's name: `to listen`.
    ///
    /// # Errors
    /// If the process ends, or it takes too long; with the end of its log.
    pub async fn awaited(&self, what: &str, is_there: impl AsyncFn() -> bool) -> anyhow::Result<()> {
        let deadline = effects::now() + START_DEADLINE;
        loop {
            if let Some(status) = self.exit_status() {
                bail!("{} ended ({status}) while it was awaited {what}. {}", self.name, self.last_words());
            }
            if is_there().await {
                return Ok(());
            }
            if effects::now() >= deadline {
                bail!(
                    "{} took more than {START_DEADLINE:?} {what}. {}\n\
                     On a machine with much else to do, trying again may help.",
                    self.name,
                    self.last_words()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The end of its log with its path, for an error message.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let shown = lines.len().saturating_sub(SHOWN_LOG_LINES);
        let mut words = match lines.is_empty() {
            true => format!("Its log is empty: {}", self.log.display()),
            false => format!("The end of its log, {}:", self.log.display()),
        };
        for line in lines.iter().skip(shown) {
            words.push_str("\n    ");
            words.push_str(line);
        }
        words
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn wait(mut child: Child, told: watch::Sender<Option<ExitStatus>>) {
    if let Ok(status) = child.wait().await {
        told.send_replace(Some(status));
    }
}

/// Runs a tool to its end and returns what it printed.
///
/// # Errors
/// If it can't be started, or says no: then with what it said.
pub async fn run_tool(program: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let what = || format!("{} {}", program.display(), arguments.join(" "));
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("starting {}", what()))?;
    anyhow::ensure!(
        output.status.success(),
        "{} failed ({}):\n{}",
        what(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(())
}

/// A path as an argument of a tool.
///
/// # Errors
/// If it is no text.
pub fn utf8(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8; give another --dir", path.display()))
}
