//! What the kernel brings here from others, at ports with rules and with exceptions from them.
//!
//! No kernel's rules are needed: the network tells whom each connection was made to as the test says ([`ToldNet`]).

mod app_tls;
mod authorized;
mod detected;
mod forwarded;
mod from;
mod limits;
mod peers;
mod plaintext;
mod probes;
mod taken_away;
mod within;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use http::Version;
use outrider::{
    clock::Clock,
    model::{
        listener::Exception,
        runtime::{ByteCounts, Refusal},
    },
};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    BoxError, Client, Sidecar, TestMesh, eventually,
    peer::{self, ALPN_H2},
    soon,
    told::ToldNet,
};

/// The listener of what comes in.
const LISTENER: &str = "intercept-inbound";
/// Keys of a port that lets anybody in, for as long as these tests may live.
const PERMISSIVE: &str = "plaintext: permissive, plaintext_until: 2999-01-01";
/// The same, with the day over.
const NO_LONGER: &str = "plaintext: permissive, plaintext_until: 2020-01-01";

/// `orders` with its sidecar, to whose ports connections are brought.
struct Pod {
    mesh: TestMesh,
    net: ToldNet,
    orders: Sidecar,
}

/// The section of a port.
fn port(app: SocketAddr, keys: &str) -> String {
    format!("{{port: {}, {keys}}}", app.port())
}

/// A configuration with these ports.
fn ports(ports: &[String]) -> String {
    format!("intercept: {{inbound: {{ports: [{}]}}}}", ports.join(", "))
}

impl Pod {
    /// One with an app on a port of these keys.
    async fn new(app: SocketAddr, keys: &str) -> Self {
        Self::with(&ports(&[port(app, keys)])).await
    }

    /// One with that configuration.
    async fn with(yaml: &str) -> Self {
        Self::at(Clock::system(), yaml).await
    }

    /// The same, with a clock of its own.
    async fn at(clock: Clock, yaml: &str) -> Self {
        let (mesh, net) = (TestMesh::new(), ToldNet::default());
        let orders = mesh.start_in(net.clone(), clock, "orders", yaml).await;
        Self { mesh, net, orders }
    }

    /// Has it go by another configuration.
    async fn reload(&mut self, yaml: &str) {
        self.mesh.reload(&mut self.orders, "orders", yaml).await.unwrap();
    }

    fn address(&self) -> SocketAddr {
        self.orders.address_of(LISTENER)
    }

    /// A connection to the app, brought here.
    async fn dial(&self, app: SocketAddr) -> TcpStream {
        self.net.dial(self.address(), app).await.unwrap()
    }

    /// A client of the app that speaks HTTP in plaintext.
    async fn client(&self, app: SocketAddr, version: Version) -> Client {
        Client::over(self.dial(app).await, version).await
    }

    /// A service of the mesh that speaks HTTP as a sidecar does.
    async fn peer(&self, app: SocketAddr, service: &str) -> Result<Client, BoxError> {
        let stream = self.secure(self.dial(app).await, service, ALPN_H2).await?;
        Ok(Client::over(stream, Version::HTTP_2).await)
    }

    /// Mutual TLS of a service of the mesh, over a connection.
    async fn secure(
        &self,
        stream: TcpStream,
        service: &str,
        alpn: &[u8],
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        soon("a handshake", peer::secure(stream, self.tls(service, alpn))).await
    }

    fn tls(&self, service: &str, alpn: &[u8]) -> ClientConfig {
        peer::client_config(&self.mesh.ca, Some(&self.mesh.ca.leaf(service)), &[alpn])
    }

    /// Connections and bytes that came by that exception.
    fn came_by(&self, exception: Exception) -> Arc<ByteCounts> {
        Arc::clone(&self.orders.listener(LISTENER).exceptions[exception as usize])
    }

    /// Connections that came by each exception.
    fn exceptions(&self) -> [u64; 3] {
        Exception::ALL.map(|exception| self.came_by(exception).connections.load(Ordering::Relaxed))
    }

    /// So many connections were refused for that reason, and none for another.
    async fn refused(&self, count: u64, reason: Refusal) {
        let counts = self.orders.listener(LISTENER);
        let of = |reason: Refusal| counts.refused[reason as usize].load(Ordering::Relaxed);
        eventually(&format!("{count} are refused as {reason:?}"), || of(reason) == count).await;
        assert_eq!(Refusal::ALL.map(of).iter().sum::<u64>(), count, "{reason:?}");
    }
}

/// Sends `bytes` and reads as many back.
async fn talk<S>(stream: &mut S, bytes: &[u8])
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.write_all(bytes).await.unwrap();
    hear(stream, bytes).await;
}

/// Reads exactly `bytes`.
async fn hear<S: tokio::io::AsyncRead + Unpin>(stream: &mut S, bytes: &[u8]) {
    let mut heard = vec![0; bytes.len()];
    soon("the bytes come", stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, bytes);
}

/// How a connection ends, and what comes before.
async fn ending<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    soon("the connection ends", stream.read_to_end(&mut all)).await.map(|_count| all)
}

/// The connection is reset, and nothing comes before.
async fn is_reset(mut stream: TcpStream) {
    let ended = ending(&mut stream).await;
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}
