//! One small HTTP service, used as `web`, `orders` and `inventory`.
//!
//! It speaks HTTP/1.1 and HTTP/2 (prior knowledge) on one port and answers every request with JSON: who it is, and
//! what the service behind it said, which nests. All it does for the mesh is what every app should do: pass the trace
//! headers on, and what else the mesh decides by (`--pass-on`). SIGTERM stops it: it takes no new connection, finishes what it has, and ends. SIGUSR1 makes it ill: it
//! answers everything with 503 until SIGUSR2.

mod answer;

use std::{
    io::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use http::{HeaderName, Uri};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
};

use crate::{client::Client, serving};
use answer::{Answerer, PASSED_ON, Upstream};

/// Time for requests under way to finish after SIGTERM.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);
/// Rest after a failed accept (out of file descriptors), so that it doesn't spin.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Command line of the service.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "service",
    about = "A small HTTP service that calls the next one and says what it heard",
    version
)]
pub struct Options {
    /// Name of the service, as in `web`
    #[arg(long)]
    pub name: String,
    /// Name of this replica, as in `inventory-2` [default: the service's name]
    #[arg(long)]
    pub replica: Option<String>,
    /// Address to listen on; port 0 lets the system choose, and the first line of output says which
    #[arg(long, value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// The service behind this one, as in `http://orders`; the path of each request is added
    #[arg(long, value_name = "URL")]
    pub upstream: Option<Uri>,
    /// HTTP proxy on the way to it: the outbound listener of the own sidecar
    #[arg(long, value_name = "IP:PORT", requires = "upstream")]
    pub proxy: Option<SocketAddr>,
    /// Header fields of requests that are passed on to the service behind, beside those of traces, as in `x-canary,cookie`
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "upstream")]
    pub pass_on: Vec<HeaderName>,
    /// Time spent on each request before it is answered, in milliseconds, to look busy
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub work_ms: u64,
}

/// Serves until SIGTERM or SIGINT, and then until what is under way is done, 10 s at most.
///
/// # Errors
/// A bad `--upstream`, or an address that can't be listened on.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let answerer = Arc::new(answerer(&options)?);
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("listening on {}", options.listen))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut ill = signal(SignalKind::user_defined1())?;
    let mut well = signal(SignalKind::user_defined2())?;
    let mut out = std::io::stdout();
    writeln!(out, "{} listening on {}", answerer.replica, listener.local_addr()?)?;

    let connections = GracefulShutdown::new();
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = ill.recv() => answerer.is_ill.store(true, Ordering::Relaxed),
            _ = well.recv() => answerer.is_ill.store(false, Ordering::Relaxed),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => serve(stream, Arc::clone(&answerer), &connections),
                Err(_) => tokio::time::sleep(ACCEPT_REST).await,
            },
        }
    }
    drop(listener);
    writeln!(out, "{} stopping, {} connections open", answerer.replica, connections.count())?;
    if tokio::time::timeout(SHUTDOWN_DEADLINE, connections.shutdown()).await.is_err() {
        writeln!(out, "{} gave up on requests that took too long", answerer.replica)?;
    }
    Ok(())
}

fn answerer(options: &Options) -> anyhow::Result<Answerer> {
    let upstream = match &options.upstream {
        None => None,
        Some(uri) => {
            let authority =
                uri.authority().with_context(|| format!("--upstream {uri}: expected http://NAME"))?;
            anyhow::ensure!(
                uri.scheme_str() == Some("http"),
                "--upstream {uri}: only http:// is spoken here"
            );
            let address = match (options.proxy, authority.port_u16()) {
                (Some(proxy), _) => proxy.to_string(),
                (None, Some(_)) => authority.to_string(),
                (None, None) => format!("{authority}:80"),
            };
            Some(Upstream {
                authority: authority.clone(),
                client: Client::new(address),
                passed_on: PASSED_ON.into_iter().chain(options.pass_on.iter().cloned()).collect(),
            })
        }
    };
    Ok(Answerer {
        name: options.name.clone(),
        replica: options.replica.clone().unwrap_or_else(|| options.name.clone()),
        work: Duration::from_millis(options.work_ms),
        is_ill: AtomicBool::new(false),
        upstream,
    })
}

fn serve(stream: TcpStream, answerer: Arc<Answerer>, connections: &GracefulShutdown) {
    serving::serve(stream, connections, move |request| {
        let answerer = Arc::clone(&answerer);
        async move { answerer.answer(request).await }
    });
}
