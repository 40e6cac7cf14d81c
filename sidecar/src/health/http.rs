//! Checks by HTTP: a request to the endpoint, as any other but for the caps.

use std::{pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header};
use http_body::Body as _;

use super::{Asking, finding::Finding, grpc};
use crate::{
    connect::{
        dial::Speak,
        http_client::{Http1, SendError},
        http2::StreamSlot,
        place::Target,
        pool::Lease,
    },
    headers::framing,
    model::{
        cluster::AppProtocol,
        health_check::CheckOutcome,
        transport::{HttpVersion, Transport},
        wire,
    },
    net::Net,
    relay::{received::Received, replay::RequestBody},
};

/// How checks introduce themselves.
const USER_AGENT: &str = "outrider-health-check";
/// Bytes of an answer that are read. What is longer has said enough, and its connection is not kept.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// A request that can be made again.
struct Question<'a> {
    method: Method,
    path: &'a str,
    host: &'a str,
    body: Bytes,
    /// The HTTP version in which the far sidecar is to ask its app, as `x-outrider-app-version` says it.
    app_version: &'static str,
    fields: &'a [(HeaderName, &'static str)],
}

/// An answer, as far as it is of interest.
struct Answer {
    head: http::response::Parts,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

/// What a check holds until its answer has ended.
enum Held {
    Http1(Http1),
    /// A place on a shared connection.
    Http2(#[expect(dead_code, reason = "held, not used")] StreamSlot),
}

impl<N: Net> Asking<N> {
    /// `GET`.
    pub(super) async fn http(&self, target: Target<'_>, path: &str, host: &str, limit: Duration) -> Finding {
        let body = Bytes::new();
        let question = Question { method: Method::GET, path, host, body, app_version: "1.1", fields: &[] };
        let asked = async {
            let speak = self.speak(target).await?;
            self.send(target, speak, &question).await
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(Ok(answer)) => judge(&answer),
            Ok(Err(found)) => found,
            Err(_elapsed) => Finding::timeout(limit),
        }
    }

    /// `grpc.health.v1.Health/Check`.
    pub(super) async fn grpc(
        &self,
        target: Target<'_>,
        service: &str,
        host: &str,
        limit: Duration,
    ) -> Finding {
        let question = Question {
            method: Method::POST,
            path: grpc::PATH,
            host,
            body: grpc::question(service),
            app_version: "2",
            fields: &[(header::CONTENT_TYPE, "application/grpc"), (header::TE, "trailers")],
        };
        match tokio::time::timeout(limit, self.send(target, Speak::Http2, &question)).await {
            Ok(Ok(answer)) if !answer.head.status.is_success() => judge(&answer),
            Ok(Ok(answer)) => {
                let status = answer.trailers.as_ref().unwrap_or(&answer.head.headers);
                let found = grpc::judge(&answer.body, status);
                match reason(&answer.head.headers) {
                    Some(reason) => Finding::of_sidecar(found.outcome, &found.text, reason),
                    None => found,
                }
            }
            Ok(Err(found)) => found,
            Err(_elapsed) => Finding::timeout(limit),
        }
    }

    /// What HTTP is spoken with the endpoint where the question does not matter.
    async fn speak(&self, target: Target<'_>) -> Result<Speak, Finding> {
        let protocol = match &target.cluster.settings.transport {
            Transport::Mesh(_, HttpVersion::Http2) => return Ok(Speak::Http2),
            Transport::Mesh(_, HttpVersion::Http1) | Transport::App => return Ok(Speak::Http1),
            Transport::Public(public) => public.protocol,
            Transport::Plain(AppProtocol::Auto) => AppProtocol::Http1,
            Transport::Plain(protocol) => *protocol,
        };
        match protocol {
            AppProtocol::Auto => Ok(self.negotiator.learn(target, &self.pool, || self.clock.now()).await?),
            AppProtocol::Http1 => Ok(Speak::Http1),
            AppProtocol::Http2 => Ok(Speak::Http2),
        }
    }

