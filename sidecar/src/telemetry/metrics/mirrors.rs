//! Copies of requests.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    clusters::clusters,
    family::{Sink, metric},
};
use crate::model::{
    Cluster, Snapshot,
    mirror::{Dropped, MirrorCounts},
};

pub(super) fn encode(sink: &mut Sink<'_>, snapshot: &Snapshot) -> fmt::Result {
    // Nothing is copied to the own app.
    let outbound = || clusters(snapshot).filter(|cluster| !cluster.name().is_inbound());
    let counters = |read: fn(&MirrorCounts) -> &AtomicU64| {
        outbound()
            .map(move |cluster| ([label(cluster)], read(&cluster.runtime.mirrors).load(Ordering::Relaxed)))
    };
    metric("mirror_sent", "Copies of requests for which there was an endpoint")
        .counters(sink, counters(|counts| &counts.sent))?;
    metric("mirror_unanswered", "Copies of requests that had no answer")
        .counters(sink, counters(|counts| &counts.unanswered))?;
    metric("mirror_dropped", "Copies of requests that were not sent, by reason").counters(
        sink,
        outbound().flat_map(|cluster| {
            let dropped = &cluster.runtime.mirrors.dropped;
            Dropped::ALL.into_iter().zip(dropped).map(move |(why, count)| {
                ([label(cluster), ("reason", why.label())], count.load(Ordering::Relaxed))
            })
        }),
    )?;
    metric("mirror_active", "Copies of requests under way").gauges(
        sink,
        outbound().map(|cluster| {
            ([label(cluster)], f64::from(cluster.runtime.mirrors.active.load(Ordering::Relaxed)))
        }),
    )
}

fn label(cluster: &Cluster) -> (&'static str, &str) {
    ("cluster", cluster.name().as_str())
}
