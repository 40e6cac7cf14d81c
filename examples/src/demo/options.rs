//! Command line of the demo.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

use super::traces::{Protocol, Url};

/// What `cargo demo` takes.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "demo",
    version,
    about = "Starts a whole mesh on this machine, puts it under load, breaks parts of it, and reports",
    long_about = "Starts a CA and three services (web -> orders -> inventory, three replicas of inventory), each with \
                  its sidecar, as separate processes on loopback addresses. Under a steady load it makes one \
                  replica of inventory ill until it is ejected, kills another, replaces the sidecar of the third, \
                  and tries to get in without a valid certificate.\n\n\
                  Exit code 0 means: no request failed, every hop was mutual TLS 1.3 between the right identities, \
                  no intruder got in, and the sidecars' spans of a call made one trace."
)]
pub struct Options {
    /// How long to keep up the load
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration)]
    pub duration: Duration,
    /// Requests per second, sent on schedule whether or not earlier ones were answered
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub rate: u32,
    /// Write the report as JSON to this file as well
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Send the traces to this collector (Jaeger, Tempo, …) instead of showing some of them here
    #[arg(long, value_name = "URL")]
    pub otlp: Option<Url>,
    /// What is spoken there [default: http if the URL ends in /v1/traces, else grpc]
    #[arg(long, value_name = "PROTOCOL", requires = "otlp")]
    pub otlp_protocol: Option<Protocol>,
    /// Put configuration files, keys and logs here and leave them [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the mesh running after the report, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// Use the programs beside this one as they are, instead of building them first
    #[arg(long)]
    pub no_build: bool,
    /// Internal: ends the processes named on standard input when standard input ends
    #[arg(long, hide = true)]
    pub watchdog: bool,
}

/// Shortest load with time for everything that is to happen under it.
const SHORTEST: Duration = Duration::from_secs(6);
/// Longest load: a demo, not a soak test.
const LONGEST: Duration = Duration::from_secs(3600);

fn duration(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 15s or 2m"))?;
    if (SHORTEST..=LONGEST).contains(&duration) {
        return Ok(duration);
    }
    Err("must be from 6s to 1h".to_owned())
}
