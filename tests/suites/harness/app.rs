//! Apps behind a sidecar: they do as told and remember what they saw.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{HeaderMap, Method, Request, Response, Uri, Version, request::Parts};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};

use super::{
    BoxError,
    body::{self, Body},
};

/// What an app does with a request; an error ends the connection without an answer (HTTP/2: the stream).
pub(crate) type Answered = Result<Response<Body>, BoxError>;

/// A request as an app saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
}

impl Seen {
    /// The authority it is for, as its version says it.
    pub(crate) fn authority(&self) -> &str {
        match self.uri.authority() {
            Some(authority) => authority.as_str(),
            None => self.header("host").unwrap_or_default(),
        }
    }

    /// A field that is there once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().unwrap();
        assert!(values.next().is_none(), "{name} is repeated");
        Some(value)
    }
}

/// An app on a port of its own; it is gone when this is dropped.
pub(crate) struct HttpApp {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl HttpApp {
    /// Starts an app that answers one request for each permit of `gate`.
    pub(crate) async fn gated(gate: &Arc<Semaphore>) -> Self {
        let gate = Arc::clone(gate);
        Self::start(move |_request| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await?.forget();
                Ok(Response::new(body::full("at last")))
            }
        })
        .await
    }

    /// Starts an app that speaks HTTP/1.1 and HTTP/2 with prior knowledge.
    pub(crate) async fn start<F>(handler: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = Answered> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let (log, count) = (Arc::clone(&seen), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            // Dropped with this task: the app's connections end with it.
            let mut serving = tokio::task::JoinSet::new();
            loop {
                let (stream, _peer) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let (log, handler) = (Arc::clone(&log), handler.clone());
                serving.spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (head, body) = request.into_parts();
                        log.lock().unwrap().push(seen_of(&head));
                        handler(Request::from_parts(head, body))
                    });
                    let mut builder = auto::Builder::new(TokioExecutor::new());
                    builder.http1().half_close(true);
                    drop(builder.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { address, seen, connections, task }
    }

    /// An app that sends back what it gets, as it gets it.
    pub(crate) async fn echo() -> Self {
        Self::start(async |request: Request<Incoming>| Ok(Response::new(body::forward(request.into_body()))))
            .await
    }

    /// An app that reads everything and then answers with its name.
    pub(crate) async fn named(name: &'static str) -> Self {
        Self::start(move |request: Request<Incoming>| async move {
            body::drain(request.into_body()).await?;
            Ok(Response::new(body::full(name)))
        })
        .await
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The one request so far.
    pub(crate) fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }

    /// Requests so far.
    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for HttpApp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn seen_of(head: &Parts) -> Seen {
    Seen {
        method: head.method.clone(),
        uri: head.uri.clone(),
        version: head.version,
        headers: head.headers.clone(),
    }
}

/// What [`TcpApp::greeter`] says.
pub(crate) const GREETING: &[u8] = b"220 ready\r\n";

async fn send_back(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    drop(tokio::io::copy(&mut read, &mut write).await);
    drop(write.shutdown().await);
}

/// An app that does with its bare connections what it is told.
pub(crate) struct TcpApp {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl TcpApp {
    /// Starts one; `serve` is called for each connection.
    pub(crate) async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<AtomicUsize> = Arc::default();
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            loop {
                let (stream, _peer) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                serving.spawn(serve(stream));
            }
        });
        Self { address, connections, task }
    }

    /// An app that sends back what it gets, and ends when its client does.
    pub(crate) async fn echo() -> Self {
        Self::start(send_back).await
    }

    /// An app that says [`GREETING`] to whoever connects, and then sends back what it gets.
    pub(crate) async fn greeter() -> Self {
        Self::start(async |mut stream| {
            drop(stream.write_all(GREETING).await);
            send_back(stream).await;
        })
        .await
    }

    /// An app that reads a request's head and then closes without an answer.
    pub(crate) async fn silent() -> Self {
        Self::start(async |mut stream| {
            drop(super::client::read_head(&mut stream).await);
        })
        .await
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for TcpApp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address where nobody listens: connecting is refused.
pub(crate) fn nobody() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    // Bound for as long as the process lives, and never listening: the port is given to nobody else.
    std::mem::forget(socket);
    address
}
