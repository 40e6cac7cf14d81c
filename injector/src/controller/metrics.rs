//! The controller's numbers, for Prometheus; `docs/controller.md` lists them. Labels come from lists in this crate.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use prometheus_client::{
    encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{
    kubernetes::watch::WatchStatus,
    model::{cluster::Cluster, objects::Kind},
};

/// One label with a value that is known when this is compiled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Label {
    name: &'static str,
    value: &'static str,
}

impl EncodeLabelSet for Label {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        (self.name, self.value).encode(encoder.encode_label())
    }
}

type Number = Gauge<i64, AtomicI64>;
type Seconds = Gauge<f64, AtomicU64>;

/// Why a stream ended, or did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The sidecar ended it, or its connection.
    Peer,
    /// It did not read for [`WRITE_DEADLINE`](super::wire::stream::WRITE_DEADLINE).
    Slow,
    /// It said what cannot be.
    Invalid,
    /// It, or all together, wanted too much.
    Limit,
    /// The controller stops.
    Stopping,
    /// The caller's certificate is none of a Kubernetes workload.
    Denied,
    /// The controller does not know the cluster yet.
    Starting,
}

impl End {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Peer, Self::Slow, Self::Invalid, Self::Limit, Self::Stopping, Self::Denied, Self::Starting];

    /// As the label `reason` has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Slow => "slow",
            Self::Invalid => "invalid",
            Self::Limit => "limit",
            Self::Stopping => "stopping",
            Self::Denied => "denied",
            Self::Starting => "starting",
        }
    }
}

/// All metrics of the controller.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// How watching goes, by kind.
    pub watches: BTreeMap<Kind, Arc<WatchStatus>>,
    objects: Family<Label, Number>,
    watch_age: Family<Label, Seconds>,
    watch_lists: Family<Label, Number>,
    watch_events: Family<Label, Number>,
    watch_errors: Family<Label, Number>,
    synced: Number,
    streams: Number,
    wants: Number,
    values: Number,
    ended: Family<Label, Counter>,
    /// Wishes that were refused.
    pub wants_refused: Counter,
    /// Messages that were sent to sidecars.
    pub messages: Counter,
    /// Connections that are open, handshakes included.
    pub connections: Number,
    /// Connections closed at once because there were too many.
    pub connections_shed: Counter,
    /// TLS handshakes that succeeded.
    pub handshakes: Counter,
    /// TLS handshakes that failed.
    pub handshakes_failed: Counter,
    /// Connections ended because the certificate of the other end ran out or its root is trusted no more.
    pub trust_cuts: Counter,
    /// Errors of accept().
    pub accept_errors: Counter,
    /// 1 if this replica writes.
    pub leader: Number,
    /// ConfigMaps with the trust bundle that were written.
    pub bundles_written: Counter,
    /// Those that could not be.
    pub bundle_errors: Counter,
    /// Statuses of routes that were written.
    pub statuses_written: Counter,
    /// Those that could not be.
    pub status_errors: Counter,
    identity_not_after: Number,
}

