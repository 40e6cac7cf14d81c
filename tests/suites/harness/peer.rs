//! The other end of a connection between sidecars, played by the test: TLS by hand, and what it carries.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use outrider_certs::rustls_verify::{ClientAuth, SpiffeClientVerifier, SpiffeServerVerifier, provider};
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName, version::TLS13};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::{TestCa, TestLeaf};

/// HTTP between sidecars.
pub(crate) const ALPN_H2: &[u8] = b"outrider-h2/1";
/// Opaque streams between sidecars.
pub(crate) const ALPN_TCP: &[u8] = b"outrider-tcp/1";

/// A client that shows `leaf`, if any, and offers `alpn`, if any.
pub(crate) fn client_config(ca: &TestCa, leaf: Option<&TestLeaf>, alpn: &[&[u8]]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(SpiffeServerVerifier::new(Arc::new(ca.bundles()))));
    let mut config = match leaf {
        Some(leaf) => builder.with_client_auth_cert(vec![leaf.der.clone()], leaf.key_der()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

/// A server that shows `leaf`, demands a certificate of the mesh, and takes `alpn`.
pub(crate) fn server_config(ca: &TestCa, leaf: &TestLeaf, alpn: &[&[u8]]) -> ServerConfig {
    let verifier = SpiffeClientVerifier::new(Arc::new(ca.bundles()), ClientAuth::Required);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(vec![leaf.der.clone()], leaf.key_der())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

/// Connects with TLS. With TLS 1.3 a server's refusal of our certificate is seen only by the first read.
pub(crate) async fn connect(
    address: SocketAddr,
    config: ClientConfig,
) -> std::io::Result<client::TlsStream<TcpStream>> {
    secure(TcpStream::connect(address).await?, config).await
}

/// As [`connect`], over a connection.
pub(crate) async fn secure<S>(stream: S, config: ClientConfig) -> std::io::Result<client::TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let anybody = ServerName::IpAddress(IpAddr::from(Ipv4Addr::LOCALHOST).into());
    TlsConnector::from(Arc::new(config)).connect(anybody, stream).await
}

/// A peer with a TLS configuration of the test's choice, on a port of its own.
pub(crate) struct TlsPeer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl TlsPeer {
    /// Starts one; `serve` is called for each connection whose handshake succeeded.
    pub(crate) async fn start<F>(
        config: ServerConfig,
        serve: impl Fn(server::TlsStream<TcpStream>) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let connections: Arc<AtomicUsize> = Arc::default();
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            loop {
                let (stream, _peer) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let (acceptor, serve) = (acceptor.clone(), serve.clone());
                serving.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream).await;
                    }
                });
            }
        });
        Self { address, connections, task }
    }

    /// One that only keeps every decrypted byte in `heard`.
    pub(crate) async fn listening(config: ServerConfig, heard: Arc<Mutex<Vec<u8>>>) -> Self {
        Self::start(config, move |mut stream| {
            let heard = Arc::clone(&heard);
            async move {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    heard.lock().unwrap().extend_from_slice(&buffer[..count]);
                }
            }
        })
        .await
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// TCP connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for TlsPeer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A TCP relay that keeps every byte of both directions.
pub(crate) struct Tap {
    address: SocketAddr,
    bytes: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Tap {
    /// Starts one in front of `target`.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let log = Arc::clone(&bytes);
        let task = tokio::spawn(async move {
            let mut relaying = tokio::task::JoinSet::new();
            loop {
                let (near, _peer) = listener.accept().await.unwrap();
                let far = TcpStream::connect(target).await.unwrap();
                let (near, far) = (near.into_split(), far.into_split());
                relaying.spawn(record(near.0, far.1, Arc::clone(&log)));
                relaying.spawn(record(far.0, near.1, Arc::clone(&log)));
            }
        });
        Self { address, bytes, task }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What passed so far.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn record(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    log: Arc<Mutex<Vec<u8>>>,
) {
    use tokio::io::AsyncWriteExt as _;
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        log.lock().unwrap().extend_from_slice(&buffer[..count]);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
