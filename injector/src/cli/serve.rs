//! `outrider-injector serve`: from flags to a running webhook.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use outrider::{clock::Clock, identity::ca::CaSettings, model::settings::CaProof};
use outrider_certs::program::{LogFormat, listen, start_log, stop_on_signal};
use rustls_pki_types::ServerName;
use tokio_util::sync::CancellationToken;

use super::Target;
use crate::{
    controller::kubernetes::watch::{WATCH_SECONDS, bounded},
    installation::Installation,
    names::{BUNDLE_FILE, BUNDLE_FOLDER, TOKEN_FOLDER},
    webhook::{self, Limits, Listeners, Options, Origin, Registration},
};

/// Name of the Service, and of the MutatingWebhookConfiguration.
const NAME: &str = "outrider-injector";

/// Flags of `serve`.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Where the API server asks, over TLS
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:4380")]
    listen: SocketAddr,
    /// Where to serve /live, /ready and /metrics, in plaintext
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:4391")]
    metrics_listen: SocketAddr,
    /// This replica's name, for events: the pod's
    #[arg(long, value_name = "NAME", default_value = NAME, env = "POD_NAME")]
    name: String,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    certificate: Certificate,
    /// MutatingWebhookConfiguration whose caBundle is kept current; `none`: something else does that
    #[arg(long, value_name = "NAME", default_value = NAME)]
    webhook_configuration: String,
    #[command(flatten)]
    bounds: Bounds,
    /// What to log, such as "info" or "outrider_injector=debug"
    #[arg(long, value_name = "FILTER", default_value = "info", env = "OUTRIDER_LOG")]
    log: String,
    /// How to log
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// Where the certificate comes from: the CA, or files.
#[derive(Debug, Args)]
#[command(next_help_heading = "The certificate: from the mesh's CA, unless files are named")]
struct Certificate {
    /// Name that the API server looks for in it [default: outrider-injector.NAMESPACE.svc]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// host:port of the CA [default: outrider-ca.NAMESPACE.svc:4350]
    #[arg(long, value_name = "ADDRESS")]
    ca_address: Option<String>,
    /// Token of the service account for the audience outrider-ca
    #[arg(long, value_name = "FILE", default_value_os_t = PathBuf::from(TOKEN_FOLDER).join("token"))]
    ca_token: PathBuf,
    /// Roots by which the CA is believed, in PEM
    #[arg(long, value_name = "FILE", default_value_os_t = PathBuf::from(BUNDLE_FOLDER).join(BUNDLE_FILE))]
    trust_bundle: PathBuf,
    /// Lifetime to ask the CA for
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    validity: Duration,
    /// Certificate and intermediates in PEM, instead of one from the CA; watched
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "ca_bundle")]
    tls_cert: Option<PathBuf>,
    /// Its key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The roots that it is of, in PEM, which become caBundle
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    ca_bundle: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct Bounds {
    /// Connections at a time; over that, one that waits is closed
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().connections)]
    max_connections: usize,
    /// Reviews at a time; more are refused with 503
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().requests)]
    max_requests: usize,
    /// Time for a TLS handshake
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    handshake_timeout: Duration,
    /// Time that it goes on after SIGTERM, not ready, until API servers have heard of that
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    shutdown_delay: Duration,
    /// Time for reviews under way after that
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    grace: Duration,
}

impl Serve {
    /// Runs until SIGTERM or SIGINT.
    pub(super) fn run(self) -> Result<ExitCode> {
        start_log(&self.log, self.log_format)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(self.bounds.max_requests.clamp(4, 64))
            .enable_all()
            .build()
            .context("the runtime cannot start")?;
        runtime.block_on(Box::pin(self.serve()))?;
        Ok(ExitCode::SUCCESS)
    }

    async fn serve(self) -> Result<()> {
        let installation = self.target.installation()?;
        let clock = Clock::system();
        let config = kube::Config::infer().await.context(
            "how to reach the API server is not known: run it in a pod with a service account, or set KUBECONFIG",
        )?;
        let config = bounded(config, WATCH_SECONDS);
        let listeners = Listeners {
            reviews: listen(self.listen, "--listen")?,
            status: listen(self.metrics_listen, "--metrics-listen")?,
        };
        let stop = CancellationToken::new();
        outrider::drain::spawn_background(stop_on_signal(stop.clone())?);
        let name = self.certificate.server_name.clone();
        let name = name.unwrap_or_else(|| format!("{NAME}.{}.svc", installation.namespace));
        tracing::info!(
            address = %listeners.reviews.local_addr()?,
            metrics = %listeners.status.local_addr()?,
            api_server = %config.cluster_url,
            server_name = name,
            "the webhook is listening"
        );
        let registration = (self.webhook_configuration != "none").then(|| Registration {
            configuration: self.webhook_configuration.clone(),
            service: NAME.to_owned(),
            namespace: installation.namespace.clone(),
        });
        let options = Options {
            client: kube::Client::try_from(config).context("the API server cannot be called")?,
            origin: self.certificate.origin(&installation)?,
            server_name: ServerName::try_from(name.clone())
                .with_context(|| format!("--server-name {name:?} is no DNS name"))?,
            registration,
            instance: Some(self.name.clone()),
            limits: self.bounds.limits(),
            installation,
        };
        webhook::serve(options, listeners, clock, stop).await.context("the webhook cannot serve")?;
        tracing::info!("stopped");
        Ok(())
    }
}

impl Certificate {
    fn origin(&self, installation: &Installation) -> Result<Origin> {
        if let (Some(certificate), Some(key), Some(roots)) = (&self.tls_cert, &self.tls_key, &self.ca_bundle)
        {
            let (certificate, key, roots) = (certificate.clone(), key.clone(), roots.clone());
            return Ok(Origin::Files { certificate, key, roots });
        }
        if !(Duration::from_secs(10)..=Duration::from_secs(90 * 24 * 3600)).contains(&self.validity) {
            bail!("--validity is out of range: keep to 10s..=90d");
        }
        Ok(Origin::Ca(Box::new(CaSettings {
            address: self.ca_address.clone().unwrap_or_else(|| installation.ca_address()),
            proof: CaProof::ServiceAccount {
                token_file: self.ca_token.clone(),
                bundle_file: self.trust_bundle.clone(),
            },
            validity: self.validity,
            trust_domain: installation.trust_domain.clone(),
            // Nothing is kept: the token proves us at any time.
            state_dir: PathBuf::new(),
        })))
    }
}

impl Bounds {
    fn limits(&self) -> Limits {
        Limits {
            connections: self.max_connections.max(1),
            requests: self.max_requests.max(1),
            handshake_timeout: self.handshake_timeout,
            shutdown_delay: self.shutdown_delay,
            grace: self.grace,
        }
    }
}
