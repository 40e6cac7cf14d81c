//! What the run showed, as numbers, and whether that is what a mesh has to do.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::Context;
use serde::Serialize;

use super::{
    admin::{self, Cluster, Endpoint, Peer},
    chaos::Damage,
    illness::Ejection,
    intruders::Attempt,
    load::{Failure, Load, Totals},
    plan::{Plan, Service, Workload},
    traces::Calls,
};

/// Share of the planned requests that must have been made: an idle run proves nothing.
const LEAST_SHARE: f64 = 0.9;

/// The report, as `--report` writes it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether everything is as it must be.
    pub passed: bool,
    /// What is not.
    pub faults: Vec<String>,
    /// Requests made.
    pub requests: u64,
    /// Those that were not answered as they should.
    pub failures: u64,
    /// What went wrong with them, the first few kinds.
    pub failure_kinds: Vec<Failure>,
    /// How long the load lasted, in seconds.
    pub duration_s: f64,
    /// Requests per second that were planned.
    pub rate: u32,
    /// Median time of a whole request, from the moment it was due, in milliseconds.
    pub p50_ms: Option<f64>,
    /// The same for 99 of 100.
    pub p99_ms: Option<f64>,
    /// Requests by the replica of `inventory` that answered.
    pub answered_by: BTreeMap<String, u64>,
    /// Each call from a service to the next.
    pub hops: Vec<Hop>,
    /// The endpoint that was ejected while its service was ill, and came back.
    pub ejection: Option<Ejection>,
    /// The endpoint whose host was killed.
    pub killed_endpoint: Option<SocketAddr>,
    /// The endpoint whose sidecar was replaced.
    pub restarted_endpoint: Option<SocketAddr>,
    /// Who tried to get in.
    pub intruders: Vec<Attempt>,
    /// The same with the right certificate: that it got in shows that the others could have.
    pub control: Option<Attempt>,
    /// Calls as their traces tell them; none if those went to somebody else's collector.
    pub calls: Option<Calls>,
    /// The trace of the last good answer.
    pub last_trace: Option<String>,
}

/// One service calling the next, as both their sidecars saw it.
#[derive(Clone, Debug, Serialize)]
pub struct Hop {
    /// The calling service.
    pub from: String,
    /// The service called.
    pub to: String,
    /// Requests that the caller's sidecar carried.
    pub requests: u64,
    /// Those without an answer, or with a status of 5xx.
    pub failures: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Who the called side proved to be.
    pub peer_spiffe_id: Option<String>,
    /// Who the caller proved to be, to the called side.
    pub caller_spiffe_id: Option<String>,
    /// TLS version, as `TLSv1_3`.
    pub tls_version: Option<String>,
    /// Key exchange group, as `X25519MLKEM768`.
    pub key_exchange: Option<String>,
    /// Cipher suite.
    pub cipher_suite: Option<String>,
    /// Median time to the answer's head at the caller's sidecar, in milliseconds.
    pub p50_ms: Option<f64>,
    /// The same for 99 of 100.
    pub p99_ms: Option<f64>,
    /// Connections that the called side refused before any request, by reason, as it counted them.
    pub refused: BTreeMap<String, u64>,
    /// The endpoints that the caller's sidecar chose from.
    pub endpoints: Vec<HopEndpoint>,
}

/// One endpoint of a hop.
#[derive(Clone, Debug, Serialize)]
pub struct HopEndpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// Times it was chosen.
    pub picks: u64,
    /// Attempts at it without a usable answer.
    pub failures: u64,
}

/// Asks the sidecars for what they saw, and compares it with what they should have seen. Whatever is not as it must
/// be goes to `faults`.
pub async fn hops(plan: &Plan, faults: &mut Vec<String>) -> Vec<Hop> {
    let mut hops = Vec::new();
    for caller in &plan.workloads {
        let Some(called) = caller.service.calls() else { continue };
        match hop(plan, caller, called, faults).await {
            Ok(hop) => hops.push(hop),
            Err(error) => faults.push(format!("{} -> {called}: {error:#}", caller.service)),
        }
    }
    hops
}

async fn hop(
    plan: &Plan,
    caller: &Workload,
    called: Service,
    faults: &mut Vec<String>,
) -> anyhow::Result<Hop> {
    let clusters = admin::clusters(&caller.admin()).await?.clusters;
    let cluster = clusters.into_iter().find(|cluster| cluster.name == called.name());
    let cluster = cluster.with_context(|| format!("the sidecar of {} knows no such cluster", caller.name))?;
    let from = caller.service;
    for fault in cluster.endpoints.iter().filter_map(|endpoint| endpoint_fault(endpoint, called)) {
        faults.push(format!("{from} -> {called}: {fault}"));
    }
    let arrivals = arrivals(plan, called).await;
    for stranger in arrivals.peers.iter().filter(|peer| peer.requests > 0 && peer.peer != from.spiffe_id()) {
        faults.push(format!("{} requests of {} got to {called}", stranger.requests, stranger.peer));
    }
    let is_caller = |peer: &Peer| peer.peer == from.spiffe_id() && peer.requests > 0;
    if !arrivals.peers.iter().any(is_caller) {
        faults.push(format!("{from} -> {called}: the called side saw no request of {}", from.spiffe_id()));
    }
    Ok(describe(from, called, arrivals, cluster))
}

