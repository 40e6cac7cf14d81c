//! Does what the page about two hosts says, command by command, with two loopback addresses for the hosts.
//!
//! Each block of commands on the page says who runs it: `sh host-a`, `sh host-b` or `sh both`; a block marked
//! `refused` must fail, all others must succeed. Two shells stand for the two hosts.

#![allow(clippy::disallowed_methods, reason = "tests read clocks")]

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

/// A block of commands from the page.
struct Block {
    hosts: Vec<&'static str>,
    is_refused: bool,
    commands: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut parts = page.split("```");
    while let (Some(_prose), Some(block)) = (parts.next(), parts.next()) {
        let (tags, commands) = block.split_once('\n').expect("a block starts with its tags");
        let hosts = match tags.split(' ').nth(1) {
            Some("host-a") => vec!["host-a"],
            Some("host-b") => vec!["host-b"],
            Some("both") => vec!["host-a", "host-b"],
            Some("build") => continue, // done by whoever runs the test
            None if tags == "text" => continue,
            other => panic!("a block for whom? {other:?} in {tags:?}"),
        };
        blocks.push(Block { hosts, is_refused: tags.ends_with(" refused"), commands: commands.to_owned() });
    }
    blocks
}

/// A shell that stands for a host. Dropped, it and everything it started is gone.
struct Shell {
    name: &'static str,
    process: Child,
    input: ChildStdin,
    output: Receiver<String>,
}

impl Shell {
    fn start(name: &'static str, home: &Path) -> Self {
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
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash starts");
        let mut input = process.stdin.take().expect("a pipe");
        let stdout = BufReader::new(process.stdout.take().expect("a pipe"));
        let (tell, output) = channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        // What is said and what is complained about come in order; every command that fails is counted; the shell's
        // end ends what it started.
        let setup =
            "exec 2>&1; failed=0; trap 'failed=$((failed+1))' ERR; trap 'kill $(jobs -p) 2>/dev/null' EXIT";
        writeln!(input, "{setup}").expect("bash reads");
        Self { name, process, input, output }
    }

    /// Runs commands; returns how many failed, and what they said.
    fn run(&mut self, commands: &str) -> (u32, String) {
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

#[test]
fn the_page_about_two_hosts_works_as_it_is_written() {
    let page = include_str!("../vm/README.md");
    let network = format!("127.{}.{}", fastrand::u8(16..=250), fastrand::u8(..));
    let (a, b) = (format!("{network}.10"), format!("{network}.20"));
    let home = tempfile::tempdir().expect("a folder");
    let mut shells = [Shell::start("host-a", home.path()), Shell::start("host-b", home.path())];
    let mut everything = String::new();

    for block in blocks(page) {
        for shell in shells.iter_mut().filter(|shell| block.hosts.contains(&shell.name)) {
            let own = if shell.name == "host-a" { &a } else { &b };
            // What the page says about trying it on one machine.
            let commands = block
                .commands
                .replace("A=192.0.2.10  B=192.0.2.20  L=127.0.0.1", &format!("A={a}  B={b}  L={own}"))
                .replace(
                    "scp token-for-b $B:host-b/token && rm token-for-b",
                    "mv token-for-b ~/host-b/token",
                );
            let (failed, said) = shell.run(commands.trim_end());
            assert_eq!(failed > 0, block.is_refused, "{}: {commands}\n{failed} failed:\n{said}", shell.name);
            if commands.contains("cp -r") {
                let (failed, said) = shell.run("sed -i \"s/127\\.0\\.0\\.1/$L/\" outrider.yaml");
                assert_eq!(failed, 0, "{said}");
            }
            everything.push_str(&said);
        }
    }
    for proof in [
        r#""service":"web""#,
        r#""caller":"By=spiffe://example.org/orders;URI=spiffe://example.org/web""#,
        r#""version":"TLSv1_3""#,
        r#""peer":"spiffe://example.org/web""#,
    ] {
        assert!(everything.contains(proof), "{proof} is nowhere in\n{everything}");
    }
}
