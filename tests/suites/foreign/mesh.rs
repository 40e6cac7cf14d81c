//! A caller's and a callee's sidecar as processes, with room for a foreign client and a foreign app.

use std::{fmt::Write as _, fs, net::SocketAddr, os::unix::fs::DirBuilderExt, path::PathBuf};

use http::Method;
use outrider::admin;
use serde_json::Value;
use tempfile::TempDir;

use crate::processes::{
    DEADLINE,
    authority::{Authority, DOMAIN, id, write},
    mesh::{Host, Network},
    process::{Process, program},
    until,
};

/// The ports of OTLP.
const GRPC: u16 = 4317;
const HTTP: u16 = 4318;

/// What a mesh is made of, where it differs from the plainest one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plan {
    /// More keys of the caller's clusters.
    pub(super) cluster: &'static str,
    /// More keys of the callee's inbound listeners.
    pub(super) inbound: &'static str,
    /// Keys of `limits`, on both sides.
    pub(super) limits: &'static str,
    /// Keys of `telemetry.traces` on both sides, where `@GRPC@` and `@HTTP@` are the ports of [`Mesh::collector`].
    pub(super) traces: &'static str,
}

/// Two sidecars. Every authority leads to the app; so do all bytes of the TCP listener.
#[derive(Debug)]
pub(super) struct Mesh {
    pub(super) caller: Sidecar,
    pub(super) callee: Sidecar,
    pub(super) authority: Authority,
    collector: Host,
    /// Dropped last.
    pub(super) folder: TempDir,
}

/// A sidecar's process.
#[derive(Debug)]
pub(super) struct Sidecar {
    name: &'static str,
    pub(super) host: Host,
    pub(super) folder: PathBuf,
    pub(super) process: Process,
}

impl Mesh {
    pub(super) async fn start(plan: Plan) -> Self {
        let folder = tempfile::Builder::new().prefix("foreign").tempdir().expect("a folder");
        let network = Network::new();
        let authority = Authority::new(&folder.path().join("ca"));
        let (collector, caller, callee) = (network.host(2), network.host(10), network.host(21));
        let callee = Sidecar::new(
            "orders",
            callee,
            &folder,
            &authority,
            &(callee_config(callee, plan) + &telemetry(collector, plan)),
        );
        let config = caller_config(caller, callee.host, plan) + &telemetry(collector, plan);
        let caller = Sidecar::new("web", caller, &folder, &authority, &config);
        let mesh = Self { caller, callee, authority, collector, folder };
        mesh.caller.ready().await;
        mesh.callee.ready().await;
        mesh
    }

    /// Where the app listens for HTTP.
    pub(super) fn app(&self) -> SocketAddr {
        self.callee.host.app()
    }

    /// Where the app listens for bytes.
    pub(super) fn tcp_app(&self) -> SocketAddr {
        self.callee.host.at(8081)
    }

    /// Where a second HTTP app listens, for apps of two versions at once.
    pub(super) fn second_app(&self) -> SocketAddr {
        self.callee.host.at(8082)
    }

    /// Where the calling app sends requests for the second.
    pub(super) fn second_outbound(&self) -> SocketAddr {
        self.caller.host.at(4342)
    }

    /// Where the calling app sends requests.
    pub(super) fn outbound(&self) -> SocketAddr {
        self.caller.host.outbound()
    }

    /// Where the calling app sends bytes.
    pub(super) fn tcp_outbound(&self) -> SocketAddr {
        self.caller.host.at(4341)
    }

    /// Where a collector of traces listens, for gRPC and for HTTP.
    pub(super) fn collector(&self) -> [SocketAddr; 2] {
        [GRPC, HTTP].map(|port| self.collector.at(port))
    }

    /// A URL through the mesh.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.outbound())
    }

    pub(super) fn sidecars(&self) -> [&Sidecar; 2] {
        [&self.caller, &self.callee]
    }

    /// Waits until neither sidecar has anything under way or a connection of an app or a peer's request left.
    pub(super) async fn quiet(&self) {
        for sidecar in self.sidecars() {
            until(&format!("nothing is under way at {}", sidecar.name), async || {
                let clusters = sidecar.ask("/clusters").await;
                let clusters = clusters["clusters"].as_array().expect("clusters");
                clusters.iter().all(|cluster| cluster["in_flight"] == 0)
            })
            .await;
        }
    }
}

