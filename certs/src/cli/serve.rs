//! `outrider-ca serve`: from flags to a running server.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Place;
use crate::ca::review::Reviewer;
use crate::ca::{self, Limits, MAX_VALIDITY, NamesOf, Options, Rate, ServerSan, States, Validity};
use crate::clock::SystemWallClock;
#[cfg(feature = "kubernetes")]
use crate::clock::WallClock as _;
use crate::program::{LogFormat, listen, start_log, stop_on_signal};
use crate::spiffe_id::SpiffeId;
#[cfg(feature = "kubernetes")]
use crate::spiffe_id::TrustDomain;

/// Pauses between attempts to reach the API server at the start; each is twice
/// the one before. After about two minutes the program ends, and whoever runs
/// it starts it again.
#[cfg(feature = "kubernetes")]
const FIRST_PAUSE: Duration = Duration::from_millis(500);
#[cfg(feature = "kubernetes")]
const LAST_PAUSE: Duration = Duration::from_secs(64);

/// Flags of `serve`.
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    place: Place,
    /// Where to serve certificates and the bundle, over TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4350")]
    listen: SocketAddr,
    /// Where to serve /live, /ready and /metrics, in plaintext.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4351")]
    metrics_listen: SocketAddr,
    /// DNS name or IP address for the server's certificate, for clients that
    /// check those; may be given several times.
    #[arg(long = "san", value_name = "NAME")]
    names: Vec<ServerSan>,
    /// DNS name or IP address for the certificates of one workload, beside its
    /// SPIFFE ID; may be given several times.
    #[arg(long = "dns-name", value_name = "ID=NAME", value_parser = parse_workload_name)]
    workload_names: Vec<(SpiffeId, ServerSan)>,
    #[cfg(feature = "kubernetes")]
    #[command(flatten)]
    cluster: InCluster,
    #[command(flatten)]
    lifetimes: Lifetimes,
    #[command(flatten)]
    bounds: Bounds,
    /// What to log, such as "info" or "outrider_certs=debug".
    #[arg(long, value_name = "FILTER", default_value = "info", env = "OUTRIDER_LOG")]
    log: String,
    /// How to log.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// Flags for a CA in a cluster.
#[cfg(feature = "kubernetes")]
#[derive(Debug, Args)]
#[command(next_help_heading = "In Kubernetes")]
struct InCluster {
    /// The trust domain to sign for. If there is no CA yet, one is made for it.
    #[arg(long, value_name = "NAME", default_value = "cluster.local", requires = "kubernetes")]
    trust_domain: TrustDomain,
    /// How long the root of a CA that is made is valid.
    #[arg(long, value_name = "TIME", default_value = "3650days", requires = "kubernetes", value_parser = humantime::parse_duration)]
    root_lifetime: Duration,
    /// The audience that service accounts' tokens must be for.
    #[arg(long, value_name = "NAME", default_value = "outrider-ca", requires = "kubernetes")]
    token_audience: String,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Lifetimes of certificates")]
struct Lifetimes {
    /// For requests that name none.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    validity: Duration,
    /// Requests for less get this.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    min_validity: Duration,
    /// Requests for more get this; at most 90days. Default: the same as --validity.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_validity: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct Bounds {
    /// Connections at a time; more are closed at once.
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().connections)]
    max_connections: usize,
    /// Requests at a time; more are refused.
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().requests)]
    max_requests: usize,
    /// Time for a TLS handshake.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    handshake_timeout: Duration,
    /// Time for an answer.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    request_timeout: Duration,
    /// Time open requests have to finish after SIGTERM.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// Requests of one caller (an SVID's ID, or else an IPv4 address or IPv6
    /// /64 network) per second in the long run, and at once.
    #[arg(long, value_name = "RATE/BURST", default_value = "20/100", value_parser = parse_rate)]
    caller_rate: Rate,
    /// Requests of all callers with an SVID per second in the long run, and at
    /// once; and the same once more for all without.
    #[arg(long, value_name = "RATE/BURST", default_value = "200/1000", value_parser = parse_rate)]
    total_rate: Rate,
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    let wrong = || "give two numbers above 0, such as 20/100".to_owned();
    let (rate, burst) = text.split_once('/').ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| (1..=1_000_000).contains(number));
    Ok(Rate { per_second: number(rate).ok_or_else(wrong)?, burst: number(burst).ok_or_else(wrong)? })
}

fn parse_workload_name(text: &str) -> Result<(SpiffeId, ServerSan), String> {
    // A SPIFFE ID has no '='.
    let (id, name) = text
        .split_once('=')
        .ok_or("give a SPIFFE ID and a name, such as spiffe://example.org/a=a.example")?;
    Ok((SpiffeId::parse(id).map_err(|e| e.to_string())?, name.parse().map_err(str::to_owned)?))
}

