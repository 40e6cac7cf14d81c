//! Metrics: what the counters of the data side say, in OpenMetrics text, read at scrape time.
//!
//! There is no second set of books: the collector walks the newest snapshot and reads its atomics.
//! A cluster, endpoint or listener that left the snapshot has therefore no series any more. `docs/metrics.md` lists every metric;
//! a test compares it with what is really exported.

use std::{fmt, sync::Arc, time::SystemTime};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};

use crate::{
    clock::Clock,
    drain::Drains,
    model::{
        exceptions::Passed, load::Load, reload::ConfigStatus, snapshot::Snapshots, status::IdentityStatus,
    },
    readiness::Readiness,
};

mod clusters;
mod family;
mod listeners;
mod process;

/// `Content-Type` of what [`Metrics::encode`] gives.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Metrics that read these sources at each scrape.
    #[must_use]
    pub fn new(snapshots: Snapshots, process: ProcessFacts) -> Self {
        let mut registry = Registry::with_prefix("outrider");
        registry.register_collector(Box::new(Sources { snapshots, process }));
        Self { registry }
    }

    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// None in practice: writing to a `String` does not fail.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[derive(Debug)]
struct Sources {
    snapshots: Snapshots,
    process: ProcessFacts,
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // One load, so that all series of a scrape are of one version.
        let snapshot = self.snapshots.load();
        process::encode(&mut encoder, &self.process, &snapshot)?;
        listeners::encode(&mut encoder, &snapshot.config)?;
        clusters::encode(&mut encoder, &snapshot, self.process.clock.now())
    }
}
