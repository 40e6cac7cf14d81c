//! A collector: the services of `opentelemetry-proto` over gRPC, and the same over HTTP; it keeps what it gets, and behaves
//! as it is told.

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use tonic::{Status, codec::CompressionEncoding};

use crate::harness::{BoxError, eventually};

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Answering = Pin<Box<dyn Future<Output = io::Result<Response<Body>>> + Send>>;

/// What a collector does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Takes it.
    Takes,
    /// Never answers.
    IsSilent,
    /// Resets every connection.
    Resets,
    /// Is busy, and says for how long.
    IsBusy,
    /// Refuses.
    Refuses,
    /// Takes all but one span.
    TakesSome,
    /// Answers with what is no answer.
    TalksNonsense,
    /// Answers without end.
    NeverStops,
}

/// A message that was taken.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) resource: Vec<KeyValue>,
    pub(crate) spans: Vec<Span>,
    pub(super) headers: HeaderMap,
}

#[derive(Clone)]
struct State {
    mood: Arc<Mutex<Mood>>,
    got: Arc<Mutex<Vec<Got>>>,
}

/// A collector on a port of its own; it is gone when this is dropped.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    state: State,
    task: JoinHandle<()>,
}

impl Collector {
    /// In the clear.
    pub(super) async fn start() -> Self {
        Self::with(None).await
    }

    /// In the clear, at this address.
    pub(crate) async fn start_at(address: IpAddr) -> Self {
        Self::listening(TcpListener::bind((address, 0)).await.unwrap(), None)
    }

    /// By TLS.
    pub(super) async fn with(tls: Option<ServerConfig>) -> Self {
        Self::listening(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(), tls)
    }

    fn listening(listener: TcpListener, tls: Option<ServerConfig>) -> Self {
        let address = listener.local_addr().unwrap();
        let state = State { mood: Arc::new(Mutex::new(Mood::Takes)), got: Arc::default() };
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            loop {
                let (stream, _peer) = listener.accept().await.unwrap();
                let (state, acceptor) = (shared.clone(), acceptor.clone());
                serving.spawn(async move {
                    match acceptor {
                        None => state.serve(stream).await,
                        // A caller that does not trust us is its own affair.
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => state.serve_io(stream).await,
                            Err(_refused) => {}
                        },
                    }
                });
            }
        });
        Self { address, state, task }
    }

    pub(super) fn be(&self, mood: Mood) {
        *self.state.mood.lock().unwrap() = mood;
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.state.got.lock().unwrap().clone()
    }

    /// Every span so far.
    pub(super) fn spans(&self) -> Vec<Span> {
        self.got().into_iter().flat_map(|got| got.spans).collect()
    }

    /// Waits for so many spans.
    pub(super) async fn has(&self, count: usize) -> Vec<Span> {
        eventually(&format!("{count} spans are there"), || self.spans().len() >= count).await;
        self.spans()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    async fn serve(self, stream: TcpStream) {
        if self.mood() == Mood::Resets {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            return;
        }
        self.serve_io(stream).await;
    }

    async fn serve_io<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let service = service_fn(move |request: Request<Incoming>| {
            let state = self.clone();
            let answering: Answering = Box::pin(async move {
                if state.mood() == Mood::Resets {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                let kind = request.headers().get(header::CONTENT_TYPE);
                let answer = if kind.is_some_and(|kind| kind == "application/grpc") {
                    state.grpc(request).await
                } else {
                    state.http(request).await
                };
                answer.map_err(io::Error::other)
            });
            answering
        });
        drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
    }

    async fn grpc(self, request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
        use hyper::service::Service as _;
        match self.mood() {
            Mood::TalksNonsense => {
                return Ok(response(StatusCode::OK, Full::new(Bytes::from("\0\0\0\0\x05nonsense"))));
            }
            Mood::NeverStops => return Ok(endless("application/grpc")),
            Mood::Takes | Mood::IsSilent | Mood::Resets | Mood::IsBusy | Mood::Refuses | Mood::TakesSome => {}
        }
        let service = TraceServiceServer::new(self).accept_compressed(CompressionEncoding::Gzip);
        let answer = TowerToHyperService::new(service).call(request).await?;
        Ok(answer.map(|body| UnsyncBoxBody::new(body.map_err(io::Error::other))))
    }

    async fn http(self, request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
        let (head, body) = request.into_parts();
        assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/v1/traces"));
        assert_eq!(head.headers[header::CONTENT_TYPE], "application/x-protobuf");
        let mut body = body.collect().await?.to_bytes();
        if head.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding == "gzip") {
            let mut plain = Vec::new();
            GzDecoder::new(&*body).read_to_end(&mut plain)?;
            body = plain.into();
        }
        let message = ExportTraceServiceRequest::decode(body)?;
        match self.mood() {
            Mood::IsSilent => std::future::pending().await,
            Mood::IsBusy => {
                let mut busy = response(StatusCode::SERVICE_UNAVAILABLE, Full::default());
                busy.headers_mut().insert(header::RETRY_AFTER, "0".parse()?);
                Ok(busy)
            }
            Mood::Refuses => Ok(response(StatusCode::BAD_REQUEST, Full::new(Bytes::from("no")))),
            Mood::TalksNonsense => Ok(response(StatusCode::OK, Full::new(Bytes::from("\u{1}nonsense")))),
            Mood::NeverStops => Ok(endless("application/x-protobuf")),
            Mood::Takes | Mood::TakesSome | Mood::Resets => {
                let answer = self.take(message, head.headers);
                Ok(response(StatusCode::OK, Full::new(answer.encode_to_vec().into())))
            }
        }
    }

    fn take(&self, message: ExportTraceServiceRequest, headers: HeaderMap) -> ExportTraceServiceResponse {
        for of_resource in message.resource_spans {
            let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans).collect();
            let resource = of_resource.resource.unwrap_or_default().attributes;
            self.got.lock().unwrap().push(Got { resource, spans, headers: headers.clone() });
        }
        let partial = ExportTracePartialSuccess { rejected_spans: 1, error_message: "not that one".into() };
        ExportTraceServiceResponse { partial_success: (self.mood() == Mood::TakesSome).then_some(partial) }
    }
}

#[tonic::async_trait]
impl TraceService for State {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        match self.mood() {
            Mood::IsSilent => std::future::pending().await,
            Mood::IsBusy => Err(Status::unavailable("busy")),
            Mood::Refuses => Err(Status::invalid_argument("no")),
            Mood::Takes | Mood::TakesSome | Mood::Resets | Mood::TalksNonsense | Mood::NeverStops => {
                let headers = request.metadata().clone().into_headers();
                Ok(tonic::Response::new(self.take(request.into_inner(), headers)))
            }
        }
    }
}

fn response(status: StatusCode, body: Full<Bytes>) -> Response<Body> {
    let body = UnsyncBoxBody::new(body.map_err(|never| match never {}));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// A body that goes on for ever.
fn endless(kind: &'static str) -> Response<Body> {
    let chunks = stream::repeat_with(|| Ok(hyper::body::Frame::data(Bytes::from_static(&[0; 16 * 1024]))));
    let mut response = Response::new(UnsyncBoxBody::new(StreamBody::new(chunks)));
    response.headers_mut().insert(header::CONTENT_TYPE, kind.parse().unwrap());
    response
}

/// An attribute as text.
pub(crate) fn text(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|pair| pair.key == name).and_then(|pair| pair.value.clone()?.value);
    match found {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}
