//! The process, its identity and the roots it trusts.

use std::{
    fmt,
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};

use super::{
    ProcessFacts,
    family::{Sink, bytes, metric, seconds},
};
use crate::{
    drain::Phase,
    model::{
        Identity, Snapshot,
        exceptions::Passed,
        load::Load,
        reload::{ConfigStatus, Outcome},
        status::IdentityStatus,
    },
    telemetry::export::Exports,
};

#[expect(clippy::cast_precision_loss, reason = "counts this large do not occur, and a gauge is a double")]
pub(super) fn encode(sink: &mut Sink<'_>, process: &ProcessFacts, snapshot: &Snapshot) -> fmt::Result {
    metric("build", "Version of the sidecar and whose it is").info(
        sink,
        [
            ("version", env!("CARGO_PKG_VERSION")),
            ("service", &process.service),
            ("trust_domain", &process.trust_domain),
        ],
    )?;
    seconds("start_time", "When the process started, since the Unix epoch")
        .gauge(sink, since_epoch(process.started))?;
    let is_ready = process.readiness.waiting_for().is_empty() && process.drain.phase() == Phase::Running;
    metric("ready", "1 if the process is ready for work").gauge(sink, f64::from(u8::from(is_ready)))?;
    metric("drain_phase", "0 running, 1 draining, 2 closing, 3 forced")
        .gauge(sink, phase(process.drain.phase()))?;
    metric("in_flight", "Connections and requests that a drain would wait for")
        .gauge(sink, process.drain.in_flight() as f64)?;
    metric("snapshot_version", "Version of what the data path goes by; raised by every change")
        .gauge(sink, snapshot.version as f64)?;
    metric("trails_dropped", "Requests told to nobody, for too many had ended at once")
        .counter(sink, process.observer.dropped.load(Ordering::Relaxed))?;
    let records = &process.observer.records;
    metric("access_log_written", "Records of the access log that were written")
        .counter(sink, records.written.load(Ordering::Relaxed))?;
    metric(
        "access_log_dropped",
        "Records of the access log that were lost, for more came than could be written",
    )
    .counter(sink, records.dropped.load(Ordering::Relaxed))?;
    encode_exports(sink, &process.observer.exports)?;
    encode_load(sink, &process.load)?;
    encode_passed(sink, &process.passed)?;
    encode_config(sink, &process.config, snapshot.config.number)?;
    encode_renewals(sink, &process.identity)?;
    encode_federation(sink, process, &process.identity)?;
    match &snapshot.identity {
        Some(identity) => identity_metrics(sink, process, identity),
        None => Ok(()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
fn encode_load(sink: &mut Sink<'_>, load: &Load) -> fmt::Result {
    metric("open_connections", "Accepted connections open, over all listeners")
        .gauge(sink, load.open.load(Ordering::Relaxed) as f64)?;
    metric("open_connections_max", "How many may be, by the limit of descriptors")
        .gauge(sink, load.max_open as f64)?;
    bytes("memory_resident", "Memory in use that no file stands behind, as last looked at")
        .gauge(sink, load.resident_bytes.load(Ordering::Relaxed) as f64)?;
    bytes("memory_budget", "Over it new work is shed; 0 for no bound")
        .gauge(sink, load.budget_bytes.unwrap_or(0) as f64)?;
    metric("memory_over_budget", "1 while new work is shed for want of memory")
        .gauge(sink, f64::from(u8::from(load.is_over())))?;
    metric("memory_exceeded", "Times the memory budget was reached")
        .counter(sink, load.exceeded.load(Ordering::Relaxed))
}

/// What became of what was to go to collectors.
#[expect(clippy::cast_precision_loss, reason = "a queue is bounded, and a gauge is a double")]
fn encode_exports(sink: &mut Sink<'_>, exports: &Exports) -> fmt::Result {
    let both = [("spans", &exports.spans), ("metrics", &exports.metrics)];
    metric("export_sent", "Spans, and points of metrics, that a collector took").counters(
        sink,
        both.map(|(signal, counts)| ([("signal", signal)], counts.sent.load(Ordering::Relaxed))),
    )?;
    metric("export_dropped", "Spans, and points of metrics, that no collector took, by reason").counters(
        sink,
        both.into_iter().flat_map(|(signal, counts)| {
            let reasons = [
                ("queue", &counts.dropped_queue),
                ("failed", &counts.dropped_failed),
                ("rejected", &counts.dropped_rejected),
            ];
            reasons.map(|(reason, count)| {
                ([("signal", signal), ("reason", reason)], count.load(Ordering::Relaxed))
            })
        }),
    )?;
    metric("export_waiting", "Spans that wait to be sent")
        .gauge(sink, exports.spans.waiting.load(Ordering::Relaxed) as f64)
}

fn encode_passed(sink: &mut Sink<'_>, passed: &Passed) -> fmt::Result {
    let latest = passed.latest();
    if latest.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = latest.iter().map(|(exception, _)| exception.to_string()).collect();
    let series =
        names.iter().zip(latest.iter()).map(|(name, (_, bytes))| ([("rule", name.as_str())], *bytes));
    bytes("intercept_excepted", "Bytes that the kernel let pass by an exception of interception")
        .counters(sink, series)
}

fn phase(phase: Phase) -> f64 {
    match phase {
        Phase::Running => 0.0,
        Phase::Draining => 1.0,
        Phase::Closing => 2.0,
        Phase::Forced => 3.0,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a generation is small, and a gauge is a double")]
fn encode_config(sink: &mut Sink<'_>, status: &ConfigStatus, generation: u64) -> fmt::Result {
    let file = status.file();
    metric("config", "Which text of the configuration file is in force")
        .info(sink, [("sha256", &*file.sha256)])?;
    metric("config_generation", "Configurations that came into force, the first included")
        .gauge(sink, generation as f64)?;
    seconds("config_last_success", "When the file was last read and is in force, since the Unix epoch")
        .gauge(sink, since_epoch(file.succeeded_at))?;
    metric("config_rejected", "1 while what the configuration file says is not in force")
        .gauge(sink, f64::from(u8::from(file.rejected.is_some())))?;
    metric("config_reloads", "Times the configuration file was read again, by what became of it").counters(
        sink,
        Outcome::ALL.into_iter().map(|outcome| ([("outcome", outcome.label())], status.count(outcome))),
    )
}

fn encode_renewals(sink: &mut Sink<'_>, status: &IdentityStatus) -> fmt::Result {
    let rows = [("certificate", &status.renewals), ("bundle", &status.bundle_refreshes)];
    metric("identity_refreshes", "Certificates and trust bundles obtained").counters(
        sink,
        rows.iter().map(|(what, progress)| ([("what", *what)], progress.successes.load(Ordering::Relaxed))),
    )?;
    metric("trust_cuts", "Live connections closed because their peers are not trusted any more")
        .counter(sink, status.trust_cuts.load(Ordering::Relaxed))?;
    metric("identity_refresh_failures", "Attempts to obtain one that failed").counters(
        sink,
        rows.iter().map(|(what, progress)| ([("what", *what)], progress.failures.load(Ordering::Relaxed))),
    )
}

fn encode_federation(sink: &mut Sink<'_>, process: &ProcessFacts, status: &IdentityStatus) -> fmt::Result {
    let (domains, now) = (status.federation.all(), process.clock.wall());
    if domains.is_empty() {
        return Ok(());
    }
    let rows = || domains.iter().map(|(name, status)| ([("trust_domain", name.as_str())], status));
    metric("federation_refreshes", "Looks at another trust domain's bundle that found one").counters(
        sink,
        rows().map(|(of, status)| (of, status.refreshes.successes.load(Ordering::Relaxed))),
    )?;
    metric("federation_refresh_failures", "Looks at another trust domain's bundle that failed")
        .counters(sink, rows().map(|(of, status)| (of, status.refreshes.failures.load(Ordering::Relaxed))))?;
    let ages = || rows().filter_map(|(of, status)| Some((of, status.freshness().age(now)?)));
    seconds("federation_bundle_age", "Time since the source of another trust domain's bundle confirmed it")
        .gauges(sink, ages().map(|(of, age)| (of, age.as_secs_f64())))?;
    metric("federation_bundle_stale", "1 while that is so long ago that newer roots may be missing")
        .gauges(sink, rows().map(|(of, status)| (of, f64::from(u8::from(status.freshness().is_stale(now))))))
}

#[expect(clippy::cast_precision_loss, reason = "a sequence is small, and a gauge is a double")]
fn identity_metrics(sink: &mut Sink<'_>, process: &ProcessFacts, identity: &Identity) -> fmt::Result {
    let now = since_epoch(process.clock.wall());
    let not_before = since_epoch(identity.svid.not_before());
    let not_after = since_epoch(identity.svid.not_after());
    seconds("certificate_not_before", "Start of our certificate's life, since the Unix epoch")
        .gauge(sink, not_before)?;
    seconds("certificate_not_after", "End of our certificate's life, since the Unix epoch")
        .gauge(sink, not_after)?;
    seconds("certificate_remaining", "Time left of our certificate's life; negative once it is over")
        .gauge(sink, not_after - now)?;
    metric("certificate_age_ratio", "Share of our certificate's life that is over")
        .gauge(sink, identity.age_ratio(process.clock.wall()))?;
    let bundles = || identity.bundles.iter().map(|bundle| (bundle.trust_domain().as_str(), bundle));
    metric("trust_bundle_sequence", "Sequence number of the roots we trust")
        .gauges(sink, bundles().map(|(name, bundle)| ([("trust_domain", name)], bundle.sequence() as f64)))?;
    metric("trust_bundle_roots", "Roots we trust")
        .gauges(sink, bundles().map(|(name, bundle)| ([("trust_domain", name)], bundle.roots().len() as f64)))
}

fn since_epoch(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}
