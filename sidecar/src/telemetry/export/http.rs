//! OTLP over HTTP/1.1, binary: one connection, kept while the collector keeps it.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::{
    connect::Connector,
    failure::{Accepted, Failure, of_http, reason},
    transport::{MAX_ANSWER_BYTES, Message, USER_AGENT},
};
use crate::drain;

/// Bytes of an answer's head.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// A connection to a collector, or the way to one.
#[derive(Debug)]
pub(super) struct Http {
    connector: Connector,
    headers: HeaderMap,
    is_compressed: bool,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Http {
    /// Connects when the first message is sent.
    pub(super) fn new(connector: &Connector, headers: HeaderMap, is_compressed: bool) -> Self {
        Self { connector: connector.clone(), headers, is_compressed, connection: None }
    }

    /// The message as it is sent.
    pub(super) fn body(&self, message: &Message) -> Result<Bytes, Failure> {
        let plain = &message.body;
        if !self.is_compressed {
            return Ok(plain.clone());
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let written = encoder.write_all(plain).and_then(|()| encoder.finish());
        written.map(Bytes::from).map_err(|error| Failure::Refused(format!("cannot compress: {error}")))
    }

    /// Sends a message once; after a failure the next one goes over a new connection.
    pub(super) async fn send(&mut self, message: &Message, body: Bytes) -> Result<Accepted, Failure> {
        // Taken, so that a call that is given up leaves no connection behind that has half an answer.
        let mut kept = self.connection.take();
        let is_usable = match &mut kept {
            Some(kept) => kept.ready().await.is_ok(),
            None => false,
        };
        let mut connection = match kept {
            Some(kept) if is_usable => kept,
            Some(_) | None => self.connect().await?,
        };
        let request = self.request(body).map_err(|error| Failure::Refused(error.to_string()))?;
        let again = |error: &hyper::Error| Failure::Again { after: None, why: reason(error) };
        let answer = connection.send_request(request).await.map_err(|error| again(&error))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        if !head.status.is_success() {
            if body.is_ok() {
                self.connection = Some(connection);
            }
            return Err(of_http(head.status, head.headers.get(header::RETRY_AFTER)));
        }
        // It took the message, whatever is wrong with what it says about it: to repeat it would double it.
        let Ok(body) = body else {
            return Ok(Accepted { said: "its answer broke off".to_owned(), rejected: 0 });
        };
        self.connection = Some(connection);
        Ok(message.signal.accepted(&body.to_bytes()))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let again = |why: String| Failure::Again { after: None, why };
        let socket = self.connector.connect().await.map_err(|error| again(reason(&error)))?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD_BYTES);
        let made = builder.handshake(TokioIo::new(socket)).await;
        let (sender, connection) = made.map_err(|error| again(reason(&error)))?;
        // How it ends is seen by whoever sends.
        drain::spawn_background(async move { drop(connection.await) });
        Ok(sender)
    }

    fn request(&self, body: Bytes) -> http::Result<Request<Full<Bytes>>> {
        let endpoint = &self.connector.endpoint;
        let path = if endpoint.path.is_empty() { "/" } else { &*endpoint.path };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, endpoint.authority())
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(body))?;
        if self.is_compressed {
            request.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        request.headers_mut().extend(self.headers.clone());
        Ok(request)
    }
}
