//! No more begins than is allowed, each caller for itself, and faults come as they were ordered.

mod callers;
mod faults;
mod outbound;
mod streams;

use std::{net::SocketAddr, sync::atomic::Ordering};

use http::{Request, Response};
use hyper::body::Incoming;

use crate::harness::{
    Client, Sidecar, TestMesh,
    body::{self, Body},
    client::field,
};

/// A limit that nothing refills while a test lasts.
const THREE: &str = "requests: 3, per: 1h";

/// A sidecar of that service, which calls `orders` at these places. `keys` are further keys of the cluster.
async fn caller(mesh: &TestMesh, service: &str, endpoints: &[SocketAddr], keys: &str) -> Sidecar {
    let cluster = TestMesh::cluster("orders", endpoints, keys);
    let yaml = format!("outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{cluster}]");
    mesh.start(service, &yaml).await
}

/// Asks for a path so often, one after the other; how many requests were let through. The others must be refused as such.
async fn let_through(address: SocketAddr, path: &str, count: usize) -> usize {
    let mut client = Client::http1(address).await;
    let mut passed = 0;
    for _ in 0..count {
        let response = client.get(path).await.unwrap();
        match response.status().as_u16() {
            200 => passed += 1,
            429 => assert_eq!(field(&response, "x-outrider-reason"), Some("rate_limited")),
            other => panic!("{other}"),
        }
        body::text(response.into_body()).await;
    }
    passed
}

/// A call of gRPC.
fn grpc() -> Request<Body> {
    Request::post("/shop.Orders/Place")
        .header("content-type", "application/grpc")
        .body(body::empty())
        .unwrap()
}

/// The fields of an answer that tell of limits.
fn told(response: &Response<Incoming>) -> [Option<&str>; 3] {
    ["ratelimit-policy", "ratelimit", "retry-after"].map(|name| field(response, name))
}

/// Requests that the first limit of a cluster refused.
fn refused(sidecar: &Sidecar, cluster: &str) -> u64 {
    let cluster = sidecar.cluster(cluster);
    cluster.limiters.lists()[0].limiters[0].state.refused.load(Ordering::Relaxed)
}
