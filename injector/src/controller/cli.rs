//! The command line of `outrider-controller`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use outrider::{
    clock::Clock,
    identity::{
        ca::{CaSettings, CaSource},
        file::{FileSource, Files},
        source::Source,
        tls_configs::TlsBase,
    },
    model::settings::CaProof,
    net::TcpNet,
};
use outrider_certs::{
    TrustDomain,
    program::{LogFormat, listen, start_log, stop_on_signal},
};
use tokio_util::sync::CancellationToken;

use super::{
    Limits, Options, identity, kubernetes::watch::WATCH_SECONDS, model::value::World, serve,
    subscriptions::MaxWants,
};
use crate::names::is_label;

/// Tells sidecars of the cluster's services: what each app uses, and nothing else.
///
/// It watches Services, EndpointSlices, Pods and Namespaces, and serves sidecars over mutual TLS. Any number of replicas
/// may run; one of them writes what needs a single writer.
#[derive(Debug, Parser)]
#[command(name = "outrider-controller", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controller.
    Serve(Box<Serve>),
}

/// Flags of `serve`.
#[derive(Debug, Args)]
struct Serve {
    /// Where to serve sidecars, over mutual TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:4360")]
    listen: SocketAddr,
    /// Where to serve /live, /ready and /metrics, in plaintext.
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:4391")]
    metrics_listen: SocketAddr,
    /// The mesh's trust domain: workloads of no other are served.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// The cluster's domain in the DNS.
    #[arg(long, value_name = "NAME", default_value = "cluster.local", value_parser = parse_domain)]
    cluster_domain: String,
    /// Ranges of addresses that pods and Services have. One of these that nobody is known to have is not reached, instead of
    /// being outside.
    #[arg(long, value_name = "RANGES", value_delimiter = ',')]
    cluster_cidrs: Vec<IpNet>,
    /// The controller's own namespace, for its Lease.
    #[arg(long, value_name = "NAME", default_value = "outrider", env = "POD_NAMESPACE")]
    namespace: String,
    /// The name of this replica, which no other has: the pod's.
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    name: String,
    #[command(flatten)]
    identity: IdentityFlags,
    #[command(flatten)]
    bounds: Bounds,
    /// How long a watch lasts before it is begun anew; one that has fallen silent is noticed 5 s later.
    #[arg(long, value_name = "SECONDS", default_value_t = WATCH_SECONDS, value_parser = clap::value_parser!(u32).range(1..=3600))]
    watch_seconds: u32,
    /// What to log, such as "info" or "outrider_injector=debug".
    #[arg(long, value_name = "FILTER", default_value = "info", env = "OUTRIDER_LOG")]
    log: String,
    /// How to log.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// Where the controller's own certificate comes from: the CA, or files.
#[derive(Debug, Args)]
#[command(next_help_heading = "Identity")]
struct IdentityFlags {
    /// The CA, which gives a certificate for the service account's token.
    #[arg(long, value_name = "HOST:PORT", default_value = "outrider-ca.outrider.svc:4350")]
    ca_address: String,
    /// The token, with the audience outrider-ca; read again for every certificate.
    #[arg(long, value_name = "FILE", default_value = "/var/run/secrets/outrider/token")]
    token_file: PathBuf,
    /// The roots by which the CA is believed, in PEM; with --certificate: the roots of the trust domain.
    #[arg(long, value_name = "FILE", default_value = "/etc/outrider/bundle/bundle.pem")]
    bundle: PathBuf,
    /// Lifetime of certificates to ask the CA for.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    validity: Duration,
    /// Instead of the CA: certificate and intermediates, in PEM, that something else keeps fresh. Its SPIFFE ID is the one
    /// that sidecars are told to expect.
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with_all = ["ca_address", "token_file", "validity"])]
    certificate: Option<PathBuf>,
    /// The private key of --certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct Bounds {
    /// Connections at a time; over that, the oldest that has shown no certificate yet is closed.
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().connections)]
    max_connections: usize,
    /// Streams at a time, one for each sidecar; more are refused.
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().streams)]
    max_streams: usize,
    /// Streams, and connections, at a time of one SPIFFE ID, which all pods of a service account share.
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().streams_of_identity)]
    max_streams_per_identity: usize,
    /// Destinations that all streams together may want; one stream may want 4096. More are not answered.
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().wants.of_all)]
    max_wants: usize,
    /// Destinations that all streams of one SPIFFE ID may want.
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().wants.of_identity)]
    max_wants_per_identity: usize,
    /// Time for a TLS handshake.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    handshake_timeout: Duration,
    /// Time for streams to end after SIGTERM.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    grace: Duration,
}

