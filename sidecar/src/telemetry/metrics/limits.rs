//! Rate limits and injected faults.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    clusters::{clusters, labels},
    family::{Labels, Sink, metric},
};
use crate::model::{
    Snapshot,
    rate_limit::{By, RateLimiter},
};

#[expect(clippy::cast_precision_loss, reason = "there are a thousand at most, and a gauge is a double")]
pub(super) fn encode(sink: &mut Sink<'_>, snapshot: &Snapshot) -> fmt::Result {
    let limiters: Vec<(Labels<'_, 4>, &RateLimiter)> = clusters(snapshot)
        .flat_map(|cluster| {
            let [direction, name] = labels(cluster);
            cluster.limiters.lists().into_iter().flat_map(move |list| {
                let route = list.route.as_deref().unwrap_or_default();
                list.limiters.iter().map(move |limiter| {
                    ([direction, name, ("route", route), ("limit", &*limiter.limit.name)], limiter)
                })
            })
        })
        .collect();
    let by_caller = || limiters.iter().filter(|(_, limiter)| limiter.limit.by == By::Caller);
    metric("rate_limited", "Requests and streams that a rate limit refused").counters(
        sink,
        limiters.iter().map(|(labels, it)| (*labels, it.state.refused.load(Ordering::Relaxed))),
    )?;
    metric("rate_limit_callers", "Callers that a rate limit remembers")
        .gauges(sink, by_caller().map(|(labels, it)| (*labels, it.state.callers.load().len() as f64)))?;
    metric("rate_limit_beyond", "Requests and streams of callers that share a limit for want of room")
        .counters(sink, by_caller().map(|(labels, it)| (*labels, it.state.beyond.load(Ordering::Relaxed))))?;
    metric("faults_injected", "Requests delayed or aborted on purpose").counters(
        sink,
        clusters(snapshot).filter(|cluster| !cluster.name().is_inbound()).flat_map(|cluster| {
            let faults = &cluster.runtime.faults;
            let kinds: [(&str, &AtomicU64); 2] = [("delay", &faults.delays), ("abort", &faults.aborts)];
            kinds.map(|(kind, count)| {
                ([("cluster", cluster.name().as_str()), ("kind", kind)], count.load(Ordering::Relaxed))
            })
        }),
    )
}
