//! A client for the admin socket: one request, one JSON answer. For the command line and for tests.

use std::{io, path::Path, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::CHANGE_HEADER;

/// Time for one call.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

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

async fn exchange(socket: &Path, method: Method, target: &str) -> Result<Answer, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(ClientError::Connect)?;
    let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "outrider")
        .header(CHANGE_HEADER, "1")
        .body(Empty::new())?;
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