/// What the inbound side of a service saw, over all its living replicas.
#[derive(Debug, Default)]
struct Arrivals {
    peers: Vec<Peer>,
    refused: BTreeMap<String, u64>,
}

async fn arrivals(plan: &Plan, called: Service) -> Arrivals {
    let mut arrivals = Arrivals::default();
    for replica in plan.replicas(called) {
        // A replica that was killed has nothing to tell; one that should be alive shows up as a casualty.
        let Ok(listeners) = admin::listeners(&replica.admin()).await else { continue };
        for listener in listeners.listeners {
            arrivals.peers.extend(listener.peers);
            for (reason, count) in listener.refused.into_iter().filter(|(_, count)| *count > 0) {
                *arrivals.refused.entry(reason).or_default() += count;
            }
        }
    }
    arrivals
}

/// What is wrong with an endpoint's TLS, if it was used at all.
fn endpoint_fault(endpoint: &Endpoint, called: Service) -> Option<String> {
    let Some(tls) = &endpoint.tls else {
        let is_used = endpoint.picks > endpoint.failures;
        return is_used.then(|| format!("{} was used without TLS", endpoint.address));
    };
    if tls.version != "TLSv1_3" {
        return Some(format!("{} was used with {}", endpoint.address, tls.version));
    }
    let is_right = tls.peer == called.spiffe_id();
    (!is_right).then(|| format!("{} proved to be {}", endpoint.address, tls.peer))
}

fn describe(from: Service, to: Service, arrivals: Arrivals, cluster: Cluster) -> Hop {
    let Arrivals { peers, refused } = arrivals;
    let tls = cluster.endpoints.iter().find_map(|endpoint| endpoint.tls.clone());
    Hop {
        from: from.to_string(),
        to: to.to_string(),
        requests: cluster.requests.total(),
        failures: cluster.requests.failed(),
        retries: cluster.retries,
        peer_spiffe_id: tls.as_ref().map(|tls| tls.peer.clone()),
        caller_spiffe_id: peers.into_iter().map(|peer| peer.peer).find(|peer| *peer == from.spiffe_id()),
        tls_version: tls.as_ref().map(|tls| tls.version.clone()),
        key_exchange: tls.as_ref().map(|tls| tls.key_exchange.clone()),
        cipher_suite: tls.map(|tls| tls.cipher_suite),
        p50_ms: cluster.requests.latency_ms.p50,
        p99_ms: cluster.requests.latency_ms.p99,
        refused,
        endpoints: cluster
            .endpoints
            .into_iter()
            .map(|Endpoint { address, picks, failures, .. }| HopEndpoint { address, picks, failures })
            .collect(),
    }
}

impl Report {
    /// Puts everything together and judges it. `faults` are those found on the way.
    #[must_use]
    pub fn new(load: Load, totals: Totals, hops: Vec<Hop>, damage: Damage, mut faults: Vec<String>) -> Self {
        let requests = totals.ok + totals.failed;
        if totals.failed > 0 {
            faults.push(format!("{} of {requests} requests failed", totals.failed));
        }
        if (requests as f64) < load.planned() as f64 * LEAST_SHARE {
            faults.push(format!("only {requests} of {} planned requests were made", load.planned()));
        }
        for hop in &hops {
            // The services' own counts: nothing went around the sidecars.
            if hop.requests < totals.ok {
                faults.push(format!(
                    "{} -> {}: only {} of {} requests",
                    hop.from, hop.to, hop.requests, totals.ok
                ));
            }
        }
        let killed = hops.iter().flat_map(|hop| &hop.endpoints).find(|it| Some(it.address) == damage.killed);
        if killed.is_none_or(|endpoint| endpoint.picks <= endpoint.failures) {
            faults.push(
                "the replica that was killed had answered nothing before, so its death proves nothing"
                    .to_owned(),
            );
        }
        faults.extend(damage.faults);
        let (control, intruders): (Vec<_>, Vec<_>) =
            damage.attempts.into_iter().partition(|attempt| attempt.is_control);
        faults.extend(
            intruders
                .iter()
                .filter(|attempt| attempt.accepted)
                .map(|attempt| format!("an intruder got in: {}", attempt.kind)),
        );
        let control = control.into_iter().next();
        if !control.as_ref().is_some_and(|attempt| attempt.accepted) {
            faults.push(
                "the attempt with the right certificate was refused, so the others prove nothing".to_owned(),
            );
        }
        Self {
            passed: faults.is_empty(),
            faults,
            requests,
            failures: totals.failed,
            failure_kinds: totals.failures,
            duration_s: load.duration.as_secs_f64(),
            rate: load.rate,
            p50_ms: totals.latency.quantile_ms(0.5),
            p99_ms: totals.latency.quantile_ms(0.99),
            answered_by: totals.replicas,
            hops,
            ejection: damage.ejected,
            killed_endpoint: damage.killed,
            restarted_endpoint: damage.restarted,
            intruders,
            control,
            calls: None,
            last_trace: totals.last_trace,
        }
    }

