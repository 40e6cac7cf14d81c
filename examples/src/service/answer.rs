//! What the service says to one request.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri,
    header::{CONTENT_TYPE, HOST},
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::client::Client;

/// Time for the service behind this one to answer.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(30);

/// The headers every service passes on, so that one call is one trace (W3C Trace Context §2; Envoy's request ID).
pub(super) const PASSED_ON: [HeaderName; 3] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-request-id"),
];

/// Answers requests for one replica of one service.
#[derive(Debug)]
pub(super) struct Answerer {
    /// Name of the service.
    pub(super) name: String,
    /// Name of this replica.
    pub(super) replica: String,
    /// Time spent on each request.
    pub(super) work: Duration,
    /// The service behind this one.
    pub(super) upstream: Option<Upstream>,
    /// It answers everything with 503.
    pub(super) is_ill: AtomicBool,
}

/// The service behind this one and the way to it.
#[derive(Debug)]
pub(super) struct Upstream {
    /// Whom to ask for.
    pub(super) authority: Authority,
    /// Connections to it, or to the proxy on the way.
    pub(super) client: Client,
    /// The fields of requests that it gets, too.
    pub(super) passed_on: Vec<HeaderName>,
}

impl Answerer {
    /// Answers one request: 200, 502 and 504 if the service behind this one failed, or 503 while it is ill. The request's body is ignored.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>> {
        let (head, _) = request.into_parts();
        if self.is_ill.load(Ordering::Relaxed) {
            let mut response = Response::new(Full::from("ill\n"));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return response;
        }
        if !self.work.is_zero() {
            tokio::time::sleep(self.work).await;
        }
        let (status, upstream) = match &self.upstream {
            None => (StatusCode::OK, Value::Null),
            Some(upstream) => upstream.ask(&head.uri, &head.headers).await,
        };
        let body = json!({
            "service": self.name,
            "replica": self.replica,
            "path": head.uri.path(),
            "version": format!("{:?}", head.version),
            "traceparent": text(&head.headers, "traceparent"),
            "request_id": text(&head.headers, "x-request-id"),
            "caller": text(&head.headers, "x-forwarded-client-cert"),
            "upstream": upstream,
        });
        let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl Upstream {
    /// Asks it for the same path. The status is ours; the value is its answer, or what went wrong.
    async fn ask(&self, uri: &Uri, received: &HeaderMap) -> (StatusCode, Value) {
        let request = match self.request(uri, received) {
            Ok(request) => request,
            Err(error) => return failure(StatusCode::BAD_GATEWAY, error),
        };
        match tokio::time::timeout(UPSTREAM_TIMEOUT, self.client.send(request)).await {
            Err(elapsed) => failure(StatusCode::GATEWAY_TIMEOUT, elapsed),
            Ok(Err(error)) => failure(StatusCode::BAD_GATEWAY, error),
            Ok(Ok(response)) => heard(&response),
        }
    }

    fn request(&self, uri: &Uri, received: &HeaderMap) -> Result<Request<Full<Bytes>>, http::Error> {
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        // The absolute form: what a proxy needs, and what every server must accept (RFC 9112 §3.2.2).
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()?;
        let mut request =
            Request::get(uri).header(HOST, self.authority.as_str()).body(Full::new(Bytes::new()))?;
        for name in &self.passed_on {
            for value in received.get_all(name) {
                request.headers_mut().append(name.clone(), value.clone());
            }
        }
        Ok(request)
    }
}

fn heard(response: &Response<Bytes>) -> (StatusCode, Value) {
    let said = serde_json::from_slice(response.body())
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(response.body()).into_owned()));
    if response.status() == StatusCode::OK {
        return (StatusCode::OK, said);
    }
    let failed = json!({
        "status": response.status().as_u16(),
        "reason": text(response.headers(), "x-outrider-reason"),
        "said": said,
    });
    (StatusCode::BAD_GATEWAY, failed)
}

fn failure(status: StatusCode, error: impl Into<anyhow::Error>) -> (StatusCode, Value) {
    // With all its causes: the demo shows this text when a request fails.
    (status, json!({ "error": format!("{:#}", error.into()) }))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
