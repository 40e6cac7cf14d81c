//! Discovery by the controller. A sidecar that asks none has none of these.

use std::{fmt, sync::atomic::Ordering};

use super::{
    ProcessFacts,
    family::{Sink, metric, seconds},
};
use crate::model::Snapshot;

#[expect(clippy::cast_precision_loss, reason = "these are bounded, and a gauge is a double")]
pub(super) fn encode(sink: &mut Sink<'_>, process: &ProcessFacts, snapshot: &Snapshot) -> fmt::Result {
    if snapshot.config.settings.bootstrap.controller.is_none() {
        return Ok(());
    }
    let (status, wanted) = (&process.controller, &process.wanted);
    let is_connected = status.is_connected.load(Ordering::Relaxed);
    metric("controller_connected", "1 while the controller's stream is there and has said something")
        .gauge(sink, f64::from(u8::from(is_connected)))?;
    if let Some(age) = status.age(process.clock.now()) {
        seconds("controller_age", "Time since the controller last said something")
            .gauge(sink, age.as_secs_f64())?;
    }
    metric("controller_connects", "Streams of the controller that said something")
        .counter(sink, status.connects.load(Ordering::Relaxed))?;
    metric("controller_failures", "Streams of the controller that broke, or could not be had")
        .counter(sink, status.failures.load(Ordering::Relaxed))?;
    metric("controller_wants", "Addresses and names that the controller was asked after")
        .counter(sink, status.wants.load(Ordering::Relaxed))?;
    metric(
        "controller_forgotten",
        "Addresses and names that were not used for so long that they were forgotten",
    )
    .counter(sink, status.forgotten.load(Ordering::Relaxed))?;
    metric("controller_wanted", "Addresses and names that the controller is asked after")
        .gauge(sink, status.wanted.load(Ordering::Relaxed) as f64)?;
    metric("controller_outside", "Those of them that lead out of the cluster")
        .gauge(sink, snapshot.outside.len() as f64)?;
    metric("controller_rejected", "Services of which what the controller says is not in force")
        .gauge(sink, status.rejected().len() as f64)?;
    metric("controller_waiting", "Connections and requests that wait for its word on where they go")
        .gauge(sink, wanted.waiting() as f64)?;
    let outcomes = [("found", &wanted.found), ("none", &wanted.in_vain), ("refused", &wanted.refused)];
    metric("controller_waits", "Connections and requests that did, by what came of it").counters(
        sink,
        outcomes.map(|(outcome, count)| ([("outcome", outcome)], count.load(Ordering::Relaxed))),
    )
}
