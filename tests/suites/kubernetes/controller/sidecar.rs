//! A sidecar as the controller sees one: it asks, believes what it is told, and checks the order of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use outrider::{
    clock::Clock,
    discovery::controller::api::outrider_discovery_v1::{
        self as api, WatchRequest, WatchResponse, discovery_client::DiscoveryClient, watch_request,
        watch_response::Message,
    },
};
use outrider_certs::{rustls_verify::SpiffeServerVerifier, verify::peer_of_verified};
use outrider_injector::controller::identity::tls;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{Status, Streaming, codegen::Service, transport::Endpoint};

use super::cluster::{Cluster, path, spiffe_id, svid};
use crate::harness::{BoxError, TestCa, TestLeaf, soon};

/// One stream to a controller.
pub(in crate::kubernetes) struct Sidecar {
    ask: mpsc::Sender<WatchRequest>,
    told: Streaming<WatchResponse>,
    /// Where keys lead.
    pub(in crate::kubernetes) keys: BTreeMap<String, String>,
    /// What is known of services.
    pub(in crate::kubernetes) services: BTreeMap<String, Held>,
    /// What was said of its own workload.
    pub(in crate::kubernetes) inbound: Option<String>,
    /// Keys that were refused.
    pub(in crate::kubernetes) refused: BTreeSet<String>,
    parts: Vec<api::Endpoints>,
}

/// What is known of a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::kubernetes) struct Held {
    pub(in crate::kubernetes) epoch: u64,
    pub(in crate::kubernetes) generation: u64,
    pub(in crate::kubernetes) cluster: Value,
    pub(in crate::kubernetes) routes: Vec<Value>,
    pub(in crate::kubernetes) endpoints: BTreeMap<String, api::Endpoint>,
}

impl Held {
    /// The clusters that its routes name.
    pub(in crate::kubernetes) fn needs(&self) -> Vec<String> {
        let rules = self.routes.iter().flat_map(|route| route["rules"].as_array().unwrap());
        let clusters = rules.flat_map(|rule| rule["clusters"].as_array().cloned().unwrap_or_default());
        clusters.map(|cluster| cluster["name"].as_str().unwrap().to_owned()).collect()
    }
}

/// How a sidecar calls.
pub(in crate::kubernetes) fn as_workload(ca: &TestCa, namespace: &str, account: &str) -> Arc<ClientConfig> {
    with_leaf(ca, Some(&ca.leaf(&path(namespace, account))))
}

/// With this certificate, or with none.
pub(in crate::kubernetes) fn with_leaf(ca: &TestCa, leaf: Option<&TestLeaf>) -> Arc<ClientConfig> {
    let base = tls(&Clock::system()).unwrap();
    let verifier = Arc::new(SpiffeServerVerifier::new(Arc::new(ca.bundles())));
    let svid = leaf.map(svid);
    Arc::new(base.client_with(verifier, svid.as_ref(), &[b"h2"]).unwrap())
}

struct Connector {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Service<http::Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: http::Uri) -> Self::Future {
        let (address, tls) = (self.address, Arc::clone(&self.tls));
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::IpAddress(address.ip().into());
            let stream = TlsConnector::from(tls).connect(name, stream).await?;
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            assert_eq!(peer_of_verified(shown)?.id().as_str(), spiffe_id("outrider", "outrider-controller"));
            Ok(TokioIo::new(stream))
        })
    }
}

impl Sidecar {
    /// The sidecar of a workload in `shop`.
    pub(in crate::kubernetes) async fn connect(cluster: &Cluster, address: SocketAddr) -> Self {
        Self::connect_as(cluster, address, "shop", "").await
    }

    /// That of a workload in this namespace, in the pod of this name.
    pub(in crate::kubernetes) async fn connect_as(
        cluster: &Cluster,
        address: SocketAddr,
        namespace: &str,
        pod: &str,
    ) -> Self {
        let tls = as_workload(&cluster.ca, namespace, "runner");
        let opened = soon("a stream begins", Self::open(address, tls, hello(pod))).await;
        opened.unwrap_or_else(|error| panic!("no stream: {error}"))
    }

