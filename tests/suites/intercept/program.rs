//! `outrider intercept` as a program, and connections as somebody would make them.

use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use rustix::{process::Uid, thread::set_thread_res_uid};
use socket2::{Domain, SockRef, Socket, Type};
use tempfile::TempDir;

use super::namespace::{has_users, ip, ran};
use crate::processes::process::program;

/// Where what leaves is brought to.
pub(super) const OUTBOUND: u16 = 4340;
/// Where what comes in is brought to.
pub(super) const INBOUND: u16 = 4343;
/// The sidecar's user, or its mark where there is one user only.
pub(super) const OWN: u32 = 4343;
/// Longest wait for a connection that comes, and for one that should not.
const PATIENCE: Duration = Duration::from_secs(10);

/// A configuration file, and the program that reads it.
#[derive(Debug)]
pub(super) struct Intercept {
    folder: TempDir,
}

impl Intercept {
    /// With these lines in the section; each of the three may be empty: `mode`, `outbound` and `inbound`.
    pub(super) fn new(mode: &str, outbound: &str, inbound: &str) -> Self {
        let intercept = Self { folder: tempfile::tempdir().expect("a folder") };
        intercept.set(mode, outbound, inbound);
        intercept
    }

    pub(super) fn redirect() -> Self {
        Self::new("redirect", "", "")
    }

    /// Changes the configuration.
    pub(super) fn set(&self, mode: &str, outbound: &str, inbound: &str) {
        let own =
            if has_users() { format!("own: uid, uid: {OWN}") } else { format!("own: mark, mark: {OWN}") };
        let text = format!(
            "service: orders
trust_domain: demo.outrider
identity: {{ file: {{ certificate: a.pem, key: b.pem, bundle: c.pem }} }}
admin: {{ listen: '0.0.0.0:4391' }}
intercept: {{ mode: {mode}, {own}, outbound: {{ port: {OUTBOUND}, {outbound} }}, inbound: {{ port: {INBOUND}, {inbound} }} }}
"
        );
        fs::write(self.config(), text).expect("written");
    }

    pub(super) fn config(&self) -> PathBuf {
        self.folder.path().join("outrider.yaml")
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn command(&self, what: &str) -> Command {
        let mut command = Command::new(program("outrider"));
        command.args(["intercept", what]).stdin(Stdio::null());
        if what != "remove" {
            command.arg("--config").arg(self.config());
        }
        command
    }

    /// Runs it; it must end well. Returns what it wrote.
    pub(super) fn good(&self, what: &str) -> String {
        ran(&mut self.command(what))
    }

    /// Runs it; it must fail. Returns what it complained of.
    pub(super) fn bad(&self, what: &str) -> String {
        complaint(&mut self.command(what))
    }

    /// Bytes that passed an exception.
    pub(super) fn passed(&self, exception: &str) -> u64 {
        let shown: serde_json::Value =
            serde_json::from_str(&ran(self.command("show").arg("--json"))).expect("it is JSON");
        let all = shown["exceptions"].as_array().expect("a list");
        let found = all.iter().find(|entry| entry["rule"] == exception);
        let bytes = found.unwrap_or_else(|| panic!("no {exception} in {shown:#}"))["bytes"].as_u64();
        bytes.unwrap_or_else(|| panic!("{exception} is not counted: {shown:#}"))
    }
}

/// A network with a way out, on which nobody is; without IPv6 where that is switched off.
pub(super) fn network() {
    ip("link add cable type veth peer name end");
    ip("address add 10.42.0.1/24 dev cable");
    ip("link set cable up");
    ip("link set end up");
    ip("route add default via 10.42.0.254");
    let disabled = fs::read_to_string("/proc/sys/net/ipv6/conf/cable/disable_ipv6");
    if disabled.is_ok_and(|text| text.trim() == "0") {
        ip("address add fd42::1/64 dev cable nodad");
        ip("-6 route add default via fd42::254");
    }
}

/// What a program complained of that failed.
pub(super) fn complaint(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success(), "{command:?} ended well: {}{said}", String::from_utf8_lossy(&stdout));
    assert!(status.code().is_some(), "{command:?}: {status}");
    said
}

/// Everything that is loaded in the kernel: tables, routing rules, and routes of every table.
pub(super) fn everything() -> String {
    let mut text = ran(Command::new("nft").args(["-s", "list", "ruleset"]));
    for arguments in ["-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all"] {
        text.push_str(&ran(Command::new("ip").args(arguments.split(' '))));
    }
    text
}

