//! `opentelemetry-otlp` makes messages of spans; they go by our own [`Transport`].
//!
//! Its exporter is given a client of HTTP that is none: what it is handed, it takes to the collector over whichever protocol
//! is configured, with repetitions, bounds and TLS as metrics have them. So the collector's answer is seen, which the
//! exporter keeps to itself: what is refused of a message, and whether to come again.

use std::{
    fmt,
    future::Future,
    io::Read as _,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{Request, Response, StatusCode, header};
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    Protocol, RetryPolicy, SpanExporter as OtlpExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};

use super::{
    connect::Dialing,
    failure::{Accepted, Failed},
    resource::resource,
    transport::Transport,
};
use crate::{clock::Clock, model::telemetry::Export};

/// What the exporter believes to send to; nobody is ever asked for it.
const NOWHERE: &str = "http://collector.invalid/v1/traces";
/// So much longer than the message's own time does the exporter wait: that one is to end it.
const GRACE: Duration = Duration::from_secs(1);
/// Bytes of a message once it is unpacked: some thousands of spans, each with bounded values.
const MAX_MESSAGE_BYTES: u64 = 64 * 1024 * 1024;

type Outcome = Result<Accepted, Failed>;

/// Takes spans to one collector. For one task: one message is under way at a time.
#[derive(Debug)]
pub(super) struct Courier {
    export: Export,
    exporter: Result<OtlpExporter, String>,
    bag: Arc<Bag>,
}

impl Courier {
    /// Nothing is read and nobody is connected to before something is sent.
    pub(super) fn new(export: &Export, dialing: &Dialing, clock: &Clock) -> Self {
        let transport = Transport::new(export, dialing, clock);
        let bag = Arc::new(Bag { transport: tokio::sync::Mutex::new(transport), outcome: Mutex::new(None) });
        let exporter = OtlpExporter::builder()
            .with_http()
            .with_shared_http_client(Arc::clone(&bag) as Arc<dyn HttpClient>)
            .with_retry_policy(RetryPolicy::disabled())
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(NOWHERE)
            .with_timeout(export.timeout + GRACE)
            .build();
        let exporter = exporter.map_err(|error| error.to_string()).map(|mut exporter| {
            exporter.set_resource(&of_spans(export));
            exporter
        });
        Self { export: export.clone(), exporter, bag }
    }

    /// Where it leads.
    pub(super) fn export(&self) -> &Export {
        &self.export
    }

    /// Sends spans, within the configured time.
    ///
    /// # Errors
    /// Nobody took them: they are lost.
    pub(super) async fn send(&self, spans: Vec<SpanData>) -> Outcome {
        // Only a variable of the environment that the exporter reads itself can be the cause, as a compression we have not.
        let lost = |why: String| Failed { is_refused: false, why, rest: None };
        let exporter = self.exporter.as_ref().map_err(|why| lost(why.clone()))?;
        let exported = exporter.export(spans).await;
        let outcome = self.bag.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        outcome
            .unwrap_or_else(|| Err(lost(exported.map_or_else(|error| error.to_string(), |()| String::new()))))
    }
}

/// The resource in the exporter's words.
fn of_spans(export: &Export) -> Resource {
    let text =
        |value: AnyValue| if let Some(Value::StringValue(text)) = value.value { Some(text) } else { None };
    let attributes = resource(export).attributes.into_iter();
    let attributes = attributes.filter_map(|one| Some(KeyValue::new(one.key, text(one.value?)?)));
    Resource::builder_empty().with_attributes(attributes).build()
}

/// What the exporter takes for a client of HTTP.
struct Bag {
    transport: tokio::sync::Mutex<Transport>,
    /// What became of the newest message.
    outcome: Mutex<Option<Outcome>>,
}

impl fmt::Debug for Bag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bag")
    }
}

impl HttpClient for Bag {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let message = message(request)?;
            let outcome = self.transport.lock().await.send_spans(message).await;
            let status = if outcome.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = status;
            Ok(response)
        })
    }
}

/// The message that the exporter made. It is packed if a variable of the environment says so.
fn message(request: Request<Bytes>) -> Result<Bytes, HttpError> {
    if !request.headers().contains_key(header::CONTENT_ENCODING) {
        return Ok(request.into_body());
    }
    let mut plain = Vec::new();
    GzDecoder::new(&request.body()[..]).take(MAX_MESSAGE_BYTES).read_to_end(&mut plain)?;
    Ok(plain.into())
}
