//! Sidecars in namespaces: one whose connections the kernel brings, one that calls it from another host, and an app.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use hyper::Method;
use outrider::admin;
use serde_json::Value;
use tempfile::TempDir;

use super::namespace::{has_users, ran};
use crate::processes::{
    DEADLINE,
    authority::{Authority, DOMAIN, id, write},
    process::{Process, program},
    until,
};

/// The user that sidecars are, where there are several.
const SIDECAR: u32 = 4343;
/// The service behind the sidecar whose connections the kernel brings.
pub(super) const CALLED: &str = "orders";
/// Ports of its app: HTTP, and bytes.
pub(super) const PORTS: [u16; 2] = [8080, 9000];
/// One more for HTTP, where each connection ends with its answer.
pub(super) const CLOSING: u16 = 8081;

/// Where every user finds the programs.
const PROGRAMS: &str = "/run/programs";
/// That of the sidecar.
const OUTRIDER: &str = "/run/programs/outrider";

/// Folders and certificates of the sidecars of one claim.
pub(super) struct Sidecars {
    folder: TempDir,
    authority: Authority,
}

/// What a sidecar may do beyond others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    /// Nothing.
    None,
    /// `CAP_NET_RAW`, as far as it takes it here: root has it.
    NetRaw,
}

/// A sidecar's process.
#[derive(Debug)]
pub(super) struct Sidecar {
    folder: PathBuf,
    pub(super) process: Process,
}

/// Shows the programs where every user may come, in this claim's own mounts. To read only, and in no folder that a test
/// removes with what is in it.
fn show_programs() {
    let built = program("outrider");
    ran(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "none", "/run"]));
    fs::create_dir(PROGRAMS).expect("a folder");
    let from = built.parent().expect("a folder");
    ran(Command::new("mount").args(["-o", "bind,ro"]).arg(from).arg(PROGRAMS));
}

impl Sidecars {
    pub(super) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("sidecars").tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        let authority = Authority::new(&folder.path().join("ca"));
        show_programs();
        Self { folder, authority }
    }

    /// Makes the folder of a sidecar of that service, with a configuration that goes on with `rest`.
    pub(super) fn prepare(&self, name: &str, service: &str, rest: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        self.authority.certify(service, &folder);
        write(&folder, "bundle.pem", &self.authority.bundle());
        let config = format!(
            "service: {service}\ntrust_domain: {DOMAIN}\nstate_dir: state\n\
             identity: {{file: {{certificate: svid.pem, key: svid_key.pem, bundle: bundle.pem}}}}\n\
             admin: {{socket: admin.sock, listen: none}}\n{rest}"
        );
        write(&folder, "outrider.yaml", &config);
        if has_users() {
            let files = fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("a file").path());
            for path in files.chain([folder.clone()]) {
                chown(path, Some(SIDECAR), Some(SIDECAR)).expect("root may");
            }
        }
        folder
    }

    /// The program and arguments by which a sidecar gets its user and powers.
    fn call(&self, folder: &Path, power: Power) -> (PathBuf, Vec<String>) {
        let run =
            ["run".to_owned(), "--config".to_owned(), folder.join("outrider.yaml").display().to_string()];
        if !has_users() {
            return (PathBuf::from(OUTRIDER), run.into());
        }
        let user = [format!("--reuid={SIDECAR}"), format!("--regid={SIDECAR}"), "--clear-groups".to_owned()];
        let powers = match power {
            Power::None => Vec::new(),
            Power::NetRaw => {
                vec!["--inh-caps=+net_raw".to_owned(), "--ambient-caps=+net_raw".to_owned()]
            }
        };
        let program = OUTRIDER.to_owned();
        ("setpriv".into(), user.into_iter().chain(powers).chain([program]).chain(run).collect())
    }

    /// Starts a sidecar of which the folder is prepared.
    pub(super) fn start(&self, folder: &Path, power: Power) -> Sidecar {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let (program, arguments) = self.call(folder, power);
        let process = Process::start(&name, &program, arguments, self.folder.path());
        Sidecar { folder: folder.to_owned(), process }
    }

    /// What a sidecar says that does not start, for want of every capability.
    pub(super) fn refused(&self, folder: &Path) -> Output {
        let (program, arguments) = self.call(folder, Power::None);
        // Another user than root has none.
        let without: &[&str] = if has_users() { &[] } else { &["--inh-caps=-all", "--bounding-set=-all"] };
        let mut command = Command::new("setpriv");
        command.args(without).args(["env".into(), program.into_os_string()]).args(arguments);
        command.stdin(Stdio::null()).output().expect("setpriv starts")
    }

    /// Has the kernel do what the configuration says.
    pub(super) fn apply(&self, folder: &Path) {
        let config = folder.join("outrider.yaml");
        ran(Command::new(OUTRIDER).args(["intercept", "apply", "--config"]).arg(config));
    }
}

impl Sidecar {
    /// Waits until it is ready.
    pub(super) async fn ready(mut self) -> Self {
        until("the sidecar is ready", async || {
            assert!(!self.process.has_ended(), "it ended while starting");
            let status = self.status("/status").await;
            status.is_some_and(|status| status["waiting_for"] == serde_json::json!([]))
        })
        .await;
        self
    }

    async fn status(&self, target: &str) -> Option<Value> {
        let answer = admin::call(&self.folder.join("admin.sock"), Method::GET, target).await;
        answer.ok().map(|answer| answer.body)
    }

    /// What it counts of a listener.
    pub(super) async fn listener(&self, name: &str) -> Value {
        let all = self.status("/listeners").await.expect("an answer");
        let listeners = all["listeners"].as_array().expect("a list");
        let found = listeners.iter().find(|listener| listener["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {all}")).clone()
    }
}

