//! The running mesh: starts it in order, breaks parts of it on request, stops it in order.

use std::{
    ffi::OsString,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::{Request, StatusCode, header::HOST};
use http_body_util::Full;
use tokio::net::TcpStream;

use super::{
    admin, mesh_files,
    plan::{Plan, Service, TRUST_DOMAIN, Workload},
    processes::{Process, Start, run_tool, utf8},
    programs::Programs,
    watchdog::Watchdog,
};
use crate::{client::Client, effects};

/// Time for a sidecar to drain and end; its own deadline in the demo's configuration is 10 s.
const DRAIN_DEADLINE: Duration = Duration::from_secs(15);

/// A mesh that was started. Dropping it kills what is left of it.
#[derive(Debug)]
pub struct Mesh {
    plan: Plan,
    programs: Programs,
    ca: Process,
    hosts: Vec<Host>,
    /// Dropped last: it returns when nothing is left.
    watchdog: Mutex<Watchdog>,
}

/// The processes of one workload.
#[derive(Debug)]
struct Host {
    workload: Workload,
    app: Process,
    sidecar: Process,
    /// Killed on purpose: nobody wonders that it is gone.
    is_killed: bool,
}

impl Mesh {
    /// Writes the configuration and starts everything: the CA, then the services, then their sidecars, which get
    /// their first certificate with a join token.
    ///
    /// # Errors
    /// Whatever didn't start, with the end of its log and what to try. What had started is killed.
    pub async fn start(plan: Plan, programs: Programs) -> anyhow::Result<Self> {
        mesh_files::write(&plan)?;
        let watchdog = Mutex::new(Watchdog::start()?);
        let ca = start_ca(&plan, &programs, &watchdog).await?;
        let mut hosts = Vec::new();
        for workload in &plan.workloads {
            write_token(&plan, &programs, workload).await?;
            let app = start(service(&plan, &programs, workload), &watchdog)?;
            let sidecar = start(sidecar(&plan, &programs, workload, ""), &watchdog)?;
            hosts.push(Host { workload: workload.clone(), app, sidecar, is_killed: false });
        }
        for host in &hosts {
            host.app.awaited("to listen", || is_listening(host.workload.app)).await?;
            host.sidecar.awaited("to be ready", || is_ready(host.workload.health)).await?;
        }
        Ok(Self { plan, programs, ca, hosts, watchdog })
    }

    /// What it was started from.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The programs it runs.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Kills a workload's service and sidecar at once, as if their host had lost power, and waits until they are gone.
    ///
    /// # Errors
    /// If there is no workload of that name.
    pub async fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let found = self.hosts.iter_mut().find(|host| host.workload.name == name);
        let host = found.with_context(|| format!("there is no {name}"))?;
        host.is_killed = true;
        host.app.kill();
        host.sidecar.kill();
        host.app.exited().await;
        host.sidecar.exited().await;
        Ok(())
    }

    /// Makes a workload's service answer 503 to everything, or well again.
    ///
    /// # Errors
    /// If there is no workload of that name.
    pub fn set_ill(&self, name: &str, is_ill: bool) -> anyhow::Result<()> {
        let found = self.hosts.iter().find(|host| host.workload.name == name);
        found.with_context(|| format!("there is no {name}"))?.app.set_ill(is_ill);
        Ok(())
    }

    /// Replaces a workload's sidecar by a new process with the same configuration, which shares its ports until the
    /// old one, told to stop as soon as the new one is ready, has drained. Returns how long the old one took.
    ///
    /// # Errors
    /// If the new one doesn't become ready, or the old one doesn't end in time with exit code 0.
    pub async fn replace_sidecar(&mut self, name: &str) -> anyhow::Result<Duration> {
        let found = self.hosts.iter_mut().find(|host| host.workload.name == name);
        let host = found.with_context(|| format!("there is no {name}"))?;
        let new = start(sidecar(&self.plan, &self.programs, &host.workload, "-new"), &self.watchdog)?;
        let (socket, pid) = (host.workload.admin(), new.pid().as_raw_nonzero().get());
        new.awaited("to take over", || admin::is_ready(&socket, pid)).await?;

        let old = std::mem::replace(&mut host.sidecar, new);
        let told = effects::now();
        stop(&old, DRAIN_DEADLINE).await?;
        Ok(effects::now().duration_since(told))
    }

    /// What has ended though nobody told it to, with the end of its log.
    #[must_use]
    pub fn casualties(&self) -> Vec<String> {
        let of_hosts =
            self.hosts.iter().filter(|host| !host.is_killed).flat_map(|host| [&host.app, &host.sidecar]);
        std::iter::once(&self.ca)
            .chain(of_hosts)
            .filter_map(|process| {
                let status = process.exit_status()?;
                Some(format!(
                    "{} ended ({status}) though nobody told it to. {}",
                    process.name(),
                    process.last_words()
                ))
            })
            .collect()
    }

    /// Stops everything, callers first, and returns what did not stop as it should.
    pub async fn stop(self) -> Vec<String> {
        let mut faults = Vec::new();
        for service in [Service::Web, Service::Orders, Service::Inventory] {
            let hosts = self.hosts.iter().filter(|host| host.workload.service == service && !host.is_killed);
            // The service first: what it still does may need its sidecar.
            let stops = hosts.map(async |host| {
                [stop(&host.app, DRAIN_DEADLINE).await, stop(&host.sidecar, DRAIN_DEADLINE).await]
            });
            let results = futures_util::future::join_all(stops).await;
            faults.extend(results.into_iter().flatten().filter_map(Result::err));
        }
        faults.extend(stop(&self.ca, DRAIN_DEADLINE).await.err());
        faults.into_iter().map(|fault| format!("{fault:#}")).collect()
    }
}