    /// Sends a question and reads its answer. One that a kept connection did not take is sent again on a new one, as that of
    /// an app would be.
    async fn send(
        &self,
        target: Target<'_>,
        speak: Speak,
        question: &Question<'_>,
    ) -> Result<Answer, Finding> {
        let now = self.clock.now();
        let lease = self.pool.lease(target, speak, now).await?;
        let sent = match send_on(lease, question.request(target, speak)?).await {
            Err(SendError::NotSent(_) | SendError::Refused) => {
                let lease = self.pool.fresh(target, speak, now).await?;
                send_on(lease, question.request(target, speak)?).await
            }
            sent => sent,
        };
        let (response, held) = sent?;
        self.read(response, held).await
    }

    /// Reads an answer to its end, so that its connection can be kept.
    async fn read(&self, response: Response<Received>, held: Held) -> Result<Answer, Finding> {
        let (head, body) = response.into_parts();
        framing::check_response(&head)
            .map_err(|error| Finding::new(CheckOutcome::Protocol, &format!("a bad answer: {error}")))?;
        let (mut body, mut read, mut trailers) = (pin!(body), BytesMut::new(), None);
        loop {
            let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
            let Some(frame) = frame.transpose().map_err(|broken| Finding::broken(&broken))? else { break };
            match frame.into_data() {
                Ok(data) if read.len() + data.len() > MAX_BODY_BYTES => {
                    return Ok(Answer { head, body: read.freeze(), trailers });
                }
                Ok(data) => read.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        if let Held::Http1(connection) = held {
            self.pool.give_back(connection, self.clock.now());
        }
        Ok(Answer { head, body: read.freeze(), trailers })
    }
}

async fn send_on(
    lease: Lease,
    request: Box<Request<RequestBody>>,
) -> Result<(Response<Received>, Held), SendError> {
    match lease {
        Lease::Http1 { mut connection, .. } => {
            let response = connection.send(request).await?;
            Ok((response, Held::Http1(connection)))
        }
        Lease::Http2 { connection, slot, .. } => Ok((connection.send(request).await?, Held::Http2(slot))),
    }
}

impl Question<'_> {
    /// The question in the form that the version asks for.
    fn request(&self, target: Target<'_>, speak: Speak) -> Result<Box<Request<RequestBody>>, Finding> {
        let transport = &target.cluster.settings.transport;
        let mut request = Box::new(Request::new(RequestBody::whole(self.body.clone())));
        *request.method_mut() = self.method.clone();
        let bad =
            |error: http::Error| Finding::new(CheckOutcome::Skipped, &format!("cannot ask so: {error}"));
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        for (name, value) in self.fields {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if transport.is_sidecar() {
            headers.insert(wire::ATTEMPT, HeaderValue::from_static("1"));
            headers.insert(wire::APP_VERSION, HeaderValue::from_static(self.app_version));
        }
        if speak == Speak::Http2 {
            let scheme = if transport.is_tls() { "https" } else { "http" };
            let uri = Uri::builder().scheme(scheme).authority(self.host).path_and_query(self.path).build();
            *request.uri_mut() = uri.map_err(bad)?;
            *request.version_mut() = Version::HTTP_2;
        } else {
            let host = HeaderValue::from_str(self.host).map_err(|error| bad(error.into()))?;
            headers.insert(header::HOST, host);
            *request.uri_mut() = Uri::builder().path_and_query(self.path).build().map_err(bad)?;
        }
        Ok(request)
    }
}

/// What an answer says by its status alone.
fn judge(answer: &Answer) -> Finding {
    let status = answer.head.status;
    let text = format!("status {}", status.as_u16());
    if status.is_success() {
        return Finding::new(CheckOutcome::Well, &text);
    }
    match reason(&answer.head.headers) {
        Some(reason) => Finding::of_sidecar(CheckOutcome::Status, &text, reason),
        None => Finding::new(CheckOutcome::Status, &text),
    }
}

/// Why the far sidecar answered instead of its app. Apps have no say in that: their sidecars take the field off.
fn reason(headers: &HeaderMap) -> Option<&str> {
    headers.get(wire::REASON)?.to_str().ok()
}
