//! Where the CA is kept: a folder, or Secrets of Kubernetes.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::ca::CaState;

/// What all commands but `init` work on.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The CA's state folder. Keys are in it: it must be open to its owner
    /// alone (chmod 700).
    #[arg(long, value_name = "FOLDER", env = "OUTRIDER_CA_DIR")]
    #[cfg_attr(
        feature = "kubernetes",
        arg(required_unless_present = "kubernetes", conflicts_with = "kubernetes")
    )]
    #[cfg_attr(not(feature = "kubernetes"), arg(required = true))]
    dir: Option<PathBuf>,
    #[cfg(feature = "kubernetes")]
    #[command(flatten)]
    cluster: Cluster,
}

/// Where in a cluster.
#[cfg(feature = "kubernetes")]
#[derive(Debug, Args)]
pub(super) struct Cluster {
    /// Work on a CA that is kept in Kubernetes instead of a folder; the API
    /// server is found by KUBECONFIG, or as in every pod.
    #[arg(long)]
    kubernetes: bool,
    /// The namespace of the CA's Secrets. Default: the pod's own, or the one
    /// that the kubeconfig names.
    #[arg(long, value_name = "NAME", requires = "kubernetes")]
    namespace: Option<String>,
    /// The Secret with the CA's keys.
    #[arg(long, value_name = "NAME", default_value = "outrider-ca", requires = "kubernetes")]
    secret: String,
}

/// A CA, and what it needs as long as it is used.
pub(super) struct Opened {
    pub(super) state: Arc<CaState>,
    /// Runs the calls to the API server.
    _runtime: Option<tokio::runtime::Runtime>,
}

impl Place {
    /// Opens the CA for a command. Not to be called on a runtime.
    pub(super) fn open(&self) -> Result<Opened> {
        #[cfg(feature = "kubernetes")]
        if let Some(place) = self.cluster() {
            let runtime = super::serve::runtime()?;
            let state = runtime
                .block_on(async { crate::ca::kubernetes::Cluster::find(place).await?.open().await })?;
            return Ok(Opened { state: Arc::new(state), _runtime: Some(runtime) });
        }
        Ok(Opened { state: Arc::new(self.open_folder()?), _runtime: None })
    }

    /// Opens the CA in the folder.
    pub(super) fn open_folder(&self) -> Result<CaState> {
        let dir = self.dir.as_ref().context("--dir is missing")?;
        Ok(CaState::open(dir)?)
    }

    /// The place in a cluster, if it is one.
    #[cfg(feature = "kubernetes")]
    pub(super) fn cluster(&self) -> Option<crate::ca::kubernetes::Place> {
        let Cluster { kubernetes, namespace, secret } = &self.cluster;
        kubernetes
            .then(|| crate::ca::kubernetes::Place { namespace: namespace.clone(), secret: secret.clone() })
    }
}
