//! Envoy as a sidecar: certificates by the same CA, replaced by its hot restart.

use std::{ffi::OsString, fs, path::Path};

use serde_json::Value;

use super::{
    super::plan::{CALLER, Host, Plan, spiffe_id},
    Programs, healthy, template,
};
use crate::demo::processes::{run_tool, utf8};

/// How long a replaced process drains, and when it is ended; streams of the run last two seconds.
const DRAIN_SECONDS: &str = "1";
const PARENT_SHUTDOWN_SECONDS: &str = "4";

pub(super) async fn prepare(
    plan: &Plan,
    programs: &Programs,
    host: &Host,
    folder: &Path,
) -> anyhow::Result<()> {
    let text = match host.service {
        CALLER => include_str!("../../../../bench/chaos/envoy-caller.yaml"),
        _ => include_str!("../../../../bench/chaos/envoy-replica.yaml"),
    };
    template::write(text, plan, host, &folder.join("envoy.yaml"))?;
    let state = plan.ca_state();
    let id = spiffe_id(host.service);
    run_tool(&programs.ca, &["issue", "--dir", utf8(&state)?, "--spiffe-id", &id, "--out", utf8(folder)?])
        .await
}

pub(super) fn arguments(plan: &Plan, host: &Host, folder: &Path, epoch: u32) -> Vec<OsString> {
    let (config, socket) = (folder.join("envoy.yaml"), folder.join("hot"));
    let base_id = base_id(plan, host).to_string();
    let epoch = epoch.to_string();
    let flags = [
        ("--base-id", base_id.as_str()),
        ("--restart-epoch", &epoch),
        ("--drain-strategy", "immediate"),
        ("--drain-time-s", DRAIN_SECONDS),
        ("--parent-shutdown-time-s", PARENT_SHUTDOWN_SECONDS),
        ("--concurrency", "1"), // as ours by default
        ("--log-level", "warn"),
    ];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]);
    let paths = ["-c".into(), config.into(), "--socket-path".into(), socket.into()];
    paths.into_iter().chain(flags).collect()
}

pub(super) async fn is_ready(host: &Host, epoch: u32) -> bool {
    // Not `/ready`: during a hot restart that might be the old process's answer.
    let Some(body) = healthy(host, "/server_info").await else { return false };
    let Ok(info) = serde_json::from_slice::<Value>(&body) else { return false };
    let own = info.pointer("/command_line_options/restart_epoch").and_then(Value::as_u64).unwrap_or(0);
    info.get("state").and_then(Value::as_str) == Some("LIVE") && own == u64::from(epoch)
}

/// Envoy's shared memory outlives its processes.
pub(super) fn clean(plan: &Plan, host: &Host) {
    let name = format!("/dev/shm/envoy_shared_memory_{}", base_id(plan, host) * 10);
    // Not there is what it should be.
    fs::remove_file(name).unwrap_or_default();
}

/// Tells the Envoys of a machine apart: shared memory has no namespace of ours.
fn base_id(plan: &Plan, host: &Host) -> u32 {
    plan.envoy_base_id + u32::from(host.number)
}
