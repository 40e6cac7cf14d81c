//! The configuration file of each sidecar, as one would write it by hand.

use std::{
    fmt::Write as _,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use anyhow::Context;

use super::plan::{Plan, Service, TRUST_DOMAIN, Workload};

/// Makes the run's folders and writes every sidecar's configuration.
///
/// # Errors
/// Those of the file system, with the path.
pub fn write(plan: &Plan) -> anyhow::Result<()> {
    private_folder(&plan.dir)?;
    private_folder(&plan.dir.join("log"))?;
    for workload in &plan.workloads {
        private_folder(&workload.dir)?;
        let path = workload.config();
        fs::write(&path, sidecar(plan, workload)).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Makes a folder that only its owner can enter; one that is already there stays as it is.
fn private_folder(path: &Path) -> anyhow::Result<()> {
    match DirBuilder::new().mode(0o700).recursive(true).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.with_context(|| format!("making the folder {}", path.display())),
    }
}

/// The configuration of one sidecar. Relative paths in it are relative to its folder.
fn sidecar(plan: &Plan, workload: &Workload) -> String {
    let Workload { name, service, outbound, health, .. } = workload;
    let mut yaml = format!(
        "# The sidecar of {name}. Written by the demo; examples/vm/ explains such a file.
service: {service}
trust_domain: {TRUST_DOMAIN}
state_dir: state
identity:
  ca:
    address: {ca}
    join_token_file: token
admin:
  socket: admin.sock
  listen: {health}
drain:
  idle_grace: 1s
  deadline: 10s
telemetry:
  traces:
    endpoint: {endpoint}
    protocol: {protocol}
    sample_percent: 100 # in place of 1: the demo shows single calls
    interval: 1s
",
        ca = plan.ca,
        endpoint = plan.traces.endpoint,
        protocol = plan.traces.protocol,
    );
    if let Some(caller) = service.called_by() {
        let _infallible = write!(
            yaml,
            "inbound:
  - name: {service}
    listen: {}
    app: {}
    allow: [{}]
",
            workload.inbound,
            workload.app,
            caller.spiffe_id(),
        );
    }
    if let Some(called) = service.calls() {
        let _infallible = write!(
            yaml,
            "outbound:
  - name: http
    listen: {outbound}
clusters:
  - name: {called}
    spiffe_ids: [{}]
    outlier_detection:
      consecutive_gateway_failures: 2 # in place of 5, and 5s: a short demo at a low rate sees it
      ejection_time: 500ms
    endpoints:
{}",
            called.spiffe_id(),
            endpoints(plan, called),
        );
    }
    yaml
}

fn endpoints(plan: &Plan, service: Service) -> String {
    plan.replicas(service).fold(String::new(), |mut yaml, replica| {
        let _infallible = writeln!(yaml, "      - address: {}", replica.inbound);
        yaml
    })
}
