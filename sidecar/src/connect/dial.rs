//! One new connection to one endpoint: TCP, then the handshake its transport asks for.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    sync::oneshot,
};

use super::{
    Error,
    counted::Counted,
    idle::Said,
    place::{Place, Seat, Target},
    secure::{Secured, Way},
};
use crate::{
    model::{pool_counts::Closed, transport::Transport, wire::ALPN_STANDARD_H2},
    net::{Net, Purpose, Stream, Waiting},
    tls::trust::{Cut, Guard, Registry},
};

/// What will be spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Speak {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Whichever of the two the server prefers: it is asked by ALPN, and what it says is spoken.
    Either,
    /// Opaque bytes: framed to a sidecar, bare to anyone else.
    Tcp,
    /// Opaque bytes that are TLS of the app's own: without ours, to a server outside the mesh that others reach by it.
    OwnTls,
}

/// A connection to an endpoint: TLS to a peer, plain to the own app, or for an app's own TLS.
#[derive(Debug)]
pub struct Connection<S> {
    io: Io<S>,
    /// A sidecar is at the other end.
    is_sidecar: bool,
    /// Told when the first byte has come; `None` once it has, or if nobody asked.
    heard: Option<oneshot::Sender<()>>,
    /// Its slot under the cluster's cap, and its count at the endpoint. Last: they are free when the rest is gone.
    seat: Seat,
}

#[derive(Debug)]
enum Io<S> {
    Plain(S),
    Unencrypted(Counted<S>),
    // Boxed: a TLS session is over a kilobyte and plain connections to the app are as many.
    Tls(Box<Secured<S>>),
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
    /// Connects to the target. The caller bounds the time: the connect timeout of the cluster.
    ///
    /// # Errors
    /// [`Error`]; nothing of any request was sent.
    pub async fn dial(
        &self,
        target: Target<'_>,
        speak: Speak,
        seat: Seat,
    ) -> Result<Connection<N::Stream>, Error> {
        let Target { cluster, endpoint, identity } = target;
        let is_ours = speak != Speak::OwnTls;
        if matches!(cluster.settings.transport, Transport::Public(_)) && is_ours && cluster.public.is_none() {
            return Err(Error::NoPublicTls);
        }
        let limit = cluster.settings.timeouts.connect;
        let purpose = match (&cluster.settings.transport, endpoint.client.as_ref().and_then(|it| it.address))
        {
            (Transport::App, None) => Purpose::App,
            (Transport::App, Some(client)) => Purpose::AppFor(client),
            (Transport::Mesh(..) | Transport::Public(_) | Transport::Plain(_), _) => Purpose::Any,
        };
        let mut stream = self.net.connect(endpoint.address(), purpose, limit).await.map_err(tcp_error)?;
        if let Some(announcement) = endpoint.client.as_ref().and_then(|it| it.announcement.as_ref()) {
            stream.write_all(announcement).await.map_err(tcp_error)?;
        }
        if let Some(limit) = cluster.limits.tcp_user_timeout {
            stream.set_user_timeout(limit);
        }
        let way = Way { cluster, endpoint, speak };
        let io = match &cluster.settings.transport {
            Transport::App => Io::Plain(stream),
            Transport::Plain(_) => Io::Unencrypted(Counted::new(stream, &cluster.runtime.unencrypted)),
            Transport::Public(_) if !is_ours => Io::Plain(stream),
            Transport::Public(_) => Io::Tls(Box::new(way.public(stream).await?)),
            Transport::Mesh(peer, _) => {
                let identity = identity.ok_or(Error::NoIdentity)?;
                let mut secured = way.mesh(stream, identity, *peer, &self.trust).await?;
                if let Some(peer) = secured.peer.take() {
                    seat.0.proved(peer);
                }
                Io::Tls(Box::new(secured))
            }
        };
        seat.0.opened();
        let is_sidecar = cluster.settings.transport.is_sidecar();
        Ok(Connection { io, is_sidecar, heard: None, seat })
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
            Io::Plain(_) | Io::Unencrypted(_) => Cut::never(),
            Io::Tls(tls) => tls.trust.as_ref().map_or_else(Cut::never, Guard::cut),
        }
    }

    /// Whether pings are welcome. Sidecars answer them at any rate; a gRPC server takes more than one in five minutes for an
    /// attack while it has nothing to say (gRFC A8), and ends the connection with all its streams.
    pub(super) fn may_ping(&self) -> bool {
        self.is_sidecar
    }

    /// What HTTP the other end chose by ALPN; one that chose nothing speaks HTTP/1.1. From here on the connection is one of
    /// those that speak it.
    pub(super) fn chosen(&mut self) -> Speak {
        let alpn = match &self.io {
            Io::Plain(_) | Io::Unencrypted(_) => None,
            Io::Tls(tls) => tls.stream.get_ref().1.alpn_protocol(),
        };
        let speak = if alpn == Some(ALPN_STANDARD_H2) { Speak::Http2 } else { Speak::Http1 };
        self.seat.speaks(speak);
        speak
    }

    /// From here on it is one of those that speak `speak`. Only before anybody else holds its place.
    pub(super) fn becomes(&mut self, speak: Speak) {
        self.seat.speaks(speak);
    }

    /// What it occupies.
    #[must_use]
    pub fn place(&self) -> &Arc<Place> {
        &self.seat.0
    }
}

