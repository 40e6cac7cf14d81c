//! The other end of discovery's protocol, played by the test: it hears what sidecars ask, and says what it is told to say.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures_util::stream::{self, BoxStream, StreamExt};
use outrider::discovery::controller::api::outrider_discovery_v1::{
    Destination, Endpoint, Endpoints, Heartbeat, Hello, Service, WatchRequest, WatchResponse, Workload,
    discovery_server::{Discovery, DiscoveryServer},
    watch_request::Message as Asked,
    watch_response::Message as Said,
};
use tokio::{
    net::TcpListener,
    sync::{Mutex as AsyncMutex, mpsc, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status, Streaming};

use super::{TestLeaf, TestMesh, ca::id, peer, soon};

/// The service whose certificate the controller has.
pub(crate) const CONTROLLER: &str = "controller";

/// A controller on a port of its own.
pub(crate) struct Controller {
    address: SocketAddr,
    streams: AsyncMutex<mpsc::Receiver<Stream>>,
    /// Connections are taken and kept; else they are broken, and new ones closed.
    is_there: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// One stream of a sidecar. It ends when this is dropped.
pub(crate) struct Stream {
    /// What it began with.
    pub(crate) hello: Hello,
    asked: Streaming<WatchRequest>,
    said: mpsc::Sender<Result<WatchResponse, Status>>,
}

/// Where streams go.
struct Door(Mutex<mpsc::Sender<Stream>>);

impl Controller {
    /// Starts one that proves to be the controller.
    pub(crate) async fn start(mesh: &TestMesh) -> Self {
        Self::start_as(mesh, &mesh.ca.leaf(CONTROLLER)).await
    }

    /// Starts one with that certificate.
    pub(crate) async fn start_as(mesh: &TestMesh, leaf: &TestLeaf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(peer::server_config(&mesh.ca, leaf, &[b"h2"])));
        let (to, streams) = mpsc::channel(16);
        let (is_there, seen) = watch::channel(true);
        let task = tokio::spawn(accept(listener, acceptor, to, seen));
        Self { address, streams: AsyncMutex::new(streams), is_there, task }
    }

    /// The section of a configuration that asks here.
    pub(crate) fn section(&self, keys: &str) -> String {
        format!("controller: {{address: '{}', spiffe_id: '{}', {keys}}}", self.address, id(CONTROLLER))
    }

    /// The next stream.
    pub(crate) async fn stream(&self) -> Stream {
        soon("a stream of the controller", async { self.streams.lock().await.recv().await }).await.unwrap()
    }

    /// Whether a stream has come that nobody has taken.
    pub(crate) async fn has_stream(&self) -> bool {
        !self.streams.lock().await.is_empty()
    }

    /// Breaks all connections, and takes no others.
    pub(crate) fn leave(&self) {
        self.is_there.send_replace(false);
    }

    /// Takes connections again.
    pub(crate) fn come_back(&self) {
        self.is_there.send_replace(true);
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    to: mpsc::Sender<Stream>,
    is_there: watch::Receiver<bool>,
) {
    let mut serving = JoinSet::new();
    loop {
        let (stream, _peer) = listener.accept().await.unwrap();
        let (acceptor, door, mut is_there) =
            (acceptor.clone(), Door(Mutex::new(to.clone())), is_there.clone());
        if !*is_there.borrow_and_update() {
            continue;
        }
        serving.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let connections = stream::iter([Ok::<_, std::io::Error>(stream)]);
            let server = tonic::transport::Server::builder().add_service(DiscoveryServer::new(door));
            tokio::select! {
                _ended = server.serve_with_incoming(connections) => {}
                _left = is_there.wait_for(|is_there| !is_there) => {}
            }
        });
    }
}

#[tonic::async_trait]
impl Discovery for Door {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let to = self.0.lock().unwrap().clone();
        let mut asked = request.into_inner();
        let Some(WatchRequest { message: Some(Asked::Hello(hello)) }) = asked.message().await? else {
            return Err(Status::invalid_argument("the first word is no Hello"));
        };
        let (said, saying) = mpsc::channel(1024);
        to.send(Stream { hello, asked, said })
            .await
            .map_err(|_over| Status::unavailable("the test is over"))?;
        Ok(Response::new(
            stream::unfold(saying, |mut saying| async move { Some((saying.recv().await?, saying)) }).boxed(),
        ))
    }
}