/// What the control side of a command runs on.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot start")
}

impl Serve {
    /// Runs until SIGTERM or SIGINT.
    pub(super) fn run(self) -> Result<()> {
        start_log(&self.log, self.log_format)?;
        let validity = self.lifetimes.checked()?;
        runtime()?.block_on(self.serve(validity))
    }

    async fn serve(self, validity: Validity) -> Result<()> {
        let shutdown = CancellationToken::new();
        let signalled = stop_on_signal(shutdown.clone())?;
        tokio::pin!(signalled);
        let opened = tokio::select! {
            biased;
            () = &mut signalled => return Ok(()),
            opened = self.open() => opened.context("the CA cannot start")?,
        };
        let listener = listen(self.listen, "--listen")?;
        let metrics = listen(self.metrics_listen, "--metrics-listen")?;
        tracing::info!(
            trust_domain = %opened.states.borrow().trust_domain(),
            address = %listener.local_addr()?,
            metrics = %metrics.local_addr()?,
            "the CA is listening"
        );
        let mut workload_names = NamesOf::new();
        for (id, name) in self.workload_names {
            workload_names.entry(id).or_default().push(name);
        }
        let options = Options {
            validity,
            limits: self.bounds.limits(),
            names: self.names,
            workload_names,
            reviewer: opened.reviewer,
            metrics_listener: Some(metrics),
        };
        let clock = Arc::new(SystemWallClock);
        let served = ca::serve_newest(listener, opened.states, options, clock, shutdown);
        let mut served = pin!(served);
        let mut following = opened.following;
        loop {
            tokio::select! {
                result = &mut served => break result.context("the CA cannot start")?,
                () = &mut signalled => break served.await.context("the CA cannot start")?,
                // It goes on for ever; where there is nothing to follow, it never begins.
                () = &mut following => following = Box::pin(std::future::pending()),
            }
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// The CA, and what goes with it where it is kept.
    async fn open(&self) -> Result<Opened> {
        #[cfg(feature = "kubernetes")]
        if let Some(place) = self.place.cluster() {
            return Box::pin(self.open_in_cluster(place)).await;
        }
        let state = self.place.open_folder()?;
        let (_one, states) = watch::channel(Arc::new(state));
        Ok(Opened { states, reviewer: None, following: Box::pin(std::future::pending()) })
    }

    #[cfg(feature = "kubernetes")]
    async fn open_in_cluster(&self, place: ca::kubernetes::Place) -> Result<Opened> {
        let cluster = ca::kubernetes::Cluster::find(place).await?;
        let new = ca::NewCa {
            trust_domain: self.cluster.trust_domain.clone(),
            root_lifetime: self.cluster.root_lifetime,
        };
        let mut pause = FIRST_PAUSE;
        let state = loop {
            match Box::pin(cluster.open_or_init(&new, SystemWallClock.now())).await {
                // Whoever starts a cluster starts everything at once.
                Err(error @ ca::Error::Api { .. }) if pause <= LAST_PAUSE => {
                    tracing::warn!(%error, "the CA cannot start yet; trying again in {pause:?}");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                other => break other?,
            }
        };
        let reviewer = cluster.reviewer(&self.cluster.token_audience, &state);
        let (newest, states) = watch::channel(Arc::new(state));
        let published = states.clone();
        let following = Box::pin(async move {
            tokio::join!(cluster.follow(&newest), cluster.publish(published));
        });
        Ok(Opened { states, reviewer: Some(reviewer), following })
    }
}

/// What is served.
struct Opened {
    states: States,
    reviewer: Option<Arc<dyn Reviewer>>,
    /// Keeps `states` the newest.
    following: Pin<Box<dyn Future<Output = ()>>>,
}

impl Lifetimes {
    fn checked(&self) -> Result<Validity> {
        let (default, min) = (self.validity, self.min_validity);
        let max = self.max_validity.unwrap_or(default);
        if max > MAX_VALIDITY {
            let longest = super::days(MAX_VALIDITY);
            bail!("--max-validity (or --validity) is more than {longest} days, the longest that can be set");
        }
        if min > default || default > max || min < Duration::from_secs(1) {
            bail!("--min-validity (1s or more), --validity and --max-validity must grow in this order");
        }
        Ok(Validity { default, min, max })
    }
}

impl Bounds {
    fn limits(&self) -> Limits {
        Limits {
            connections: self.max_connections,
            requests: self.max_requests.max(1),
            handshake_timeout: self.handshake_timeout,
            request_timeout: self.request_timeout,
            grace: self.grace,
            per_caller: self.caller_rate,
            total: self.total_rate,
            ..Limits::default()
        }
    }
}
