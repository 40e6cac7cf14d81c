//! OTLP over gRPC: a channel of our own, which connects when it must and as often as it must.

use bytes::{Buf as _, BufMut as _, Bytes};
use http::{HeaderMap, Uri, uri::PathAndQuery};
use hyper_util::rt::TokioIo;
use tonic::{
    Request, Status, client,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};

use super::{
    connect::Connector,
    failure::{Accepted, Failure, of_grpc, reason},
    transport::{MAX_ANSWER_BYTES, Message, Signal, USER_AGENT},
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
    pub(super) async fn send(&self, message: &Message) -> Result<Accepted, Failure> {
        let method = match message.signal {
            Signal::Spans => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        };
        let mut client = client::Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        if self.is_compressed {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        let again = |error: &tonic::transport::Error| Failure::Again { after: None, why: reason(error) };
        client.ready().await.map_err(|error| again(&error))?;
        let mut request = Request::new(message.body.clone());
        *request.metadata_mut() = self.headers.clone();
        let answer = client.unary(request, PathAndQuery::from_static(method), Encoded).await;
        Ok(message.signal.accepted(&answer.map_err(|status| of_grpc(&status))?.into_inner()))
    }
}

/// Messages as they are, for they are encoded; and answers the same.
#[derive(Debug)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
