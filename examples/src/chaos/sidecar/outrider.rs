//! Our sidecars: certified by the CA with a join token, replaced by overlap.

use std::{ffi::OsString, path::Path};

use super::{
    super::plan::{CALLER, Host, Plan, spiffe_id},
    Programs, template,
};
use crate::demo::{
    admin,
    processes::{Process, run_tool, utf8},
};

pub(super) async fn prepare(
    plan: &Plan,
    programs: &Programs,
    host: &Host,
    folder: &Path,
) -> anyhow::Result<()> {
    let text = match host.service {
        CALLER => include_str!("../../../../bench/chaos/outrider-caller.yaml"),
        _ => include_str!("../../../../bench/chaos/outrider-replica.yaml"),
    };
    template::write(text, plan, host, &folder.join("outrider.yaml"))?;
    // Good for the first start; the key and certificate kept from then on prove who starts again.
    let (state, token) = (plan.ca_state(), folder.join("token"));
    let id = spiffe_id(host.service);
    let arguments =
        ["token", "--dir", utf8(&state)?, "--spiffe-id", &id, "--ttl", "1h", "--out", utf8(&token)?];
    run_tool(&programs.ca, &arguments).await
}

pub(super) fn arguments(folder: &Path) -> Vec<OsString> {
    vec!["run".into(), "--config".into(), folder.join("outrider.yaml").into()]
}

pub(super) async fn is_ready(folder: &Path, process: &Process) -> bool {
    admin::is_ready(&folder.join("admin.sock"), process.pid().as_raw_nonzero().get()).await
}