async fn start_ca(plan: &Plan, programs: &Programs, watchdog: &Mutex<Watchdog>) -> anyhow::Result<Process> {
    let state = plan.dir.join("ca");
    let state = utf8(&state)?;
    run_tool(&programs.ca, &["init", "--dir", state, "--trust-domain", TRUST_DOMAIN]).await?;
    let (listen, metrics, san) = (plan.ca.to_string(), plan.ca_metrics.to_string(), plan.ca.ip().to_string());
    let arguments =
        ["serve", "--dir", state, "--listen", &listen, "--san", &san, "--metrics-listen", &metrics]
            .map(OsString::from);
    let ca = Start {
        name: "ca".to_owned(),
        program: programs.ca.clone(),
        arguments: arguments.to_vec(),
        logs: plan.dir.join("log"),
    };
    let ca = start(ca, watchdog)?;
    ca.awaited("to listen", || is_listening(plan.ca)).await?;
    Ok(ca)
}

/// A one-time join token for the workload's sidecar, where its configuration says that it is.
async fn write_token(plan: &Plan, programs: &Programs, workload: &Workload) -> anyhow::Result<()> {
    let (state, out) = (plan.dir.join("ca"), workload.dir.join("token"));
    let id = workload.service.spiffe_id();
    let arguments =
        ["token", "--dir", utf8(&state)?, "--spiffe-id", &id, "--ttl", "10m", "--out", utf8(&out)?];
    run_tool(&programs.ca, &arguments).await
}

fn service(plan: &Plan, programs: &Programs, workload: &Workload) -> Start {
    let mut arguments = vec![
        format!("--name={}", workload.service),
        format!("--replica={}", workload.name),
        format!("--listen={}", workload.app),
    ];
    if let Some(called) = workload.service.calls() {
        arguments.push(format!("--upstream=http://{called}"));
        arguments.push(format!("--proxy={}", workload.outbound));
    }
    Start {
        name: workload.name.clone(),
        program: programs.service.clone(),
        arguments: arguments.into_iter().map(OsString::from).collect(),
        logs: plan.dir.join("log"),
    }
}

fn sidecar(plan: &Plan, programs: &Programs, workload: &Workload, suffix: &str) -> Start {
    Start {
        name: format!("{}-sidecar{suffix}", workload.name),
        program: programs.sidecar.clone(),
        arguments: vec!["run".into(), "--config".into(), workload.config().into()],
        logs: plan.dir.join("log"),
    }
}

fn start(start: Start, watchdog: &Mutex<Watchdog>) -> anyhow::Result<Process> {
    let process = Process::start(start)?;
    let mut watchdog = watchdog.lock().unwrap_or_else(PoisonError::into_inner);
    watchdog.watch(process.pid()).with_context(|| format!("telling the watchdog of {}", process.name()))?;
    Ok(process)
}

async fn stop(process: &Process, deadline: Duration) -> anyhow::Result<()> {
    process.terminate();
    match tokio::time::timeout(deadline, process.exited()).await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(anyhow!(
            "{} was asked to stop and ended with {status}. {}",
            process.name(),
            process.last_words()
        )),
        Err(_) => {
            process.kill();
            let fault = "had not stopped";
            Err(anyhow!("{} {fault} {deadline:?} after SIGTERM. {}", process.name(), process.last_words()))
        }
    }
}

/// Whether something accepts connections there.
pub async fn is_listening(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

async fn is_ready(health: SocketAddr) -> bool {
    let Ok(request) = Request::get("/ready").header(HOST, "sidecar").body(Full::new(Bytes::new())) else {
        return false;
    };
    let answer = Client::new(health.to_string()).send(request).await;
    answer.is_ok_and(|response| response.status() == StatusCode::OK)
}
