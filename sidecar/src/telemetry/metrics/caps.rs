//! How near clusters are to their caps, and what is left of their retry budgets.

use std::{fmt, sync::atomic::Ordering, time::Instant};

use super::{
    clusters::{clusters, labels},
    family::{Labels, Sink, metric},
};
use crate::{
    model::{Cluster, Snapshot, policy::RetryBudget},
    resilience::{
        circuit_breaker::Overflow,
        retry_budget::{self, Standing},
    },
};

pub(super) fn encode(sink: &mut Sink<'_>, snapshot: &Snapshot, now: Instant) -> fmt::Result {
    let caps = |read: fn(&Cluster) -> u32| {
        clusters(snapshot).map(move |cluster| (labels(cluster), f64::from(read(cluster))))
    };
    metric("cluster_in_flight_max", "Requests and streams that may be under way")
        .gauges(sink, caps(|cluster| cluster.settings.caps.max_requests))?;
    metric("cluster_connections_max", "Upstream connections that may be there")
        .gauges(sink, caps(|cluster| cluster.settings.caps.max_connections))?;
    metric("cluster_pending_max", "Requests and streams that may wait for a connection")
        .gauges(sink, caps(|cluster| cluster.settings.caps.max_pending))?;
    metric("retries_active_max", "Retries and hedges that may be under way")
        .gauges(sink, caps(|cluster| cluster.settings.retry_budget.max_active))?;
    metric("cluster_overflows", "Times that a cap stood in the way of a request or a connection").counters(
        sink,
        clusters(snapshot).flat_map(|cluster| {
            let [direction, name] = labels(cluster);
            Overflow::ALL.into_iter().zip(&cluster.runtime.overflows).map(move |(cap, count)| {
                ([direction, name, ("cap", cap.label())], count.load(Ordering::Relaxed))
            })
        }),
    )?;
    encode_budgets(sink, snapshot, now)
}

/// Clusters with a budget alone have these.
#[expect(clippy::cast_precision_loss, reason = "counts this large do not occur, and a gauge is a double")]
fn encode_budgets(sink: &mut Sink<'_>, snapshot: &Snapshot, now: Instant) -> fmt::Result {
    let with_budget = |cluster: &&Cluster| cluster.settings.retry_budget != RetryBudget::NONE;
    let budgets: Vec<(Labels<'_, 2>, Standing)> = clusters(snapshot)
        .filter(with_budget)
        .map(|cluster| {
            let RetryBudget { ratio, min_per_second, .. } = cluster.settings.retry_budget;
            let state = &cluster.runtime.retry_budget;
            (labels(cluster), retry_budget::standing(state, ratio, min_per_second, now))
        })
        .collect();
    metric("retry_budget_used", "Retries and hedges of the last ten seconds")
        .gauges(sink, budgets.iter().map(|(labels, budget)| (*labels, budget.used as f64)))?;
    metric("retry_budget_left", "Retries and hedges that the budget would still allow")
        .gauges(sink, budgets.iter().map(|(labels, budget)| (*labels, budget.left as f64)))
}
