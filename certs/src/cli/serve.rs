//! `outrider-ca serve`: from flags to a running server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::Place;
use crate::ca::{self, CaState, Limits, MAX_VALIDITY, Options, Rate, ServerSan, Validity};
use crate::clock::SystemWallClock;

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

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
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

impl Serve {
    /// Runs until SIGTERM or SIGINT.
    pub(super) fn run(self) -> Result<()> {
        start_log(&self.log, self.log_format)?;
        let state = CaState::open(&self.place.dir).context("the CA cannot start")?;
        let validity = self.lifetimes.checked()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("the runtime cannot start")?;
        runtime.block_on(self.serve(state, validity))
    }

    async fn serve(self, state: CaState, validity: Validity) -> Result<()> {
        let listener = listen(self.listen, "--listen").await?;
        let metrics = listen(self.metrics_listen, "--metrics-listen").await?;
        let shutdown = CancellationToken::new();
        let signalled = stop_on_signal(shutdown.clone())?;
        tracing::info!(
            trust_domain = %state.trust_domain(),
            address = %listener.local_addr()?,
            metrics = %metrics.local_addr()?,
            "the CA is listening"
        );
        let options = Options {
            validity,
            limits: self.bounds.limits(),
            names: self.names,
            metrics_listener: Some(metrics),
        };
        let clock = Arc::new(SystemWallClock);
        let served = ca::serve(listener, state, options, clock, shutdown);
        tokio::pin!(served);
        tokio::select! {
            result = &mut served => result.context("the CA cannot start")?,
            () = signalled => served.await.context("the CA cannot start")?,
        }
        tracing::info!("stopped");
        Ok(())
    }
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

async fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{address}: cannot listen there; choose another address with {flag}"))
}

/// Cancels `shutdown` on the first SIGTERM or SIGINT.
fn stop_on_signal(shutdown: CancellationToken) -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be waited for")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    })
}

fn start_log(filter: &str, format: LogFormat) -> Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter:?} is not a filter"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let started = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|e| anyhow::anyhow!("the log cannot start: {e}"))
}
