//! Statuses of routes and policies: the leader writes what differs, each to the version of the object that it was made of.

use std::{sync::Arc, time::Duration};

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
/// Pause after something could not be written.
const RETRY: Duration = Duration::from_secs(5);
/// Pause after somebody else wrote: the watch tells what it says now.
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
    loop {
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
                    tokio::time::sleep(write_one(&client, &write, &inputs).await).await;
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
        }
    }
}

/// Writes one; how long to wait before the next.
async fn write_one(client: &Client, write: &StatusWrite, inputs: &Inputs) -> Duration {
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
            return PAUSE;
        }
        // It is gone.
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => return PAUSE,
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
            inputs.desk.unsettle(&write.subject);
            return CONFLICT;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_elapsed) => "no answer in time".to_owned(),
    };
    inputs.metrics.status_errors.inc();
    tracing::warn!(
        namespace,
        name,
        kind = kind.as_str(),
        error = failed,
        "a status could not be written; it is tried again"
    );
    inputs.desk.unsettle(&write.subject);
    RETRY
}

async fn patch<K: Watched<Scope = NamespaceResourceScope>>(
    client: &Client,
    (namespace, name): (&str, &str),
    change: Json,
) -> kube::Result<()> {
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(change)).await.map(drop)
}