    /// Opens a stream and says `first`.
    pub(in crate::kubernetes) async fn open(
        address: SocketAddr,
        tls: Arc<ClientConfig>,
        first: WatchRequest,
    ) -> Result<Self, BoxError> {
        let endpoint = Endpoint::from_static("http://controller")
            .initial_stream_window_size(Some(65_535))
            .initial_connection_window_size(Some(65_535));
        let channel = endpoint.connect_with_connector(Connector { address, tls }).await?;
        let (ask, asked) = mpsc::channel(64);
        ask.send(first).await?;
        let asked = futures_util::stream::unfold(asked, |mut asked| async move {
            let next = asked.recv().await?;
            Some((next, asked))
        });
        let told = DiscoveryClient::new(channel).watch(asked).await?.into_inner();
        let (keys, services) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { ask, told, keys, services, inbound: None, refused: BTreeSet::new(), parts: Vec::new() })
    }

    pub(in crate::kubernetes) async fn say(&self, message: watch_request::Message) {
        drop(self.ask.send(WatchRequest { message: Some(message) }).await);
    }

    pub(in crate::kubernetes) async fn want(&self, key: &str) {
        let want = api::Want { key: key.to_owned(), epoch: 0, generation: 0 };
        self.say(watch_request::Message::Want(want)).await;
    }

    /// Takes one message.
    pub(in crate::kubernetes) async fn hear(&mut self) -> Result<Message, Status> {
        let response = soon("the controller says something", self.told.message()).await?;
        let message =
            response.ok_or_else(|| Status::cancelled("the stream ended"))?.message.expect("a message");
        match message.clone() {
            Message::Destination(told) => {
                assert!(told.service.is_empty() || self.services.contains_key(&told.service), "said before");
                self.keys.insert(told.key, told.service);
            }
            Message::Refused(told) => drop(self.refused.insert(told.key)),
            Message::Service(told) => {
                let read = |text: &String| serde_json::from_str(text).unwrap();
                let held = self.services.entry(told.name.clone()).or_default();
                (held.epoch, held.cluster) = (told.epoch, read(&told.cluster));
                held.routes = told.routes.iter().map(read).collect();
                for need in self.services[&told.name].needs() {
                    assert!(need == told.name || self.services.contains_key(&need), "{need} is said before");
                }
            }
            Message::Endpoints(part) => {
                self.parts.push(part);
                self.complete();
            }
            Message::Workload(told) => self.inbound = Some(told.inbound),
            Message::Heartbeat(_) => {}
        }
        Ok(message)
    }

    fn complete(&mut self) {
        if self.parts.last().is_none_or(|part| part.generation == 0) {
            return;
        }
        for part in std::mem::take(&mut self.parts) {
            let held = self.services.get_mut(&part.service).expect("said before");
            if part.full {
                held.endpoints.clear();
            }
            held.endpoints.extend(part.set.into_iter().map(|endpoint| (endpoint.address.clone(), endpoint)));
            for address in part.gone {
                assert!(held.endpoints.remove(&address).is_some(), "{address} was there");
            }
            held.generation = part.generation;
        }
    }

    /// Listens until it is so.
    pub(in crate::kubernetes) async fn until(&mut self, claim: &str, is_so: impl Fn(&Self) -> bool) {
        soon(claim, async {
            while !is_so(self) {
                self.hear().await.unwrap_or_else(|status| panic!("{claim}: {status}"));
            }
        })
        .await;
    }

    /// Asks, and waits for the answer.
    pub(in crate::kubernetes) async fn ask(&mut self, key: &str) -> Option<Held> {
        self.want(key).await;
        self.keys.remove(key);
        self.until(&format!("{key} is answered"), |sidecar| sidecar.keys.contains_key(key)).await;
        self.held(key).cloned()
    }

    /// What a key leads to; `None`: to nothing in the cluster.
    pub(in crate::kubernetes) fn held(&self, key: &str) -> Option<&Held> {
        self.services.get(self.keys.get(key)?)
    }

    /// Addresses of what a key leads to.
    pub(in crate::kubernetes) fn addresses(&self, key: &str) -> Vec<&str> {
        self.held(key).map(|held| held.endpoints.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// Why the stream ends.
    pub(in crate::kubernetes) async fn ended(&mut self) -> Status {
        loop {
            if let Err(status) = self.hear().await {
                return status;
            }
        }
    }
}

pub(in crate::kubernetes) fn hello(pod: &str) -> WatchRequest {
    let hello = api::Hello { version: "test".to_owned(), pod: pod.to_owned(), ..api::Hello::default() };
    WatchRequest { message: Some(watch_request::Message::Hello(hello)) }
}
