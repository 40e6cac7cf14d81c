//! Streams that leave HTTP: WebSocket in both of its forms, and every other `Upgrade`.

mod declined;
mod ends;
mod limits;
mod other;
mod standard;
mod websocket;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, SendStream, ext::Protocol};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use outrider::headers::websocket::accept;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Sidecar, TcpApp, TestMesh, client::read_head, eventually, soon};

/// The key of RFC 6455 §1.3, and the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// One side of a stream that has left HTTP, in either form.
pub(super) enum Side {
    Http1(TcpStream),
    Http2 { send: SendStream<Bytes>, receive: RecvStream, read: Bytes },
}

impl Side {
    pub(super) async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Http1(stream) => stream.write_all(bytes).await,
            Self::Http2 { send, .. } => {
                while !bytes.is_empty() {
                    send.reserve_capacity(bytes.len());
                    let granted = std::future::poll_fn(|cx| send.poll_capacity(cx)).await;
                    let capacity = granted.ok_or(io::ErrorKind::BrokenPipe)?.map_err(io::Error::other)?;
                    let (now, later) = bytes.split_at(capacity.min(bytes.len()));
                    send.send_data(Bytes::copy_from_slice(now), false).map_err(io::Error::other)?;
                    bytes = later;
                }
                Ok(())
            }
        }
    }

    /// Some bytes; none at the orderly end.
    pub(super) async fn read(&mut self) -> io::Result<Bytes> {
        match self {
            Self::Http1(stream) => {
                let mut buffer = vec![0; 16 * 1024];
                let count = stream.read(&mut buffer).await?;
                buffer.truncate(count);
                Ok(buffer.into())
            }
            Self::Http2 { receive, read, .. } => {
                if !read.is_empty() {
                    return Ok(std::mem::take(read));
                }
                loop {
                    match receive.data().await {
                        None => return Ok(Bytes::new()),
                        Some(Ok(bytes)) if bytes.is_empty() => {}
                        Some(Ok(bytes)) => {
                            receive.flow_control().release_capacity(bytes.len()).unwrap();
                            return Ok(bytes);
                        }
                        Some(Err(error)) => {
                            return Err(io::Error::new(io::ErrorKind::ConnectionReset, error));
                        }
                    }
                }
            }
        }
    }

    pub(super) async fn read_exact(&mut self, count: usize) -> io::Result<Vec<u8>> {
        if let Self::Http1(stream) = self {
            let mut bytes = vec![0; count];
            return stream.read_exact(&mut bytes).await.map(|_| bytes);
        }
        let mut all = Vec::new();
        while all.len() < count {
            let mut bytes = self.read().await?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let wanted = bytes.split_to(bytes.len().min(count - all.len()));
            all.extend_from_slice(&wanted);
            if let Self::Http2 { read, .. } = self {
                *read = bytes;
            }
        }
        Ok(all)
    }

    pub(super) async fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let bytes = self.read().await?;
            if bytes.is_empty() {
                return Ok(all);
            }
            all.extend_from_slice(&bytes);
        }
    }

    /// Ends this side's direction.
    pub(super) async fn finish(&mut self) {
        match self {
            Self::Http1(stream) => stream.shutdown().await.unwrap(),
            Self::Http2 { send, .. } => send.send_data(Bytes::new(), true).unwrap(),
        }
    }

    /// Aborts.
    pub(super) fn reset(self) {
        match self {
            Self::Http1(stream) => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
            Self::Http2 { mut send, .. } => send.send_reset(h2::Reason::CANCEL),
        }
    }

    /// Sends back what comes, until its end.
    async fn echo(mut self) {
        while let Ok(bytes) = self.read().await {
            if bytes.is_empty() {
                self.finish().await;
                // HTTP/1: the socket is closed when both have said what they had to say.
                return;
            }
            if self.write(&bytes).await.is_err() {
                return;
            }
        }
    }

    pub(super) async fn says_back(&mut self, bytes: &[u8]) {
        self.write(bytes).await.unwrap();
        let back = soon("the echo", self.read_exact(bytes.len())).await.unwrap();
        assert!(back == bytes, "{} bytes", bytes.len());
    }
}

/// What an app saw of a handshake.
#[derive(Clone, Debug)]
struct Asked {
    method: Method,
    path: String,
    headers: HeaderMap,
    protocol: Option<String>,
}

/// An app that takes WebSocket in one form, with a subprotocol and an extension of its choice, and leaves the stream to
/// `serve`.
async fn app<F>(version: Version, serve: impl Fn(Asked, Side) -> F + Clone + Send + Sync + 'static) -> TcpApp
where
    F: Future<Output = ()> + Send + 'static,
{
    TcpApp::start(move |stream| {
        let serve = serve.clone();
        async move {
            if version == Version::HTTP_2 {
                http2_app(stream, serve).await;
            } else {
                http1_app(stream, serve).await;
            }
        }
    })
    .await
}

async fn http1_app<F: Future<Output = ()>>(mut stream: TcpStream, serve: impl Fn(Asked, Side) -> F) {
    let Some(asked) = read_request(&mut stream).await else { return };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: chat.v2\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=11\r\nSet-Cookie: a=1\r\n\r\n",
        accept(&asked.headers["sec-websocket-key"]).to_str().unwrap(),
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    serve(asked, Side::Http1(stream)).await;
}

/// The head of an HTTP/1 request.
async fn read_request(stream: &mut TcpStream) -> Option<Asked> {
    let (head, is_whole) = read_head(stream).await;
    if !is_whole {
        return None;
    }
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ');
    let (method, path) = (first.next().unwrap().parse().unwrap(), first.next().unwrap().to_owned());
    Some(Asked { method, path, headers: fields(lines), protocol: None })
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        headers.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    headers
}

async fn http2_app<F>(stream: TcpStream, serve: impl Fn(Asked, Side) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
    let mut serving = tokio::task::JoinSet::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (head, receive) = request.into_parts();
        let asked = Asked {
            method: head.method,
            path: head.uri.path().to_owned(),
            protocol: head.extensions.get::<Protocol>().map(|protocol| protocol.as_str().to_owned()),
            headers: head.headers,
        };
        let response = Response::builder()
            .header("sec-websocket-protocol", "chat.v2")
            .header("sec-websocket-extensions", "permessage-deflate; client_max_window_bits=11")
            .header("set-cookie", "a=1")
            .body(())
            .unwrap();
        let send = respond.send_response(response, false).unwrap();
        serving.spawn(serve(asked, Side::Http2 { send, receive, read: Bytes::new() }));
    }
}

