//! A cluster of pods for one claim.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
    time::Instant,
};

use tempfile::TempDir;

use crate::{
    foreign::programs::say,
    processes::{DEADLINE, POLL, process::program},
};

/// Seconds for one command in a pod.
const COMMAND_LIMIT: &str = "60";
/// Lines of each log that a failed test shows.
const SHOWN_LINES: usize = 20;

/// A pod to be: [`pod`] makes one.
#[derive(Clone, Debug)]
pub(super) struct PodPlan {
    name: String,
    options: Vec<String>,
}

/// A pod with a sidecar, and with port 80. It is of the service that its name without a number at the end says.
pub(super) fn pod(name: &str) -> PodPlan {
    PodPlan { name: name.to_owned(), options: Vec::new() }
}

impl PodPlan {
    /// Its service's ports, in place of 80.
    pub(super) fn ports(mut self, ports: &[u16]) -> Self {
        self.name.extend(ports.iter().map(|port| format!(":{port}")));
        self
    }

    /// Without a sidecar.
    pub(super) fn bare(mut self) -> Self {
        self.options.push("--bare".to_owned());
        self
    }

    /// One more line of YAML under `intercept`.
    pub(super) fn intercept(mut self, line: &str) -> Self {
        self.options.extend(["--intercept".to_owned(), line.to_owned()]);
        self
    }
}

/// A running cluster. Dropped, or when this process ends in whatever way, nothing is left of it.
#[derive(Debug)]
pub(super) struct Pods {
    node: Child,
    /// Closed, it ends the node.
    life: Option<ChildStdin>,
    folder: TempDir,
}

impl Pods {
    /// Starts a cluster with these pods, their sidecars ready; or says why there can be none here.
    pub(super) fn start(plans: &[PodPlan]) -> Option<Self> {
        if let Some(reason) = obstacle() {
            let is_required = std::env::var("OUTRIDER_REQUIRE_FOREIGN").is_ok_and(|value| value == "1");
            assert!(!is_required, "{reason}, and OUTRIDER_REQUIRE_FOREIGN=1");
            say(&format!("SKIPPED {}: {reason}", std::thread::current().name().unwrap_or("a claim")));
            return None;
        }
        let folder = tempfile::Builder::new().prefix("outrider-pods-").tempdir().expect("a folder");
        let mut node = script(folder.path())
            .args(["up", "--foreground"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash");
        let life = node.stdin.take();
        let said = first_line(&mut BufReader::new(node.stdout.take().expect("a pipe")));
        assert_eq!(said, "ready", "the node did not start");
        let pods = Self { node, life, folder };
        for plan in plans {
            pods.command("add", plan.options.iter().map(String::as_str).chain([plan.name.as_str()]));
        }
        Some(pods)
    }

    /// A command of the script, which must succeed.
    fn command<'a>(&self, name: &str, arguments: impl IntoIterator<Item = &'a str>) -> String {
        let mut command = script(self.folder.path());
        command.arg(name).args(arguments);
        succeed(&mut command)
    }

    fn inside(&self, options: &[&str], pod: &str) -> Command {
        let mut command = script(self.folder.path());
        command.arg("exec").args(options).args([pod, "--"]);
        command
    }

    /// Runs a command in a pod as its app's user, to whatever end.
    pub(super) fn exec<A: AsRef<OsStr>>(&self, pod: &str, command: impl IntoIterator<Item = A>) -> Output {
        let mut exec = self.inside(&[], pod);
        run(exec.args(["timeout", "--kill-after=1", COMMAND_LIMIT]).args(command))
    }

    /// What a command in a pod wrote.
    ///
    /// # Panics
    /// If it failed.
    pub(super) fn text<A: AsRef<OsStr>>(&self, pod: &str, command: impl IntoIterator<Item = A>) -> String {
        let mut exec = self.inside(&[], pod);
        succeed(exec.args(["timeout", "--kill-after=1", COMMAND_LIMIT]).args(command))
    }

    /// The same as root.
    pub(super) fn as_root<A: AsRef<OsStr>>(&self, pod: &str, command: impl IntoIterator<Item = A>) -> String {
        let mut exec = self.inside(&["--root"], pod);
        succeed(exec.args(["timeout", "--kill-after=1", COMMAND_LIMIT]).args(command))
    }

    /// The body of the answer to `curl ARGUMENTS`, written with spaces between them.
    pub(super) fn curl(&self, pod: &str, arguments: &str) -> String {
        self.text(pod, "curl -sS --max-time 20".split(' ').chain(arguments.split(' ')))
    }

    /// Sees `curl ARGUMENTS` fail, soon and without an answer of the example's service; returns what it complained
    /// about.
    pub(super) fn curl_fails(&self, pod: &str, arguments: &str) -> String {
        let command = "curl -sS --fail --max-time 20".split(' ').chain(arguments.split(' '));
        let output = self.exec(pod, command);
        let said = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("service"), "{pod}: {arguments}: an answer: {said}");
        // 28 is curl's code for a timeout.
        assert!(!matches!(output.status.code(), Some(0 | 28)), "{pod}: {arguments}: {output:?}");
        complaint
    }