fn common(service: &str, host: Host, plan: Plan) -> String {
    format!(
        "service: {service}\ntrust_domain: {DOMAIN}\nstate_dir: state\n\
         identity: {{file: {{certificate: svid.pem, key: svid_key.pem, bundle: bundle.pem}}}}\n\
         admin: {{socket: admin.sock, listen: \"{}\"}}\ndrain: {{idle_grace: 200ms, deadline: 2s}}\n\
         limits: {{{}}}\n",
        host.health(),
        if plan.limits.is_empty() { "max_streams: 256" } else { plan.limits },
    )
}

fn telemetry(collector: Host, plan: Plan) -> String {
    if plan.traces.is_empty() {
        return String::new();
    }
    let keys =
        [("@GRPC@", GRPC), ("@HTTP@", HTTP)].iter().fold(plan.traces.to_owned(), |keys, (word, port)| {
            keys.replace(word, &collector.at(*port).to_string())
        });
    format!("telemetry: {{traces: {{{keys}}}}}\n")
}

fn callee_config(host: Host, plan: Plan) -> String {
    let listeners =
        [("http", 4343, 8080, ""), ("tcp", 4344, 8081, "protocol: tcp, "), ("second", 4345, 8082, "")];
    let mut config = common("orders", host, plan) + "inbound:\n";
    for (name, port, app, protocol) in listeners {
        let (listen, app, inbound) = (host.at(port), host.at(app), plan.inbound);
        let _ = writeln!(
            config,
            "  - {{name: {name}, listen: \"{listen}\", app: \"{app}\", {protocol}{inbound}}}"
        );
    }
    config
}

fn caller_config(host: Host, callee: Host, plan: Plan) -> String {
    let (ids, more) = (format!("spiffe_ids: [\"{}\"]", id("orders")), plan.cluster);
    let mut config = common("web", host, plan) + "outbound:\n";
    let listeners = [("http", 4340, ""), ("tcp", 4341, "protocol: tcp, "), ("second", 4342, "")];
    for (name, port, protocol) in listeners {
        let listen = host.at(port);
        let _ = writeln!(config, "  - {{name: {name}, listen: \"{listen}\", {protocol}cluster: {name}}}");
    }
    config += "clusters:\n";
    for (name, port) in [("http", 4343), ("tcp", 4344), ("second", 4345)] {
        let endpoint = format!("endpoints: [{{address: \"{}\"}}]", callee.at(port));
        let _ = writeln!(config, "  - {{name: {name}, {ids}, {endpoint}, {more}}}");
    }
    config
}

impl Sidecar {
    fn new(name: &'static str, host: Host, root: &TempDir, authority: &Authority, config: &str) -> Self {
        let folder = root.path().join(name);
        fs::DirBuilder::new().mode(0o700).create(&folder).expect("a folder");
        authority.certify(name, &folder);
        write(&folder, "bundle.pem", &authority.bundle());
        write(&folder, "outrider.yaml", config);
        let arguments = ["run".into(), "--config".into(), folder.join("outrider.yaml").into_os_string()];
        let process = Process::start(name, &program("outrider"), arguments, &folder);
        Self { name, host, folder, process }
    }

    async fn ready(&self) {
        until(&format!("{} is ready", self.name), async || {
            let answer = admin::call(&self.folder.join("admin.sock"), Method::GET, "/status").await;
            answer.is_ok_and(|answer| answer.body["waiting_for"] == serde_json::json!([]))
        })
        .await;
    }

    /// Kills it and waits for its end, so that its addresses are free.
    pub(super) async fn stop(&mut self) {
        self.process.kill();
        self.process.exited(DEADLINE).await;
    }

    /// What its admin socket answers.
    pub(super) async fn ask(&self, target: &str) -> Value {
        let answer = admin::call(&self.folder.join("admin.sock"), Method::GET, target).await;
        answer.unwrap_or_else(|error| panic!("{} does not answer {target}: {error}", self.name)).body
    }

    /// Memory in use (`VmRSS`), in KiB.
    pub(super) fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Upstream connections of one of its clusters (`http`, `inbound/http`).
    pub(super) async fn connections(&self, cluster: &str) -> u64 {
        let clusters = self.ask("/clusters").await;
        let clusters = clusters["clusters"].as_array().expect("clusters").clone();
        let found = clusters.into_iter().find(|found| found["name"] == cluster).expect("this cluster");
        let endpoints = found["endpoints"].as_array().expect("endpoints").clone();
        endpoints.iter().filter_map(|endpoint| endpoint["connections"].as_u64()).sum()
    }

    /// Open file descriptors that are sockets.
    pub(super) fn sockets(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.process.pid())).expect("it runs");
        open.flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .count()
    }
}
