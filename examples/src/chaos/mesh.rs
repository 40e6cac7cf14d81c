//! The running mesh of one scenario: a caller's sidecar, and three replicas, each an app with its sidecar.

use std::{
    ffi::OsString,
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use futures_util::future::{join_all, try_join_all};

use super::{
    app::{self, Fault},
    network_faults::Wire,
    plan::{Host, Plan, TRUST_DOMAIN},
    sidecar::{Programs, Proxy},
};
use crate::demo::{
    mesh::is_listening,
    processes::{Process, Start, run_tool, utf8},
    watchdog::Watchdog,
};

/// Time for a process that was told to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// What all scenarios of a run share.
#[derive(Debug)]
pub struct Stage {
    /// Who runs where.
    pub plan: Plan,
    programs: Programs,
    /// The network between the sidecars; `None` where it can't be disturbed.
    pub wire: Option<Wire>,
    _ca: Process,
    /// Dropped last: it returns when nothing is left.
    watchdog: Mutex<Watchdog>,
}

impl Stage {
    /// Starts the CA, and writes the configuration of every sidecar of those proxies.
    ///
    /// # Errors
    /// Whatever didn't work, with what it said.
    pub async fn set(
        plan: Plan,
        programs: Programs,
        wire: Option<Wire>,
        proxies: &[Proxy],
    ) -> anyhow::Result<Self> {
        for folder in plan.hosts().map(|host| host.dir.clone()).chain([plan.logs()]) {
            fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
        }
        let watchdog = Mutex::new(Watchdog::start()?);
        let state = plan.ca_state();
        run_tool(&programs.ca, &["init", "--dir", utf8(&state)?, "--trust-domain", TRUST_DOMAIN]).await?;
        let ca = start(ca(&plan, &programs, &state), &watchdog)?;
        ca.awaited("to listen", || is_listening(plan.ca)).await?;
        for proxy in proxies {
            proxy.prepare(&plan, &programs).await?;
        }
        Ok(Self { plan, programs, wire, _ca: ca, watchdog })
    }

    fn start(&self, what: Start) -> anyhow::Result<Process> {
        start(what, &self.watchdog)
    }
}

fn ca(plan: &Plan, programs: &Programs, state: &std::path::Path) -> Start {
    let (listen, metrics, san) = (plan.ca.to_string(), plan.ca_metrics.to_string(), plan.ca.ip().to_string());
    let flags = [("--listen", listen), ("--san", san), ("--metrics-listen", metrics)];
    let flags = flags.into_iter().flat_map(|(flag, value)| [OsString::from(flag), value.into()]);
    Start {
        name: "ca".to_owned(),
        program: programs.ca.clone(),
        arguments: ["serve".into(), "--dir".into(), state.into()].into_iter().chain(flags).collect(),
        logs: plan.logs(),
    }
}

fn start(what: Start, watchdog: &Mutex<Watchdog>) -> anyhow::Result<Process> {
    let process = Process::start(what)?;
    let mut watchdog = watchdog.lock().unwrap_or_else(PoisonError::into_inner);
    watchdog.watch(process.pid()).with_context(|| format!("telling the watchdog of {}", process.name()))?;
    Ok(process)
}

/// Everything of one scenario. Dropped, it is killed; [`Mesh::end`] waits until it is gone.
#[derive(Debug)]
pub struct Mesh<'s> {
    stage: &'s Stage,
    proxy: Proxy,
    caller: Sidecar,
    replicas: Vec<Replica>,
}

/// One sidecar's process.
#[derive(Debug)]
struct Sidecar {
    process: Process,
    /// 0, or one more than that of the process it replaced.
    epoch: u32,
}

/// One replica.
#[derive(Debug)]
struct Replica {
    app: Process,
    sidecar: Sidecar,
}

impl<'s> Mesh<'s> {
    /// Starts everything, with apps that are well, and waits until all of it serves.
    ///
    /// # Errors
    /// Whatever didn't start, with the end of its log.
    pub async fn start(stage: &'s Stage, proxy: Proxy) -> anyhow::Result<Self> {
        for host in &stage.plan.replicas {
            Fault::default().write(&host.dir)?;
        }
        let replicas = try_join_all(stage.plan.replicas.iter().map(async |host| {
            let app = start_app(stage, host).await?;
            anyhow::Ok(Replica { app, sidecar: start_sidecar(stage, proxy, host, 0).await? })
        }));
        let caller = start_sidecar(stage, proxy, &stage.plan.caller, 0);
        let (replicas, caller) = futures_util::future::try_join(replicas, caller).await?;
        Ok(Self { stage, proxy, caller, replicas })
    }

    /// Kills everything and waits until it is gone.
    pub async fn end(self) {
        let apps = self.replicas.iter().map(|replica| &replica.app);
        let sidecars = self.replicas.iter().map(|replica| &replica.sidecar.process);
        let all: Vec<_> = apps.chain(sidecars).chain([&self.caller.process]).collect();
        all.iter().for_each(|process| process.kill());
        join_all(all.iter().map(|process| process.exited())).await;
    }

