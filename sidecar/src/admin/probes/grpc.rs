//! Probes by gRPC's health protocol, in the clear as the kubelet makes them.

use std::pin::pin;

use http::{HeaderMap, HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Asking, Outcome};
use crate::model::grpc_health::{self, SERVING, serving_status};

/// Bytes of an answer; one is a few bytes long.
const MAX_BODY_BYTES: usize = 10 * 1024;
/// Bytes of an answer's head.
const MAX_HEAD_BYTES: u32 = 16 * 1024;

pub(super) async fn perform(asking: Asking<'_>, port: u16, service: &str) -> Outcome {
    asked(asking, port, service).await.unwrap_or_else(|failure| failure)
}

async fn asked(asking: Asking<'_>, port: u16, service: &str) -> Result<Outcome, Outcome> {
    let authority = std::net::SocketAddr::new(asking.own, port).to_string();
    let bad = |error: http::Error| Outcome::failure(format!("cannot be asked so: {error}"));
    let uri = Uri::builder().scheme("http").authority(authority).path_and_query(grpc_health::PATH);
    let request = Request::post(uri.build().map_err(bad)?)
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(header::TE, HeaderValue::from_static("trailers"))
        .header(header::USER_AGENT, asking.user_agent)
        .body(Full::new(grpc_health::question(service)))
        .map_err(bad)?;
    let socket = asking.connect(port, None).await?;
    let broken = |error: hyper::Error| Outcome::failure(format!("no answer: {error}"));
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(socket))
        .await
        .map_err(broken)?;
    let mut connection = pin!(connection);
    let mut answered = pin!(async {
        let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        if !head.status.is_success() {
            return Err(Outcome::failure(format!(
                "the app answered {} to a gRPC call",
                head.status.as_u16()
            )));
        }
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
        let body = body.map_err(|error| Outcome::failure(format!("the answer broke off: {error}")))?;
        let trailers = body.trailers().cloned();
        Ok(judge(&body.to_bytes(), trailers.as_ref().unwrap_or(&head.headers)))
    });
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        _ended = &mut connection => answered.await,
    }
}

/// What an answer says. `status` are the fields in which the call's status stands.
fn judge(body: &[u8], status: &HeaderMap) -> Outcome {
    match status.get("grpc-status").map(HeaderValue::as_bytes) {
        None => return Outcome::failure("an answer without grpc-status"),
        Some(b"0") => {}
        Some(code) => {
            let code: String = String::from_utf8_lossy(code).chars().take(8).collect();
            return Outcome::failure(format!("the app answered with grpc-status {code}"));
        }
    }
    match serving_status(body) {
        Some(SERVING) => Outcome::success("SERVING"),
        Some(other) => Outcome::failure(format!("the service's health is {other}, not SERVING")),
        None => Outcome::failure("not a HealthCheckResponse"),
    }
}