    /// The same with more faults.
    #[must_use]
    pub fn with(mut self, more: Vec<String>) -> Self {
        self.faults.extend(more);
        self.passed = self.faults.is_empty();
        self
    }
}

#[cfg(test)]
mod tests {
    use std::{iter, time::Duration};

    use super::*;
    use crate::{demo::admin::Tls, effects};

    const KILLED: &str = "127.16.0.32:4343";

    /// A run in which everything is as it must be.
    struct Run {
        totals: Totals,
        hop: Hop,
        damage: Damage,
    }

    impl Run {
        fn good() -> Self {
            let address = KILLED.parse().expect("an address");
            let hop = Hop {
                from: "orders".to_owned(),
                to: "inventory".to_owned(),
                requests: 100,
                failures: 0,
                retries: 1,
                peer_spiffe_id: None,
                caller_spiffe_id: None,
                tls_version: None,
                key_exchange: None,
                cipher_suite: None,
                p50_ms: None,
                p99_ms: None,
                refused: BTreeMap::new(),
                endpoints: vec![HopEndpoint { address, picks: 9, failures: 1 }],
            };
            let attempt = |kind, accepted| Attempt {
                kind,
                accepted,
                answer: String::new(),
                is_control: kind == "control",
            };
            let attempts = vec![attempt("no_certificate", false), attempt("control", true)];
            let damage = Damage { killed: Some(address), attempts, ..Damage::default() };
            Self { totals: Totals { ok: 100, ..Totals::default() }, hop, damage }
        }

        fn faults(self) -> Vec<String> {
            let target = KILLED.parse().expect("an address");
            let load = Load { target, duration: Duration::from_secs(10), rate: 10, start: effects::now() };
            let report = Report::new(load, self.totals, vec![self.hop], self.damage, Vec::new());
            assert_eq!(report.passed, report.faults.is_empty());
            report.faults
        }
    }

    #[track_caller]
    fn assert_faulty(change: impl FnOnce(&mut Run), expected: &str) {
        let mut run = Run::good();
        change(&mut run);
        let faults = run.faults();
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected:?} is not among {faults:?}");
    }

    #[test]
    fn a_run_passes_only_if_everything_is_as_it_must_be() {
        assert_eq!(Run::good().faults(), Vec::<String>::new());
        assert_faulty(|run| run.totals.failed = 1, "1 of 101 requests failed");
        assert_faulty(|run| run.totals.ok = 89, "only 89 of 100 planned requests");
        assert_faulty(|run| run.hop.requests = 99, "only 99 of 100 requests");
        assert_faulty(|run| run.hop.endpoints.clear(), "its death proves nothing");
        assert_faulty(|run| run.damage.killed = None, "its death proves nothing");
        assert_faulty(|run| run.damage.attempts.truncate(1), "the others prove nothing");
        assert_faulty(|run| run.damage.faults.push("no new sidecar".to_owned()), "no new sidecar");
        let let_in =
            |run: &mut Run| run.damage.attempts.iter_mut().for_each(|attempt| attempt.accepted = true);
        assert_faulty(let_in, "an intruder got in: no_certificate");
        let refuse =
            |run: &mut Run| run.damage.attempts.iter_mut().for_each(|attempt| attempt.accepted = false);
        assert_faulty(refuse, "the others prove nothing");
    }

    #[test]
    fn an_endpoint_is_good_only_with_tls_1_3_and_the_right_identity() {
        let tls = |version: &str, peer: &str| {
            Some(Tls {
                peer: peer.to_owned(),
                version: version.to_owned(),
                cipher_suite: String::new(),
                key_exchange: String::new(),
            })
        };
        let fault = |tls, picks| {
            let address = KILLED.parse().expect("an address");
            endpoint_fault(
                &Endpoint { address, picks, failures: 0, standing: String::new(), tls },
                Service::Inventory,
            )
        };
        let inventory = Service::Inventory.spiffe_id();
        assert_eq!(fault(tls("TLSv1_3", &inventory), 1), None);
        assert_eq!(fault(None, 0), None, "not used, nothing to show");
        let bad =
            [fault(None, 1), fault(tls("TLSv1_2", &inventory), 1), fault(tls("TLSv1_3", "spiffe://x/y"), 1)];
        assert!(
            iter::zip(bad, ["without TLS", "TLSv1_2", "spiffe://x/y"])
                .all(|(fault, expected)| { fault.is_some_and(|fault| fault.contains(expected)) })
        );
    }
}
