//! Real programs through both sidecars, which nobody has told which port speaks what.
//!
//! ```text
//!   ┌ red, green, blue ────────────┐        ┌ data ────────────────────────┐
//!   │ psql, curl … ──▶ sidecar ════╪══mTLS══╪═══▶ sidecar ──▶ postgres …  │      stranger: no sidecar
//!   └──────────────────────────────┘        └──────────────────────────────┘
//! ```
//! Claims that run at the same time share a cluster. Each has a caller and ports of its own, so that what the caller's
//! sidecar counts is this claim's. A program that is not here is reported as in the suite `foreign`.

mod addresses;
mod bytes;
mod databases;
mod detection;
mod talks;
mod web;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    sync::{
        Arc, Condvar, Mutex, PoisonError, Weak,
        atomic::{AtomicU16, Ordering},
    },
};

use super::pods::{Background, Pods, address, any, pod, service_address, until, v6};
use crate::foreign::programs::{Call, are_here};

/// Where the servers are: the service and its one pod.
const DATA: &str = "data";
/// Pods of callers, each a service of its own. Tests in parallel are few.
const CALLERS: [&str; 3] = ["red", "green", "blue"];
/// Ports of `data`, for one claim after the other.
const PORTS: std::ops::RangeInclusive<u16> = 9000..=9031;

/// What every line for a shell begins with: a way to wait for something, and an end for what it started last.
const PRELUDE: &str = r#"
    await() { tries=0; while ! "$@"; do tries=$((tries + 1)); [ $tries -lt 400 ]; sleep 0.05; done; }
    trap '[ -z "${!:-}" ] || kill "$!" 2>/dev/null || true' EXIT
"#;

/// The cluster while somebody uses it.
static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

struct Cluster {
    pods: Pods,
    free: Mutex<Vec<&'static str>>,
    was_freed: Condvar,
    next_port: AtomicU16,
}

impl Cluster {
    fn start() -> Option<Arc<Self>> {
        let ports: Vec<_> = PORTS.collect();
        let mut plans = vec![pod(DATA).ports(&ports), pod("stranger").bare()];
        plans.extend(["pair-1", "pair-2"].map(|name| pod(name).ports(&[80, 8080])));
        plans.extend(CALLERS.map(pod));
        let pods = Pods::start(&plans)?;
        for pod in [DATA, "stranger", "pair-1", "pair-2"].into_iter().chain(CALLERS) {
            pods.place(pod, "app.py", include_str!("app.py"));
            pods.place(pod, "client.py", include_str!("client.py"));
        }
        let next_port = AtomicU16::new(*PORTS.start());
        Some(Arc::new(Self { pods, free: Mutex::new(CALLERS.into()), was_freed: Condvar::new(), next_port }))
    }

    fn shared() -> Option<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = shared.upgrade() {
            return Some(cluster);
        }
        let cluster = Self::start()?;
        *shared = Arc::downgrade(&cluster);
        Some(cluster)
    }
}

/// One claim's part of the cluster.
struct Scene {
    cluster: Arc<Cluster>,
    /// Its caller's pod.
    caller: &'static str,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.cluster.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.caller);
        self.cluster.was_freed.notify_one();
    }
}

