//! Connections to a collector: through the seam of the network, so that they are marked as ours where interception goes by
//! marks; TLS 1.3 with `https://`.

use std::{
    fmt,
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tokio_rustls::TlsConnector;

use crate::{
    model::telemetry::Endpoint,
    net::{Net, Purpose},
};

/// For one address: TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// A connected byte stream, of whatever kind.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

pub(super) type Socket = Box<dyn Io>;
type Connecting = Pin<Box<dyn Future<Output = io::Result<Socket>> + Send>>;

/// How connections are made, whatever the network is.
#[derive(Clone)]
pub struct Dialing {
    dial: Arc<dyn Fn(SocketAddr) -> Connecting + Send + Sync>,
    /// One name is looked up at a time, also where the one who asked has given up: the threads that may block are few.
    looking: Arc<Semaphore>,
}

impl fmt::Debug for Dialing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialing")
    }
}

impl Dialing {
    /// Through that network.
    #[must_use]
    pub fn by<N: Net>(net: &N) -> Self {
        let net = net.clone();
        let dial = Arc::new(move |address| {
            let net = net.clone();
            Box::pin(async move {
                let stream = net.connect(address, Purpose::Any, CONNECT_TIMEOUT).await?;
                Ok(Box::new(stream) as Socket)
            }) as Connecting
        });
        Self { dial, looking: Arc::new(Semaphore::new(1)) }
    }

    /// The addresses of a name, by the operating system.
    async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let turn = Arc::clone(&self.looking).acquire_owned().await.map_err(io::Error::other)?;
        let host = host.to_owned();
        let found = tokio::task::spawn_blocking(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            drop(turn);
            found
        });
        found.await.map_err(io::Error::other)?
    }
}

/// Makes connections to one collector.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) dialing: Dialing,
    pub(super) endpoint: Endpoint,
    /// With `https://`.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Connector {
    /// A connection, to the first address that takes one.
    pub(super) async fn connect(&self) -> io::Result<Socket> {
        let Endpoint { host, port, .. } = &self.endpoint;
        let found = tokio::time::timeout(CONNECT_TIMEOUT, self.dialing.look_up(host, *port));
        let found = found.await.map_err(|_elapsed| timed_out("looking its name up took too long"))??;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        for address in found.into_iter().take(MAX_ADDRESSES) {
            match tokio::time::timeout(CONNECT_TIMEOUT, self.connect_to(address)).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => last = error,
                Err(_elapsed) => last = timed_out("connecting took too long"),
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<Socket> {
        let socket = (self.dialing.dial)(address).await?;
        let Some(tls) = &self.tls else { return Ok(socket) };
        let name = ServerName::try_from(self.endpoint.host.to_string()).map_err(io::Error::other)?;
        let secured = TlsConnector::from(Arc::clone(tls)).connect(name, socket).await?;
        Ok(Box::new(secured))
    }
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}
