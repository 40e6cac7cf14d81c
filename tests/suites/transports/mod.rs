//! How clusters are reached: by public TLS and in the clear out of the mesh, by either protocol between sidecars, and
//! with TLS of the app's own inside the mesh; with OpenSSL at the other end for what our TLS library cannot be.

mod between;
mod openssl;
mod plain;
mod public;

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, Request, Response, Version};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use outrider::model::handshake::TlsFailure;
use rustls::{ServerConfig, version::TLS13};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::harness::{
    Sidecar, TestCa, TestLeaf, TestMesh,
    body::{self, Body},
    peer::TlsPeer,
};

/// The name that servers outside the mesh go by here.
const NAME: &str = "api.web.example";

/// Roots and servers outside the mesh.
struct Web {
    ca: TestCa,
}

impl Web {
    /// A web with one authority, whose root is in `web.pem` of the mesh's folder.
    fn new(mesh: &TestMesh) -> Self {
        let web = Self { ca: TestCa::new() };
        std::fs::write(mesh.dir().join("web.pem"), web.ca.bundle().to_pem()).unwrap();
        web
    }

    /// A server's configuration.
    fn config(leaf: &TestLeaf, alpn: &[&[u8]]) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(outrider_certs::rustls_verify::provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der.clone()], leaf.key_der())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }

    /// An HTTP server for [`NAME`] that takes these protocols and tells in its answer what it saw.
    async fn server(&self, alpn: &[&[u8]]) -> TlsPeer {
        TlsPeer::start(Self::config(&self.ca.web_leaf(NAME), alpn), tell).await
    }
}

/// Serves HTTP of either version; what it saw is in the answer's fields, what it got is its body.
async fn tell(stream: TlsStream<TcpStream>) {
    let sni = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
    let service = service_fn(move |request: Request<Incoming>| {
        let sni = sni.clone();
        async move { answer(&sni, request) }
    });
    drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
}

fn answer(sni: &str, request: Request<Incoming>) -> Result<Response<Body>, http::Error> {
    let authority = request.uri().authority().map(ToString::to_string);
    let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
    let response = Response::builder()
        .header("seen-sni", sni)
        .header("seen-version", format!("{:?}", request.version()))
        .header("seen-authority", authority.or(host).unwrap_or_default())
        .header("seen-fields", names(request.headers()))
        .header("seen-scheme", request.uri().scheme_str().unwrap_or_default())
        .header("x-outrider-processed", "no");
    response.body(body::forward(request.into_body()))
}

/// The names of all fields, in order of the alphabet.
fn names(headers: &HeaderMap) -> String {
    let mut names: Vec<&str> = headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    names.join(" ")
}

/// The sidecar of `web` with one cluster `api` outside the mesh, which `orders` leads to as well. Listeners: `out` for
/// requests, `tcp` for bytes.
async fn caller(mesh: &TestMesh, endpoints: &[SocketAddr], keys: &str) -> Sidecar {
    let endpoints: Vec<_> = endpoints.iter().map(|address| format!("{{address: '{address}'}}")).collect();
    let yaml = format!(
        "outbound:\n- {{name: out, listen: '127.0.0.1:0'}}\n\
         - {{name: tcp, listen: '127.0.0.1:0', protocol: tcp, cluster: orders}}\n\
         clusters: [{{name: orders, authorities: [orders, {NAME}], endpoints: [{}], {keys}}}]",
        endpoints.join(", "),
    );
    mesh.start("web", &yaml).await
}

/// The keys of a cluster that is reached by public TLS, with the roots of [`Web`].
fn public(more: &str) -> String {
    format!("tls: public, public: {{server_name: {NAME}, roots: web.pem, {more}}}")
}

/// Handshakes with endpoints of `orders` that failed for that reason.
fn failed(sidecar: &Sidecar, reason: TlsFailure) -> u64 {
    sidecar.cluster("orders").runtime.tls_failures[reason as usize].load(std::sync::atomic::Ordering::Relaxed)
}

/// Why the newest handshake with the first endpoint failed.
fn failure(sidecar: &Sidecar) -> String {
    sidecar.cluster("orders").endpoints[0].runtime.tls_failure().unwrap_or_default().into()
}

/// Every version that an app may call with.
const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];
