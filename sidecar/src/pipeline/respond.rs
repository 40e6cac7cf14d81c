//! A [`ProxyError`] becomes an answer: HTTP with a short text, or gRPC trailers-only.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::error::ProxyError;
use crate::{
    headers::rate_limit,
    model::wire,
    relay::{
        body::{self, ResponseBody},
        received::Broken,
    },
    resilience::retry::Processed,
};

/// Who gets the answer, and so what it may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The own app: reason and text.
    App,
    /// A verified sidecar: also whether the app has seen the request.
    Sidecar,
    /// A standard peer, or somebody who proved nothing: reason only, nothing of our inside.
    StandardPeer,
}

/// The answer to a request that was of gRPC or not (its `content-type` begins with `application/grpc`).
#[must_use]
pub fn respond(error: &ProxyError, is_grpc: bool, audience: Audience) -> Response<ResponseBody> {
    let mut response = if is_grpc { grpc(error) } else { plain(error, audience) };
    let headers = response.headers_mut();
    headers.insert(wire::REASON, HeaderValue::from_static(error.reason()));
    if let ProxyError::RateLimited { quota: Some(quota), .. } = error {
        rate_limit::refuse(headers, quota, is_grpc);
    }
    if audience == Audience::Sidecar {
        let processed = if error.is_unprocessed() {
            Some("no")
        } else {
            error.retry_class().map(|class| match class {
                Processed::No => "no",
                Processed::Maybe => "maybe",
            })
        };
        if let Some(processed) = processed {
            headers.insert(wire::PROCESSED, HeaderValue::from_static(processed));
        }
    }
    response
}

fn plain(error: &ProxyError, audience: Audience) -> Response<ResponseBody> {
    let text = match audience {
        Audience::App => format!("outrider: {}\n", chain(error)),
        Audience::Sidecar | Audience::StandardPeer => format!("outrider: {}\n", error.reason()),
    };
    let mut response = Response::new(ResponseBody::local(text));
    *response.status_mut() = error.status();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// gRPC over HTTP/2, "Responses", Trailers-Only.
fn grpc(error: &ProxyError) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::local(""));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(error.grpc_status())));
    headers.insert("grpc-message", HeaderValue::from_static(error.reason()));
    response
}

/// The status that ends a gRPC answer which broke off: UNAVAILABLE, DEADLINE_EXCEEDED where nothing moved or the
/// caller's time ran out, or PERMISSION_DENIED where it is allowed no more. `None` if the upstream reset the stream itself: that reset is its answer, and goes on as one.
#[must_use]
pub fn broken_off(error: &body::Error) -> Option<HeaderMap> {
    let (status, reason) = match error {
        body::Error::Upstream(error) if is_reset(error) => return None,
        body::Error::Upstream(_) => (14_u16, "reset_in_answer"),
        body::Error::Idle => (4, "stream_idle"),
        body::Error::Deadline => (4, "deadline_exceeded"),
        body::Error::NoLongerAllowed => (7, "no_longer_allowed"),
    };
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from(status));
    trailers.insert("grpc-message", HeaderValue::from_static(reason));
    Some(trailers)
}

/// Whether the other end of an HTTP/2 connection reset this stream, and not the whole connection.
fn is_reset(broken: &Broken) -> bool {
    match broken {
        Broken::Http1(_) | Broken::Opaque(_) => false,
        Broken::Http2(error) => error.is_reset() && error.is_remote(),
    }
}

/// What a peer's sidecar says of a request that it answered itself; `None` if the app did.
#[must_use]
pub fn processed(headers: &HeaderMap) -> Option<Processed> {
    match headers.get(wire::PROCESSED)?.as_bytes() {
        b"no" => Some(Processed::No),
        // What a newer version might say more exactly is at worst "maybe".
        _ => Some(Processed::Maybe),
    }
}

/// An error and its causes, outermost first.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
