//! Foreign programs: where they are, and one run of one of them.

use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use tokio::process::Command;

/// Longest run of one program that ends by itself.
const RUN_LIMIT: Duration = Duration::from_secs(120);
/// Folders beyond `PATH` where servers are.
const SERVER_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Whether all of `needs` are here: `name` on the path, `python:module`, `node:package`. If not, says so past the
/// capture of test output.
///
/// # Panics
/// If something is not here and `OUTRIDER_REQUIRE_FOREIGN=1`.
pub(crate) fn are_here(needs: &[&str]) -> bool {
    let absent: Vec<_> = needs.iter().copied().filter(|need| find(need).is_none()).collect();
    if absent.is_empty() {
        return true;
    }
    let claim = std::thread::current().name().unwrap_or("a claim").to_owned();
    let what = format!("{} not here (.ci/foreign installs it)", absent.join(", "));
    let is_required = std::env::var("OUTRIDER_REQUIRE_FOREIGN").is_ok_and(|value| value == "1");
    assert!(!is_required, "{what}, and OUTRIDER_REQUIRE_FOREIGN=1");
    say(&format!("SKIPPED {claim}: {what}"));
    false
}

/// Says something to whoever runs the tests: `eprintln!` of a test that passes is shown to nobody.
pub(crate) fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("standard error");
}

fn find(need: &str) -> Option<PathBuf> {
    match need.split_once(':') {
        Some(("python", module)) => {
            // Another user's may be out of reach.
            folder().join("venv/bin/python").metadata().ok()?;
            let libraries = folder().join("venv/lib").read_dir().ok()?.flatten();
            libraries
                .map(|python| python.path().join("site-packages").join(module))
                .find(|path| path.exists())
        }
        Some(("node", package)) => {
            on_path("node")?;
            Some(folder().join("node_modules").join(package)).filter(|path| path.exists())
        }
        Some((kind, _)) => panic!("no kind of library: {kind}"),
        None => on_path(need),
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SERVER_FOLDERS.map(PathBuf::from));
    // Debian keeps those of PostgreSQL by version.
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = folders.chain(versions.map(|version| version.path().join("bin")));
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Where `.ci/foreign` puts libraries: `target/foreign`.
fn folder() -> PathBuf {
    let own = std::env::current_exe().expect("the test binary has a path");
    own.ancestors().nth(3).expect("target/<profile>/deps/<binary>").join("foreign")
}

/// A script of this suite.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/foreign").join(name)
}

/// A program with its arguments; scripts (`x.py`, `x.js`) with what runs them and where their libraries are. A program
/// that a library ships is named as in [`are_here`] (`python:package/program`).
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

impl Call {
    pub(crate) fn new<A: Into<OsString>>(name: &str, arguments: impl IntoIterator<Item = A>) -> Self {
        let (program, first) = if name.ends_with(".py") {
            let own = folder().join("venv/bin/python");
            (if own.exists() { own } else { found("python3") }, vec![script(name).into_os_string()])
        } else if name.ends_with(".js") {
            let mut modules = OsString::from("NODE_PATH=");
            modules.push(folder().join("node_modules"));
            (found("env"), vec![modules, "node".into(), script(name).into_os_string()])
        } else {
            (found(name), Vec::new())
        };
        Self { program, arguments: first.into_iter().chain(arguments.into_iter().map(Into::into)).collect() }
    }

    /// As a command without input, for those who need more than [`Call::run`].
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).kill_on_drop(true).stdin(Stdio::null());
        command
    }

    /// Runs it to its end, whatever that is.
    pub(super) async fn run(&self) -> Output {
        let output = tokio::time::timeout(RUN_LIMIT, self.command().output()).await;
        output.unwrap_or_else(|_elapsed| panic!("not over after {RUN_LIMIT:?}: {self:?}")).expect("it starts")
    }

    /// What it wrote, if it ended well.
    ///
    /// # Panics
    /// If it did not.
    pub(super) async fn text(&self) -> String {
        let output = self.run().await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{self:?}: {}\n{text}\n{errors}", output.status);
        text
    }
}

fn found(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| panic!("{name} was not asked for"))
}

/// [`Call::text`] in one word.
pub(super) async fn text(name: &str, arguments: &[&str]) -> String {
    Call::new(name, arguments.iter().copied()).text().await
}
