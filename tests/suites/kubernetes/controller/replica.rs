//! One replica of the controller, in this process, with real sockets.

use std::{net::SocketAddr, sync::Arc};

use outrider::{
    clock::Clock,
    identity::{
        fixed::{Fixed, FixedHandle},
        source::Material,
    },
};
use outrider_certs::{TrustBundle, TrustBundles, TrustDomain};
use outrider_injector::controller::{self, Limits, Options, model::value::World};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::cluster::{Cluster, path, svid};
use crate::harness::{ca::DOMAIN, eventually, soon};

/// A replica; it is stopped when this is dropped.
pub(in crate::kubernetes) struct Replica {
    pub(in crate::kubernetes) address: SocketAddr,
    pub(in crate::kubernetes) status: SocketAddr,
    /// Gives it another certificate or other roots.
    pub(in crate::kubernetes) identity: FixedHandle,
    stop: CancellationToken,
    serving: Option<JoinHandle<()>>,
}

impl Replica {
    /// One that knows the cluster.
    pub(in crate::kubernetes) async fn start(cluster: &Cluster, name: &str) -> Self {
        let replica = Self::begin(cluster, name, |_| {}).await;
        replica.until_ready().await;
        replica
    }

    /// One that has just begun.
    pub(in crate::kubernetes) async fn begin(
        cluster: &Cluster,
        name: &str,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let token = cluster.server.admin_token().to_owned();
        Self::begin_as(cluster, name, &token, change).await
    }

    /// The same with this token for the API server.
    pub(in crate::kubernetes) async fn begin_as(
        cluster: &Cluster,
        name: &str,
        token: &str,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let clock = Clock::system();
        let (source, identity) = Fixed::new(Some(material(cluster, cluster.ca.bundle())));
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = cluster.server.kubeconfig(folder.path(), token);
        let text = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
        let kube = kube::Config::from_custom_kubeconfig(text, &Default::default()).await.unwrap();
        let mut options = Options {
            kube,
            source: Arc::new(source),
            tls: controller::identity::tls(&clock).unwrap(),
            world: World {
                domain: "cluster.local".into(),
                trust_domain: TrustDomain::parse(DOMAIN).unwrap(),
                ranges: Arc::default(),
            },
            namespace: "outrider".to_owned(),
            name: name.to_owned(),
            watch_seconds: 2,
            limits: Limits::default(),
        };
        change(&mut options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let status = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, at) = (listener.local_addr().unwrap(), status.local_addr().unwrap());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serving = tokio::spawn(async move {
            controller::serve(options, (listener, status), clock, stopped).await.unwrap();
        });
        Self { address, status: at, identity, stop, serving: Some(serving) }
    }

    pub(in crate::kubernetes) async fn until_ready(&self) {
        soon("the controller is ready", async {
            while !self.get("/ready").await.starts_with("HTTP/1.1 200") {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// The whole answer of the plaintext listener.
    pub(in crate::kubernetes) async fn get(&self, path: &str) -> String {
        get(self.status, path).await
    }

    /// One number of `/metrics`, by the sample's name with its labels.
    pub(in crate::kubernetes) async fn metric(&self, sample: &str) -> f64 {
        number(&self.get("/metrics").await, sample)
    }

    /// Asks it to stop, and waits until it has.
    pub(in crate::kubernetes) async fn stop(mut self) {
        self.stop.cancel();
        let serving = self.serving.take().unwrap();
        soon("the controller stops", serving).await.unwrap();
    }

    /// Asks it to stop.
    pub(in crate::kubernetes) fn begin_to_stop(&self) {
        self.stop.cancel();
    }

    /// Whether it leads, eventually.
    pub(in crate::kubernetes) async fn leads(&self) {
        soon("the replica leads", async {
            while self.metric("outrider_controller_leader").await < 1.0 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(in crate::kubernetes) fn material(cluster: &Cluster, bundle: TrustBundle) -> Material {
    let leaf = cluster.ca.leaf(&path("outrider", "outrider-controller"));
    Material { svid: svid(&leaf), bundles: Arc::new(TrustBundles::single(bundle)) }
}

pub(in crate::kubernetes) async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// One sample of a text of metrics.
pub(in crate::kubernetes) fn number(text: &str, sample: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in {text}")).trim().parse().unwrap()
}

/// Waits until the API server has an object that fits.
pub(in crate::kubernetes) async fn stored(
    cluster: &Cluster,
    what: &str,
    (resource, namespace, name): (&str, &str, &str),
    fits: impl Fn(&serde_json::Value) -> bool,
) {
    eventually(what, || cluster.server.object(resource, namespace, name).is_some_and(|object| fits(&object)))
        .await;
}