/// Who makes a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Caller {
    pub(super) uid: Option<u32>,
    pub(super) mark: Option<u32>,
    pub(super) dscp: Option<u32>,
    pub(super) from: Option<IpAddr>,
}

/// An app.
pub(super) fn app() -> Caller {
    Caller::default()
}

/// The sidecar.
pub(super) fn own() -> Caller {
    if has_users() { Caller { uid: Some(OWN), ..app() } } else { Caller { mark: Some(OWN), ..app() } }
}

impl Caller {
    pub(super) fn connect(self, to: &str) -> io::Result<TcpStream> {
        let to: SocketAddr = to.parse().expect("an address");
        let socket = thread::spawn(move || {
            if let Some(uid) = self.uid {
                set_thread_res_uid(None, Some(Uid::from_raw(uid)), None).expect("a user");
            }
            Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket")
        });
        let socket = socket.join().expect("a thread ends");
        if let Some(mark) = self.mark {
            socket.set_mark(mark).expect("a mark");
        }
        if let Some(dscp) = self.dscp {
            let class = dscp << 2;
            if to.is_ipv4() { socket.set_tos_v4(class) } else { socket.set_tclass_v6(class) }
                .expect("a class");
        }
        if let Some(from) = self.from {
            let is_ipv4 = from.is_ipv4();
            if is_ipv4 { socket.set_ip_transparent_v4(true) } else { socket.set_ip_transparent_v6(true) }
                .expect("transparent");
            socket.bind(&SocketAddr::new(from, 0).into()).expect("bound");
        }
        socket.connect_timeout(&to.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        Ok(stream)
    }
}

/// Listens.
#[derive(Debug)]
pub(super) struct Door(TcpListener);

impl Door {
    pub(super) fn on(address: &str) -> Self {
        Self::listen(address, false)
    }

    /// Takes what a transparent proxy takes.
    pub(super) fn transparent(address: &str) -> Self {
        Self::listen(address, true)
    }

    fn listen(address: &str, is_transparent: bool) -> Self {
        let address: SocketAddr = address.parse().expect("an address");
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        if is_transparent {
            socket.set_ip_transparent_v4(true).expect("transparent");
            if address.is_ipv6() {
                socket.set_ip_transparent_v6(true).expect("transparent");
            }
        }
        socket.set_reuse_address(true).expect("an option");
        socket.bind(&address.into()).expect("bound");
        socket.listen(16).expect("listening");
        socket.set_nonblocking(true).expect("an option");
        Self(socket.into())
    }

    /// The next connection, and for whom it was.
    pub(super) fn accepted(&self) -> (TcpStream, SocketAddr) {
        let (stream, _peer) = wait_for(|| self.0.accept());
        stream.set_nonblocking(false).expect("an option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let local = stream.local_addr().expect("an address");
        let is_ipv4 = local.ip().to_canonical().is_ipv4();
        let socket = SockRef::from(&stream);
        let original = if is_ipv4 { socket.original_dst_v4() } else { socket.original_dst_v6() };
        let original = original.ok().and_then(|address| address.as_socket()).unwrap_or(local);
        (stream, SocketAddr::new(original.ip().to_canonical(), original.port()))
    }

    /// The connection that `caller` makes to an address must arrive here, and be for that address.
    #[track_caller]
    pub(super) fn gets(&self, caller: Caller, to: &str) -> (TcpStream, TcpStream) {
        let from = caller.connect(to).unwrap_or_else(|error| panic!("{caller:?} to {to}: {error}"));
        let (stream, original) = self.accepted();
        assert_eq!(original, to.parse().expect("an address"), "{caller:?}");
        (from, stream)
    }

    #[track_caller]
    pub(super) fn got_nothing(&self) {
        assert!(
            self.0.accept().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock),
            "somebody came"
        );
    }
}

fn wait_for<T>(mut attempt: impl FnMut() -> io::Result<T>) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                assert!(std::time::Instant::now() < deadline, "nobody came");
                thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Sends so many bytes one way, waits until they are there, and then as many the other way.
pub(super) fn exchange(a: &TcpStream, b: &TcpStream, bytes: usize) {
    for (mut from, mut to) in [(a, b), (b, a)] {
        thread::scope(|scope| {
            scope.spawn(move || from.write_all(&vec![b'x'; bytes]).expect("written"));
            to.read_exact(&mut vec![0; bytes]).expect("read");
        });
    }
}
