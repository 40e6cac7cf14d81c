//! A replica that falls ill: the sidecar of its caller sees it, lets it rest, and takes it back when one request has
//! shown that it is well again.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde::Serialize;

use super::{
    admin,
    mesh::Mesh,
    plan::{Service, Workload},
    progress::Console,
};
use crate::effects;

/// Time for the sidecar to notice, and for the replica to be back; both take about a second.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at the sidecar.
const POLL: Duration = Duration::from_millis(20);

/// An ejection that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ejection {
    /// The endpoint.
    pub address: SocketAddr,
    /// Seconds from the first answer that could fail to the ejection.
    pub ejected_after_s: f64,
    /// Seconds from there until it was used again.
    pub back_after_s: f64,
}

/// Has the service of a replica of `inventory` answer 503 until the sidecar of `orders` has ejected it, and waits until
/// it is back.
///
/// # Errors
/// If it was not ejected, or did not come back.
pub async fn fall_ill(
    mesh: &Mesh,
    name: &str,
    since: Instant,
    console: &Console,
) -> anyhow::Result<Ejection> {
    let plan = mesh.plan();
    let (ill, caller) = (plan.named(name)?, plan.first(Service::Orders));
    console.event(since, &format!("{name} falls ill: its service answers 503"));
    mesh.set_ill(name, true)?;
    let ejected_after = stands(caller, ill, |standing| standing == "resting").await;
    mesh.set_ill(name, false)?;
    let ejected_after = ejected_after.context("it was not ejected")?;
    let (seconds, asked) = (ejected_after.as_secs_f64(), "the sidecar of orders");
    console
        .event(since, &format!("{asked} has ejected {name} after {seconds:.1} s; its service is well again"));
    let back_after =
        stands(caller, ill, |standing| standing == "usable").await.context("it did not come back")?;
    let seconds = back_after.as_secs_f64();
    console.event(since, &format!("{name} is back after {seconds:.1} s of rest: a probe went well"));
    Ok(Ejection {
        address: ill.inbound,
        ejected_after_s: ejected_after.as_secs_f64(),
        back_after_s: back_after.as_secs_f64(),
    })
}

/// Waits until the caller's sidecar thinks so of that replica. Returns how long it took.
async fn stands(
    caller: &Workload,
    replica: &Workload,
    is_so: impl Fn(&str) -> bool,
) -> anyhow::Result<Duration> {
    let began = effects::now();
    loop {
        let clusters = admin::clusters(&caller.admin()).await?.clusters;
        let mut endpoints = clusters.iter().flat_map(|cluster| &cluster.endpoints);
        let endpoint = endpoints.find(|endpoint| endpoint.address == replica.inbound);
        let endpoint =
            endpoint.with_context(|| format!("the sidecar of {} does not know it", caller.name))?;
        let took = effects::now().duration_since(began);
        if is_so(&endpoint.standing) {
            return Ok(took);
        }
        ensure!(took < DEADLINE, "it is {} after {DEADLINE:?}", endpoint.standing);
        tokio::time::sleep(POLL).await;
    }
}