async fn echo(version: Version) -> TcpApp {
    app(version, |_asked, side| side.echo()).await
}

/// What a caller was answered.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

impl Told {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        assert!(self.headers.get_all(name).iter().count() < 2, "{name} is repeated");
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Asks for WebSocket in the form of that version.
async fn call(address: SocketAddr, version: Version) -> (Told, Side) {
    if version == Version::HTTP_2 {
        let request = extended("websocket").header("sec-websocket-version", "13");
        call_http2(address, request).await
    } else {
        call_http1(address, &handshake("")).await
    }
}

/// A handshake of HTTP/1.1, with further lines.
fn handshake(lines: &str) -> String {
    format!(
        "GET /chat?room=1 HTTP/1.1\r\nHost: orders\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{lines}{OFFER}\r\n"
    )
}

/// What callers offer.
const OFFER: &str = "Sec-WebSocket-Protocol: chat.v1, chat.v2\r\n\
                     Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

pub(super) async fn call_http1(address: SocketAddr, request: &str) -> (Told, Side) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let told = told_http1(&mut stream).await;
    (told, Side::Http1(stream))
}

pub(super) async fn told_http1<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Told {
    let (head, is_whole) = soon("the answer", read_head(stream)).await;
    assert!(is_whole, "{head}");
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    Told { status, headers: fields(lines) }
}

fn extended(protocol: &'static str) -> http::request::Builder {
    Request::connect("http://orders/chat?room=1")
        .version(Version::HTTP_2)
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-protocol", "chat.v1, chat.v2")
        .header("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")
}

pub(super) async fn call_http2(address: SocketAddr, request: http::request::Builder) -> (Told, Side) {
    let stream = TcpStream::connect(address).await.unwrap();
    call_http2_over(stream, request).await
}

pub(super) async fn call_http2_over<S>(stream: S, request: http::request::Builder) -> (Told, Side)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    // RFC 8441 §3: not before the server has announced the setting.
    eventually("the setting is announced", || sender.is_extended_connect_protocol_enabled()).await;
    let (response, send) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    let (head, receive) = soon("the answer", response).await.unwrap().into_parts();
    (Told { status: head.status, headers: head.headers }, Side::Http2 { send, receive, read: Bytes::new() })
}

/// `web` → sidecar → sidecar → an app.
struct Line {
    _mesh: TestMesh,
    app: TcpApp,
    orders: Sidecar,
    web: Sidecar,
}

impl Line {
    /// The app is spoken to with that version.
    async fn to(app: TcpApp, version: Version) -> Self {
        Self::with(app, version, "").await
    }

    /// With further keys of the cluster, and of the app's, which are those of the inbound listener.
    async fn with(app: TcpApp, version: Version, cluster: &str) -> Self {
        let mesh = TestMesh::new();
        let protocol = if version == Version::HTTP_2 { "http2" } else { "http1" };
        let orders = mesh.callee("orders", app.address(), &format!("app_protocol: {protocol}")).await;
        let web = mesh.caller(&[orders.address()], cluster).await;
        Self { _mesh: mesh, app, orders, web }
    }

    /// Asks for WebSocket and gets it.
    async fn open(&self, version: Version) -> Side {
        let (told, side) = call(self.web.address(), version).await;
        let agreed =
            if version == Version::HTTP_2 { StatusCode::OK } else { StatusCode::SWITCHING_PROTOCOLS };
        assert_eq!(told.status, agreed, "{told:?}");
        side
    }

    /// Upgrades under way, at both sidecars.
    fn active(&self) -> (u32, u32) {
        let active = |sidecar: &Sidecar, cluster: &str| {
            sidecar.cluster(cluster).runtime.upgrades.active.load(std::sync::atomic::Ordering::Relaxed)
        };
        (active(&self.web, "orders"), active(&self.orders, "inbound/in"))
    }

    /// Requests that hold a place under the caps, at both sidecars.
    fn in_flight(&self) -> (u32, u32) {
        let in_flight = |sidecar: &Sidecar, cluster: &str| {
            sidecar.cluster(cluster).runtime.in_flight.load(std::sync::atomic::Ordering::Relaxed)
        };
        (in_flight(&self.web, "orders"), in_flight(&self.orders, "inbound/in"))
    }
}

/// What the test's own side of an app's streams is handed over by.
fn handed_over() -> (impl Fn(Asked, Side) -> std::future::Ready<()> + Clone + Send + Sync, Sides) {
    let (give, sides) = tokio::sync::mpsc::unbounded_channel();
    let give = Arc::new(give);
    let serve = move |asked, side| {
        drop(give.send((asked, side)));
        std::future::ready(())
    };
    (serve, sides)
}

type Sides = tokio::sync::mpsc::UnboundedReceiver<(Asked, Side)>;

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap()
}
