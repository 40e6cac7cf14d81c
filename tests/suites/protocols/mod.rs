//! What apps speak passes through a pair of sidecars as it was meant: HTTP/1.1, HTTP/2, gRPC, opaque TCP; long bodies
//! and slow readers, trailers and half-closes; and what is malformed disturbs nobody else.

mod bad_answers;
mod bodies;
mod grpc;
mod headers;
mod http1;
mod limits;
mod malformed;
mod messages;
mod proxied;
mod smuggling;
mod standard;
mod tcp;
mod tcp_frames;
mod tunnels;
mod upgrades;

use http::Version;

use crate::harness::{HttpApp, Sidecar, TestMesh};

/// What the calling app and the called app may speak.
const PAIRS: [(Version, Version); 4] = [
    (Version::HTTP_11, Version::HTTP_11),
    (Version::HTTP_11, Version::HTTP_2),
    (Version::HTTP_2, Version::HTTP_11),
    (Version::HTTP_2, Version::HTTP_2),
];

/// `web` → sidecar → sidecar → `orders`.
struct Pair {
    _mesh: TestMesh,
    app: HttpApp,
    orders: Sidecar,
    web: Sidecar,
}

impl Pair {
    /// An app behind two sidecars; what it speaks is left to them.
    async fn of(app: HttpApp) -> Self {
        Self::with(app, "", "").await
    }

    /// The app is spoken to with this version.
    async fn speaking(app: HttpApp, version: Version) -> Self {
        let protocol = if version == Version::HTTP_2 { "http2" } else { "http1" };
        Self::with(app, &format!("app_protocol: {protocol}"), "").await
    }

    /// With further keys of the inbound listener and of the cluster.
    async fn with(app: HttpApp, inbound: &str, cluster: &str) -> Self {
        let mesh = TestMesh::new();
        let orders = mesh.callee("orders", app.address(), inbound).await;
        let web = mesh.caller(&[orders.address()], cluster).await;
        Self { _mesh: mesh, app, orders, web }
    }
}
