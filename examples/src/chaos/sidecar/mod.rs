//! Whose sidecars stand beside the apps, and how they are started, asked and replaced.

mod envoy;
mod outrider;
mod template;

use std::{env, fs::DirBuilder, os::unix::fs::DirBuilderExt, path::PathBuf};

use anyhow::Context;
use http::{Request, StatusCode, header::HOST};
use http_body_util::Full;
use serde::Serialize;

use super::{
    options::Options,
    plan::{Host, Plan},
};
use crate::{
    client::Client,
    demo::{
        processes::{Process, Start, run_tool},
        programs,
        progress::Console,
    },
};

/// Kinds of sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Proxy {
    /// Ours.
    Outrider,
    /// Envoy, configured as in `bench/chaos/`.
    Envoy,
}

/// The programs' files.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `outrider`.
    pub sidecar: PathBuf,
    /// `outrider-ca`.
    pub ca: PathBuf,
    /// This program, which is also the app.
    pub own: PathBuf,
    /// Envoy's.
    pub envoy: PathBuf,
}

impl Programs {
    /// Builds ours, unless told not to.
    ///
    /// # Errors
    /// If the build fails, or one of them is not there.
    pub async fn find(options: &Options, console: &Console) -> anyhow::Result<Self> {
        let programs::Programs { sidecar, ca, .. } =
            programs::Programs::find(!options.no_build, console).await?;
        let own = env::current_exe().context("finding this program's own file")?;
        Ok(Self { sidecar, ca, own, envoy: options.envoy.clone() })
    }
}

impl Proxy {
    /// Its name in tables and folders.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Outrider => "outrider",
            Self::Envoy => "envoy",
        }
    }

    /// Whether its program can be run.
    ///
    /// # Errors
    /// If it cannot, with what was tried.
    pub async fn check(self, programs: &Programs) -> anyhow::Result<()> {
        let program = match self {
            Self::Outrider => &programs.sidecar,
            Self::Envoy => &programs.envoy,
        };
        run_tool(program, &["--version"]).await
    }

    /// A sidecar's folder: configuration, proof of identity, state.
    fn folder(self, plan: &Plan, host: &Host) -> PathBuf {
        plan.dir.join(self.name()).join(&host.name)
    }

    /// Writes the configuration of each sidecar, and what it proves itself with. The CA has its state already.
    ///
    /// # Errors
    /// Those of the file system and of the CA.
    pub async fn prepare(self, plan: &Plan, programs: &Programs) -> anyhow::Result<()> {
        for host in plan.hosts() {
            let folder = self.folder(plan, host);
            let made = DirBuilder::new().mode(0o700).recursive(true).create(&folder);
            made.with_context(|| format!("making the folder {}", folder.display()))?;
            match self {
                Self::Outrider => outrider::prepare(plan, programs, host, &folder).await?,
                Self::Envoy => envoy::prepare(plan, programs, host, &folder).await?,
            }
        }
        Ok(())
    }

    /// How to start a sidecar. `epoch` is 0, or one more than that of the process which it is to replace.
    #[must_use]
    pub fn start(self, plan: &Plan, programs: &Programs, host: &Host, epoch: u32) -> Start {
        let folder = self.folder(plan, host);
        let (program, arguments) = match self {
            Self::Outrider => (&programs.sidecar, outrider::arguments(&folder)),
            Self::Envoy => (&programs.envoy, envoy::arguments(plan, host, &folder, epoch)),
        };
        Start {
            name: format!("{}-{}", self.name(), host.name),
            program: program.clone(),
            arguments,
            logs: plan.logs(),
        }
    }

    /// Whether this very process serves.
    pub async fn is_ready(self, plan: &Plan, host: &Host, process: &Process, epoch: u32) -> bool {
        match self {
            Self::Outrider => outrider::is_ready(&self.folder(plan, host), process).await,
            Self::Envoy => envoy::is_ready(host, epoch).await,
        }
    }

    /// Tells a process that has a successor to go, where it does not go by itself.
    pub fn retire(self, old: &Process) {
        match self {
            Self::Outrider => old.terminate(),
            // Its successor has told it to drain, and will end it.
            Self::Envoy => {}
        }
    }

    /// Removes what its processes leave outside of the run's folder.
    pub fn clean(self, plan: &Plan) {
        if self == Self::Envoy {
            plan.hosts().for_each(|host| envoy::clean(plan, host));
        }
    }
}

/// What a sidecar's health port answers with status 200.
async fn healthy(host: &Host, path: &'static str) -> Option<bytes::Bytes> {
    let request = Request::get(path).header(HOST, "sidecar").body(Full::default()).ok()?;
    let answer = Client::new(host.health.to_string()).send(request).await.ok()?;
    (answer.status() == StatusCode::OK).then(|| answer.into_body())
}
