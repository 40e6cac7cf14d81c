//! The CA's numbers, for Prometheus. Labels come from this crate's own lists.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::acknowledgements::Acknowledgements;
use super::log::ProofKind;
use super::state::CaState;

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

type Number = Gauge<i64, std::sync::atomic::AtomicI64>;

/// All metrics of the CA.
pub(super) struct Metrics {
    registry: Mutex<Registry>,
    issued: Family<Label, Counter<u64, AtomicU64>>,
    refused: Family<Label, Counter<u64, AtomicU64>>,
    holders: Family<Label, Number>,
    bundle_sequence: Number,
    root_not_after: Number,
    /// Answers of the bundle endpoint.
    pub(super) bundle_requests: Counter,
    /// Connections that are open, handshakes included.
    pub(super) connections: Number,
    /// Connections closed because there were too many.
    pub(super) connections_shed: Counter,
    /// Requests refused because too many were being answered, or too slowly.
    pub(super) requests_shed: Counter,
    /// TLS handshakes that succeeded.
    pub(super) handshakes: Counter,
    /// TLS handshakes that failed.
    pub(super) handshakes_failed: Counter,
    /// Errors of accept(), such as too few file descriptors.
    pub(super) accept_errors: Counter,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("outrider_ca");
        let metrics = Self {
            registry: Mutex::default(),
            issued: Family::default(),
            refused: Family::default(),
            holders: Family::default(),
            bundle_sequence: Number::default(),
            root_not_after: Number::default(),
            bundle_requests: Counter::default(),
            connections: Number::default(),
            connections_shed: Counter::default(),
            requests_shed: Counter::default(),
            handshakes: Counter::default(),
            handshakes_failed: Counter::default(),
            accept_errors: Counter::default(),
        };
        metrics.register(&mut registry);
        *metrics.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        metrics
    }

    fn register(&self, to: &mut Registry) {
        to.register("issued", "Certificates issued, by kind of proof", self.issued.clone());
        to.register("refused", "Requests for certificates refused, by reason", self.refused.clone());
        to.register(
            "bundle_holders",
            "Holders of valid leaves, by whether they have the current bundle",
            self.holders.clone(),
        );
        to.register("bundle_sequence", "Sequence of the bundle", self.bundle_sequence.clone());
        to.register(
            "root_not_after_timestamp_seconds",
            "When the signing root runs out",
            self.root_not_after.clone(),
        );
        to.register("bundle_requests", "Requests for the bundle", self.bundle_requests.clone());
        to.register("connections", "Open connections", self.connections.clone());
        to.register("connections_shed", "Connections closed as too many", self.connections_shed.clone());
        to.register("requests_shed", "Requests refused as too many or too slow", self.requests_shed.clone());
        to.register("handshakes", "TLS handshakes that succeeded", self.handshakes.clone());
        to.register("handshakes_failed", "TLS handshakes that failed", self.handshakes_failed.clone());
        to.register("accept_errors", "Errors when accepting connections", self.accept_errors.clone());
    }

    pub(super) fn issued(&self, proof: ProofKind) {
        let value = match proof {
            ProofKind::JoinToken => "join_token",
            ProofKind::Svid => "svid",
            ProofKind::ServiceAccount => "service_account",
            ProofKind::Operator => "operator",
            ProofKind::CaItself => "ca_itself",
        };
        self.issued.get_or_create_owned(&Label { name: "proof", value }).inc();
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create_owned(&Label { name: "reason", value: reason }).inc();
    }

    /// The text of `/metrics`.
    pub(super) fn render(&self, state: &CaState, holders: &Acknowledgements, now: SystemTime) -> String {
        let sequence = state.bundle().sequence();
        let count = holders.count(sequence, now);
        for (value, number) in [("current", count.current), ("behind", count.behind)] {
            let label = Label { name: "state", value };
            self.holders.get_or_create_owned(&label).set(i64::try_from(number).unwrap_or(i64::MAX));
        }
        self.bundle_sequence.set(i64::try_from(sequence).unwrap_or(i64::MAX));
        let end = state.root_not_after().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.root_not_after.set(i64::try_from(end.as_secs()).unwrap_or(i64::MAX));
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match encode(&mut text, &registry) {
            Ok(()) => text,
            // Cannot happen: a String takes whatever is written to it.
            Err(std::fmt::Error) => String::new(),
        }
    }
}
