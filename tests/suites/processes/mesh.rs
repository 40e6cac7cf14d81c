//! Sidecars as processes, and the mesh most claims are made of: one caller and several replicas.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use futures_util::future::join_all;
use hyper::Method;
use outrider::admin;
use serde_json::Value;
use tempfile::TempDir;

use super::{
    DEADLINE,
    app::App,
    authority::{Authority, DOMAIN, id, write},
    load::{Load, Plan},
    process::{Process, program},
    until,
};

/// The service that is called.
pub(super) const CALLED: &str = "orders";
/// The service that calls.
pub(super) const CALLER: &str = "web";

/// A loopback network of its own for one mesh (127.x.y.0/24), so that every host can use the same ports and meshes of
/// tests that run at the same time never meet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network(u8, u8);

/// One address of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host(Ipv4Addr);

impl Network {
    pub(crate) fn new() -> Self {
        (0..50)
            .map(|_| Self(fastrand::u8(16..=250), fastrand::u8(..)))
            .find(|network| (1..30).all(|number| network.host(number).is_free()))
            .expect("a loopback network with free ports")
    }

    pub(crate) fn host(self, number: u8) -> Host {
        Host(Ipv4Addr::new(127, self.0, self.1, number))
    }
}

impl Host {
    /// Any of its ports.
    pub(crate) fn at(self, port: u16) -> SocketAddr {
        (self.0, port).into()
    }

    /// Where the CA listens; its metrics are one higher.
    pub(super) fn ca(self) -> SocketAddr {
        self.at(4350)
    }

    /// Where the app calls out.
    pub(crate) fn outbound(self) -> SocketAddr {
        self.at(4340)
    }

    /// Where peers call.
    pub(crate) fn inbound(self) -> SocketAddr {
        self.at(4343)
    }

    /// Where readiness is told.
    pub(crate) fn health(self) -> SocketAddr {
        self.at(4391)
    }

    /// Where the app listens.
    pub(crate) fn app(self) -> SocketAddr {
        self.at(8080)
    }

    fn is_free(self) -> bool {
        [self.ca(), self.outbound(), self.inbound(), self.health(), self.app()]
            .into_iter()
            .all(|address| TcpListener::bind(address).is_ok())
    }
}

/// Where a sidecar's certificate comes from.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    /// Files in the sidecar's folder.
    Files,
    /// A CA there, and a token in the sidecar's folder.
    Ca { address: SocketAddr, validity: &'static str },
}

/// How one sidecar is set up.
#[derive(Clone, Debug)]
pub(super) struct SidecarPlan {
    pub(super) name: String,
    pub(super) service: &'static str,
    pub(super) host: Host,
    pub(super) folder: PathBuf,
    pub(super) proof: Proof,
    /// The own app, if peers may call it.
    pub(super) app: Option<SocketAddr>,
    /// Where the replicas of [`CALLED`] are, if it calls.
    pub(super) calls: Vec<SocketAddr>,
    /// `idle_grace` and `deadline`.
    pub(super) drain: (&'static str, &'static str),
    /// One more key of the cluster that is called.
    pub(super) cluster_extra: &'static str,
}

impl SidecarPlan {
    pub(super) fn new(name: &str, service: &'static str, host: Host, root: &Path) -> Self {
        let folder = root.join(name);
        fs::DirBuilder::new().mode(0o700).create(&folder).expect("a folder");
        Self {
            name: name.to_owned(),
            service,
            host,
            folder,
            proof: Proof::Files,
            app: None,
            calls: Vec::new(),
            drain: ("2s", "15s"),
            cluster_extra: "",
        }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    pub(super) fn config(&self) -> String {
        let identity = match &self.proof {
            Proof::Files => "file: {certificate: svid.pem, key: svid_key.pem, bundle: bundle.pem}".to_owned(),
            Proof::Ca { address, validity } => {
                format!("ca: {{address: \"{address}\", join_token_file: token, validity: {validity}}}")
            }
        };
        let mut yaml = format!(
            "service: {}\ntrust_domain: {DOMAIN}\nstate_dir: state\nidentity:\n  {identity}\n\
             admin: {{socket: admin.sock, listen: \"{}\"}}\n\
             drain: {{idle_grace: {}, deadline: {}}}\n",
            self.service,
            self.host.health(),
            self.drain.0,
            self.drain.1,
        );
        if let Some(app) = self.app {
            let listen = self.host.inbound();
            let _ = write!(yaml, "inbound:\n  - {{name: in, listen: \"{listen}\", app: \"{app}\"}}\n");
        }
        if !self.calls.is_empty() {
            let listen = self.host.outbound();
            let addresses: Vec<_> =
                self.calls.iter().map(|address| format!("{{address: \"{address}\"}}")).collect();
            let _ = write!(
                yaml,
                "outbound:\n  - {{name: out, listen: \"{listen}\"}}\nclusters:\n  - name: {CALLED}\n    \
                 spiffe_ids: [\"{}\"]\n    endpoints: [{}]\n    {}\n",
                id(CALLED),
                addresses.join(", "),
                self.cluster_extra,
            );
        }
        yaml
    }

    /// Starts a process with this configuration; does not wait for anything.
    pub(super) fn start(&self, suffix: &str) -> Sidecar {
        let name = format!("{}{suffix}", self.name);
        let process = Process::start(&name, &program("outrider"), self.arguments(), &self.folder);
        Sidecar { plan: self.clone(), process }
    }

    /// The same in a process that may not have more descriptors than that.
    pub(super) fn start_with_descriptors(&self, limit: u32) -> Sidecar {
        let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        let shell = ["-c".into(), script.into(), program("outrider").into_os_string()];
        let arguments = shell.into_iter().chain(self.arguments());
        let process = Process::start(&self.name, Path::new("/bin/sh"), arguments, &self.folder);
        Sidecar { plan: self.clone(), process }
    }

    /// The arguments of a process with this configuration, which is written.
    fn arguments(&self) -> [OsString; 3] {
        write(&self.folder, "outrider.yaml", &self.config());
        ["run".into(), "--config".into(), self.folder.join("outrider.yaml").into_os_string()]
    }
}

/// A sidecar's process.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) plan: SidecarPlan,
    pub(super) process: Process,
}

