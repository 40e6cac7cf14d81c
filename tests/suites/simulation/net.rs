//! The sidecar's network seam over turmoil's simulated one.

use std::{
    io::{self, Result},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use outrider::net;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// The simulated network, as seen from whichever host calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct SimNet;

/// A simulated connection.
#[derive(Debug)]
pub(super) struct SimStream(TcpStream);

/// A simulated listening socket.
pub(super) struct SimListener(TcpListener);

impl net::Net for SimNet {
    type Stream = SimStream;
    type Listener = SimListener;

    fn bind(&self, address: SocketAddr) -> Result<SimListener> {
        let bound = TcpListener::bind(address).now_or_never().expect("turmoil binds without waiting");
        bound.map(SimListener)
    }

    async fn connect(
        &self,
        address: SocketAddr,
        _purpose: net::Purpose,
        timeout: Duration,
    ) -> Result<SimStream> {
        tokio::time::timeout(timeout, TcpStream::connect(address))
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?
            .map(SimStream)
    }
}

impl net::Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&self) -> Result<(SimStream, SocketAddr)> {
        self.0.accept().await.map(|(stream, peer)| (SimStream(stream), peer))
    }

    fn accept_now(&self) -> Result<Option<(SimStream, SocketAddr)>> {
        net::Listener::accept(self).now_or_never().transpose()
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl net::Stream for SimStream {
    /// turmoil resets a connection only if it is dropped with unread bytes; any other abort is a close there.
    fn reset_on_close(&self) {}
}

impl AsyncRead for SimStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
