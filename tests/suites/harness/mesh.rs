//! Sidecars as they ship, started in this process.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use outrider::{
    app::{Addresses, App, Parts, Rejected, Workers, World},
    clock::Clock,
    config,
    drain::Phase,
    model::{
        Cluster, ClusterName, Settings,
        flag::ResponseFlag,
        runtime::{ListenerRuntime, Refusal},
    },
    net::{Net, TcpNet},
};
use tempfile::TempDir;

use super::{TestCa, TestLeaf, ca};

/// Longer than the day lasts.
const TWO_DAYS: Duration = Duration::from_secs(48 * 3600);

/// A CA, and a folder for the files of its members.
pub(crate) struct TestMesh {
    /// Who signs.
    pub(crate) ca: TestCa,
    dir: TempDir,
}

/// A running sidecar: the product's `App` with its own worker thread. Dropping it ends it at once, as a crash would.
pub(crate) struct Sidecar {
    app: App,
    addresses: Addresses,
}

impl TestMesh {
    /// A mesh without members.
    pub(crate) fn new() -> Self {
        Self { ca: TestCa::new(), dir: TempDir::new().unwrap() }
    }

    /// A folder that goes with the mesh; relative paths in configurations start there.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts a sidecar with a proper certificate. `yaml` are its listeners and clusters.
    pub(crate) async fn start(&self, service: &str, yaml: &str) -> Sidecar {
        self.start_as(service, &self.ca.leaf(service), yaml).await
    }

    /// Starts a sidecar with that certificate.
    pub(crate) async fn start_as(&self, service: &str, leaf: &TestLeaf, yaml: &str) -> Sidecar {
        self.certify(service, leaf);
        Sidecar::start(&Self::config(service, yaml), self.dir()).await
    }

    /// Starts a sidecar with a proper certificate in another world, where it may be tomorrow.
    pub(crate) async fn start_in<N: Net>(&self, net: N, clock: Clock, service: &str, yaml: &str) -> Sidecar {
        self.certify(service, &self.ca.short_leaf(service, TWO_DAYS));
        Sidecar::start_in(net, clock, self.settings(service, yaml), Parts::default()).await
    }

    /// Writes the files of a member's identity.
    pub(crate) fn certify(&self, service: &str, leaf: &TestLeaf) {
        let file = |kind: &str, text: &str| {
            let name = format!("{service}.{kind}");
            fs::write(self.dir().join(&name), text).unwrap();
        };
        file("crt", &leaf.pem());
        file("key", &leaf.key_pem());
        file("bundle", &self.ca.bundle().to_pem());
    }

    /// A whole configuration, with the files of [`TestMesh::start_as`].
    pub(crate) fn config(service: &str, yaml: &str) -> String {
        format!(
            "service: {service}\n\
             trust_domain: {}\n\
             state_dir: state\n\
             identity: {{file: {{certificate: {service}.crt, key: {service}.key, bundle: {service}.bundle}}}}\n\
             admin: {{socket: admin.sock, listen: none}}\n\
             {yaml}\n",
            ca::DOMAIN,
        )
    }

    /// Has a running sidecar go by other listeners and clusters.
    pub(crate) async fn reload(
        &self,
        sidecar: &mut Sidecar,
        service: &str,
        yaml: &str,
    ) -> Result<(), Rejected> {
        let settings = self.settings(service, yaml);
        sidecar.addresses = super::soon("the reload", sidecar.app.reload(settings)).await?;
        Ok(())
    }

