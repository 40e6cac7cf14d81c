//! Who calls whom.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::family::{Labels, Sink, bytes, metric, seconds};
use crate::{
    clock::Clock,
    drain,
    model::{
        edge::{Direction, EdgeCounts, EdgeKey},
        flag::ResponseFlag,
    },
    telemetry::Observer,
};

/// Values of `status_class`, in the order of `EdgeCounts::by_class`.
const STATUS_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// Between two looks at edges that are not used any more.
const TIDY_PERIOD: Duration = Duration::from_secs(60);

/// Has edges forgotten that are not used any more, as long as anybody counts.
pub fn tidy(observer: &Arc<Observer>, clock: &Clock) {
    let (observer, clock) = (Arc::downgrade(observer), clock.clone());
    drain::spawn_background(async move {
        loop {
            tokio::time::sleep(TIDY_PERIOD).await;
            match observer.upgrade() {
                Some(observer) => observer.edges.tidy(clock.now()),
                None => return,
            }
        }
    });
}

#[expect(clippy::cast_precision_loss, reason = "there are a thousand at most, and a gauge is a double")]
pub(super) fn encode(sink: &mut Sink<'_>, observer: &Observer) -> fmt::Result {
    let edges = observer.edges.read();
    metric("edges", "Pairs of caller and callee, by route, that are told apart")
        .gauge(sink, observer.edges.count() as f64)?;
    metric("edges_beyond", "Requests and streams of edges that are not told apart for want of room")
        .counters(
            sink,
            [Direction::Inbound, Direction::Outbound].map(|direction| {
                ([("direction", direction.label())], observer.edges.beyond(direction).ended())
            }),
        )?;
    encode_requests(sink, &edges)?;
    metric("edge_retries", "Attempts beyond the first").counters(
        sink,
        edges.iter().map(|(key, counts)| (labels(key), counts.retries.load(Ordering::Relaxed))),
    )?;
    seconds("edge_duration", "From a request's arrival to its response's head")
        .histograms(sink, edges.iter().map(|(key, counts)| (labels(key), counts.latency.read().coarse())))?;
    bytes("edge_request", "Bytes of requests' bodies, and of streams from callers").counters(
        sink,
        edges.iter().map(|(key, counts)| (labels(key), counts.request_bytes.load(Ordering::Relaxed))),
    )?;
    bytes("edge_response", "Bytes of responses' bodies, and of streams to callers").counters(
        sink,
        edges.iter().map(|(key, counts)| (labels(key), counts.response_bytes.load(Ordering::Relaxed))),
    )
}

/// Series that never counted are left out here: most edges have one or two classes, and no flag.
fn encode_requests(sink: &mut Sink<'_>, edges: &[(EdgeKey, Arc<EdgeCounts>)]) -> fmt::Result {
    let occurred = |&(_, count): &(_, u64)| count > 0;
    metric("edge_requests", "Requests and opaque streams that ended, by the class of their status")
        .counters(
            sink,
            edges.iter().flat_map(|(key, counts)| {
                let by_class = STATUS_CLASSES.into_iter().zip(&counts.by_class);
                let series = by_class
                    .map(|(class, count)| (with(key, "status_class", class), count.load(Ordering::Relaxed)));
                series.filter(occurred)
            }),
        )?;
    metric(
        "edge_errors",
        "Requests and streams that failed, by a flag, a status of 500 and more, or of gRPC",
    )
    .counters(sink, edges.iter().map(|(key, counts)| (labels(key), counts.failed.load(Ordering::Relaxed))))?;
    metric("edge_failures", "Answers of our own and broken streams, by response flag").counters(
        sink,
        edges.iter().flat_map(|(key, counts)| {
            let by_flag = ResponseFlag::ALL.into_iter().zip(&counts.by_flag);
            let series = by_flag
                .map(|(flag, count)| (with(key, "flag", flag.letters()), count.load(Ordering::Relaxed)));
            series.filter(occurred)
        }),
    )
}

fn labels(key: &EdgeKey) -> Labels<'_, 4> {
    [
        ("direction", key.direction.label()),
        ("source", &key.source),
        ("destination", &key.destination),
        ("route", &key.route),
    ]
}

fn with<'a>(key: &'a EdgeKey, label: &'static str, value: &'a str) -> Labels<'a, 5> {
    let [direction, source, destination, route] = labels(key);
    [direction, source, destination, route, (label, value)]
}