impl Stream {
    /// What is asked next, as `want KEY EPOCH/GENERATION` or `forget KEY`.
    pub(crate) async fn asked(&mut self) -> String {
        let asked =
            soon("something is asked", self.asked.message()).await.unwrap().expect("the stream goes on");
        match asked.message.unwrap() {
            Asked::Want(want) => format!("want {} {}/{}", want.key, want.epoch, want.generation),
            Asked::Forget(forget) => format!("forget {}", forget.key),
            Asked::Hello(_) => panic!("it was said before"),
        }
    }

    /// Waits until the sidecar has ended it.
    pub(crate) async fn ended(&mut self) {
        while let Ok(Some(_more)) = soon("the stream ends", self.asked.message()).await {}
    }

    async fn say(&self, said: Said) {
        self.said.send(Ok(WatchResponse { message: Some(said) })).await.unwrap();
    }

    /// There is nothing new.
    pub(crate) async fn heartbeat(&self) {
        self.say(Said::Heartbeat(Heartbeat {})).await;
    }

    /// What the sidecar's own app speaks.
    pub(crate) async fn workload(&self, inbound: &str) {
        self.say(Said::Workload(Workload { generation: 1, inbound: inbound.to_owned() })).await;
    }

    /// What a service is: `cluster` is JSON without its braces and its name.
    pub(crate) async fn service(&self, name: &str, generation: u64, cluster: &str) {
        self.routed(name, generation, cluster, &[]).await;
    }

    /// The same with routes, each as JSON.
    pub(crate) async fn routed(&self, name: &str, generation: u64, cluster: &str, routes: &[String]) {
        let cluster = format!(r#"{{"name":"{name}",{cluster}}}"#);
        let routes = routes.to_vec();
        let service = Service { name: name.to_owned(), epoch: 1, generation, cluster, routes };
        self.say(Said::Service(service)).await;
    }

    /// All endpoints of a service: who must be there, and where; with no name, nobody proves anything there.
    pub(crate) async fn endpoints(&self, service: &str, generation: u64, all: &[(SocketAddr, &str)]) {
        let set = all.iter().map(|(address, service)| endpoint(*address, service)).collect();
        let (service, gone) = (service.to_owned(), Vec::new());
        self.say(Said::Endpoints(Endpoints { service, generation, full: true, set, gone })).await;
    }

    /// What has changed of them.
    pub(crate) async fn change(
        &self,
        service: &str,
        generation: u64,
        new: &[(SocketAddr, &str)],
        gone: &[SocketAddr],
    ) {
        let set = new.iter().map(|(address, service)| endpoint(*address, service)).collect();
        let gone = gone.iter().map(ToString::to_string).collect();
        let service = service.to_owned();
        self.say(Said::Endpoints(Endpoints { service, generation, full: false, set, gone })).await;
    }

    /// Where a key leads; nowhere in the cluster, if there is no service.
    pub(crate) async fn leads(&self, key: &str, service: &str) {
        let destination = Destination { key: key.to_owned(), service: service.to_owned(), unknown: false };
        self.say(Said::Destination(destination)).await;
    }

    /// All of a service of the mesh that is named as the one whose certificate its one endpoint has.
    pub(crate) async fn tell(&self, key: &str, service: &str, cluster: &str, endpoint: SocketAddr) {
        self.service(service, 1, cluster).await;
        self.endpoints(service, 2, &[(endpoint, service)]).await;
        self.leads(key, service).await;
    }
}

fn endpoint(address: SocketAddr, service: &str) -> Endpoint {
    let spiffe_id = if service.is_empty() { String::new() } else { id(service).to_string() };
    Endpoint { address: address.to_string(), spiffe_id, ready: true, ..Endpoint::default() }
}