    /// What has this mesh's plan.
    #[must_use]
    pub fn stage(&self) -> &'s Stage {
        self.stage
    }

    /// Requests that the apps have seen, all together.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.stage.plan.replicas.iter().map(|host| app::seen_in(&host.dir)).sum()
    }

    /// A replica's app.
    ///
    /// # Errors
    /// If there is no such replica.
    pub fn app(&self, number: usize) -> anyhow::Result<&Process> {
        Ok(&self.replicas.get(number).context("no such replica")?.app)
    }

    /// A replica's sidecar.
    ///
    /// # Errors
    /// If there is no such replica.
    pub fn sidecar(&self, number: usize) -> anyhow::Result<&Process> {
        Ok(&self.replicas.get(number).context("no such replica")?.sidecar.process)
    }

    /// Changes what is wrong with a replica's app.
    ///
    /// # Errors
    /// If there is no such replica, or its folder can't be written.
    pub fn set_fault(&self, number: usize, fault: Fault) -> anyhow::Result<()> {
        let (app, host) = (self.app(number)?, self.host(number)?);
        fault.write(&host.dir)?;
        app.hang_up();
        Ok(())
    }

    /// Starts a replica's app in place of one that has ended, or ends by this.
    ///
    /// # Errors
    /// If it doesn't start.
    pub async fn start_app(&mut self, number: usize) -> anyhow::Result<()> {
        let app = start_app(self.stage, self.host(number)?).await?;
        self.replicas.get_mut(number).context("no such replica")?.app = app;
        Ok(())
    }

    /// The same for its sidecar.
    ///
    /// # Errors
    /// If it doesn't start.
    pub async fn start_sidecar(&mut self, number: usize) -> anyhow::Result<()> {
        let sidecar = start_sidecar(self.stage, self.proxy, self.host(number)?, 0).await?;
        self.replicas.get_mut(number).context("no such replica")?.sidecar = sidecar;
        Ok(())
    }

    /// Stops a replica's app in order, and starts another.
    ///
    /// # Errors
    /// If it doesn't stop or start.
    pub async fn restart_app(&mut self, number: usize) -> anyhow::Result<()> {
        let app = self.app(number)?;
        app.terminate();
        gone(app).await?;
        self.start_app(number).await
    }

    /// Replaces a replica's sidecar, or the caller's (`None`), as its maker means it to be done: the new process
    /// stands beside the old one until that has drained.
    ///
    /// # Errors
    /// If the new one doesn't take over, or the old one doesn't end.
    pub async fn replace_sidecar(&mut self, number: Option<usize>) -> anyhow::Result<()> {
        let (host, sidecar) = match number {
            None => (&self.stage.plan.caller, &mut self.caller),
            Some(number) => {
                let host = self.stage.plan.replicas.get(number).context("no such replica")?;
                (host, &mut self.replicas.get_mut(number).context("no such replica")?.sidecar)
            }
        };
        let new = start_sidecar(self.stage, self.proxy, host, sidecar.epoch + 1).await?;
        let old = std::mem::replace(sidecar, new);
        self.proxy.retire(&old.process);
        gone(&old.process).await
    }

    /// How many replicas there are.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// Where a replica is.
    ///
    /// # Errors
    /// If there is no such replica.
    pub fn host(&self, number: usize) -> anyhow::Result<&'s Host> {
        self.stage.plan.replicas.get(number).context("no such replica")
    }
}

async fn gone(process: &Process) -> anyhow::Result<()> {
    let ended = tokio::time::timeout(STOP_DEADLINE, process.exited()).await;
    let late =
        || format!("{} had not ended after {STOP_DEADLINE:?}. {}", process.name(), process.last_words());
    ended.map(drop).with_context(late)
}

async fn start_app(stage: &Stage, host: &Host) -> anyhow::Result<Process> {
    let dir: PathBuf = host.dir.clone();
    let flags = ["--name".into(), host.name.clone().into(), "--listen".into(), host.app.to_string().into()];
    let app = stage.start(Start {
        name: format!("app-{}", host.name),
        program: stage.programs.own.clone(),
        arguments: ["app".into(), "--dir".into(), dir.into()].into_iter().chain(flags).collect(),
        logs: stage.plan.logs(),
    })?;
    app.awaited("to listen", || is_listening(host.app)).await?;
    Ok(app)
}

async fn start_sidecar(stage: &Stage, proxy: Proxy, host: &Host, epoch: u32) -> anyhow::Result<Sidecar> {
    let process = stage.start(proxy.start(&stage.plan, &stage.programs, host, epoch))?;
    process.awaited("to be ready", || proxy.is_ready(&stage.plan, host, &process, epoch)).await?;
    Ok(Sidecar { process, epoch })
}
