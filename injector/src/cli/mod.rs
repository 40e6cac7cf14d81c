//! The command line of `outrider-injector`.

mod check;
mod install;
mod manifests;
mod serve;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use outrider_certs::TrustDomain;

use crate::installation::{Installation, NAMESPACE, REGISTRY, TRUST_DOMAIN};

/// Puts an Outrider sidecar next to each container in Kubernetes.
///
/// A cluster:
///   outrider-injector install | kubectl apply -f -
///   outrider-injector check
///
/// With manifests in files, and no cluster at hand:
///   outrider-injector inject   -f shop.yaml | kubectl apply -f -
///   outrider-injector uninject -f shop.yaml | kubectl apply -f -
///
/// What pods can say about their sidecar, by labels and annotations: docs/kubernetes.md
#[derive(Debug, Parser)]
#[command(
    name = "outrider-injector",
    version,
    verbatim_doc_comment,
    arg_required_else_help = true,
    subcommand_required = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the webhook: the API server asks it about each new pod, and it answers with the sidecar
    ///
    /// It is ready when it has a certificate, the API server knows by which roots to believe that, and its version of
    /// Kubernetes has sidecar containers (1.29). Any number of replicas may run.
    Serve(Box<serve::Serve>),
    /// Add the sidecar to the pods in manifests: pods, workloads of every kind, lists; all else passes as it is
    ///
    /// All pods but those with the label outrider.io/inject: disabled. A sidecar that is there already is brought to
    /// this version. If one pod cannot have a sidecar, nothing is written, every reason is told, and the exit code is 1.
    Inject(manifests::Inject),
    /// Take the sidecar out of the pods in manifests, which are then as they were
    Uninject(manifests::Uninject),
    /// Print the manifests that install the mesh's control plane: CA, controller, injector
    Install(install::Install),
    /// Look whether a cluster can have the mesh, and whether the one that it has is well
    ///
    /// Changes nothing; one pod is created on trial (dry run). Exit code 1 if something does not work.
    Check(check::Check),
}

/// The installation that pods are made part of.
#[derive(Debug, Args)]
#[command(next_help_heading = "The installation")]
struct Target {
    /// Namespace of the mesh's own programs
    #[arg(long, value_name = "NAME", default_value = NAMESPACE, env = "OUTRIDER_NAMESPACE")]
    namespace: String,
    /// Trust domain of all pods
    #[arg(long, value_name = "NAME", default_value = TRUST_DOMAIN, env = "OUTRIDER_TRUST_DOMAIN")]
    trust_domain: TrustDomain,
    /// Where images come from: REGISTRY/outrider and REGISTRY/outrider-init, with this version as their tag
    #[arg(long, value_name = "REGISTRY", default_value = REGISTRY, env = "OUTRIDER_REGISTRY")]
    registry: String,
    /// Image of the sidecar, in place of that
    #[arg(long, value_name = "IMAGE", env = "OUTRIDER_IMAGE")]
    image: Option<String>,
    /// Image of the init container, in place of that
    #[arg(long, value_name = "IMAGE", env = "OUTRIDER_INIT_IMAGE")]
    init_image: Option<String>,
    /// What holds for pods that do not have this annotation, such as drain-time=40s; may be given several times
    #[arg(long = "default", value_name = "ANNOTATION=VALUE", value_parser = parse_default)]
    defaults: Vec<(String, String)>,
    /// Refuse pods that have this annotation, such as inbound-except-cidrs; a list has commas, and it may be given
    /// several times
    #[arg(long = "forbid-annotation", value_name = "ANNOTATION", value_delimiter = ',')]
    forbidden: Vec<String>,
}

fn parse_default(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| "give an annotation and its value, as drain-time=40s".to_owned())?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

impl Target {
    fn installation(&self) -> Result<Installation> {
        let mut installation = Installation::new(&self.namespace, self.trust_domain.clone(), &self.registry);
        if let Some(image) = &self.image {
            installation.image.clone_from(image);
        }
        if let Some(image) = &self.init_image {
            installation.init_image.clone_from(image);
        }
        let installation = installation.checked()?;
        let installation =
            installation.with_defaults(self.defaults.clone()).context("--default cannot be used")?;
        installation.with_forbidden(self.forbidden.clone()).context("--forbid-annotation cannot be used")
    }
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// What went wrong, where, and what to do about it.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Serve(serve) => serve.run(),
            Command::Inject(inject) => inject.run(),
            Command::Uninject(uninject) => uninject.run(),
            Command::Install(install) => install.run(),
            Command::Check(check) => check.run(),
        }
    }
}

/// Refuses a version of Kubernetes that will not do.
fn check_version(version: Option<&str>) -> Result<()> {
    if let Some(text) = version
        && let Err(error) = crate::version::Version::parse(text).and_then(crate::version::Version::checked)
    {
        bail!("--kubernetes-version: {error}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_makes_sense() {
        super::Cli::command().debug_assert();
    }
}