    /// Starts a program in a pod, which ends when the handle is dropped.
    pub(super) fn background<A: AsRef<OsStr>>(
        &self,
        pod: &str,
        command: impl IntoIterator<Item = A>,
    ) -> Background {
        self.start_as(&[], pod, command)
    }

    /// The same as root.
    pub(super) fn background_as_root<A: AsRef<OsStr>>(
        &self,
        pod: &str,
        command: impl IntoIterator<Item = A>,
    ) -> Background {
        self.start_as(&["--root"], pod, command)
    }

    fn start_as<A: AsRef<OsStr>>(
        &self,
        options: &[&str],
        pod: &str,
        command: impl IntoIterator<Item = A>,
    ) -> Background {
        let log = self.folder.path().join(pod).join("app.log");
        let log = File::options().create(true).append(true).open(log).expect("a log file");
        let mut exec = self.inside(options, pod);
        exec.args(command).stdout(log.try_clone().expect("a handle")).stderr(log);
        Background { child: exec.spawn().expect("bash") }
    }

    /// The example's HTTP service, which says who it is and who called, on this port of all addresses.
    pub(super) fn service(&self, pod: &str, port: u16) -> Background {
        let listen = format!("{}:{port}", any());
        let service = self.background(pod, ["service", "--name", pod, "--listen", &listen]);
        self.until_listening(pod, port);
        service
    }

    /// A server that speaks first, `220 POD`, and then repeats what it hears.
    pub(super) fn greeter(&self, pod: &str, port: u16) -> Background {
        let (listen, greeting) = (format!("{}:{port}", any()), format!("220 {pod}"));
        let greeter = self.background(pod, ["greeter", "--listen", &listen, "--greeting", &greeting]);
        self.until_listening(pod, port);
        greeter
    }

    /// Waits until something listens on the port.
    pub(super) fn until_listening(&self, pod: &str, port: u16) {
        until(&format!("{pod} listens on {port}"), || {
            self.sockets(pod).iter().any(|socket| socket.port == port && socket.state == State::Listen)
        });
    }

    /// The TCP sockets of a pod's namespace.
    pub(super) fn sockets(&self, pod: &str) -> Vec<TcpSocket> {
        let tables = self.as_root(pod, ["sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 2>&1"]);
        tables.lines().filter_map(TcpSocket::parse).collect()
    }

    /// Descriptors that a pod's sidecar has open.
    pub(super) fn descriptors(&self, pod: &str) -> usize {
        let pid = fs::read_to_string(self.folder.path().join(pod).join("sidecar.pid")).expect("a sidecar");
        self.as_root(pod, ["ls", &format!("/proc/{}/fd", pid.trim())]).lines().count()
    }

    /// The sum of a metric of a pod's sidecar over all series that have these labels.
    pub(super) fn metric(&self, pod: &str, name: &str, labels: &[&str]) -> f64 {
        let text = self.as_root(pod, ["curl", "-sS", "http://127.0.0.1:4391/metrics"]);
        let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
        let samples = samples.filter(|(series, _)| {
            series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
        });
        samples.map(|(_, value)| value.parse::<f64>().expect("a number")).sum()
    }

    /// Kills a pod's sidecar with SIGKILL.
    pub(super) fn kill_sidecar(&self, pod: &str) {
        self.command("sidecar", ["kill", pod]);
    }

    /// Applies the rules and starts a pod's sidecar again.
    pub(super) fn start_sidecar(&self, pod: &str) {
        self.command("sidecar", ["start", pod]);
    }

