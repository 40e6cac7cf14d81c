//! Apps that call: hyper for proper requests, bare sockets for improper ones.

use std::net::SocketAddr;

use http::{HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::body::{self, Body};

/// The service that requests are for unless they say otherwise.
const AUTHORITY: &str = "orders";
/// Most bytes of a head.
const MAX_HEAD: usize = 256 * 1024;

/// One connection of an app.
pub(crate) enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    /// Connects and speaks that version; HTTP/2 with prior knowledge.
    pub(crate) async fn connect(address: SocketAddr, version: Version) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, version).await
    }

    /// Speaks that version over a connection.
    pub(crate) async fn over<S>(stream: S, version: Version) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        if version == Version::HTTP_2 {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(driver);
            Self::Http2(sender)
        } else {
            let (sender, driver) = http1::handshake(io).await.unwrap();
            tokio::spawn(driver);
            Self::Http1(sender)
        }
    }

    /// Connects with HTTP/1.1.
    pub(crate) async fn http1(address: SocketAddr) -> Self {
        Self::connect(address, Version::HTTP_11).await
    }

    /// Connects with HTTP/2.
    pub(crate) async fn http2(address: SocketAddr) -> Self {
        Self::connect(address, Version::HTTP_2).await
    }

    /// Sends a request whose target is a path; the authority is `orders` unless there is a `host` field.
    pub(crate) async fn send(&mut self, mut request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        let host = request
            .headers()
            .get(header::HOST)
            .cloned()
            .unwrap_or_else(|| HeaderValue::from_static(AUTHORITY));
        match self {
            Self::Http1(sender) => {
                request.headers_mut().insert(header::HOST, host);
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                request.headers_mut().remove(header::HOST);
                let uri = Uri::builder()
                    .scheme("http")
                    .authority(host.as_bytes())
                    .path_and_query(request.uri().path_and_query().unwrap().clone());
                *request.uri_mut() = uri.build().unwrap();
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// Sends a request without a body.
    pub(crate) async fn get(&mut self, path: &str) -> hyper::Result<Response<Incoming>> {
        self.send(request(Method::GET, path, body::empty())).await
    }

    /// Sends a request with a short body.
    pub(crate) async fn post(&mut self, path: &str, text: &'static str) -> hyper::Result<Response<Incoming>> {
        self.send(request(Method::POST, path, body::full(text))).await
    }
}

/// One request over a connection of its own: status and body.
pub(crate) async fn call(address: SocketAddr, method: Method) -> (http::StatusCode, String) {
    let body = if method == Method::GET { body::empty() } else { body::full("once") };
    let response = Client::http1(address).await.send(request(method, "/", body)).await.unwrap();
    (response.status(), body::text(response.into_body()).await)
}

/// A request without fields.
pub(crate) fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(path).body(body).unwrap()
}

/// A response's field that is there once.
pub(crate) fn field<'a, B>(response: &'a Response<B>, name: &str) -> Option<&'a str> {
    let mut values = response.headers().get_all(name).iter();
    let value = values.next()?.to_str().unwrap();
    assert!(values.next().is_none(), "{name} is repeated");
    Some(value)
}

/// Writes bytes on a new connection and reads what comes until the other side closes (or resets).
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    exchange_over(TcpStream::connect(address).await.unwrap(), bytes).await
}

/// As [`exchange`], over a connection.
pub(crate) async fn exchange_over(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    // It may be closed already.
    drop(stream.write_all(bytes).await);
    let mut answer = Vec::new();
    // A reset after the answer is an answer too.
    drop(super::soon("the other side closes", stream.read_to_end(&mut answer)).await);
    answer
}

/// Reads an HTTP/1 head, blank line included; what was read, and whether the blank line came.
pub(crate) async fn read_head<R: AsyncRead + Unpin>(stream: &mut R) -> (String, bool) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_end) => return (String::from_utf8_lossy(&head).into_owned(), false),
        }
    }
    (String::from_utf8_lossy(&head).into_owned(), true)
}
