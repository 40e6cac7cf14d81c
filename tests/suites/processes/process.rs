//! One process: started with a log file, signalled, waited for, and gone when dropped.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// Lines of a log that a failed test shows.
const SHOWN_LINES: usize = 40;

/// The built program of that name: in the folder that `OUTRIDER_PROGRAMS` names, or beside the test binary's folder, in
/// `target/<profile>/`.
///
/// # Panics
/// If it was not built.
pub(crate) fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the test binary has a path");
    let beside = own.ancestors().nth(2).expect("target/<profile>/deps/<binary>");
    let folder = std::env::var_os("OUTRIDER_PROGRAMS").map_or_else(|| beside.to_owned(), PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "there is no {}: `cargo test --workspace` builds it, or `cargo build --workspace --bins`",
        path.display()
    );
    path
}

/// A running process. Dropped, it is killed; in a failing test the end of its log is shown.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    pid: Pid,
}

impl Process {
    /// Starts `program`, with its output in `folder/<name>.log`.
    pub(crate) fn start<A: Into<OsString>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        folder: &Path,
    ) -> Self {
        let log = folder.join(format!("{name}.log"));
        let output = OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        let child = Command::new(program)
            .args(arguments.into_iter().map(Into::into))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).expect("it has a process ID");
        Self { name: name.to_owned(), log, child, pid }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Everything it has written so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    pub(super) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Its sockets stay open, and nobody reads them.
    pub(super) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(super) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap_or_else(|error| panic!("signalling {}: {error}", self.name));
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it can be waited for").is_some()
    }

    /// Waits for its end.
    pub(crate) async fn exited(&mut self, limit: Duration) -> ExitStatus {
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(status) => status.expect("it can be waited for"),
            Err(_elapsed) => panic!("{} had not ended after {limit:?}", self.name),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = lines.len().saturating_sub(SHOWN_LINES);
            eprintln!("--- the end of the log of {} ---\n{}", self.name, lines[shown..].join("\n"));
        }
    }
}