/// How the sidecar's own connections are known here, as keys of `intercept`.
pub(super) fn own() -> String {
    if has_users() { format!("own: uid, uid: {SIDECAR}") } else { format!("own: mark, mark: {SIDECAR}") }
}

/// What the configuration says about clusters, each with one endpoint, and explicit listeners that lead to them.
pub(super) fn calls(targets: &[(&str, &str, SocketAddr)]) -> String {
    let (mut listeners, mut clusters) = ("outbound:\n".to_owned(), "clusters:\n".to_owned());
    for (index, (name, protocol, address)) in targets.iter().enumerate() {
        let listen = listener(index);
        let _ = writeln!(
            listeners,
            "  - {{name: {name}, listen: \"{listen}\", protocol: {protocol}, cluster: {name}}}"
        );
        let id = id(CALLED);
        let _ = writeln!(
            clusters,
            "  - {{name: {name}, spiffe_ids: [\"{id}\"], endpoints: [{{address: \"{address}\"}}]}}"
        );
    }
    listeners + &clusters
}

/// Where the calling sidecar listens for what leads to the target of that index.
pub(super) fn listener(index: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5000 + u16::try_from(index).expect("a few")))
}

/// An app that says who calls: in an answer to each request, or in the first line of a stream, whose bytes it then sends
/// back.
pub(super) fn witness() {
    let [http, tcp] = PORTS;
    for (port, each) in [(http, answer as Each), (tcp, echo), (CLOSING, answer_once)] {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("the port is free");
        thread::spawn(move || serve(&listener, each));
    }
}

/// What becomes of each connection.
type Each = fn(TcpStream, SocketAddr) -> std::io::Result<()>;

fn serve(listener: &TcpListener, each: Each) {
    while let Ok((stream, peer)) = listener.accept() {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        // How a connection ends is seen at its other end.
        thread::spawn(move || each(stream, peer));
    }
}

fn answer(mut stream: TcpStream, peer: SocketAddr) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(line) = lines.next().transpose()? {
        if line.is_empty() {
            let body = peer.to_string();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
        }
    }
    Ok(())
}

fn answer_once(mut stream: TcpStream, peer: SocketAddr) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while !lines.next().transpose()?.unwrap_or_default().is_empty() {}
    let body = peer.to_string();
    write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn echo(mut stream: TcpStream, peer: SocketAddr) -> std::io::Result<()> {
    writeln!(stream, "{peer}")?;
    let mut from = stream.try_clone()?;
    std::io::copy(&mut from, &mut stream)?;
    stream.shutdown(std::net::Shutdown::Write)
}

fn connected(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, DEADLINE).expect("connected");
    stream.set_read_timeout(Some(DEADLINE)).expect("an option");
    stream
}

/// Whom the app saw calling for each of `count` requests on one connection to `to`.
pub(super) fn seen_by_http(to: SocketAddr, count: usize) -> Vec<SocketAddr> {
    let mut stream = connected(to);
    let mut from = BufReader::new(stream.try_clone().expect("a second handle"));
    (0..count)
        .map(|_| {
            write!(stream, "GET / HTTP/1.1\r\nhost: orders\r\n\r\n").expect("sent");
            let (status, body) = response(&mut from);
            assert_eq!(status, 200, "{body}");
            body.parse().unwrap_or_else(|_| panic!("not an address: {body}"))
        })
        .collect()
}

/// Status and body of an answer with a length.
fn response(from: &mut BufReader<TcpStream>) -> (u16, String) {
    let head: Vec<String> =
        from.by_ref().lines().map(|line| line.expect("read")).take_while(|line| !line.is_empty()).collect();
    let field = |name: &str| {
        let lower = head.iter().map(|line| line.to_ascii_lowercase());
        lower.filter_map(|line| line.strip_prefix(name).map(|rest| rest.trim().to_owned())).next()
    };
    let status = head.first().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let length = field("content-length:").expect("a length").parse().expect("a number");
    let mut body = vec![0; length];
    from.read_exact(&mut body).expect("a body");
    (status.parse().expect("a number"), String::from_utf8_lossy(&body).into_owned())
}

/// Whom the app saw calling for a stream to `to`, which carried this many bytes there and back.
pub(super) fn seen_by_stream(to: SocketAddr, bytes: usize) -> SocketAddr {
    let mut stream = connected(to);
    let mut from = BufReader::new(stream.try_clone().expect("a second handle"));
    let sent: Vec<u8> = (0..bytes).map(|number| (number % 251) as u8).collect();
    let writing = thread::spawn({
        let sent = sent.clone();
        move || {
            stream.write_all(&sent).and_then(|()| stream.shutdown(std::net::Shutdown::Write)).expect("sent")
        }
    });
    let (mut line, mut back) = (String::new(), Vec::new());
    from.read_line(&mut line).expect("a line");
    from.read_to_end(&mut back).expect("read");
    writing.join().expect("sent");
    assert!(back == sent, "what came back is what was sent");
    line.trim().parse().unwrap_or_else(|_| panic!("not an address: {line}"))
}

/// How a connection to `to` ends that sends a request: `None` if it is reset, else what comes.
pub(super) fn fate(to: SocketAddr) -> Option<String> {
    let mut stream = match TcpStream::connect_timeout(&to, DEADLINE) {
        // So soon that it is seen before the connection is.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
        made => made.expect("connected"),
    };
    stream.set_read_timeout(Some(DEADLINE)).expect("an option");
    drop(write!(stream, "GET / HTTP/1.1\r\nhost: nobody\r\nconnection: close\r\n\r\n"));
    let mut text = String::new();
    stream.read_to_string(&mut text).ok().map(|_| text)
}