fn parse_domain(text: &str) -> Result<String, String> {
    let domain = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if domain.len() <= 200 && domain.split('.').all(is_label) {
        Ok(domain)
    } else {
        Err("give a name such as cluster.local".to_owned())
    }
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// What went wrong, where, and what to do about it.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Serve(serve) => serve.run(),
        }
    }
}

impl Serve {
    /// Runs until SIGTERM or SIGINT.
    fn run(self) -> Result<()> {
        start_log(&self.log, self.log_format)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("the runtime cannot start")?;
        runtime.block_on(Box::pin(self.serve()))
    }

    async fn serve(self) -> Result<()> {
        if self.name.is_empty() {
            bail!("--name is empty: give each replica a name of its own, as that of its pod");
        }
        let clock = Clock::system();
        let kube = kube::Config::infer().await.context(
            "how to reach the API server is not known: run it in a pod with a service account, or set KUBECONFIG",
        )?;
        let listener = listen(self.listen, "--listen")?;
        let status = listen(self.metrics_listen, "--metrics-listen")?;
        let stop = CancellationToken::new();
        outrider::drain::spawn_background(stop_on_signal(stop.clone())?);
        tracing::info!(
            trust_domain = %self.trust_domain,
            address = %listener.local_addr()?,
            metrics = %status.local_addr()?,
            api_server = %kube.cluster_url,
            "the controller is listening"
        );
        let tls = identity::tls(&clock).context("TLS is not available")?;
        let options = Options {
            kube,
            source: self.identity.source(&self.trust_domain, &tls, &clock),
            tls,
            world: World {
                domain: self.cluster_domain.as_str().into(),
                trust_domain: self.trust_domain.clone(),
                ranges: self.cluster_cidrs.iter().map(IpNet::trunc).collect(),
            },
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            watch_seconds: self.watch_seconds,
            limits: self.bounds.limits(),
        };
        serve(options, (listener, status), clock, stop).await.context("the controller cannot start")?;
        tracing::info!("stopped");
        Ok(())
    }
}

impl IdentityFlags {
    fn source(&self, trust_domain: &TrustDomain, tls: &TlsBase, clock: &Clock) -> Arc<dyn Source> {
        let (bundle, trust_domain) = (self.bundle.clone(), trust_domain.clone());
        if let (Some(certificate), Some(key)) = (self.certificate.clone(), self.key.clone()) {
            return Arc::new(FileSource::new(Files { certificate, key, bundle }, trust_domain, clock));
        }
        let settings = CaSettings {
            address: self.ca_address.clone(),
            proof: CaProof::ServiceAccount { token_file: self.token_file.clone(), bundle_file: bundle },
            validity: self.validity,
            trust_domain,
            // With a token for every certificate, nothing is kept.
            state_dir: PathBuf::new(),
        };
        Arc::new(CaSource::new(settings, TcpNet, tls.clone(), clock))
    }
}

impl Bounds {
    fn limits(&self) -> Limits {
        Limits {
            connections: self.max_connections,
            streams: self.max_streams,
            streams_of_identity: self.max_streams_per_identity,
            wants: MaxWants { of_identity: self.max_wants_per_identity, of_all: self.max_wants },
            handshake_timeout: self.handshake_timeout,
            grace: self.grace,
        }
    }
}