impl Scene {
    /// Waits for a caller, and for the cluster if it is the first. Where there can be none, or one of these programs and
    /// libraries is not here, says so.
    fn set(needs: &[&str]) -> Option<Self> {
        if !are_here(needs) {
            return None;
        }
        let cluster = Cluster::shared()?;
        let free = cluster.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = cluster
            .was_freed
            .wait_while(free, |free| free.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let caller = free.pop().expect("one is free");
        drop(free);
        Some(Self { cluster, caller })
    }

    fn pods(&self) -> &Pods {
        &self.cluster.pods
    }

    /// A port of `data` that nobody has.
    fn port(&self) -> u16 {
        let port = self.cluster.next_port.fetch_add(1, Ordering::Relaxed);
        assert!(PORTS.contains(&port), "more ports are wanted than there are");
        port
    }

    /// Starts a program in `data` and waits until it listens.
    fn server<A: Into<OsString>>(&self, port: u16, command: impl IntoIterator<Item = A>) -> Background {
        self.server_in(DATA, port, command)
    }

    fn server_in<A: Into<OsString>>(
        &self,
        pod: &str,
        port: u16,
        command: impl IntoIterator<Item = A>,
    ) -> Background {
        let server = self.pods().background(pod, command.into_iter().map(Into::into));
        self.pods().until_listening(pod, port);
        server
    }

    /// `app.py` of this kind in a pod.
    fn app_in(&self, pod: &str, kind: &str, port: u16) -> Background {
        self.server_in(pod, port, ["python3", "app.py", kind, &port.to_string()])
    }

    /// `app.py` of this kind, and its port.
    fn app(&self, kind: &str) -> (Background, u16) {
        let port = self.port();
        (self.app_in(DATA, kind, port), port)
    }

    /// A script of the suite `foreign` with its libraries, as the server at that host and a port of its own. As root, because
    /// the libraries are where root may have put them.
    fn script_server(&self, name: &str, host: &str) -> (Background, u16) {
        let port = self.port();
        let call = Call::new(name, [host, &port.to_string()]);
        let command = [call.program.into_os_string()].into_iter().chain(call.arguments);
        let server = self.pods().background_as_root(DATA, command);
        self.pods().until_listening(DATA, port);
        (server, port)
    }

    /// Runs a script of the suite `foreign` as a client.
    fn script(&self, name: &str, arguments: &[&str]) -> String {
        let call = Call::new(name, arguments.iter().copied());
        self.pods().as_root(self.caller, [call.program.into_os_string()].into_iter().chain(call.arguments))
    }

    /// What a command of the caller's wrote, if it ended well.
    fn text(&self, command: &[&str]) -> String {
        self.pods().text(self.caller, command)
    }

    /// What a line for the shell wrote, if it ended well; `$1`, `$2` … are the arguments.
    fn shell(&self, script: &str, arguments: &[&str]) -> String {
        let script = format!("{PRELUDE}{script}");
        self.text(&[&["sh", "-euc", &script, "sh"], arguments].concat())
    }

    /// Runs one claim of `client.py`.
    fn client(&self, claim: &str, host: &str, port: u16) {
        let said = self.text(&["python3", "client.py", claim, host, &port.to_string()]);
        assert_eq!(said, "as claimed\n", "{claim} at {host}");
    }

    /// What the caller's sidecar has found out so far: `protocol how`, and how often.
    fn found(&self) -> BTreeMap<String, u64> {
        let text = self.pods().as_root(self.caller, ["curl", "-sS", "http://127.0.0.1:4391/metrics"]);
        let samples = text.lines().filter_map(|line| {
            let labels = line.strip_prefix(r#"outrider_detections_total{listener="intercept-outbound","#)?;
            let (labels, count) = labels.split_once("} ")?;
            let mut values = labels.split('"').skip(1).step_by(2);
            Some((format!("{} {}", values.next()?, values.next()?), count.parse().expect("a number")))
        });
        samples.filter(|(_, count)| *count > 0).collect()
    }

    /// Requests and streams that `data`'s sidecar took from this caller's, after mutual TLS.
    fn proven(&self) -> f64 {
        let peer = format!(r#"peer="spiffe://pods.outrider/{}""#, self.caller);
        self.pods().metric(DATA, "outrider_peer_requests_total", &[&peer])
    }

    /// Makes calls to `data` that the caller's sidecar must find to be all of these kinds (`opaque client`) and no other,
    /// and `data`'s to be of the caller.
    fn found_to_be(&self, kinds: &[&str], calls: impl FnOnce()) {
        self.finds(kinds, || self.is_proven(calls));
    }

    /// Makes calls to `data` that its sidecar must find to be of this caller, after mutual TLS.
    fn is_proven(&self, calls: impl FnOnce()) {
        let before = self.proven();
        calls();
        until("the other sidecar has seen who called", || self.proven() > before);
    }

    /// The same of calls to anywhere.
    fn finds(&self, kinds: &[&str], calls: impl FnOnce()) {
        assert_eq!(self.kinds(calls), kinds, "what the calls turned out to be");
    }

    /// What these calls turn out to be.
    fn kinds(&self, calls: impl FnOnce()) -> Vec<String> {
        let before = self.found();
        calls();
        let mut found = self.found();
        found.retain(|kind, count| before.get(kind) != Some(&*count));
        found.into_keys().collect()
    }
}

/// Addresses of a service, then of its first pod, which was planned at this place; of both families.
fn hosts(place: usize) -> Vec<String> {
    let (service, pod) = (service_address(place), address(place));
    let v6 = |address: &str| v6(address).map(|v6| v6.replace(['[', ']'], ""));
    [v6(&service), v6(&pod), Some(service), Some(pod)].into_iter().flatten().collect()
}

/// Addresses of the service `data`.
fn services() -> Vec<String> {
    hosts(0).into_iter().filter(|host| host.starts_with("10.96.") || host.starts_with("fd96:")).collect()
}

/// An address as it stands in a URL.
fn in_url(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}
