//! One new connection to one endpoint: TCP, then the handshake its transport asks for.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use outrider_certs::verify::Role;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};
use tokio_rustls::client::TlsStream;

use super::Error;
use crate::{
    buffer::ReadAhead,
    model::{
        Cluster, Endpoint,
        cluster::{PeerKind, StandardProtocol, Transport},
        identity::{Identity, TlsConfigs},
    },
    net::{Net, Stream},
    resilience::circuit_breaker::{self, ConnectionSlot},
    tls::{
        connect as tls,
        trust::{Cut, Guard, Registry},
    },
};

/// What will be spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Speak {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Opaque bytes: framed to a sidecar, bare to anyone else.
    Tcp,
}

/// A connection to an endpoint: TLS to a peer, plain to the own app.
#[derive(Debug)]
pub struct Connection<S> {
    io: Io<S>,
    /// Told when the first byte has come; `None` once it has, or if nobody asked.
    heard: Option<oneshot::Sender<()>>,
    /// Holds the connection's place under the cluster's cap, and its count at the endpoint.
    _slot: Slot,
}

#[derive(Debug)]
enum Io<S> {
    Plain(S),
    // Boxed: a TLS session is over a kilobyte and plain connections to the app are as many.
    Tls(Box<Secured<S>>),
}

#[derive(Debug)]
struct Secured<S> {
    stream: TlsStream<ReadAhead<S>>,
    trust: Guard,
}

#[derive(Debug)]
struct Slot {
    endpoint: Arc<Endpoint>,
    _connection: ConnectionSlot,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.endpoint.runtime.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What HTTP version a cluster's upstream connections speak; the own app's is the caller's to choose.
#[must_use]
pub fn mesh_http(peer: PeerKind) -> Speak {
    match peer {
        PeerKind::Outrider | PeerKind::Standard(StandardProtocol::Http2) => Speak::Http2,
        PeerKind::Standard(StandardProtocol::Http1) => Speak::Http1,
    }
}

/// Makes connections. Clones share what they make them with.
#[derive(Clone, Debug)]
pub struct Dialer<N> {
    /// The network.
    pub net: N,
    /// Where connections with peers are registered, so that they end with the trust in their peers.
    pub trust: Arc<Registry>,
}

impl<N: Net> Dialer<N> {
    /// Connects to `endpoint`, within the cluster's connect timeout, under its cap on connections.
    ///
    /// # Errors
    /// [`Error`]; nothing of any request was sent.
    pub async fn dial(
        &self,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        identity: Option<&Arc<Identity>>,
        speak: Speak,
    ) -> Result<Connection<N::Stream>, Error> {
        let connection = circuit_breaker::admit_connection(cluster).map_err(|_overflow| Error::Overflow)?;
        endpoint.runtime.connections.fetch_add(1, Ordering::Relaxed);
        let slot = Slot { endpoint: Arc::clone(endpoint), _connection: connection };

        let limit = cluster.settings.timeouts.connect;
        let connecting = async {
            let stream = self.net.connect(endpoint.address(), limit).await.map_err(tcp_error)?;
            match cluster.settings.transport {
                Transport::App => Ok(Io::Plain(stream)),
                Transport::Mesh(peer) => {
                    let identity = identity.ok_or(Error::NoIdentity)?;
                    let secured =
                        self.secure(stream, identity, config(&identity.tls, peer, speak), endpoint).await?;
                    Ok(Io::Tls(Box::new(secured)))
                }
            }
        };
        let io = tokio::time::timeout(limit, connecting).await.map_err(|_elapsed| Error::Timeout)??;
        Ok(Connection { io, heard: None, _slot: slot })
    }

    async fn secure(
        &self,
        stream: N::Stream,
        identity: &Identity,
        config: &Arc<ClientConfig>,
        endpoint: &Endpoint,
    ) -> Result<Secured<N::Stream>, Error> {
        let (stream, address) = (ReadAhead::new(stream), endpoint.address().ip());
        let (stream, facts) =
            tls::connect(stream, Arc::clone(config), address, &endpoint.settings.spiffe_ids)
                .await
                .map_err(|error| Error::Tls(Arc::new(error)))?;
        endpoint.runtime.set_tls(facts);
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let trust = self.trust.hold(chain, Role::Server, &identity.bundles);
        Ok(Secured { stream, trust })
    }
}

impl<S> Connection<S> {
    /// Resolves when the first byte has come, with an error if the connection ended without any. In TLS 1.3 the
    /// handshake is over for us before the peer has judged our certificate; where the peer speaks first, its first
    /// byte says that it took it.
    pub fn first_byte(&mut self) -> oneshot::Receiver<()> {
        let (heard, first_byte) = oneshot::channel();
        self.heard = Some(heard);
        first_byte
    }

    /// Resolves when the peer is no longer trusted. Reads and writes fail then as well; this is for whoever may be
    /// doing neither.
    #[must_use]
    pub fn cut(&self) -> Cut {
        match &self.io {
            Io::Plain(_) => Cut::never(),
            Io::Tls(tls) => tls.trust.cut(),
        }
    }
}

fn config(configs: &TlsConfigs, peer: PeerKind, speak: Speak) -> &Arc<ClientConfig> {
    match (peer, speak) {
        (PeerKind::Outrider, Speak::Http1 | Speak::Http2) => &configs.client_outrider_h2,
        (PeerKind::Outrider, Speak::Tcp) => &configs.client_outrider_tcp,
        (PeerKind::Standard(_), Speak::Http2) => &configs.client_standard_h2,
        (PeerKind::Standard(_), Speak::Http1) => &configs.client_standard_h1,
        (PeerKind::Standard(_), Speak::Tcp) => &configs.client_standard_tcp,
    }
}

fn tcp_error(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::TimedOut { Error::Timeout } else { Error::Tcp(Arc::new(error)) }
}

impl<S: Stream> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        let polled = match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(tls) => {
                tls.trust.check(cx)?;
                Pin::new(&mut tls.stream).poll_read(cx, buf)
            }
        };
        if self.heard.is_some()
            && buf.filled().len() > filled
            && let Some(heard) = self.heard.take()
        {
            // Whoever asked may have given up.
            let _told = heard.send(());
        }
        polled
    }
}

impl<S: Stream> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::Tls(tls) => {
                tls.trust.check(cx)?;
                Pin::new(&mut tls.stream).poll_write(cx, bytes)
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Io::Tls(tls) => {
                tls.trust.check(cx)?;
                Pin::new(&mut tls.stream).poll_write_vectored(cx, slices)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(tls) => tls.stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(tls) => {
                tls.trust.check(cx)?;
                Pin::new(&mut tls.stream).poll_flush(cx)
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(tls) => {
                tls.trust.check(cx)?;
                Pin::new(&mut tls.stream).poll_shutdown(cx)
            }
        }
    }
}

impl<S: Stream> Stream for Connection<S> {
    fn reset_on_close(&self) {
        match &self.io {
            Io::Plain(stream) => stream.reset_on_close(),
            Io::Tls(tls) => tls.stream.get_ref().0.reset_on_close(),
        }
    }
}
