//! Traces and trails: what hops tell each other and their apps of a request's trace, and what is noted of how it went.

mod chain;
mod hops;
mod origins;
mod streams;
mod trails;

use std::net::SocketAddr;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use outrider::{
    model::trace::TracePlace,
    telemetry::{
        observer::{Told, Wanted},
        trail::Trail,
    },
};
use tokio::sync::mpsc;

use crate::harness::{Client, Sidecar, TestMesh, body, client::request, soon};

/// Traces of which all that begin here are sampled. Nobody is there to take the spans.
const TRACED: &str = "telemetry: {traces: {endpoint: 'http://127.0.0.1:9', sample_percent: 100}}";
/// The same, of which none is.
const UNSAMPLED: &str = "telemetry: {traces: {endpoint: 'http://127.0.0.1:9', sample_percent: 0}}";

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// Every trail of a sidecar, from now on.
struct Trails(mpsc::Receiver<Told>);

impl Trails {
    fn of(sidecar: &Sidecar) -> Self {
        Self(sidecar.app().observer.subscribe())
    }

    /// The next request's that is over.
    async fn next(&mut self) -> Trail {
        self.told().await.0
    }

    /// And who wants it.
    async fn told(&mut self) -> (Trail, Wanted) {
        let told = soon("a request is over", self.0.recv()).await.unwrap();
        (*told.trail, told.wanted)
    }
}

/// `web` → sidecar → sidecar → `orders`.
struct Pair {
    _mesh: TestMesh,
    orders: Sidecar,
    web: Sidecar,
    inbound: Trails,
    outbound: Trails,
}

impl Pair {
    /// In front of an app; `telemetry` is of both.
    async fn new(app: SocketAddr, telemetry: &str) -> Self {
        Self::with(app, telemetry, "").await
    }

    /// With further keys of the cluster.
    async fn with(app: SocketAddr, telemetry: &str, cluster: &str) -> Self {
        let mesh = TestMesh::new();
        let orders = mesh.start("orders", &callee(app, telemetry)).await;
        let web = mesh.start("web", &caller(&[orders.address()], telemetry, cluster)).await;
        let (inbound, outbound) = (Trails::of(&orders), Trails::of(&web));
        Self { _mesh: mesh, orders, web, inbound, outbound }
    }

    /// Asks with these fields; the answer's head.
    async fn ask(&self, fields: &[(&str, &str)]) -> Response<Incoming> {
        ask(self.web.address(), fields).await
    }
}

/// The configuration of a sidecar in front of an app.
fn callee(app: SocketAddr, telemetry: &str) -> String {
    format!("inbound: [{{name: in, listen: '127.0.0.1:0', app: '{app}'}}]\n{telemetry}")
}

/// The configuration of a sidecar with a cluster `orders`.
fn caller(endpoints: &[SocketAddr], telemetry: &str, keys: &str) -> String {
    let cluster = TestMesh::cluster("orders", endpoints, keys);
    format!("outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{cluster}]\n{telemetry}")
}

/// The configuration of a sidecar of whose two endpoints none is ready, and none is waited for any longer.
fn nobody_ready(queue_timeout: &str) -> String {
    let id = crate::harness::ca::id("orders");
    let endpoint = || format!("{{address: '{}', ready: false}}", crate::harness::app::nobody());
    let endpoints = [endpoint(), endpoint()].join(", ");
    let keys = format!("panic_percent: 0, queue_timeout: {queue_timeout}");
    let cluster = format!("{{name: orders, spiffe_ids: ['{id}'], endpoints: [{endpoints}], {keys}}}");
    format!("outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{cluster}]\n{TRACED}")
}

/// A request with these fields.
fn with(fields: &[(&str, &str)]) -> Request<body::Body> {
    let mut request = request(Method::GET, "/reports/7?secret=1", body::empty());
    for (name, value) in fields {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request
}

/// Asks over a connection of its own.
async fn ask(address: SocketAddr, fields: &[(&str, &str)]) -> Response<Incoming> {
    let mut client = Client::http1(address).await;
    soon("an answer", client.send(with(fields))).await.unwrap()
}

/// Trace, span and flags of a `traceparent`.
fn parts(traceparent: &str) -> (String, String, String) {
    let parts: Vec<_> = traceparent.split('-').collect();
    assert_eq!((parts.len(), parts[0]), (4, "00"), "{traceparent}");
    (parts[1].to_owned(), parts[2].to_owned(), parts[3].to_owned())
}

/// A trail's place in its trace.
fn place(trail: &Trail) -> &TracePlace {
    trail.trace.as_ref().unwrap()
}

/// The span of a trail's attempt.
fn span(trail: &Trail, attempt: usize) -> String {
    trail.attempts[attempt].span.unwrap().to_string()
}

fn text<T: ToString>(id: Option<T>) -> Option<String> {
    id.map(|id| id.to_string())
}
