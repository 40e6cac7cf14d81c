//! Calls a webhook as the API server does, or as it should not be called.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider_certs::rustls_verify::provider;
use rustls::{ClientConfig, RootCertStore, pki_types::pem::PemObject as _, version::TLS13};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::SERVER_NAME;

/// An answer: HTTP status and body.
pub(in crate::kubernetes) type Answer = (u16, String);

/// Whoever believes these roots.
#[derive(Clone)]
pub(super) struct Caller {
    address: SocketAddr,
    from: IpAddr,
    tls: Arc<ClientConfig>,
}

impl Caller {
    pub(super) fn new(address: SocketAddr, roots: &str) -> Self {
        let mut store = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
            store.add(root.unwrap()).unwrap();
        }
        let tls = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(store)
            .with_no_client_auth();
        Self { address, from: address.ip(), tls: Arc::new(tls) }
    }

    /// The same from another address of loopback: somebody else.
    pub(super) fn from(&self, last: u8) -> Self {
        Self { from: [127, 0, 0, last].into(), ..self.clone() }
    }

    pub(super) async fn connect(&self, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        let stream = socket.connect(self.address).await?;
        TlsConnector::from(Arc::new(tls)).connect(SERVER_NAME.try_into().unwrap(), stream).await
    }

    /// Sends a body over HTTP/2, as the API server does.
    pub(super) async fn post(&self, target: &str, body: Vec<u8>) -> std::io::Result<Answer> {
        let stream = self.connect(b"h2").await?;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("https://{SERVER_NAME}:443{target}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let response = sender.send_request(request).await.map_err(std::io::Error::other)?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Asks about a pod as the API server does, and returns `response`.
    pub(super) async fn ask(&self, review: &Value) -> Value {
        let (status, body) = self.post("/inject?timeout=10s", review.to_string().into_bytes()).await.unwrap();
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        answer["response"].clone()
    }

    /// Sends raw bytes over HTTP/1.1 and returns what comes until the other end is done or there is a whole head.
    pub(super) async fn raw(&self, text: &[u8]) -> TlsStream<TcpStream> {
        let mut stream = self.connect(b"http/1.1").await.unwrap();
        stream.write_all(text).await.unwrap();
        stream
    }
}

/// The first line that a server sends.
pub(super) async fn first_line(stream: &mut TlsStream<TcpStream>) -> String {
    let mut line = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        if byte == b'\n' {
            break;
        }
        line.push(byte);
    }
    String::from_utf8_lossy(&line).trim_end().to_owned()
}

/// The pod with the patch of a response.
pub(super) fn patched(pod: &Value, response: &Value) -> Value {
    assert_eq!(
        (&response["allowed"], &response["patchType"]),
        (&true.into(), &"JSONPatch".into()),
        "{response}"
    );
    let patch = response["patch"].as_str().unwrap();
    let patch = base64::engine::general_purpose::STANDARD.decode(patch).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

/// Asks in plaintext, over HTTP/1.1.
pub(in crate::kubernetes) async fn get(address: SocketAddr, target: &str) -> Answer {
    let Ok(mut stream) = TcpStream::connect(address).await else { return (0, String::new()) };
    let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    if stream.write_all(request.as_bytes()).await.is_ok() {
        // What came before an error is looked at as well.
        let _ended = stream.read_to_end(&mut answer).await;
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}
