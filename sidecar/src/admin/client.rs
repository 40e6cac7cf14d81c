//! A client for the admin socket: one request, one JSON answer, or lines as they come. For the command line and for
//! tests.

use std::{io, path::Path, time::Duration};

use bytes::BytesMut;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Method, Request,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::CHANGE_HEADER;
use crate::drain::spawn_background;

/// Time for one call.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Longest line that is read.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// What the process answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body: JSON as such, anything else as a string.
    pub body: Value,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("cannot connect to the admin socket")]
    Connect(#[source] io::Error),
    /// The connection broke.
    #[error("the connection to the admin socket broke")]
    Http(#[from] hyper::Error),
    /// The request line is none.
    #[error("no valid request")]
    Request(#[from] http::Error),
    /// The answer is larger than we read.
    #[error("the answer could not be read: {0}")]
    Body(String),
    /// No answer in time.
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
}

impl ClientError {
    /// Whether it says that the process is gone, as at the end of a drain.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Connect(error) => {
                matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
            }
            Self::Http(_) => true,
            Self::Request(_) | Self::Body(_) | Self::Timeout => false,
        }
    }
}

/// Calls the process that listens on `socket`.
///
/// # Errors
/// No answer: nobody there, broken, too slow. A refusal is an answer.
pub async fn call(socket: &Path, method: Method, target: &str) -> Result<Answer, ClientError> {
    match tokio::time::timeout(TIMEOUT, exchange(socket, method, target)).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(ClientError::Timeout),
    }
}

/// An answer that comes line by line.
#[derive(Debug)]
pub struct Lines {
    status: u16,
    body: Incoming,
    /// What came of the line that is under way, and lines behind it.
    read: BytesMut,
}

impl Lines {
    /// Asks the process that listens on `socket`; there is an answer's head then.
    ///
    /// # Errors
    /// As [`call`].
    pub async fn open(socket: &Path, target: &str) -> Result<Self, ClientError> {
        let opening = async {
            let stream = UnixStream::connect(socket).await.map_err(ClientError::Connect)?;
            let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
            // It ends with the answer, or when nobody reads that any more.
            spawn_background(async move { drop(connection.await) });
            let response = sender.send_request(request(Method::GET, target)?).await?;
            let status = response.status().as_u16();
            Ok(Self { status, body: response.into_body(), read: BytesMut::new() })
        };
        tokio::time::timeout(TIMEOUT, opening).await.unwrap_or(Err(ClientError::Timeout))
    }

    /// HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The next line that is not empty, without its end; `None`: that was all. Nothing is lost if it is dropped.
    ///
    /// # Errors
    /// The connection broke, or the line is longer than any that is meant.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                if line.is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            if self.read.len() > MAX_LINE_BYTES {
                return Err(ClientError::Body(format!("a line of more than {MAX_LINE_BYTES} bytes")));
            }
            let Some(frame) = self.body.frame().await else {
                let rest = self.read.split();
                let rest = String::from_utf8_lossy(&rest).trim().to_owned();
                return Ok((!rest.is_empty()).then_some(rest));
            };
            if let Ok(data) = frame?.into_data() {
                self.read.extend_from_slice(&data);
            }
        }
    }
}

fn request(method: Method, target: &str) -> Result<Request<Empty<Bytes>>, http::Error> {
    Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "outrider")
        .header(CHANGE_HEADER, "1")
        .body(Empty::new())
}

async fn exchange(socket: &Path, method: Method, target: &str) -> Result<Answer, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(ClientError::Connect)?;
    let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    let request = request(method, target)?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| ClientError::Body(error.to_string()))?.to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or_else(|_not_json| text()) })
    };
    // The connection moves the bytes; it ends when the answer is complete, or breaks.
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended?;
            answer.await
        }
    }
}
