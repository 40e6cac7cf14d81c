//! The Lease by which one of the replicas writes; [`election`](crate::controller::election) decides.

use std::time::Duration;

use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams, TypeMeta},
};
use outrider::clock::Clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::api::{ApiLease, LeaseSpec};
use crate::controller::election::{Act, Election, LEASE, RETRY, Record};

/// The Lease's name, in the controller's own namespace.
pub const LEASE_NAME: &str = "outrider-controller";
/// Time for one call.
const CALL: Duration = Duration::from_secs(5);

/// Takes part in the election until `stop`, then gives the Lease back. `leads` says whether we are the one.
pub async fn run(
    client: Client,
    namespace: String,
    mut election: Election,
    clock: Clock,
    (leads, stop): (watch::Sender<bool>, CancellationToken),
) {
    let api: Api<ApiLease> = Api::namespaced(client, &namespace);
    let mut was_failing = false;
    loop {
        let round = tokio::time::timeout(CALL, round(&api, &mut election, &clock)).await;
        match round {
            Ok(Ok(())) => was_failing = false,
            Ok(Err(error)) => note(&mut was_failing, &error.to_string()),
            Err(_elapsed) => note(&mut was_failing, "no answer in time"),
        }
        let is_leader = election.is_leader(clock.now());
        leads.send_if_modified(|before| {
            let changed = *before != is_leader;
            if changed {
                tracing::info!(is_leader, name = election.name(), "the Lease has changed hands");
            }
            std::mem::replace(before, is_leader) != is_leader
        });
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
    leads.send_replace(false);
    if election.is_leader(clock.now()) {
        let given = tokio::time::timeout(CALL, release(&api, &mut election)).await;
        if !matches!(given, Ok(Ok(()))) {
            tracing::info!("the Lease could not be given back: it runs out by itself");
        }
    }
}

fn note(was_failing: &mut bool, error: &str) {
    if std::mem::replace(was_failing, true) {
        tracing::debug!(error, "the Lease cannot be looked at");
    } else {
        tracing::warn!(error, "the Lease cannot be looked at; it is tried again");
    }
}

async fn round(api: &Api<ApiLease>, election: &mut Election, clock: &Clock) -> kube::Result<()> {
    let lease = api.get_opt(LEASE_NAME).await?;
    let asked = clock.now();
    let act = election.look(lease.as_ref().map(record), asked);
    let time = humantime::format_rfc3339_micros(clock.wall()).to_string();
    let mut lease = lease.unwrap_or_else(|| ApiLease {
        types: Some(TypeMeta::resource::<ApiLease>()),
        metadata: ObjectMeta { name: Some(LEASE_NAME.to_owned()), ..ObjectMeta::default() },
        spec: LeaseSpec::default(),
    });
    let spec = &mut lease.spec;
    spec.lease_duration_seconds = i64::try_from(LEASE.as_secs()).ok();
    spec.renew_time = Some(time.clone());
    if matches!(act, Act::Create | Act::Take) {
        spec.holder_identity = Some(election.name().to_owned());
        spec.acquire_time = Some(time);
        spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |times| times.saturating_add(1)));
    }
    let post = PostParams::default();
    let wrote = match act {
        Act::Wait => return Ok(()),
        Act::Create => api.create(&post, &lease).await,
        // With the version that was read: who was first wins.
        Act::Take | Act::Renew => api.replace(LEASE_NAME, &post, &lease).await,
    };
    match wrote {
        Ok(_) => election.wrote(asked),
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn record(lease: &ApiLease) -> Record {
    let seconds = lease.spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        holder: lease.spec.holder_identity.clone(),
        duration: seconds.map_or(LEASE, Duration::from_secs),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

async fn release(api: &Api<ApiLease>, election: &mut Election) -> kube::Result<()> {
    election.released();
    let mut lease = api.get(LEASE_NAME).await?;
    if lease.spec.holder_identity.as_deref() != Some(election.name()) {
        return Ok(());
    }
    lease.spec.holder_identity = Some(String::new());
    api.replace(LEASE_NAME, &PostParams::default(), &lease).await.map(drop)
}
