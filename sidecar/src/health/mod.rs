//! Active health checks: endpoints are asked how they are, over the cluster's own way to them.
//!
//! One task of the first worker asks for the whole process, over that worker's connections: what a check finds is what a
//! request would. A check takes no place under a cluster's caps on requests and spends no budget; where a cap on
//! connections leaves it none, it says nothing about the endpoint. What is found goes into the endpoint's
//! [`Health`](crate::model::health::Health), which the balancer of every worker reads.
//!
//! # Invariants
//! - An endpoint has at most one check under way; all together at most [`MAX_UNDER_WAY`], begun at least [`PACE`] apart.
//! - Every check is a part of the one task: it ends with its endpoint, with a change of its settings, and with the task.
//! - A verdict outlives a reload, unless the cluster's checks are taken away: then there is none.

mod finding;
mod grpc;
mod http;
mod schedule;
mod tcp;
mod verdict;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};

use self::{
    finding::Finding,
    schedule::{Due, Schedule, Ticket},
};
use crate::{
    clock::Clock,
    connect::{connector::Connector, negotiate::Negotiator, place::Target, pool::Pool, tcp_pool::TcpPool},
    drain::{Phase, Watcher},
    model::{
        Cluster, Endpoint, Identity, Snapshot,
        health::Checked,
        health_check::{CheckOutcome, HealthCheck, Question},
        snapshot::Snapshots,
    },
    net::Net,
};

/// Checks under way, over all clusters. Over it they are begun later.
pub const MAX_UNDER_WAY: usize = 128;
/// Least time between the beginnings of two checks: those of a thousand new endpoints, with a handshake each, must not keep
/// requests waiting.
pub const PACE: Duration = Duration::from_millis(2);

/// What checks are made with.
struct Asking<N: Net> {
    clock: Clock,
    pool: Pool<N>,
    negotiator: Negotiator<N>,
    tcp_pool: TcpPool<N>,
}

/// One check that is due, with everything it needs.
struct Check {
    cluster: Arc<Cluster>,
    endpoint: Arc<Endpoint>,
    settings: HealthCheck,
    identity: Option<Arc<Identity>>,
}

/// Checks the endpoints of every snapshot until the drain is forced. Once per process.
pub async fn run<N: Net>(
    connector: Arc<Connector<N>>,
    snapshots: Snapshots,
    clock: Clock,
    mut watcher: Watcher,
) {
    let mut rng = clock.fork_rng();
    let asking = Asking {
        pool: Pool::new(Arc::clone(&connector)),
        negotiator: Negotiator::new(Arc::clone(&connector)),
        tcp_pool: TcpPool::new(connector),
        clock: clock.clone(),
    };
    let mut snapshot = snapshots.load();
    let mut schedule = Schedule::default();
    reconcile(&mut schedule, &snapshot, &clock);
    let mut under_way = FuturesUnordered::new();
    loop {
        let begins_at = schedule.next_at().filter(|_| under_way.len() < MAX_UNDER_WAY);
        tokio::select! {
            biased;
            () = watcher.reached(Phase::Forced) => return,
            newer = snapshots.until(|newest| newest.version != snapshot.version) => {
                snapshot = newer;
                reconcile(&mut schedule, &snapshot, &clock);
            }
            Some((ticket, found)) = under_way.next(), if !under_way.is_empty() => {
                let now = clock.now();
                if let Some(due) = schedule.ended(ticket, now, &mut rng)
                    && let Some(found) = found
                {
                    conclude(due, &found, &clock);
                }
            }
            () = reached(begins_at) => {
                if let Some((ticket, due)) = schedule.begin(clock.now()) {
                    under_way.push(ask(&asking, ticket, Check::of(due, &snapshot)));
                }
            }
        }
    }
}

/// Waits for that time; for ever if there is none.
async fn reached(at: Option<std::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Takes the endpoints of a newer snapshot in. Those that are not checked have no verdict.
fn reconcile(schedule: &mut Schedule, snapshot: &Snapshot, clock: &Clock) {
    schedule.reconcile(snapshot, clock.now());
    for cluster in snapshot.clusters.values().filter(|cluster| cluster.settings.health_check.is_none()) {
        for endpoint in &cluster.endpoints {
            let health = &endpoint.runtime.health;
            if health.checked() != Checked::Unknown && health.set_checked(Checked::Unknown) {
                health.forget_checks();
                cluster.runtime.standings.fetch_add(1, Ordering::Release);
            }
        }
    }
}

/// One check, which ends without a finding if it is not wanted any more.
async fn ask<N: Net>(asking: &Asking<N>, ticket: Ticket, check: Check) -> (Ticket, Option<Finding>) {
    let (target, settings) = (check.target(), &check.settings);
    let asked = async {
        match &settings.question {
            Question::Http { path, host } => asking.http(target, path, host, settings.timeout).await,
            Question::Grpc { service, host } => asking.grpc(target, service, host, settings.timeout).await,
            Question::Tcp => asking.tcp(target, settings.timeout).await,
        }
    };
    let found = ticket.cancelled.run_until_cancelled(asked).await;
    (ticket, found)
}

/// Keeps what was found, and says so if that changes what the endpoint is taken for.
fn conclude(Due { cluster, endpoint, settings }: &Due, found: &Finding, clock: &Clock) {
    let now = clock.now();
    cluster.runtime.checks.count(found.outcome);
    let (name, address) = (cluster.name(), endpoint.address());
    if found.outcome != CheckOutcome::Well {
        tracing::debug!(cluster = %name, endpoint = %address, found = &*found.text, "health check failed");
    }
    let Some(checked) = verdict::conclude(&endpoint.runtime, settings, found, now) else { return };
    cluster.runtime.standings.fetch_add(1, Ordering::Release);
    match checked {
        Checked::Unhealthy => {
            tracing::warn!(cluster = %name, endpoint = %address, found = &*found.text, "endpoint is unhealthy");
        }
        Checked::Healthy | Checked::Unknown => {
            tracing::info!(cluster = %name, endpoint = %address, "endpoint is healthy");
        }
    }
}

impl Check {
    fn of(Due { cluster, endpoint, settings }: &Due, snapshot: &Snapshot) -> Self {
        Self {
            cluster: Arc::clone(cluster),
            endpoint: Arc::clone(endpoint),
            settings: settings.clone(),
            identity: snapshot.identity.clone(),
        }
    }

    fn target(&self) -> Target<'_> {
        Target { cluster: &self.cluster, endpoint: &self.endpoint, identity: self.identity.as_ref() }
    }
}
