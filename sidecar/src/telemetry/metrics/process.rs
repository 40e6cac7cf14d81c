//! The process, its identity and the roots it trusts.

use std::{
    fmt,
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};

use prometheus_client::encoding::DescriptorEncoder;

use super::{
    ProcessFacts,
    family::{metric, seconds},
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
};

#[expect(clippy::cast_precision_loss, reason = "counts this large do not occur, and a gauge is a double")]
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    process: &ProcessFacts,
    snapshot: &Snapshot,
) -> fmt::Result {
    metric("build", "Version of the sidecar and whose it is").info(
        encoder,
        &[
            ("version", env!("CARGO_PKG_VERSION")),
            ("service", &process.service),
            ("trust_domain", &process.trust_domain),
        ],
    )?;
    seconds("start_time", "When the process started, since the Unix epoch")
        .gauge(encoder, since_epoch(process.started))?;
    let is_ready = process.readiness.waiting_for().is_empty() && process.drain.phase() == Phase::Running;
    metric("ready", "1 if the process is ready for work").gauge(encoder, f64::from(u8::from(is_ready)))?;
    metric("drain_phase", "0 running, 1 draining, 2 closing, 3 forced")
        .gauge(encoder, phase(process.drain.phase()))?;
    metric("in_flight", "Connections and requests that a drain would wait for")
        .gauge(encoder, process.drain.in_flight() as f64)?;
    metric("snapshot_version", "Version of what the data path goes by; raised by every change")
        .gauge(encoder, snapshot.version as f64)?;
    encode_load(encoder, &process.load)?;
    encode_passed(encoder, &process.passed)?;
    encode_config(encoder, &process.config, snapshot.config.number)?;
    encode_renewals(encoder, &process.identity)?;
    match &snapshot.identity {
        Some(identity) => identity_metrics(encoder, process, identity),
        None => Ok(()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
fn encode_load(encoder: &mut DescriptorEncoder<'_>, load: &Load) -> fmt::Result {
    metric("open_connections", "Accepted connections open, over all listeners")
        .gauge(encoder, load.open.load(Ordering::Relaxed) as f64)?;
    metric("open_connections_max", "How many may be, by the limit of descriptors")
        .gauge(encoder, load.max_open as f64)?;
    metric("memory_resident_bytes", "Memory in use that no file stands behind, as last looked at")
        .gauge(encoder, load.resident_bytes.load(Ordering::Relaxed) as f64)?;
    metric("memory_budget_bytes", "Over it new work is shed; 0 for no bound")
        .gauge(encoder, load.budget_bytes.unwrap_or(0) as f64)?;
    metric("memory_over_budget", "1 while new work is shed for want of memory")
        .gauge(encoder, f64::from(u8::from(load.is_over())))?;
    metric("memory_exceeded", "Times the memory budget was reached")
        .counter(encoder, load.exceeded.load(Ordering::Relaxed))
}

fn encode_passed(encoder: &mut DescriptorEncoder<'_>, passed: &Passed) -> fmt::Result {
    let latest = passed.latest();
    if latest.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = latest.iter().map(|(exception, _)| exception.to_string()).collect();
    let series =
        names.iter().zip(latest.iter()).map(|(name, (_, bytes))| ([("rule", name.as_str())], *bytes));
    metric("intercept_excepted_bytes", "Bytes that the kernel let pass by an exception of interception")
        .counters(encoder, series)
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
fn encode_config(encoder: &mut DescriptorEncoder<'_>, status: &ConfigStatus, generation: u64) -> fmt::Result {
    let file = status.file();
    metric("config", "Which text of the configuration file is in force")
        .info(encoder, &[("sha256", &file.sha256)])?;
    metric("config_generation", "Configurations that came into force, the first included")
        .gauge(encoder, generation as f64)?;
    seconds("config_last_success", "When the file was last read and is in force, since the Unix epoch")
        .gauge(encoder, since_epoch(file.succeeded_at))?;
    metric("config_rejected", "1 while what the configuration file says is not in force")
        .gauge(encoder, f64::from(u8::from(file.rejected.is_some())))?;
    metric("config_reloads", "Times the configuration file was read again, by what became of it").counters(
        encoder,
        Outcome::ALL.into_iter().map(|outcome| ([("outcome", outcome.label())], status.count(outcome))),
    )
}

fn encode_renewals(encoder: &mut DescriptorEncoder<'_>, status: &IdentityStatus) -> fmt::Result {
    let rows = [("certificate", &status.renewals), ("bundle", &status.bundle_refreshes)];
    metric("identity_refreshes", "Certificates and trust bundles obtained").counters(
        encoder,
        rows.iter().map(|(what, progress)| ([("what", *what)], progress.successes.load(Ordering::Relaxed))),
    )?;
    metric("trust_cuts", "Live connections closed because their peers are not trusted any more")
        .counter(encoder, status.trust_cuts.load(Ordering::Relaxed))?;
    metric("identity_refresh_failures", "Attempts to obtain one that failed").counters(
        encoder,
        rows.iter().map(|(what, progress)| ([("what", *what)], progress.failures.load(Ordering::Relaxed))),
    )
}

#[expect(clippy::cast_precision_loss, reason = "a sequence is small, and a gauge is a double")]
fn identity_metrics(
    encoder: &mut DescriptorEncoder<'_>,
    process: &ProcessFacts,
    identity: &Identity,
) -> fmt::Result {
    let now = since_epoch(process.clock.wall());
    let not_before = since_epoch(identity.svid.not_before());
    let not_after = since_epoch(identity.svid.not_after());
    seconds("certificate_not_before", "Start of our certificate's life, since the Unix epoch")
        .gauge(encoder, not_before)?;
    seconds("certificate_not_after", "End of our certificate's life, since the Unix epoch")
        .gauge(encoder, not_after)?;
    seconds("certificate_remaining", "Time left of our certificate's life; negative once it is over")
        .gauge(encoder, not_after - now)?;
    metric("certificate_age_ratio", "Share of our certificate's life that is over")
        .gauge(encoder, identity.age_ratio(process.clock.wall()))?;
    let bundles = || identity.bundles.iter().map(|bundle| (bundle.trust_domain().as_str(), bundle));
    metric("trust_bundle_sequence", "Sequence number of the roots we trust").gauges(
        encoder,
        bundles().map(|(name, bundle)| ([("trust_domain", name)], bundle.sequence() as f64)),
    )?;
    metric("trust_bundle_roots", "Roots we trust").gauges(
        encoder,
        bundles().map(|(name, bundle)| ([("trust_domain", name)], bundle.roots().len() as f64)),
    )
}

fn since_epoch(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}
