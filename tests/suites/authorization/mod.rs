//! Which calls of peers reach the own app: by rules that allow, on what the app gets, and nothing else does.

mod audit;
mod grpc;
mod headers;
mod reload;
mod requests;
mod spelling;
mod streams;

use std::sync::atomic::Ordering;

use http::Version;
use outrider::telemetry::{observer::Told, trail::Trail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use crate::harness::{
    Client, HttpApp, Sidecar, TestMesh,
    peer::{self, ALPN_H2},
    soon,
};

/// HTTP/1.1 between sidecars.
const ALPN_H1: &[u8] = b"outrider-h1/1";
/// A caller, as Kubernetes names them.
const WEB: &str = "ns/shop/sa/web";

/// `orders` behind its sidecar with rules; callers are played by the test.
struct Bench {
    mesh: TestMesh,
    app: HttpApp,
    orders: Sidecar,
    /// Of every call that is over.
    trails: mpsc::Receiver<Told>,
}

impl Bench {
    /// With that section `authorization`, as `{rules: []}`.
    async fn new(authorization: &str) -> Self {
        Self::with(HttpApp::named("orders").await, authorization).await
    }

    /// The same in front of that app.
    async fn with(app: HttpApp, authorization: &str) -> Self {
        let mesh = TestMesh::new();
        let orders = mesh.start("orders", &callee(&app, authorization)).await;
        let trails = orders.app().observer.subscribe();
        Self { mesh, app, orders, trails }
    }

    /// Has it go by other rules.
    async fn reload(&mut self, authorization: &str) {
        self.reload_as("", authorization).await;
    }

    /// The same with these keys of the listener.
    async fn reload_as(&mut self, keys: &str, authorization: &str) {
        let yaml = callee_as(&self.app, keys, authorization);
        self.mesh.reload(&mut self.orders, "orders", &yaml).await.unwrap();
    }

    /// A caller that speaks HTTP/2 as a sidecar does.
    async fn peer(&self, service: &str) -> Client {
        let leaf = self.mesh.ca.leaf(service);
        let config = peer::client_config(&self.mesh.ca, Some(&leaf), &[ALPN_H2]);
        let stream = soon("a handshake", peer::connect(self.orders.address(), config)).await.unwrap();
        Client::over(stream, Version::HTTP_2).await
    }

    /// The beginning of the answer to a request of [`WEB`] that is written by hand, in HTTP/1.1.
    async fn raw(&self, request: &str) -> String {
        let leaf = self.mesh.ca.leaf(WEB);
        let config = peer::client_config(&self.mesh.ca, Some(&leaf), &[ALPN_H1]);
        let mut stream = soon("a handshake", peer::connect(self.orders.address(), config)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // What ends a connection is not the question.
        drop(soon("the answer", stream.read_to_end(&mut answer)).await);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What rules have said so far: allowed, denied, audited.
    fn verdicts(&self) -> [u64; 3] {
        verdicts(&self.orders, "in")
    }

    /// The trail of the next call that is over.
    async fn trail(&mut self) -> Trail {
        *soon("a call is over", self.trails.recv()).await.unwrap().trail
    }

    /// What the rules have said of the next call that was judged.
    async fn judged(&mut self) -> String {
        loop {
            if let Some(said) = self.trail().await.authorization {
                return said.to_string();
            }
        }
    }
}

fn verdicts(sidecar: &Sidecar, listener: &str) -> [u64; 3] {
    sidecar.listener(listener).authorized.each_ref().map(|count| count.load(Ordering::Relaxed))
}

fn callee(app: &HttpApp, authorization: &str) -> String {
    callee_as(app, "", authorization)
}

fn callee_as(app: &HttpApp, keys: &str, authorization: &str) -> String {
    format!(
        "inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}', {keys}}}]\nauthorization: {authorization}",
        app.address(),
    )
}

/// A rule about [`WEB`] with these further keys, in a section of its own.
fn web_may(keys: &str) -> String {
    format!("{{rules: [{{name: web, from: ['spiffe://test.outrider/{WEB}'], {keys}}}]}}")
}
