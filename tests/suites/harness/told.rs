//! A network whose connections say whom they were made to as the test has told it: interception without a kernel's rules.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use outrider::net::{Listener, Net, Purpose, Stream, TcpNet, Waiting};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
};

/// Real sockets of the loopback. Whatever address a sidecar is to listen on, it gets a port of the system's choice.
#[derive(Clone, Debug, Default)]
pub(crate) struct ToldNet {
    /// By the client's address: whom it dialled.
    originals: Arc<Mutex<HashMap<SocketAddr, SocketAddr>>>,
}

impl ToldNet {
    /// Connects to the sidecar at `address`, which takes it for a connection that was made to `original`. A quick reset is
    /// already seen as the outcome of connecting.
    pub(crate) async fn dial(&self, address: SocketAddr, original: SocketAddr) -> io::Result<TcpStream> {
        self.dial_from([127, 0, 0, 1], address, original).await
    }

    /// The same from another address of the loopback.
    pub(crate) async fn dial_from(
        &self,
        from: [u8; 4],
        address: SocketAddr,
        original: SocketAddr,
    ) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        self.originals.lock().unwrap().insert(socket.local_addr().unwrap(), original);
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Net for ToldNet {
    type Stream = ToldStream;
    type Listener = ToldListener;

    fn bind(&self, _address: SocketAddr) -> io::Result<ToldListener> {
        let listener = TcpNet.bind(([127, 0, 0, 1], 0).into())?;
        Ok(ToldListener { listener, net: self.clone() })
    }

    async fn connect(
        &self,
        address: SocketAddr,
        purpose: Purpose,
        timeout: Duration,
    ) -> io::Result<ToldStream> {
        let stream = TcpNet.connect(address, purpose, timeout).await?;
        Ok(ToldStream { stream, original: None })
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        TcpNet.is_own(address)
    }
}

/// A listening socket of a [`ToldNet`].
pub(crate) struct ToldListener {
    listener: TcpListener,
    net: ToldNet,
}

impl ToldListener {
    fn told(&self, (stream, peer): (TcpStream, SocketAddr)) -> (ToldStream, SocketAddr) {
        let original = self.net.originals.lock().unwrap().get(&peer).copied();
        (ToldStream { stream, original }, peer)
    }
}

impl Listener for ToldListener {
    type Stream = ToldStream;

    async fn accept(&self) -> io::Result<(ToldStream, SocketAddr)> {
        Listener::accept(&self.listener).await.map(|accepted| self.told(accepted))
    }

    fn accept_now(&self) -> io::Result<Option<(ToldStream, SocketAddr)>> {
        Ok(self.listener.accept_now()?.map(|accepted| self.told(accepted)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Listener::local_addr(&self.listener)
    }
}

/// A connection of a [`ToldNet`].
#[derive(Debug)]
pub(crate) struct ToldStream {
    stream: TcpStream,
    original: Option<SocketAddr>,
}

impl Stream for ToldStream {
    fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }

    fn waiting(&self) -> Waiting {
        self.stream.waiting()
    }

    fn has_ended(&self) -> bool {
        self.stream.has_ended()
    }

    /// As the kernel: of a connection that nobody has redirected, its own address.
    fn original_destination(&self) -> Option<SocketAddr> {
        self.original.or(self.local_address())
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.stream.local_address()
    }
}

impl AsyncRead for ToldStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ToldStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
