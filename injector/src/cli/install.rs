//! `outrider-injector install`.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;

use crate::{
    install::{Settings, manifests},
    installation::NAMESPACE,
};

/// Flags of `install`.
#[derive(Debug, Args)]
pub(super) struct Install {
    /// Namespace of the mesh's own programs
    #[arg(long, value_name = "NAME", default_value = NAMESPACE, env = "OUTRIDER_NAMESPACE")]
    namespace: String,
    /// A file of values, as `helm install --values` takes it; the keys are those of deploy/helm/outrider/values.yaml
    #[arg(long, short = 'f', value_name = "FILE")]
    values: Option<PathBuf>,
    /// One value, such as trustDomain=prod.example; may be given several times, and wins over the file
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Install {
    pub(super) fn run(self) -> Result<ExitCode> {
        let values = match &self.values {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                Some(text.with_context(|| format!("{} cannot be read", path.display()))?)
            }
            None => None,
        };
        let settings = Settings { namespace: self.namespace, values, set: self.set };
        let text = manifests(&settings).map_err(|error| anyhow!(error))?;
        std::io::stdout().write_all(text.as_bytes()).context("standard output is closed")?;
        Ok(ExitCode::SUCCESS)
    }
}
