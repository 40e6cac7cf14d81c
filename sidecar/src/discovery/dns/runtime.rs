//! What the DNS library runs on: tokio, and connections that the kernel's rules know as ours.

use std::{future::Future, io, net::SocketAddr, pin::Pin, time::Duration};

use hickory_resolver::net::runtime::{
    RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime, iocompat::AsyncIoTokioAsStd,
};
use tokio::net::{TcpStream, UdpSocket};

use crate::net::Marks;

/// For a connection to a server, where the library says nothing of it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Tokio, as the library's own, but for connections.
#[derive(Clone)]
pub(super) struct Runtime {
    inner: TokioRuntimeProvider,
    marks: Marks,
}

impl Runtime {
    /// Connections have that mark. Datagrams need none: rules of interception leave them alone.
    pub(super) fn new(mark: Option<u32>) -> Self {
        Self { inner: TokioRuntimeProvider::new(), marks: Marks { mark, ..Marks::default() } }
    }
}

impl RuntimeProvider for Runtime {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> TokioHandle {
        self.inner.create_handle()
    }

    fn connect_tcp(
        &self,
        server_addr: SocketAddr,
        _bind_addr: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        let marks = self.marks;
        Box::pin(async move {
            let stream = marks.dial(server_addr, timeout.unwrap_or(CONNECT_TIMEOUT)).await?;
            Ok(AsyncIoTokioAsStd(stream))
        })
    }

    fn bind_udp(
        &self,
        local_addr: SocketAddr,
        server_addr: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<UdpSocket>>>> {
        self.inner.bind_udp(local_addr, server_addr)
    }
}
