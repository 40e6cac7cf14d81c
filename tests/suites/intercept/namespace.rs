//! A network namespace for one claim, and hosts beside it.

use std::{
    any::type_name_of_val,
    fs::{self, File},
    io,
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

use crate::{
    foreign::programs::{are_here, say},
    processes::{self, until},
};

/// Says to a copy of the test program which claim it runs in its namespaces.
const CLAIM: &str = "OUTRIDER_CLAIM_IN_NAMESPACE";
/// What every claim takes.
const PROGRAMS: [&str; 3] = ["unshare", "ip", "nft"];
/// Namespaces of a claim. What it starts ends with it, as it is the first process of its own.
const NAMESPACES: [&str; 6] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
/// Where there is no root.
const USER_NAMESPACE: [&str; 2] = ["--user", "--map-root-user"];
/// Finds out whether a namespace has what claims take.
const PROBE: &str = "ip link add probe type veth && nft add table inet probe";

/// Runs a claim in a network namespace of its own, if that can be had. The closure stands in the test function itself,
/// by whose name the copy finds it.
pub(crate) fn claim(needs: &[&str], claim: impl AsyncFnOnce()) {
    let name = type_name_of_val(&claim);
    let name = name.split_once("::").map_or(name, |(_crate, path)| path);
    let name = name.split("::{{").next().unwrap_or(name);
    if std::env::var(CLAIM).is_ok_and(|claimed| claimed == name) {
        ip("link set lo up");
        return processes::run(claim());
    }
    if !are_here(&[&PROGRAMS, needs].concat()) || !is_allowed(name) {
        return;
    }
    let copy = std::env::current_exe().expect("the test binary has a path");
    let ran = unshare()
        .arg(copy)
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env(CLAIM, name)
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("unshare starts");
    let text = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && text.contains("1 passed"), "in its namespaces: {}\n{text}", ran.status);
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(USER_NAMESPACE);
    }
    command.args(NAMESPACES).stdin(Stdio::null());
    command
}

/// Whether namespaces can be had here; if not, says why.
fn is_allowed(name: &str) -> bool {
    let probed = unshare().args(["sh", "-c", PROBE]).output().expect("unshare starts");
    if !probed.status.success() {
        let why = String::from_utf8_lossy(&probed.stderr);
        let is_required = std::env::var("OUTRIDER_REQUIRE_FOREIGN").is_ok_and(|value| value == "1");
        assert!(!is_required, "no namespaces to try it in ({}), and OUTRIDER_REQUIRE_FOREIGN=1", why.trim());
        say(&format!("SKIPPED {name}: no namespaces to try it in: {}", why.trim()));
    }
    probed.status.success()
}

/// Whether there are other users than one in this namespace.
pub(crate) fn has_users() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").expect("/proc");
    map.split_whitespace().nth(2).is_some_and(|count| count != "1")
}

/// `ip` with these arguments.
pub(crate) fn ip(arguments: &str) {
    ran(Command::new("ip").args(arguments.split_whitespace()));
}

/// Loads these rules.
pub(crate) fn nft(rules: &str) {
    let mut command = Command::new("nft");
    ran(command.arg(rules));
}

/// The counters `name` of `table`: packets.
pub(super) fn packets(table: &str, name: &str) -> u64 {
    let listed = ran(Command::new("nft").args(["list", "counter", "inet", table, name]));
    let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count in {listed}"))
}

/// Sets a setting of the kernel in this namespace.
pub(crate) fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/{name}");
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// What a program wrote that ended well.
pub(crate) fn ran(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    text
}

/// Waits until these addresses of this namespace can be dialled, which IPv6 puts off until the cable carries.
pub(super) async fn has(addresses: &[&str]) {
    until("the addresses are there", async || addresses.iter().all(|address| is_there(address))).await;
}

/// Whether it says that nobody listens; one that is not there yet says nothing.
fn is_there(address: &str) -> bool {
    let nobody = SocketAddr::new(address.parse().expect("an address"), 1);
    let answer = TcpStream::connect_timeout(&nobody, Duration::from_millis(50));
    answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Another host: a namespace at the other end of a cable.
#[derive(Debug)]
pub(crate) struct Host {
    holder: Child,
    namespace: File,
}

impl Host {
    /// A host that nothing leads to.
    pub(crate) async fn alone() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let own = fs::read_link("/proc/self/ns/net").expect("/proc");
        let path = format!("/proc/{}/ns/net", holder.id());
        until("the other namespace is there", async || {
            assert!(holder.try_wait().expect("a child").is_none(), "no second namespace");
            fs::read_link(&path).is_ok_and(|namespace| namespace != own)
        })
        .await;
        Self { holder, namespace: File::open(path).expect("a namespace") }
    }

    /// A host, joined to this namespace. Its addresses end in 2 (`10.43.0.2`, `fd43::2`), ours in 1.
    pub(super) async fn joined() -> Self {
        let host = Self::alone().await;
        let id = host.id();
        ip(&format!("link add cable type veth peer name cable netns {id}"));
        // Addresses are in use at once: there is nobody who could have the same.
        for command in addresses(1) {
            ip(&command);
        }
        host.run(|| {
            ip("link set lo up");
            addresses(2).iter().for_each(|command| ip(command));
        });
        let both = ["10.43.0.1", "10.43.0.2", "fd43::1", "fd43::2"];
        has(&both).await;
        until("we are there for the other host", async || host.run(|| both.into_iter().all(is_there))).await;
        host
    }

    /// The process that holds it.
    pub(crate) fn id(&self) -> u32 {
        self.holder.id()
    }

    /// Begins something there, on a thread with a runtime of its own.
    pub(crate) fn begin<F>(&self, work: impl FnOnce() -> F + Send + 'static) -> oneshot::Receiver<F::Output>
    where
        F: Future<Output: Send + 'static>,
    {
        let namespace = self.namespace.try_clone().expect("a descriptor");
        let (done, outcome) = oneshot::channel();
        thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("it can be entered");
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            // Perhaps nobody waits for it.
            drop(done.send(runtime.block_on(work())));
        });
        outcome
    }

    /// Does something there. What it opens stays there, and so do programs that it starts.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let runtime = tokio::runtime::Handle::try_current();
        let there = || {
            move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("it can be entered");
            let _runtime = runtime.as_ref().map(tokio::runtime::Handle::enter);
            work()
        };
        thread::scope(|scope| scope.spawn(there).join()).expect("what was done there ended well")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

fn addresses(number: u8) -> [String; 3] {
    [
        format!("address add 10.43.0.{number}/24 dev cable"),
        format!("address add fd43::{number}/64 dev cable nodad"),
        "link set cable up".to_owned(),
    ]
}
