//! Metrics: what the counters of the data side say, read when somebody asks for it or when it is sent.
//!
//! There is no second set of books: the collector walks the newest snapshot and reads its atomics.
//! A cluster, endpoint or listener that left the snapshot has therefore no series any more. `docs/metrics.md` lists every metric;
//! a test compares it with what is really exported.

use std::{fmt, sync::Arc, time::SystemTime};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest, resource::v1::Resource,
};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};

use crate::{
    clock::Clock,
    drain::Drains,
    model::{
        controller::ControllerStatus, exceptions::Passed, load::Load, reload::ConfigStatus,
        snapshot::Snapshots, status::IdentityStatus, wanted::Wanted,
    },
    readiness::Readiness,
    telemetry::Observer,
};

mod accept;
mod balance;
mod caps;
mod clusters;
mod controller;
mod edges;
mod family;
mod limits;
mod listeners;
mod mirrors;
mod openmetrics;
mod otlp;
mod outlier;
mod process;
mod retries;
mod sender;
mod text;

use self::family::{PREFIX, Sink};
pub use self::{accept::Format, edges::tidy, sender::send};

/// What is told of the process as a whole.
#[derive(Clone, Debug)]
pub struct ProcessFacts {
    /// The own service.
    pub service: String,
    /// The own trust domain.
    pub trust_domain: String,
    /// When the process started.
    pub started: SystemTime,
    /// How getting and renewing our certificate goes.
    pub identity: Arc<IdentityStatus>,
    /// How reloading the configuration goes.
    pub config: Arc<ConfigStatus>,
    /// For ages.
    pub clock: Clock,
    /// How far the drain has come.
    pub drain: Drains,
    /// What readiness waits for.
    pub readiness: Readiness,
    /// What the process carries, and may carry.
    pub load: Arc<Load>,
    /// What passes exceptions of interception.
    pub passed: Arc<Passed>,
    /// Who calls whom, and what became of trails.
    pub observer: Arc<Observer>,
    /// How it goes with the controller.
    pub controller: Arc<ControllerStatus>,
    /// What the own app tries to reach and nobody knows.
    pub wanted: Arc<Wanted>,
}

/// All metrics of the process. Clones read the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    sources: Arc<Sources>,
}

impl Metrics {
    /// Metrics that read these sources at each scrape.
    #[must_use]
    pub fn new(snapshots: Snapshots, process: ProcessFacts) -> Self {
        let sources = Arc::new(Sources { snapshots, process });
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Collected(Arc::clone(&sources))));
        Self { registry: Arc::new(registry), sources }
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// None in practice: writing to a `String` does not fail.
    pub fn encode(&self, format: Format) -> Result<String, fmt::Error> {
        let mut text = String::new();
        match format {
            Format::Text => self.sources.write(&mut Sink::Text(&mut text))?,
            Format::OpenMetrics => prometheus_client::encoding::text::encode(&mut text, &self.registry)?,
        }
        Ok(text)
    }

    /// All metrics as messages for a collector, of about a mebibyte at most, of a `resource`.
    ///
    /// # Errors
    /// None in practice.
    pub fn messages(&self, resource: &Resource) -> Result<Vec<ExportMetricsServiceRequest>, fmt::Error> {
        let process = &self.sources.process;
        let mut messages = otlp::Messages::new(process.started, process.clock.wall());
        self.sources.write(&mut Sink::Otlp(&mut messages))?;
        Ok(messages.requests(resource))
    }
}

#[derive(Debug)]
struct Sources {
    snapshots: Snapshots,
    process: ProcessFacts,
}

impl Sources {
    fn write(&self, sink: &mut Sink<'_>) -> fmt::Result {
        // One load, so that all series are of one version.
        let snapshot = self.snapshots.load();
        process::encode(sink, &self.process, &snapshot)?;
        controller::encode(sink, &self.process, &snapshot)?;
        listeners::encode(sink, &snapshot.config)?;
        clusters::encode(sink, &snapshot, self.process.clock.now())?;
        caps::encode(sink, &snapshot, self.process.clock.now())?;
        edges::encode(sink, &self.process.observer)?;
        limits::encode(sink, &snapshot)
    }
}

/// The sources, for the client of OpenMetrics.
#[derive(Debug)]
struct Collected(Arc<Sources>);

impl Collector for Collected {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.write(&mut Sink::OpenMetrics(encoder))
    }
}
