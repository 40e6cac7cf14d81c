//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};

/// Puts an Outrider sidecar next to each container in Kubernetes.
///
/// This version has no command that works yet; each exits with code 3.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, subcommand_required = true)]
pub(crate) struct Options {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Answer the API server's admission requests (not yet).
    Serve {
        /// Where to listen.
        #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:4380")]
        listen: SocketAddr,
    },
    /// Add the sidecar to the manifests in a file (not yet).
    Inject {
        /// Manifests in YAML; `-` reads standard input.
        #[arg(long, short, value_name = "FILE", default_value = "-")]
        filename: PathBuf,
    },
    /// Take the sidecar out of the manifests in a file (not yet).
    Uninject {
        /// Manifests in YAML; `-` reads standard input.
        #[arg(long, short, value_name = "FILE", default_value = "-")]
        filename: PathBuf,
    },
    /// Print the manifests that install the mesh into a cluster (not yet).
    Install {
        /// Namespace of the mesh's own programs.
        #[arg(long, value_name = "NAME", default_value = "outrider")]
        namespace: String,
    },
    /// Check a cluster, or an installation in it (not yet).
    Check {
        /// Namespace of the mesh's own programs.
        #[arg(long, value_name = "NAME", default_value = "outrider")]
        namespace: String,
    },
}

impl Command {
    /// The command's name on the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Serve { .. } => "serve",
            Self::Inject { .. } => "inject",
            Self::Uninject { .. } => "uninject",
            Self::Install { .. } => "install",
            Self::Check { .. } => "check",
        }
    }
}
