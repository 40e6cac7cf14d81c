//! Pages whose commands are run as they stand there.
//!
//! A block of commands says who runs it: `sh`, or `sh NAME` where there are several shells; one marked `refused` must
//! fail, all others must succeed.

#![allow(clippy::disallowed_methods, reason = "tests read their environment")]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

/// Time for one block of commands.
const DEADLINE: Duration = Duration::from_secs(60);
/// What a shell says after each block, before how many of its commands failed.
const DONE: &str = "--- done:";

/// A block of commands from a page.
pub(crate) struct Block {
    /// The heading that it stands under.
    pub(crate) section: String,
    /// The words behind `sh`, but for `refused`.
    pub(crate) shell: Option<String>,
    /// It must fail.
    pub(crate) is_refused: bool,
    /// What is run.
    pub(crate) commands: String,
}

/// The blocks of a page in their order. Those marked `build` are left out: that was done by whoever runs the test.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let (mut blocks, mut section) = (Vec::new(), String::new());
    let mut parts = page.split("```");
    while let (Some(prose), Some(block)) = (parts.next(), parts.next()) {
        if let Some(heading) = prose.lines().rfind(|line| line.starts_with("## ")) {
            heading.clone_into(&mut section);
        }
        let (tags, commands) = block.split_once('\n').expect("a block starts with its tags");
        let mut words = tags.split(' ');
        match words.next() {
            Some("sh") => {}
            Some("text") => continue,
            other => panic!("a block of what? {other:?}"),
        }
        let (refused, shells): (Vec<_>, Vec<_>) = words.partition(|word| *word == "refused");
        let shell = shells.first().map(ToString::to_string);
        if shell.as_deref() == Some("build") {
            continue;
        }
        let (section, is_refused) = (section.clone(), !refused.is_empty());
        blocks.push(Block { section, shell, is_refused, commands: commands.to_owned() });
    }
    assert!(!blocks.is_empty(), "a page without commands");
    blocks
}

/// A shell that stands for a host, or for all of them. Dropped, it and everything it started is gone.
pub(crate) struct Shell {
    /// Who it is.
    pub(crate) name: &'static str,
    process: Child,
    input: ChildStdin,
    output: Receiver<String>,
}

impl Shell {
    /// Starts one in the root of the repository, with the programs on its path.
    pub(crate) fn start(name: &'static str, home: &Path) -> Self {
        let programs = Path::new(env!("CARGO_BIN_EXE_service")).parent().expect("a folder");
        for program in ["outrider", "outrider-ca"] {
            let needed = programs.join(program);
            assert!(needed.is_file(), "no {}: run the tests of the whole workspace", needed.display());
        }
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("a PATH"));
        let mut process = Command::new("bash")
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .env("HOME", home)
            .env("PATH", path)
            .env_remove("http_proxy")
            .env_remove("no_proxy")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash starts");
        let mut input = process.stdin.take().expect("a pipe");
        let stdout = BufReader::new(process.stdout.take().expect("a pipe"));
        let (tell, output) = channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        // What is said and what is complained about come in order; every command that fails is counted; the shell's
        // end ends what it started, also what was stopped.
        let setup = "exec 2>&1; failed=0; trap 'failed=$((failed+1))' ERR; \
                     trap 'kill $(jobs -p) 2>/dev/null; kill -CONT $(jobs -p) 2>/dev/null' EXIT";
        writeln!(input, "{setup}").expect("bash reads");
        Self { name, process, input, output }
    }

    /// Runs commands; returns how many failed, and what they said.
    pub(crate) fn run(&mut self, commands: &str) -> (u32, String) {
        writeln!(self.input, "{commands}\necho \"{DONE} $failed\"; failed=0").expect("bash reads");
        let mut said = String::new();
        loop {
            let line = self.output.recv_timeout(DEADLINE).unwrap_or_else(|_| {
                panic!("{}: no end of\n{commands}\nafter\n{said}", self.name);
            });
            if let Some((before, failed)) = line.split_once(DONE) {
                said.push_str(before);
                return (failed.trim().parse().expect("a number"), said);
            }
            said.push_str(&line);
            said.push('\n');
        }
    }

    /// Runs a block, which must fail or not as its page says; returns what it said.
    pub(crate) fn follow(&mut self, commands: &str, is_refused: bool) -> String {
        let (failed, said) = self.run(commands.trim_end());
        assert_eq!(failed > 0, is_refused, "{}: {commands}\n{failed} failed:\n{said}", self.name);
        said
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Its trap ends the jobs; a shell that is stuck is killed after a while.
        drop(writeln!(self.input, "\nexit"));
        for _ in 0..500 {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
