//! Calls of a server-streaming gRPC method, as a gRPC client makes them: many on one HTTP/2 connection, and a new
//! connection when the other end says goodbye to the old one.

use std::{sync::Mutex, time::Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{
    Request, StatusCode,
    header::{CONTENT_TYPE, TE},
};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{
    app::{FRAME, MESSAGES, STREAM_PATH},
    plan::CALLED,
};
use crate::effects;

type Sender = SendRequest<Full<Bytes>>;

/// A client of the method.
#[derive(Debug)]
pub struct Streams {
    address: String,
    kept: Mutex<Option<Sender>>,
}

impl Streams {
    /// A client without a connection yet.
    #[must_use]
    pub fn new(address: String) -> Self {
        Self { address, kept: Mutex::new(None) }
    }

    /// Makes one call and reads it to its end. Returns when its first byte came.
    ///
    /// # Errors
    /// Anything but status 0 after all messages.
    pub async fn watch(&self) -> anyhow::Result<Instant> {
        let mut sender = self.sender().await?;
        let request = || {
            Request::post(format!("http://{CALLED}{STREAM_PATH}"))
                .header(CONTENT_TYPE, "application/grpc")
                .header(TE, "trailers")
                // An empty message.
                .body(Full::new(Bytes::from_static(b"\0\0\0\0\0")))
        };
        let answer = match sender.try_send_request(request()?).await {
            Ok(answer) => answer,
            // Never sent, because the connection is going: the next one takes it, as gRPC's transparent retry does.
            Err(error) if error.message().is_some() => {
                let mut sender = self.connect().await?;
                sender.send_request(request()?).await.context("on a new connection")?
            }
            Err(error) => return Err(error.into_error()).context("calling the sidecar"),
        };
        ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
        read(answer).await
    }

    async fn sender(&self) -> anyhow::Result<Sender> {
        let kept = self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if let Some(mut kept) = kept
            && kept.ready().await.is_ok()
        {
            return Ok(kept);
        }
        self.connect().await
    }

    async fn connect(&self) -> anyhow::Result<Sender> {
        let stream = TcpStream::connect(&self.address).await.context("connecting to the sidecar")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // Its error is also the error of the streams on it.
        drop(effects::spawn(connection));
        *self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(sender.clone());
        Ok(sender)
    }
}

async fn read(answer: http::Response<Incoming>) -> anyhow::Result<Instant> {
    let first = effects::now();
    let (head, body) = answer.into_parts();
    let body = body.collect().await.context("the stream broke off")?;
    // A call that ends without a message has its status in the head.
    let said = body.trailers().unwrap_or(&head.headers);
    let status = said.get("grpc-status").and_then(|status| status.to_str().ok()).unwrap_or("none").to_owned();
    let reason = head.headers.get("x-outrider-reason").or(said.get("grpc-message"));
    let reason = reason.and_then(|reason| reason.to_str().ok()).unwrap_or_default();
    ensure!(status == "0", "grpc-status {status} {reason}");
    let messages = body.to_bytes().len() / FRAME.len();
    ensure!(messages == MESSAGES, "{messages} of {MESSAGES} messages");
    Ok(first)
}
