//! Who shares the requests of a cluster, and how its endpoints were chosen.

use std::{fmt, sync::atomic::Ordering, time::Instant};

use super::{
    clusters::{clusters, labels},
    family::{Sink, metric},
};
use crate::{
    balance::lineup,
    model::{Cluster, Snapshot, lineup::Lineup},
};

/// Values of `zone`, in the order of `PickCounts::by_zone`.
const ZONES: [&str; 2] = ["own", "other"];

pub(super) fn encode(sink: &mut Sink<'_>, snapshot: &Snapshot, now: Instant) -> fmt::Result {
    // Worked out here: that of a cluster without requests may be stale.
    let lineups: Vec<(&Cluster, Lineup)> =
        clusters(snapshot).map(|cluster| (cluster, lineup::build(cluster, now))).collect();
    metric("usable_endpoints", "Endpoints that may be asked")
        .gauges(sink, lineups.iter().map(|(cluster, lineup)| (labels(cluster), f64::from(lineup.usable))))?;
    metric("due_endpoints", "Endpoints that were ejected and may prove themselves")
        .gauges(sink, lineups.iter().map(|(cluster, lineup)| (labels(cluster), lineup.due.len() as f64)))?;
    metric("panic", "1 while so few endpoints are usable that all are used").gauges(
        sink,
        lineups.iter().map(|(cluster, lineup)| (labels(cluster), f64::from(u8::from(lineup.is_panic)))),
    )?;
    let zoned =
        lineups.iter().filter_map(|(cluster, lineup)| Some((labels(cluster), lineup.own_zone_ratio?)));
    metric("own_zone_ratio", "What of the requests goes to endpoints of the own zone").gauges(sink, zoned)?;
    metric("zone_picks", "Choices of an endpoint of the own zone, or of another").counters(
        sink,
        clusters(snapshot).filter(|cluster| cluster.zone.is_some()).flat_map(|cluster| {
            let [direction, name] = labels(cluster);
            ZONES
                .into_iter()
                .zip(&cluster.runtime.picks.by_zone)
                .map(move |(zone, count)| ([direction, name, ("zone", zone)], count.load(Ordering::Relaxed)))
        }),
    )?;
    metric("panic_picks", "Choices among all endpoints because too few were usable").counters(
        sink,
        clusters(snapshot)
            .map(|cluster| (labels(cluster), cluster.runtime.picks.in_panic.load(Ordering::Relaxed))),
    )?;
    metric("probes", "Requests that were to decide whether an endpoint is back").counters(
        sink,
        clusters(snapshot)
            .map(|cluster| (labels(cluster), cluster.runtime.picks.probes.load(Ordering::Relaxed))),
    )
}