    /// Listens on the wires between the pods, for this text among other things.
    pub(super) fn capture(&self, find: &str) -> Capture {
        let mut exec = self.inside(&[], "node");
        exec.args(["wiretap", "--find", find]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = exec.spawn().expect("bash");
        let life = child.stdin.take().expect("a pipe");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        assert_eq!(first_line(&mut output), "listening", "the wiretap did not start");
        Capture { child, life, output }
    }

    /// Certificates for a pod's app in its folder `name`, by the pods' CA or by another of the same name.
    pub(super) fn certify(&self, pod: &str, service: &str, name: &str, is_foreign: bool) {
        let (ca, out) =
            (if is_foreign { "foreign" } else { "ca/state" }, format!("/run/pods/{pod}/app/{name}"));
        let script = format!(
            "cd /run/pods; [ -e {ca} ] || outrider-ca init --dir {ca} --trust-domain pods.outrider; \
             outrider-ca issue --dir {ca} --spiffe-id spiffe://pods.outrider/{service} --out {out}; \
             chown --reference={pod}/app -R {out}"
        );
        self.text("node", ["sh", "-ec", &script]);
    }

    /// Puts a file into the folder in which a pod's apps run.
    pub(super) fn place(&self, pod: &str, name: &str, text: &str) {
        let path = self.folder.path().join(pod).join("app").join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
    }

    fn show_logs(&self) {
        let pods = fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        for log in pods.flat_map(|pod| ["sidecar.log", "app.log", "ca.log"].map(|log| pod.path().join(log))) {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            if !shown.is_empty() {
                eprintln!("--- the end of {} ---\n{}", log.display(), shown.join("\n"));
            }
        }
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        drop(self.life.take());
        drop(self.node.wait());
    }
}

/// A program in a pod.
#[derive(Debug)]
pub(super) struct Background {
    child: Child,
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A wiretap at work.
#[derive(Debug)]
pub(super) struct Capture {
    child: Child,
    life: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Capture {
    /// Ends it; what it saw.
    pub(super) fn end(self) -> Vec<Passed> {
        let Self { mut child, life, mut output } = self;
        drop(life);
        let mut text = String::new();
        output.read_to_string(&mut text).expect("text");
        assert!(child.wait().expect("it ends").success(), "the wiretap failed");
        text.lines().map(Passed::parse).collect()
    }
}

/// One direction of a connection, as the wire saw it.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    /// Address and port, as in `10.43.0.11:40000`.
    pub(super) from: String,
    pub(super) to: String,
    /// `tls`, `plain` or `partial`.
    pub(super) kind: String,
    /// How often the text was in it.
    pub(super) found: u64,
}

impl Passed {
    fn parse(line: &str) -> Self {
        let words: Vec<_> = line.split(' ').collect();
        let [from, to, kind, _bytes, found] = words[..] else { panic!("what is {line:?}?") };
        let found = found.strip_prefix("found=").and_then(|found| found.parse().ok()).expect("a number");
        Self { from: from.to_owned(), to: to.to_owned(), kind: kind.to_owned(), found }
    }

    /// Whether it is one of pod number `number`'s, in the order of the plans from 0.
    pub(super) fn is_of(&self, number: usize) -> bool {
        let number = number + FIRST_NUMBER;
        let prefixes = [format!("10.43.0.{number}:"), format!("[fd43::{number}]:")];
        prefixes.iter().any(|prefix| self.from.starts_with(prefix) || self.to.starts_with(prefix))
    }
}

/// A line of `/proc/net/tcp` or `tcp6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcpSocket {
    /// The local port.
    pub(super) port: u16,
    pub(super) state: State,
}

/// What matters of a socket's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Established,
    Listen,
    /// The kernel waits for stray packets; no process has it any more.
    TimeWait,
    /// One side has said goodbye, the other has not.
    HalfClosed,
}

impl TcpSocket {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().skip(1);
        let port = u16::from_str_radix(words.next()?.rsplit_once(':')?.1, 16).ok()?;
        // linux/include/net/tcp_states.h
        let state = match words.nth(1)? {
            "01" => State::Established,
            "0A" => State::Listen,
            "06" => State::TimeWait,
            _ => State::HalfClosed,
        };
        Some(Self { port, state })
    }
}

/// Number of the first pod, the last part of its addresses.
const FIRST_NUMBER: usize = 11;

/// The address of the pod that was planned at this place, from 0.
pub(super) fn address(place: usize) -> String {
    format!("10.43.0.{}", place + FIRST_NUMBER)
}

/// The same of its service, if it is the first of it.
pub(super) fn service_address(place: usize) -> String {
    format!("10.96.0.{}", place + FIRST_NUMBER)
}

/// The IPv6 addresses in place of IPv4's, as in a URL; nothing where there is no IPv6.
pub(super) fn v6(address: &str) -> Option<String> {
    let mut parts = address.split('.').skip(1);
    let (net, host) = (parts.next()?, parts.nth(1)?);
    has_ipv6().then(|| format!("[fd{net}::{host}]"))
}

fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6/conf/all").exists()
}

pub(super) fn any() -> &'static str {
    if has_ipv6() { "[::]" } else { "0.0.0.0" }
}

/// Waits until `is_so`, and panics naming `what` if that takes too long.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain: {what}");
        std::thread::sleep(POLL);
    }
}

/// The script for a cluster in this folder, with the programs that belong to these tests.
fn script(folder: &Path) -> Command {
    let programs: PathBuf = program("outrider").parent().expect("a folder").to_owned();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/pods/pods");
    let mut command = Command::new(script);
    command
        .env("OUTRIDER_PROGRAMS", programs)
        .args([OsString::from("-d"), folder.into()])
        .stdin(Stdio::null());
    command
}

/// Why there can be no pods here.
fn obstacle() -> Option<String> {
    let output = run(script(Path::new("/nowhere")).arg("check"));
    let said = String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then(|| said.trim().replace('\n', "; "))
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn succeed(command: &mut Command) -> String {
    let output = run(command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}\n{errors}", output.status);
    text
}

fn first_line(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    output.read_line(&mut line).expect("text");
    line.trim_end().to_owned()
}
