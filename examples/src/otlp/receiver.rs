//! A small OTLP receiver: takes spans over gRPC on a thread of its own, and keeps a bounded sample of their traces.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio::sync::oneshot;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use super::{span, traces::Traces};

/// Largest message that is taken.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Messages under way per connection; an exporter sends one after the other.
const MAX_STREAMS: u32 = 16;
/// Time for one message.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A running receiver. Dropped, it is gone.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    traces: Arc<Mutex<Traces>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Listens on `address`; port 0 lets the system choose.
    ///
    /// # Errors
    /// If it can't be listened on, or no thread started.
    pub fn start(address: SocketAddr) -> anyhow::Result<Self> {
        let listening = || format!("listening for traces on {address}");
        let listener = TcpListener::bind(address).with_context(listening)?;
        listener.set_nonblocking(true).with_context(listening)?;
        let address = listener.local_addr().with_context(listening)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let traces = Arc::new(Mutex::new(Traces::default()));
        let (stop, stopped) = oneshot::channel();
        let service = Service { traces: Arc::clone(&traces) };
        let serve = move || {
            // It ends by being stopped: what is under way then is lost, and nobody waits for it.
            drop(runtime.block_on(async {
                let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?);
                tokio::select! {
                    _ = stopped => anyhow::Ok(()),
                    served = serve(incoming, service) => served,
                }
            }));
        };
        let thread = thread::Builder::new().name("otlp".to_owned()).spawn(serve)?;
        Ok(Self { address, traces, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes a span that nobody sent.
    #[cfg(test)]
    pub(crate) fn add(&self, span: span::Span) {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner).add(span);
    }

    /// Looks at what it has. It takes nothing meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Traces) -> T) -> T {
        look(&self.traces.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // Gone already is as good.
            stop.send(()).unwrap_or_default();
        }
        drop(self.thread.take().map(JoinHandle::join));
    }
}

async fn serve(incoming: TcpIncoming, service: Service) -> anyhow::Result<()> {
    let service = TraceServiceServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .timeout(TIMEOUT)
        .add_service(service)
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}

#[derive(Debug)]
struct Service {
    traces: Arc<Mutex<Traces>>,
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (spans, rejected_spans) = span::spans(request.into_inner());
        let mut traces = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        spans.into_iter().for_each(|span| traces.add(span));
        let error_message = "spans without a valid trace ID or span ID".to_owned();
        let partial = ExportTracePartialSuccess { rejected_spans, error_message };
        let partial_success = Some(partial).filter(|partial| partial.rejected_spans > 0);
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::trace::v1::trace_service_client::TraceServiceClient,
        common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan, Status, span::SpanKind},
    };

    use super::*;
    use crate::otlp::span::{Kind, PROXY_SCOPE, Span};

    fn attribute(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    fn sent() -> OtlpSpan {
        OtlpSpan {
            trace_id: 7_u128.to_be_bytes().to_vec(),
            span_id: 8_u64.to_be_bytes().to_vec(),
            parent_span_id: 9_u64.to_be_bytes().to_vec(),
            name: "GET reports".to_owned(),
            kind: SpanKind::Client as i32,
            start_time_unix_nano: 10,
            end_time_unix_nano: 30,
            attributes: vec![
                attribute("http.response.status_code", Value::IntValue(503)),
                attribute("http.request.resend_count", Value::IntValue(1)),
                attribute("outrider.cluster", Value::StringValue("orders".to_owned())),
                attribute("outrider.endpoint", Value::StringValue("127.0.0.1:4343".to_owned())),
            ],
            status: Some(Status { code: 2, message: String::new() }),
            ..OtlpSpan::default()
        }
    }

    fn message(spans: Vec<OtlpSpan>) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope { name: PROXY_SCOPE.to_owned(), ..InstrumentationScope::default() };
        let service = attribute("service.name", Value::StringValue("web".to_owned()));
        let resource = Resource { attributes: vec![service], ..Resource::default() };
        let of_scope = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
        let of_resource = ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![of_scope],
            ..ResourceSpans::default()
        };
        ExportTraceServiceRequest { resource_spans: vec![of_resource] }
    }

    #[tokio::test]
    async fn spans_sent_by_grpc_are_kept_with_what_is_shown_of_them() {
        let receiver = Receiver::start("127.0.0.1:0".parse().expect("an address")).expect("it listens");
        let to = format!("http://{}", receiver.address());
        let mut client = TraceServiceClient::connect(to).await.expect("it listens");
        let long = OtlpSpan { span_id: vec![1; 8], name: "é".repeat(5000), ..sent() };
        let backwards =
            OtlpSpan { span_id: vec![2; 8], end_time_unix_nano: 3, parent_span_id: vec![], ..sent() };
        let answer = client.export(message(vec![sent(), long, backwards])).await.expect("taken").into_inner();
        assert_eq!(answer.partial_success, None);

        let spans: Vec<Span> = receiver.read(|traces| traces.all().flatten().cloned().collect());
        let expected = Span {
            trace: 7,
            id: 8,
            parent: Some(9),
            service: "web".into(),
            name: "GET reports".into(),
            kind: Kind::Client,
            is_proxy: true,
            start: 10,
            end: 30,
            is_error: true,
            status: Some(503),
            resend: 1,
            cluster: Some("orders".into()),
            endpoint: Some("127.0.0.1:4343".into()),
        };
        assert_eq!(spans[0], expected);
        assert_eq!(spans[1].name.chars().count(), 128);
        assert_eq!((spans[2].nanos(), spans[2].parent), (0, None));
    }

    #[tokio::test]
    async fn spans_without_an_identity_are_refused_and_the_others_taken() {
        let receiver = Receiver::start("127.0.0.1:0".parse().expect("an address")).expect("it listens");
        let to = format!("http://{}", receiver.address());
        let mut client = TraceServiceClient::connect(to).await.expect("it listens");
        let bad = [
            OtlpSpan { trace_id: vec![0; 16], ..sent() },
            OtlpSpan { trace_id: vec![1; 15], ..sent() },
            OtlpSpan { span_id: vec![], ..sent() },
            OtlpSpan { parent_span_id: vec![1; 3], ..sent() },
        ];
        let spans = bad.into_iter().chain([sent()]).collect();
        let answer = client.export(message(spans)).await.expect("taken").into_inner();
        assert_eq!(answer.partial_success.map(|partial| partial.rejected_spans), Some(4));
        assert_eq!(receiver.read(Traces::received), 1);
    }

    #[tokio::test]
    async fn a_receiver_that_was_dropped_is_gone() {
        let receiver = Receiver::start("127.0.0.1:0".parse().expect("an address")).expect("it listens");
        let address = receiver.address();
        drop(receiver);
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }
}
