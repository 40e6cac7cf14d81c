//! The way to one collector: a message goes there, and is sent again while that may help and its time lasts.

use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::{
    metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    trace::v1::ExportTraceServiceResponse,
};
use prost::Message as _;

use super::{
    connect::{Connector, Dialing},
    failure::{Accepted, Failed, Failure, said},
    grpc::Grpc,
    http::Http,
    material::Material,
};
use crate::{
    clock::Clock,
    model::telemetry::{Export, ExportProtocol},
};

/// Bytes of an answer that are read.
pub(super) const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// How we call ourselves (OTLP Exporter Configuration: it should be said who sends).
pub(super) const USER_AGENT: &str = concat!("OTel-OTLP-Exporter-Outrider/", env!("CARGO_PKG_VERSION"));
/// Before the first repetition; doubled for each that follows, give or take half.
const FIRST_REST: Duration = Duration::from_millis(250);
/// Longest rest between repetitions that we choose ourselves.
const MAX_REST: Duration = Duration::from_secs(5);
/// Longest time that a collector is left alone because it asked for it.
const MAX_WISHED_REST: Duration = Duration::from_secs(60);
/// How often files are read again.
const LOOK: Duration = Duration::from_secs(30);

/// Of what kind a message is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Signal {
    Spans,
    Metrics,
}

/// What is sent: an `ExportTraceServiceRequest` or an `ExportMetricsServiceRequest`, encoded.
#[derive(Debug)]
pub(super) struct Message {
    pub signal: Signal,
    pub body: Bytes,
}

impl Signal {
    /// What an answer to such a message says; one that is not understood says nothing.
    pub(super) fn accepted(self, answer: &[u8]) -> Accepted {
        let partial = match self {
            Self::Spans => ExportTraceServiceResponse::decode(answer)
                .map(|answer| answer.partial_success.map(|part| (part.rejected_spans, part.error_message))),
            Self::Metrics => ExportMetricsServiceResponse::decode(answer).map(|answer| {
                answer.partial_success.map(|part| (part.rejected_data_points, part.error_message))
            }),
        };
        match partial {
            Ok(Some((rejected, words))) => Accepted::partly(rejected, &words),
            Ok(None) => Accepted::default(),
            Err(error) => Accepted { rejected: 0, said: said(&format!("its answer is not OTLP: {error}")) },
        }
    }
}

/// The way to one collector. For one task: one message is under way at a time.
#[derive(Debug)]
pub struct Transport {
    export: Export,
    dialing: Dialing,
    clock: Clock,
    rng: fastrand::Rng,
    link: Option<Link>,
}

/// What is there once files are read.
#[derive(Debug)]
struct Link {
    way: Way,
    fingerprint: u64,
    /// When files were read.
    read: Instant,
}

#[derive(Debug)]
enum Way {
    Grpc(Grpc),
    Http(Http),
}

impl Transport {
    /// Nothing is read and nobody is connected to before something is sent.
    #[must_use]
    pub fn new(export: &Export, dialing: &Dialing, clock: &Clock) -> Self {
        Self {
            export: export.clone(),
            dialing: dialing.clone(),
            clock: clock.clone(),
            rng: clock.fork_rng(),
            link: None,
        }
    }

    /// Where it leads.
    #[must_use]
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Sends spans, an encoded `ExportTraceServiceRequest`, within the configured time.
    ///
    /// # Errors
    /// Nobody took them: they are lost.
    pub async fn send_spans(&mut self, request: Bytes) -> Result<Accepted, Failed> {
        self.send(Message { signal: Signal::Spans, body: request }).await
    }

    /// Sends metrics, within the configured time.
    ///
    /// # Errors
    /// Nobody took them: they are lost.
    pub async fn send_metrics(&mut self, request: ExportMetricsServiceRequest) -> Result<Accepted, Failed> {
        self.send(Message { signal: Signal::Metrics, body: request.encode_to_vec().into() }).await
    }

    async fn send(&mut self, message: Message) -> Result<Accepted, Failed> {
        let deadline = self.clock.now() + self.export.timeout;
        let mut rest = FIRST_REST;
        let mut last = None;
        loop {
            let sent = tokio::time::timeout_at(deadline.into(), self.send_once(&message)).await;
            let (after, why) = match sent {
                Ok(Ok(accepted)) => return Ok(accepted),
                Ok(Err(Failure::Refused(why))) => return Err(Failed { is_refused: true, why, rest: None }),
                Ok(Err(Failure::Again { after, why })) => (after, why),
                Err(_elapsed) => {
                    // Whoever is at the other end does not answer: next time, ask for the name again, and connect anew.
                    self.link = None;
                    let why = last.unwrap_or_else(|| "no answer in time".to_owned());
                    return Err(Failed { is_refused: false, why, rest: None });
                }
            };
            let wished = after.map(|after| after.min(MAX_WISHED_REST));
            let wait = wished.unwrap_or_else(|| rest.mul_f64(0.5 + self.rng.f64()));
            if self.clock.now() + wait >= deadline {
                return Err(Failed { is_refused: false, why, rest: wished });
            }
            tokio::time::sleep(wait).await;
            rest = (rest * 2).min(MAX_REST);
            last = Some(why);
        }
    }

    async fn send_once(&mut self, message: &Message) -> Result<Accepted, Failure> {
        self.look().await?;
        let Some(link) = &mut self.link else { return Err(Failure::Refused("there is no link".to_owned())) };
        match &mut link.way {
            Way::Grpc(grpc) => grpc.send(message).await,
            Way::Http(http) => {
                let body = http.body(message)?;
                http.send(message, body).await
            }
        }
    }

    /// Reads files if it is time to, and makes the link anew if they say something else. While they are faulty, what was
    /// good stays.
    async fn look(&mut self) -> Result<(), Failure> {
        let now = self.clock.now();
        if self.link.as_ref().is_some_and(|link| now.saturating_duration_since(link.read) < LOOK) {
            return Ok(());
        }
        let (export, clock) = (self.export.clone(), self.clock.clone());
        let read = tokio::task::spawn_blocking(move || Material::read(&export, &clock)).await;
        let material = match (read.unwrap_or_else(|ended| Err(ended.to_string())), &mut self.link) {
            (Ok(material), Some(link)) if material.fingerprint == link.fingerprint => {
                link.read = now;
                return Ok(());
            }
            (Ok(material), _) => material,
            (Err(problem), Some(link)) => {
                link.read = now;
                tracing::warn!(problem, "what a collector is reached with stays as it was");
                return Ok(());
            }
            (Err(problem), None) => return Err(Failure::Again { after: None, why: problem }),
        };
        let connector = Connector {
            dialing: self.dialing.clone(),
            endpoint: self.export.endpoint.clone(),
            tls: material.tls,
        };
        let is_compressed = self.export.is_compressed;
        let way = match self.export.protocol {
            ExportProtocol::Grpc => {
                Way::Grpc(Grpc::new(&connector, material.headers, is_compressed).map_err(Failure::Refused)?)
            }
            ExportProtocol::HttpProtobuf => Way::Http(Http::new(&connector, material.headers, is_compressed)),
        };
        self.link = Some(Link { way, fingerprint: material.fingerprint, read: now });
        Ok(())
    }
}