impl<S: Stream> Connection<S> {
    /// What came while nobody had asked for anything, as far as the runtime knows; the reason to close the connection.
    /// Only for a connection that no task reads.
    pub fn unasked(&mut self) -> Option<Closed> {
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        match Pin::new(self).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf) {
            Poll::Pending => None,
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => Some(Closed::UnexpectedBytes),
            Poll::Ready(Ok(()) | Err(_)) => Some(Closed::Peer),
        }
    }

    /// As [`Connection::unasked`], and by the operating system's knowledge. A sidecar says nothing between two streams: what
    /// is there unread is the alert that closes.
    pub(super) fn probe(&mut self) -> Said {
        match self.unasked().map_or_else(|| self.said(), Said::End) {
            Said::Unread => Said::End(Closed::Peer),
            said @ (Said::Nothing | Said::End(_)) => said,
        }
    }

    /// What waits to be read, by the operating system's knowledge. On TLS, bytes may be of the protocol itself: tickets,
    /// which are no reason for anything, or the alert that closes. Only TLS can tell.
    pub(super) fn said(&self) -> Said {
        match (self.waiting(), &self.io) {
            (Waiting::Nothing, _) => Said::Nothing,
            (Waiting::Bytes, Io::Plain(_) | Io::Unencrypted(_)) => Said::End(Closed::UnexpectedBytes),
            (Waiting::Bytes, Io::Tls(_)) => Said::Unread,
            (Waiting::End, _) => Said::End(Closed::Peer),
        }
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
            Io::Unencrypted(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(tls) => {
                tls.check(cx)?;
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
            Io::Unencrypted(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::Tls(tls) => {
                tls.check(cx)?;
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
            Io::Unencrypted(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Io::Tls(tls) => {
                tls.check(cx)?;
                Pin::new(&mut tls.stream).poll_write_vectored(cx, slices)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Unencrypted(stream) => stream.is_write_vectored(),
            Io::Tls(tls) => tls.stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Unencrypted(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(tls) => {
                tls.check(cx)?;
                Pin::new(&mut tls.stream).poll_flush(cx)
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Unencrypted(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(tls) => {
                tls.check(cx)?;
                Pin::new(&mut tls.stream).poll_shutdown(cx)
            }
        }
    }
}

impl<S: Stream> Stream for Connection<S> {
    fn reset_on_close(&self) {
        match &self.io {
            Io::Plain(stream) => stream.reset_on_close(),
            Io::Unencrypted(stream) => stream.reset_on_close(),
            Io::Tls(tls) => tls.stream.get_ref().0.reset_on_close(),
        }
    }

    fn waiting(&self) -> Waiting {
        match &self.io {
            Io::Plain(stream) => stream.waiting(),
            Io::Unencrypted(stream) => stream.waiting(),
            Io::Tls(tls) => tls.stream.get_ref().0.waiting(),
        }
    }
}
