//! Probes by HTTP: a request, and those that redirects on the same host lead to.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{
    Asking, Outcome, Socket,
    redirect::{Place, Redirect, follow},
    tls,
};
use crate::model::probe::HttpProbe;

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 10;
/// Bytes of an answer that are read; what is longer has said enough.
const MAX_BODY_BYTES: usize = 10 * 1024;
/// Bytes of an answer's head.
const MAX_HEAD_BYTES: usize = 64 * 1024;

pub(super) async fn perform(asking: Asking<'_>, probe: &HttpProbe) -> Outcome {
    asked(asking, probe).await.unwrap_or_else(|failure| failure)
}

async fn asked(asking: Asking<'_>, probe: &HttpProbe) -> Result<Outcome, Outcome> {
    let host = probe.host.unwrap_or(asking.own);
    let mut place = Place { is_tls: probe.is_tls, host, port: probe.port, path: probe.path.clone() };
    let mut has_own_host = false;
    for _ in 0..=MAX_REDIRECTS {
        let request = request(asking, probe, &place, has_own_host)?;
        let socket = asking.connect(place.port, Some(place.host)).await?;
        let (status, headers) = send(socket, &place, request).await?;
        let location = headers.get(header::LOCATION).filter(|_| is_followed(status));
        let Some(location) = location else { return Ok(judge(status)) };
        match follow(&place, location) {
            Redirect::Here(next, names_host) => {
                has_own_host |= names_host;
                place = next;
            }
            Redirect::Elsewhere => {
                let text =
                    format!("the app answered {} to another host, which was not followed", status.as_u16());
                return Ok(Outcome::success(text));
            }
            Redirect::Unreadable => {
                let text = format!("the app answered {} to what is no URL", status.as_u16());
                return Err(Outcome::failure(text));
            }
        }
    }
    Err(Outcome::failure(format!("stopped after {MAX_REDIRECTS} redirects")))
}

/// Those that a client follows with a `GET`; 300 and 304 are answers.
fn is_followed(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn judge(status: StatusCode) -> Outcome {
    let text = format!("the app answered {}", status.as_u16());
    if (200..400).contains(&status.as_u16()) {
        return Outcome::success(text);
    }
    // What the kubelet shows in its events is the status.
    let status = if status.as_u16() >= 400 { status } else { StatusCode::BAD_GATEWAY };
    Outcome { status, text }
}

fn request(
    asking: Asking<'_>,
    probe: &HttpProbe,
    place: &Place,
    has_own_host: bool,
) -> Result<Request<Empty<Bytes>>, Outcome> {
    let bad = |error: http::Error| Outcome::failure(format!("cannot be asked so: {error}"));
    let mut request = Request::get(&place.path).body(Empty::new()).map_err(bad)?;
    let headers = request.headers_mut();
    headers.insert(header::USER_AGENT, asking.user_agent.clone());
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    let mut is_first = HeaderMap::with_capacity(probe.headers.len());
    for (name, value) in &probe.headers {
        // The first of a name takes the place of ours, the others follow it.
        if is_first.insert(name, HeaderValue::from_static("")).is_none() {
            headers.remove(name);
        }
        headers.append(name, value.clone());
    }
    if has_own_host || !headers.contains_key(header::HOST) {
        let host = HeaderValue::from_str(&place.authority()).map_err(|error| bad(error.into()))?;
        headers.insert(header::HOST, host);
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

async fn send(
    socket: Socket,
    place: &Place,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, HeaderMap), Outcome> {
    let socket: Socket = if place.is_tls {
        let config = tls::config().map_err(|error| Outcome::failure(format!("TLS: {error}")))?;
        let connector = TlsConnector::from(Arc::new(config));
        let connected = connector.connect(ServerName::from(place.host), socket).await;
        Box::new(connected.map_err(|error| Outcome::failure(format!("the TLS handshake failed: {error}")))?)
    } else {
        socket
    };
    let broken = |error: hyper::Error| Outcome::failure(format!("no answer: {error}"));
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(socket))
        .await
        .map_err(broken)?;
    let mut connection = pin!(connection);
    let mut answered = pin!(async {
        let response = sender.send_request(request).await.map_err(broken)?;
        read(response).await
    });
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        // Its last bytes may hold the answer; without one, the request learns that the connection is gone.
        _ended = &mut connection => answered.await,
    }
}

/// Reads the beginning of the body, as the kubelet: an app that breaks off in it has failed, one that says more has not.
async fn read(response: Response<Incoming>) -> Result<(StatusCode, HeaderMap), Outcome> {
    let (head, body) = response.into_parts();
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(_whole) => Ok((head.status, head.headers)),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Ok((head.status, head.headers)),
        Err(error) => Err(Outcome::failure(format!("the answer broke off: {error}"))),
    }
}
