//! The PROXY protocol: whose word is taken for where a connection comes from, and what apps are told of who calls.

mod accepted;
mod plain;
mod programs;
mod sent;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::Version;
use http_body_util::Full;
use hyper::{Response, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider::{
    model::{
        proxy_protocol::{self as model, Link},
        runtime::Refusal,
    },
    proxy_protocol::{Caller, Look, header, look},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::harness::{
    BoxError, Client, Sidecar, TestMesh, eventually,
    peer::{self, ALPN_H2},
    soon,
};

/// A client that nobody here is.
const CLIENT: &str = "203.0.113.9:4711";
/// Whom it dialled.
const DIALLED: &str = "198.51.100.1:443";
const VERSIONS: [model::Version; 2] = [model::Version::V1, model::Version::V2];

fn link(source: &str) -> Link {
    Link { source: source.parse().unwrap(), destination: DIALLED.parse().unwrap() }
}

/// The header by which a proxy speaks for that client.
fn speaks_for(version: model::Version, client: &str) -> Vec<u8> {
    header(version, link(client), Caller::Unverified)
}

/// Opens a connection that begins with these bytes.
async fn begin(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// A peer of the mesh that speaks HTTP as a sidecar does, on a connection that begins with these bytes.
async fn peer_behind(mesh: &TestMesh, stream: TcpStream, service: &str) -> Result<Client, BoxError> {
    let config = peer::client_config(&mesh.ca, Some(&mesh.ca.leaf(service)), &[ALPN_H2]);
    let stream = soon("a handshake", peer::secure(stream, config)).await?;
    Ok(Client::over(stream, Version::HTTP_2).await)
}

/// So many connections were refused at that listener for that reason, and none for another.
async fn refused(sidecar: &Sidecar, listener: &str, count: u64, reason: Refusal) {
    let counts = sidecar.listener(listener);
    let of = |reason: Refusal| counts.refused[reason as usize].load(Ordering::Relaxed);
    eventually(&format!("{count} are refused as {reason:?}"), || of(reason) == count).await;
    assert_eq!(Refusal::ALL.map(of).iter().sum::<u64>(), count, "{reason:?}");
}

/// The connection ends, in whatever way, and nothing comes before.
async fn is_closed(mut stream: TcpStream) {
    let mut heard = Vec::new();
    drop(soon("the connection ends", stream.read_to_end(&mut heard)).await);
    assert_eq!(heard, b"");
}

/// What an app heard of who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    link: Link,
    /// Types and values.
    tlvs: Vec<(u8, Vec<u8>)>,
    is_v1: bool,
}

impl Heard {
    fn read(bytes: &[u8], link: Link) -> Self {
        let is_v1 = bytes.starts_with(b"PROXY ");
        let tlvs = match ppp::v2::Header::try_from(bytes) {
            Ok(header) => {
                header.tlvs().map(|tlv| tlv.unwrap()).map(|tlv| (tlv.kind, tlv.value.to_vec())).collect()
            }
            Err(_) => Vec::new(),
        };
        Self { link, tlvs, is_v1 }
    }

    /// The SPIFFE ID in it.
    fn id(&self) -> Option<&str> {
        let tlv = self.tlvs.iter().find(|(kind, _)| *kind == 0xe0);
        tlv.map(|(_, value)| std::str::from_utf8(value).unwrap())
    }
}

/// An app that wants a header on each connection, and then echoes bytes, or answers requests with the number of their
/// connection.
struct ToldApp {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bytes,
    Http,
}

impl ToldApp {
    async fn start(kind: Kind) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let (log, number) = (Arc::clone(&heard), Arc::<AtomicUsize>::default());
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            loop {
                let (stream, _peer) = listener.accept().await.unwrap();
                let (log, number) = (Arc::clone(&log), Arc::clone(&number));
                serving.spawn(async move {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    if let Some(stream) = told(stream, &log).await {
                        serve(stream, kind, number).await;
                    }
                });
            }
        });
        Self { address, heard, task }
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    fn only(&self) -> Heard {
        let heard = self.heard();
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard[0].clone()
    }
}

impl Drop for ToldApp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads the header, byte by byte so that nothing is read behind it. A connection without one is not served.
async fn told(mut stream: TcpStream, log: &Mutex<Vec<Heard>>) -> Option<TcpStream> {
    let mut bytes = Vec::new();
    loop {
        match look(&bytes) {
            Look::More => bytes.push(stream.read_u8().await.ok()?),
            Look::Header { link, .. } => {
                log.lock().unwrap().push(Heard::read(&bytes, link?));
                return Some(stream);
            }
            Look::None | Look::Malformed(_) => return None,
        }
    }
}

async fn serve(mut stream: TcpStream, kind: Kind, number: usize) {
    if kind == Kind::Bytes {
        let (mut read, mut write) = stream.split();
        drop(tokio::io::copy(&mut read, &mut write).await);
        drop(write.shutdown().await);
        return;
    }
    let service = service_fn(move |_request| async move {
        Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(number.to_string()))))
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    drop(builder.serve_connection(TokioIo::new(stream), service).await);
}
