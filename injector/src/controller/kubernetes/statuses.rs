//! Statuses of routes and policies: the leader writes what differs, each to the version of the object that it was made of.

use std::{
    collections::VecDeque,
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::NamespaceResourceScope,
};
use outrider::clock::Clock;
use serde_json::{Value as Json, json};
use tokio::sync::{Notify, watch};

use super::{
    api::Watched,
    policies::{ApiAuthorizationPolicy, ApiTrafficPolicy},
    routes::{ApiGrpcRoute, ApiHttpRoute},
};
use crate::{
    controller::{
        gateway::route::{RouteKey, RouteKind},
        metrics::Metrics,
        wire::desk::{Desk, Due, StatusWrite, Subject},
    },
    policy::kept::{PolicyKey, PolicyKind},
};

/// Pause after each write: at most 20 a second, however many routes a change of a Service concerns.
const PAUSE: Duration = Duration::from_millis(50);
/// Until what the API server refused is tried again; others are written meanwhile.
const REFUSED: Duration = Duration::from_secs(10);
/// Pause after something could not be written, whatever it was.
const RETRY: Duration = Duration::from_secs(5);
/// Pause after somebody else wrote.
const CONFLICT: Duration = Duration::from_millis(500);
/// Time for one call.
const CALL: Duration = Duration::from_secs(10);

/// What the writer goes by.
pub struct Inputs {
    /// Whether we are the one who writes.
    pub leads: watch::Receiver<bool>,
    /// What is known.
    pub desk: Arc<Desk>,
    /// Rung when a status may be due.
    pub due: Arc<Notify>,
    /// Conditions say when they changed.
    pub clock: Clock,
    /// Counts what is written.
    pub metrics: Arc<Metrics>,
}

/// Keeps statuses current for ever.
pub async fn run(client: Client, mut inputs: Inputs) {
    let mut was_leader = false;
    // At most one entry of each object: it is tried when it is taken out.
    let mut later: VecDeque<(Instant, Subject)> = VecDeque::new();
    loop {
        let now = inputs.clock.now();
        while later.front().is_some_and(|(at, _)| *at <= now) {
            later.pop_front().iter().for_each(|(_, subject)| inputs.desk.unsettle(subject));
        }
        let leads = *inputs.leads.borrow_and_update();
        if leads && !was_leader {
            // What is due was another's to write until now.
            inputs.desk.unsettle_all();
        }
        was_leader = leads;
        if leads && inputs.desk.is_synced() {
            let now = humantime::format_rfc3339_seconds(inputs.clock.wall()).to_string();
            match inputs.desk.next_status(&now) {
                Due::Write(write) => {
                    let pause = match write_one(&client, &write, &inputs).await {
                        Wrote::Done => PAUSE,
                        Wrote::Conflict => CONFLICT,
                        Wrote::Failed => RETRY,
                        Wrote::Refused => {
                            // It may have been tried early, as its object changed.
                            later.retain(|(_, subject)| *subject != write.subject);
                            later.push_back((inputs.clock.now() + REFUSED, write.subject));
                            PAUSE
                        }
                    };
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Due::More => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Due::Nothing => {}
            }
        }
        tokio::select! {
            changed = inputs.leads.changed() => if changed.is_err() { return },
            () = inputs.due.notified() => {}
            () = until(later.front().map(|(at, _)| *at)) => {}
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

/// What became of a write.
enum Wrote {
    /// It is written, or its object is gone.
    Done,
    /// Somebody else was first: the watch tells what it says now.
    Conflict,
    /// The API server does not want this one.
    Refused,
    /// The API server could not be asked.
    Failed,
}

/// Writes one.
async fn write_one(client: &Client, write: &StatusWrite, inputs: &Inputs) -> Wrote {
    let (kind, key) = match &write.subject {
        Subject::Route(route) => (route.kind.kind(), &route.key),
        Subject::Policy(policy) => (policy.kind.kind(), &policy.key),
    };
    let (namespace, name) = (&*key.namespace, &*key.name);
    // The version makes it a conflict if the object is another by now: entries of others are never written over.
    let change = json!({
        "metadata": {"resourceVersion": write.version}, "status": write.status,
    });
    let wrote = async {
        match &write.subject {
            Subject::Route(RouteKey { kind: RouteKind::Http, .. }) => {
                patch::<ApiHttpRoute>(client, (namespace, name), change).await
            }
            Subject::Route(RouteKey { kind: RouteKind::Grpc, .. }) => {
                patch::<ApiGrpcRoute>(client, (namespace, name), change).await
            }
            Subject::Policy(PolicyKey { kind: PolicyKind::Traffic, .. }) => {
                patch::<ApiTrafficPolicy>(client, (namespace, name), change).await
            }
            Subject::Policy(PolicyKey { kind: PolicyKind::Authorization, .. }) => {
                patch::<ApiAuthorizationPolicy>(client, (namespace, name), change).await
            }
        }
    };
    let failed = match tokio::time::timeout(CALL, wrote).await {
        Ok(Ok(())) => {
            inputs.metrics.statuses_written.inc();
            return Wrote::Done;
        }
        // It is gone.
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Wrote::Done,
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
            inputs.desk.unsettle(&write.subject);
            return Wrote::Conflict;
        }
        // 429, too many requests, is of all.
        Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) && status.code != 429 => {
            (status.to_string(), Wrote::Refused)
        }
        Ok(Err(error)) => (error.to_string(), Wrote::Failed),
        Err(_elapsed) => ("no answer in time".to_owned(), Wrote::Failed),
    };
    let (error, wrote) = failed;
    inputs.metrics.status_errors.inc();
    tracing::warn!(
        namespace,
        name,
        kind = kind.as_str(),
        error,
        "a status could not be written; it is tried again"
    );
    if !matches!(wrote, Wrote::Refused) {
        inputs.desk.unsettle(&write.subject);
    }
    wrote
}

async fn patch<K: Watched<Scope = NamespaceResourceScope>>(
    client: &Client,
    (namespace, name): (&str, &str),
    change: Json,
) -> kube::Result<()> {
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(change)).await.map(drop)
}
