//! Who was ejected, and why.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use super::{
    clusters::clusters,
    family::{Sink, metric},
};
use crate::model::{Endpoint, Snapshot, outlier::Reason};

pub(super) fn encode(sink: &mut Sink<'_>, snapshot: &Snapshot) -> fmt::Result {
    let detected = || clusters(snapshot).filter(|cluster| cluster.settings.outlier.is_some());
    metric("endpoint_ejections", "Endpoints that were ejected, or not let in after their rest, by reason")
        .counters(
            sink,
            detected().flat_map(|cluster| {
                let name = ("cluster", cluster.name().as_str());
                Reason::ALL.into_iter().map(move |reason| {
                    ([name, ("reason", reason.label())], cluster.runtime.outlier.ejected_for(reason))
                })
            }),
        )?;
    metric("ejections_held_back", "Ejections not made: too few would be left, or no other does any better")
        .counters(
        sink,
        detected().map(|cluster| {
            let count = cluster.runtime.outlier.held_back.load(Ordering::Relaxed);
            ([("cluster", cluster.name().as_str())], count)
        }),
    )?;
    metric("ejected_endpoints", "Endpoints that are ejected, those that are due for a probe included").gauges(
        sink,
        detected().map(|cluster| {
            let is_ejected = |endpoint: &&Arc<Endpoint>| {
                endpoint.runtime.health.ejected_until_us.load(Ordering::Relaxed) > 0
            };
            let ejected = cluster.endpoints.iter().filter(is_ejected);
            ([("cluster", cluster.name().as_str())], ejected.count() as f64)
        }),
    )
}
