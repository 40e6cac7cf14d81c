//! The kernel's counts of excepted bytes, for the metric of a sidecar that may read them.

use std::{sync::Arc, time::Duration};

use super::Plan;
use crate::{
    drain,
    model::{exceptions::Passed, snapshot::Snapshots},
};

/// Time between two reads: each starts a program, and scrapes are hardly more frequent.
const INTERVAL: Duration = Duration::from_secs(10);

/// Reads from now on how many bytes passed each exception. The kernel answers whoever has `CAP_NET_ADMIN`, which most
/// sidecars do not have and do not need: then nothing is read, and `outrider intercept show` tells instead.
pub fn watch(snapshots: Snapshots, passed: Arc<Passed>) {
    drain::spawn_background(async move {
        loop {
            let plan = Plan::of(&snapshots.load().config.settings);
            let Some(plan) = plan.filter(|plan| !plan.exceptions.is_empty()) else { return };
            match plan.passed().await {
                Ok(counted) => passed.set(counted),
                Err(error) => {
                    tracing::info!(%error, "bytes that pass exceptions of interception cannot be read from here");
                    passed.set(Vec::new());
                    return;
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    });
}
