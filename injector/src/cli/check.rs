//! `outrider-injector check`.

use std::{io::Write as _, process::ExitCode, time::SystemTime};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    check::{Severity, findings, gather},
    installation::NAMESPACE,
};

/// Flags of `check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Namespace of the mesh's own programs
    #[arg(long, value_name = "NAME", default_value = NAMESPACE, env = "OUTRIDER_NAMESPACE")]
    namespace: String,
}

impl Check {
    pub(super) fn run(self) -> Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the runtime cannot start")?;
        runtime.block_on(self.check())
    }

    async fn check(self) -> Result<ExitCode> {
        let client = kube::Client::try_default().await.context(
            "no way to the cluster: neither a kubeconfig (KUBECONFIG, ~/.kube/config) nor a pod's service account",
        )?;
        #[expect(clippy::disallowed_methods, reason = "the one look at the clock, given on from here")]
        let now = SystemTime::now();
        let found = findings(&gather(&client, &self.namespace, now).await, env!("CARGO_PKG_VERSION"));
        let mut out = std::io::stdout().lock();
        for finding in &found {
            writeln!(out, "{finding}").context("standard output is closed")?;
        }
        let is_well = found.iter().all(|finding| finding.severity < Severity::Fault);
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