/// What is looked at when the metrics are read.
pub struct Standing<'a> {
    /// The cluster as it is known.
    pub cluster: &'a Cluster,
    /// Streams, what they want, and values for it.
    pub counts: (usize, usize, usize),
    /// Whether the cluster was known once.
    pub is_synced: bool,
    /// When our certificate runs out.
    pub not_after: Option<SystemTime>,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let mut registry = Registry::with_prefix("outrider_controller");
        let metrics = Self {
            registry: Mutex::default(),
            watches: Kind::ALL.into_iter().map(|kind| (kind, Arc::new(WatchStatus::new(now)))).collect(),
            objects: Family::default(),
            watch_age: Family::default(),
            watch_lists: Family::default(),
            watch_events: Family::default(),
            watch_errors: Family::default(),
            synced: Number::default(),
            streams: Number::default(),
            wants: Number::default(),
            values: Number::default(),
            ended: Family::default(),
            wants_refused: Counter::default(),
            messages: Counter::default(),
            connections: Number::default(),
            connections_shed: Counter::default(),
            handshakes: Counter::default(),
            handshakes_failed: Counter::default(),
            trust_cuts: Counter::default(),
            accept_errors: Counter::default(),
            leader: Number::default(),
            bundles_written: Counter::default(),
            bundle_errors: Counter::default(),
            statuses_written: Counter::default(),
            status_errors: Counter::default(),
            identity_not_after: Number::default(),
        };
        for end in End::ALL {
            drop(metrics.ended.get_or_create_owned(&Label { name: "reason", value: end.as_str() }));
        }
        metrics.register(&mut registry);
        *metrics.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        metrics
    }

    fn register(&self, to: &mut Registry) {
        to.register("objects", "Objects of the cluster that are known", self.objects.clone());
        to.register("watch_age_seconds", "Time since the API server last answered", self.watch_age.clone());
        to.register("watch_lists", "Complete lists so far", self.watch_lists.clone());
        to.register("watch_events", "Changes so far", self.watch_events.clone());
        to.register("watch_errors", "Lists and watches that failed so far", self.watch_errors.clone());
        to.register("synced", "1 once all objects were listed", self.synced.clone());
        to.register("streams", "Sidecars that watch", self.streams.clone());
        to.register("wants", "Destinations that all streams want together", self.wants.clone());
        to.register("values", "Destinations that are kept ready for them", self.values.clone());
        to.register("streams_ended", "Streams that ended, by reason", self.ended.clone());
        to.register("wants_refused", "Wishes refused as too many", self.wants_refused.clone());
        to.register("messages_sent", "Messages sent to sidecars", self.messages.clone());
        to.register("connections", "Open connections", self.connections.clone());
        to.register("connections_shed", "Connections closed as too many", self.connections_shed.clone());
        to.register("handshakes", "TLS handshakes that succeeded", self.handshakes.clone());
        to.register("handshakes_failed", "TLS handshakes that failed", self.handshakes_failed.clone());
        to.register("trust_cuts", "Connections ended because trust in them ended", self.trust_cuts.clone());
        to.register("accept_errors", "Errors when accepting connections", self.accept_errors.clone());
        to.register("leader", "1 if this replica writes", self.leader.clone());
        to.register("bundles_written", "ConfigMaps written", self.bundles_written.clone());
        to.register("bundle_errors", "ConfigMaps that could not be written", self.bundle_errors.clone());
        to.register("statuses_written", "Statuses of routes written", self.statuses_written.clone());
        to.register("status_errors", "Statuses of routes that could not be", self.status_errors.clone());
        let identity = self.identity_not_after.clone();
        to.register("identity_not_after_timestamp_seconds", "When our certificate runs out", identity);
    }

    /// A stream ended, or did not begin.
    pub fn ended(&self, end: End) {
        self.ended.get_or_create_owned(&Label { name: "reason", value: end.as_str() }).inc();
    }

    /// How old what is known may be: the age of the kind that was confirmed longest ago.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        self.watches.values().map(|status| status.age(now)).max().unwrap_or_default()
    }

    /// The text of `/metrics`.
    #[must_use]
    pub fn render(&self, standing: &Standing<'_>, now: Instant) -> String {
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let count = |number: &AtomicU64| i64::try_from(number.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        for (kind, status) in &self.watches {
            let label = Label { name: "kind", value: kind.as_str() };
            self.objects.get_or_create_owned(&label).set(whole(standing.cluster.count(*kind)));
            self.watch_age.get_or_create_owned(&label).set(status.age(now).as_secs_f64());
            self.watch_lists.get_or_create_owned(&label).set(count(&status.lists));
            self.watch_events.get_or_create_owned(&label).set(count(&status.events));
            self.watch_errors.get_or_create_owned(&label).set(count(&status.errors));
        }
        let (streams, wants, values) = standing.counts;
        self.synced.set(i64::from(standing.is_synced));
        self.streams.set(whole(streams));
        self.wants.set(whole(wants));
        self.values.set(whole(values));
        let end = standing.not_after.and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok());
        self.identity_not_after.set(end.and_then(|end| i64::try_from(end.as_secs()).ok()).unwrap_or(0));
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match encode(&mut text, &registry) {
            Ok(()) => text,
            // Cannot happen: a String takes whatever is written to it.
            Err(std::fmt::Error) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_lists_every_metric() {
        let now = Instant::now();
        let cluster = Cluster::default();
        let standing = Standing { cluster: &cluster, counts: (0, 0, 0), is_synced: false, not_after: None };
        let text = Metrics::new(now).render(&standing, now);
        let sample = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
        let exported: BTreeSet<String> =
            text.lines().filter(|line| !line.starts_with('#')).map(sample).collect();
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/controller.md");
        let page = std::fs::read_to_string(place).unwrap();
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `outrider_controller_"));
        let documented: BTreeSet<String> = rows
            .map(|row| format!("outrider_controller_{}", row.split('`').next().unwrap_or_default()))
            .collect();
        assert_eq!(exported, documented);
    }
}
