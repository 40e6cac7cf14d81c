//! OTLP over gRPC: a channel of our own, which connects when it must and as often as it must.

use http::{HeaderMap, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::{
    metrics::v1::metrics_service_client::MetricsServiceClient,
    trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
};
use prost::Message as _;
use tonic::{
    Request,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};

use super::{
    connect::Connector,
    failure::{Accepted, Failure, of_grpc, said},
    transport::{MAX_ANSWER_BYTES, Message, USER_AGENT},
};

/// Bytes of an answer's header block.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// A channel to a collector.
#[derive(Debug)]
pub(super) struct Grpc {
    channel: Channel,
    headers: MetadataMap,
    is_compressed: bool,
}

impl Grpc {
    /// Connects when the first message is sent.
    pub(super) fn new(
        connector: &Connector,
        headers: HeaderMap,
        is_compressed: bool,
    ) -> Result<Self, String> {
        let authority = connector.endpoint.authority();
        let scheme = if connector.tls.is_some() { "https" } else { "http" };
        let parse = |text: String| text.parse::<Uri>().map_err(|error| error.to_string());
        let origin = parse(format!("{scheme}://{authority}"))?;
        // TLS is our connector's business: tonic is told of a plain connection.
        let endpoint = Endpoint::from(parse(format!("http://{authority}"))?)
            .origin(origin)
            .user_agent(USER_AGENT)
            .map_err(|error| error.to_string())?
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .initial_stream_window_size(65_535)
            .initial_connection_window_size(65_535);
        let connector = connector.clone();
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_uri: Uri| {
            let connector = connector.clone();
            async move { connector.connect().await.map(TokioIo::new) }
        }));
        Ok(Self { channel, headers: MetadataMap::from_headers(headers), is_compressed })
    }

    /// Sends a message once.
    pub(super) async fn send(&self, message: Message) -> Result<Accepted, Failure> {
        match message {
            Message::Spans(request) => {
                let request = ExportTraceServiceRequest::decode(request)
                    .map_err(|error| Failure::Refused(error.to_string()))?;
                let mut client =
                    TraceServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
                if self.is_compressed {
                    client = client.send_compressed(CompressionEncoding::Gzip);
                }
                let answer = client.export(self.request(request)).await.map_err(|status| of_grpc(&status))?;
                let partial = answer.into_inner().partial_success.unwrap_or_default();
                Ok(Accepted::partly(partial.rejected_spans, &said(&partial.error_message)))
            }
            Message::Metrics(request) => {
                let mut client = MetricsServiceClient::new(self.channel.clone())
                    .max_decoding_message_size(MAX_ANSWER_BYTES);
                if self.is_compressed {
                    client = client.send_compressed(CompressionEncoding::Gzip);
                }
                let answer = client.export(self.request(request)).await.map_err(|status| of_grpc(&status))?;
                let partial = answer.into_inner().partial_success.unwrap_or_default();
                Ok(Accepted::partly(partial.rejected_data_points, &said(&partial.error_message)))
            }
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.headers.clone();
        request
    }
}