    /// What a member's configuration says.
    pub(crate) fn settings(&self, service: &str, yaml: &str) -> Settings {
        let text = Self::config(service, yaml);
        config::parse(&text, self.dir()).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// A sidecar in front of an app, with one inbound listener `in`. `keys` are further keys of the listener, as
    /// `app_protocol: http2`.
    pub(crate) async fn callee(&self, service: &str, app: SocketAddr, keys: &str) -> Sidecar {
        let yaml = format!("inbound: [{{name: in, listen: '127.0.0.1:0', app: '{app}', {keys}}}]");
        self.start(service, &yaml).await
    }

    /// The sidecar of `web` with an outbound listener `out` and one cluster `orders` with these endpoints. `keys` are
    /// further keys of the cluster.
    pub(crate) async fn caller(&self, endpoints: &[SocketAddr], keys: &str) -> Sidecar {
        let yaml = format!(
            "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{}]",
            Self::cluster("orders", endpoints, keys),
        );
        self.start("web", &yaml).await
    }

    /// The sidecar of `web` with an opaque outbound listener `out` to `orders`.
    pub(crate) async fn tcp_caller(&self, endpoints: &[SocketAddr], keys: &str) -> Sidecar {
        let yaml = format!(
            "outbound: [{{name: out, listen: '127.0.0.1:0', protocol: tcp, cluster: orders}}]\nclusters: [{}]",
            Self::cluster("orders", endpoints, keys),
        );
        self.start("web", &yaml).await
    }

    /// A cluster's section.
    pub(crate) fn cluster(name: &str, endpoints: &[SocketAddr], keys: &str) -> String {
        let endpoints: Vec<_> = endpoints.iter().map(|address| format!("{{address: '{address}'}}")).collect();
        let (endpoints, id) = (endpoints.join(", "), ca::id(name));
        format!("{{name: {name}, spiffe_ids: ['{id}'], endpoints: [{endpoints}], {keys}}}")
    }
}

impl Sidecar {
    /// Starts one by its whole configuration; returns when it serves.
    pub(crate) async fn start(yaml: &str, folder: &Path) -> Self {
        Self::start_with(yaml, folder, Parts::default()).await
    }

    /// As [`Sidecar::start`], with facts from elsewhere than the configuration says.
    pub(crate) async fn start_with(yaml: &str, folder: &Path, parts: Parts) -> Self {
        let settings = config::parse(yaml, folder).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        Self::start_in(TcpNet, Clock::system(), settings, parts).await
    }

    /// As [`Sidecar::start_with`], in another world.
    pub(crate) async fn start_in<N: Net>(net: N, clock: Clock, settings: Settings, parts: Parts) -> Self {
        let world = World { net, clock, workers: Workers::Threads };
        let app = App::start(settings, &world, parts).unwrap();
        let addresses = super::soon("the sidecar serves", app.serve(&world)).await.unwrap();
        Self { app, addresses }
    }

    /// The product's own handle.
    pub(crate) fn app(&self) -> &App {
        &self.app
    }

    /// Where its first listener listens.
    pub(crate) fn address(&self) -> SocketAddr {
        *self.addresses.values().next().unwrap()
    }

    /// Where that listener listens.
    pub(crate) fn address_of(&self, listener: &str) -> SocketAddr {
        self.addresses[listener]
    }

    /// A listener's counters.
    pub(crate) fn listener(&self, name: &str) -> Arc<ListenerRuntime> {
        Arc::clone(&self.app.snapshots.load().config.listeners[name].runtime)
    }

    /// Connections refused at `in` for that reason.
    pub(crate) fn refused(&self, reason: Refusal) -> u64 {
        self.listener("in").refused[reason as usize].load(Ordering::Relaxed)
    }

    /// A cluster of the newest snapshot.
    pub(crate) fn cluster(&self, name: &str) -> Arc<Cluster> {
        Arc::clone(self.app.snapshots.load().cluster(&ClusterName::new(name)).unwrap())
    }

    /// Retries made to `orders`.
    pub(crate) fn retries(&self) -> u64 {
        self.cluster("orders").runtime.retries.load(Ordering::Relaxed)
    }

    /// Requests to `orders` that ended with that flag.
    pub(crate) fn flagged(&self, flag: ResponseFlag) -> u64 {
        self.cluster("orders").runtime.counts.by_flag[flag as usize].load(Ordering::Relaxed)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.app.drains.advance(Phase::Forced);
    }
}

/// Connects to an opaque listener and waits for its reset.
pub(crate) async fn reset_by(address: SocketAddr) {
    use tokio::io::AsyncReadExt as _;
    // A quick reset is already seen as the outcome of connecting.
    let ended = super::soon("the stream ends", async {
        tokio::net::TcpStream::connect(address).await?.read_to_end(&mut Vec::new()).await
    });
    assert_eq!(ended.await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}