impl Sidecar {
    /// Waits until this very process is ready.
    pub(super) async fn ready(mut self) -> Self {
        let name = self.plan.name.clone();
        until(&format!("{name} is ready"), async || {
            assert!(!self.process.has_ended(), "{name} ended while starting");
            self.is_ready().await
        })
        .await;
        self
    }

    /// Whether this process, and not another with the same socket, says that it is ready.
    pub(super) async fn is_ready(&self) -> bool {
        let Ok(answer) = admin::call(&self.plan.socket(), Method::GET, "/status").await else { return false };
        answer.body["process_id"] == self.process.pid() && answer.body["waiting_for"] == serde_json::json!([])
    }

    /// What its admin socket answers.
    pub(super) async fn ask(&self, target: &str) -> Value {
        let answer = admin::call(&self.plan.socket(), Method::GET, target).await;
        answer.unwrap_or_else(|error| panic!("{} does not answer {target}: {error}", self.plan.name)).body
    }

    /// Connections that its listener has accepted so far.
    pub(super) async fn accepted(&self) -> u64 {
        self.ask("/listeners").await["listeners"][0]["accepted"].as_u64().expect("a number")
    }

    /// SIGTERM, and how it ended.
    pub(super) async fn stop(&mut self) -> ExitStatus {
        self.process.terminate();
        self.process.exited(DEADLINE).await
    }

    /// Replaces this process by a new one with the same configuration, as an upgrade does: start, wait until ready,
    /// stop the old. Returns how the old one ended.
    pub(super) async fn replace(&mut self, suffix: &str) -> ExitStatus {
        let new = self.plan.start(suffix).ready().await;
        let mut old = std::mem::replace(self, new);
        old.stop().await
    }
}

/// One replica of [`CALLED`].
#[derive(Debug)]
pub(super) struct Replica<A = App> {
    pub(super) sidecar: Sidecar,
    pub(super) app: A,
}

/// A caller and several replicas of [`CALLED`], certified from files.
#[derive(Debug)]
pub(super) struct Mesh<A = App> {
    pub(super) caller: Sidecar,
    pub(super) replicas: Vec<Replica<A>>,
    pub(super) authority: Authority,
    pub(super) network: Network,
    /// Dropped last.
    pub(super) folder: TempDir,
}

/// What a mesh is planned as before it starts.
#[derive(Debug)]
pub(super) struct MeshPlan {
    pub(super) caller: SidecarPlan,
    pub(super) replicas: Vec<SidecarPlan>,
    authority: Authority,
    network: Network,
    folder: TempDir,
}

impl MeshPlan {
    pub(super) fn new(replicas: u8) -> Self {
        let folder = tempfile::Builder::new().prefix("mesh").tempdir().expect("a folder");
        let (root, network) = (folder.path(), Network::new());
        let authority = Authority::new(&root.join("ca"));
        let mut caller = SidecarPlan::new(CALLER, CALLER, network.host(10), root);
        let replicas: Vec<_> = (1..=replicas)
            .map(|number| {
                let host = network.host(20 + number);
                let mut plan = SidecarPlan::new(&format!("{CALLED}-{number}"), CALLED, host, root);
                plan.app = Some(host.app());
                plan
            })
            .collect();
        caller.calls = replicas.iter().map(|plan| plan.host.inbound()).collect();
        for plan in replicas.iter().chain([&caller]) {
            authority.certify(plan.service, &plan.folder);
            write(&plan.folder, "bundle.pem", &authority.bundle());
        }
        Self { caller, replicas, authority, network, folder }
    }

    /// Starts the sidecars and an app in this process for each replica.
    pub(super) async fn start(self) -> Mesh {
        let apps = self.replicas.iter().map(|plan| App::start(&plan.name, plan.host.app()));
        let apps = join_all(apps).await;
        self.start_with(apps).await
    }

    /// Starts the sidecars; the apps are there already.
    pub(super) async fn start_with<A>(self, apps: Vec<A>) -> Mesh<A> {
        let caller = self.caller.start("");
        let sidecars = join_all(self.replicas.iter().map(|plan| plan.start("").ready())).await;
        let replicas =
            sidecars.into_iter().zip(apps).map(|(sidecar, app)| Replica { sidecar, app }).collect();
        let caller = caller.ready().await;
        Mesh { caller, replicas, authority: self.authority, network: self.network, folder: self.folder }
    }
}

impl Mesh {
    pub(super) async fn start(replicas: u8) -> Self {
        MeshPlan::new(replicas).start().await
    }
}

impl<A> Mesh<A> {
    /// Load through the caller's sidecar.
    pub(super) fn load(&self, plan: Plan) -> Load {
        Load::start(self.outbound(), plan)
    }

    /// Where the calling app sends its requests.
    pub(super) fn outbound(&self) -> SocketAddr {
        self.caller.plan.host.outbound()
    }
}
