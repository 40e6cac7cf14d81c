//! Ends the mesh's processes if the demo is killed in a way that it cannot handle itself (SIGKILL, out of memory).
//!
//! A second, tiny process of this program reads the process IDs of the others from its standard input. When that
//! ends, the demo is gone, and so must they be. It holds a pidfd of each from the moment it was told, so a number
//! that the system gave to someone else since is never hit.

use std::{
    env,
    io::{self, BufRead, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::Context;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The demo's end of its watchdog.
#[derive(Debug)]
pub struct Watchdog {
    process: Child,
    input: Option<ChildStdin>,
}

impl Watchdog {
    /// Starts it.
    ///
    /// # Errors
    /// If this program's own file can't be started again.
    pub fn start() -> anyhow::Result<Self> {
        let program = env::current_exe().context("finding this program's own file")?;
        let mut process = Command::new(&program)
            .arg("--watchdog")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0) // Ctrl-C in the terminal is for the demo alone
            .spawn()
            .with_context(|| format!("starting the watchdog ({})", program.display()))?;
        let input = process.stdin.take();
        Ok(Self { process, input })
    }

    /// Names a process that must not outlive the demo.
    ///
    /// # Errors
    /// If the watchdog is gone.
    pub fn watch(&mut self, pid: Pid) -> io::Result<()> {
        match &mut self.input {
            Some(input) => writeln!(input, "{}", pid.as_raw_nonzero()),
            None => Ok(()),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // The end of its input ends it, after whatever is left of the mesh.
        drop(self.input.take());
        drop(self.process.wait());
    }
}

/// The watchdog's own work: until standard input ends, remember; then kill.
///
/// # Errors
/// Those of reading standard input; the processes are ended all the same.
pub fn run() -> io::Result<()> {
    let mut watched = Vec::new();
    let mut result = Ok(());
    for line in io::stdin().lock().lines() {
        match line {
            Ok(line) => watched.extend(open(&line)),
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    for process in watched {
        // Already gone is what it should be.
        let _already_gone = pidfd_send_signal(process, Signal::KILL);
    }
    result
}

fn open(line: &str) -> Option<std::os::fd::OwnedFd> {
    let pid = Pid::from_raw(line.trim().parse().ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}
