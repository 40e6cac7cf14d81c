//! What was repeated.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    clusters::{clusters, labels},
    family::{Sink, metric},
};
use crate::model::{Snapshot, retries::RetryReason, runtime::ClusterRuntime};

pub(super) fn encode(sink: &mut Sink<'_>, snapshot: &Snapshot) -> fmt::Result {
    let counters = |read: fn(&ClusterRuntime) -> &AtomicU64| {
        clusters(snapshot)
            .map(move |cluster| (labels(cluster), read(&cluster.runtime).load(Ordering::Relaxed)))
    };
    metric("retries", "Retries made, by what they follow").counters(
        sink,
        clusters(snapshot).flat_map(|cluster| {
            let [direction, name] = labels(cluster);
            let by_reason = &cluster.runtime.repeats.by_reason;
            RetryReason::ALL.into_iter().zip(by_reason).map(move |(reason, count)| {
                ([direction, name, ("reason", reason.label())], count.load(Ordering::Relaxed))
            })
        }),
    )?;
    metric("retries_over_budget", "Retries and hedges that policy allowed and the budget did not")
        .counters(sink, counters(|c| &c.retries_over_budget))?;
    metric("retries_over_active", "Retries and hedges that policy allowed and max_active did not")
        .counters(sink, counters(|c| &c.repeats.over_active))?;
    metric("retries_active", "Retries and hedges under way").gauges(
        sink,
        clusters(snapshot).map(|cluster| {
            (labels(cluster), f64::from(cluster.runtime.repeats.active.load(Ordering::Relaxed)))
        }),
    )?;
    metric("hedges", "Second attempts beside a slow one").counters(sink, counters(|c| &c.repeats.hedges))?;
    metric("hedges_won", "Second attempts whose answer was the one delivered")
        .counters(sink, counters(|c| &c.repeats.hedges_won))
}
