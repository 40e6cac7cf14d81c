//! Metrics on their way to a collector: all of them, every interval, and once more at the end.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest, metrics::v1::metric::Data,
};
use tokio::sync::mpsc;

use super::Metrics;
use crate::{
    clock::Clock,
    drain,
    model::{
        snapshot::Snapshots,
        telemetry::{Export, MetricExport},
    },
    telemetry::{
        export::{Dialing, Exports, Failed, Transport, resource},
        finish::{Finish, Finisher, finisher},
    },
};

/// Between two warnings.
const WARNING_PERIOD: Duration = Duration::from_secs(60);

/// Starts to send, wherever the newest snapshot says and whenever it does, until the handle is dropped.
#[must_use]
pub fn send(metrics: Metrics, snapshots: Snapshots, dialing: &Dialing, exports: &Arc<Exports>) -> Finisher {
    let (finish, finishing) = finisher();
    let clock = metrics.sources.process.clock.clone();
    let sender = Sender {
        metrics,
        snapshots,
        dialing: dialing.clone(),
        clock,
        exports: Arc::clone(exports),
        warned: None,
    };
    drain::spawn_background(sender.run(finishing));
    finish
}

#[derive(Debug)]
struct Sender {
    metrics: Metrics,
    snapshots: Snapshots,
    dialing: Dialing,
    clock: Clock,
    exports: Arc<Exports>,
    warned: Option<Instant>,
}

impl Sender {
    async fn run(mut self, mut finishing: mpsc::Receiver<Finish>) {
        let snapshots = self.snapshots.clone();
        loop {
            let settings = snapshots.load().config.settings.telemetry.metrics.clone();
            let current = settings.clone();
            tokio::select! {
                biased;
                finish = finishing.recv() => {
                    let Some(finish) = finish else { return };
                    if let Some(settings) = settings {
                        let mut transport = Transport::new(&settings.export, &self.dialing, &self.clock);
                        // What took too long is lost: the process ends.
                        drop(tokio::time::timeout(finish.limit(), self.send_once(&mut transport)).await);
                    }
                    finish.done();
                    return;
                }
                _ = snapshots.until(move |newer| newer.config.settings.telemetry.metrics != current) => {}
                never = self.send_always(settings.as_deref()) => match never {},
            }
        }
    }

    async fn send_always(&mut self, settings: Option<&MetricExport>) -> Infallible {
        let Some(settings) = settings else { return std::future::pending().await };
        let mut transport = Transport::new(&settings.export, &self.dialing, &self.clock);
        // Sidecars that start together do not all send at once.
        let mut rest = settings.interval.mul_f64(self.clock.fork_rng().f64());
        loop {
            tokio::time::sleep(rest).await;
            let due = self.clock.now() + settings.interval;
            let wished = self.send_once(&mut transport).await;
            rest = due.saturating_duration_since(self.clock.now()).max(wished.unwrap_or_default());
        }
    }

    /// Sends all metrics. For how long the collector wants to be left alone, if it says.
    async fn send_once(&mut self, transport: &mut Transport) -> Option<Duration> {
        let of = resource(transport.export());
        // Writing into memory does not fail.
        let mut messages = self.metrics.messages(&of).ok()?.into_iter();
        while let Some(message) = messages.next() {
            let count = points(&message);
            let sent = transport.send_metrics(message).await;
            let (counts, now) = (&self.exports.metrics, self.clock.wall());
            match sent {
                Ok(accepted) => {
                    counts.took(count.saturating_sub(accepted.rejected), accepted.rejected, now);
                    if accepted.rejected > 0 {
                        self.warn(transport.export(), &accepted.said);
                    }
                }
                Err(Failed { is_refused, why, rest }) => {
                    // Whoever does not answer does not take the others either; one that is refused says nothing of them.
                    let others =
                        if is_refused { 0 } else { messages.by_ref().map(|other| points(&other)).sum() };
                    counts.lost(count + others, is_refused, &why, now);
                    self.warn(transport.export(), &why);
                    if !is_refused {
                        return rest;
                    }
                }
            }
        }
        None
    }

    fn warn(&mut self, export: &Export, why: &str) {
        let now = self.clock.now();
        if self.warned.is_none_or(|warned| now.saturating_duration_since(warned) >= WARNING_PERIOD) {
            self.warned = Some(now);
            tracing::warn!(
                collector = export.endpoint.authority(),
                why,
                "a collector did not take metrics; told once a minute, see outrider_export_dropped_total"
            );
        }
    }
}

/// Points of all metrics in a message.
fn points(message: &ExportMetricsServiceRequest) -> u64 {
    let scopes = message.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    let points = scopes.flat_map(|scope| &scope.metrics).map(|metric| match &metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
        Some(Data::Summary(summary)) => summary.data_points.len(),
        None => 0,
    });
    points.map(|count| count as u64).sum()
}
