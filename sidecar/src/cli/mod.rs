//! The command line.

mod ask;
mod check;
mod drain;
mod exceptions;
mod explain;
mod intercept;
mod log;
mod policy;
mod reload;
mod route;
mod source;
mod stat;
mod table;
mod tap;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use outrider::{config, process, telemetry};

/// The sidecar of the Outrider service mesh.
#[derive(Debug, Parser)]
#[command(name = "outrider", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Carry traffic until SIGTERM or SIGINT; then drain. The configuration is read again when it changes, and on SIGHUP
    Run(Run),
    /// Name every fault of a configuration, or sum up what it says
    Check(ConfigFile),
    /// Ask a running sidecar to drain, and wait until it has
    Drain(Drain),
    /// Have a running sidecar read its configuration again now, and say what became of it
    Reload(Reload),
    /// Who calls whom at a running sidecar, live: rates, successes, latencies, retries, ejections
    ///
    /// A table that is renewed every second, of what the sidecar keeps itself: 15 minutes, no server needed. Where
    /// standard output is no terminal, one table. Ctrl-c ends it.
    Top(stat::Top),
    /// Who calls whom at a running sidecar, summed up over the last minute or another time
    Stat(stat::Stat),
    /// Watch requests at a running sidecar as they end, one line each
    ///
    /// Filters are joined: a request must meet all of them. Watching costs requests nothing: what cannot be shown in time
    /// is left out, and counted. At most 4 may watch a sidecar at a time. Queries are never shown.
    Tap(tap::Tap),
    /// Why a request failed at a running sidecar: what became of it step by step, what that means, what to do
    ///
    /// A sidecar keeps the newest 1000 requests that failed or were repeated. Ask by the request's x-request-id, as apps
    /// log it, or by its trace ID; or name a response flag of the metrics (UH) or the x-outrider-reason of an answer
    /// (no_endpoint) to read what it means, with the newest requests that had it.
    Explain(explain::Explain),
    /// What the authorization rules of a configuration, or of a running sidecar, say of a call, and why
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Show what a running sidecar logs, or change it until it ends
    Log(Log),
    /// Bring the connections of this network namespace to the sidecar, by the kernel
    #[command(subcommand)]
    Intercept(intercept::Intercept),
    /// Where requests go, by a configuration or by a running sidecar
    #[command(subcommand)]
    Route(route::Route),
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "OUTRIDER_CONFIG")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    file: ConfigFile,
    /// What to log: off, error, warn, info, debug, or a list such as warn,outrider::identity=debug
    #[arg(long, value_name = "LEVEL", env = "OUTRIDER_LOG", default_value = "info")]
    log_level: String,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

#[derive(Debug, Args)]
struct Reload {
    /// The admin socket of the sidecar
    #[arg(long, value_name = "PATH", default_value = config::defaults::ADMIN_SOCKET)]
    admin_socket: PathBuf,
}

#[derive(Debug, Args)]
struct Log {
    /// What to log from now on: off, error, warn, info, debug, or a list such as warn,outrider::identity=debug
    #[arg(value_name = "LEVEL")]
    level: Option<String>,
    /// The admin socket of the sidecar
    #[arg(long, value_name = "PATH", default_value = config::defaults::ADMIN_SOCKET)]
    admin_socket: PathBuf,
}

#[derive(Debug, Args)]
struct Drain {
    /// The admin socket of the sidecar
    #[arg(long, value_name = "PATH", default_value = config::defaults::ADMIN_SOCKET)]
    admin_socket: PathBuf,
    /// Only what comes in from peers: the own app may still call out
    #[arg(long)]
    inbound: bool,
    /// How long to wait for the end; 0s only asks
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    wait: Duration,
}

/// Does what the command line says.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" with exit code 0; wrong flags have 2.
            error.print()?;
            return Ok(u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from));
        }
    };
    match cli.command {
        Command::Run(run) => carry(&run),
        Command::Check(file) => check::check(&file.config),
        Command::Drain(drain) => drain::drain(&drain.admin_socket, drain.inbound, drain.wait),
        Command::Reload(reload) => reload::reload(&reload.admin_socket),
        Command::Top(top) => stat::top(&top),
        Command::Stat(stat) => stat::stat(&stat),
        Command::Tap(tap) => tap::tap(&tap),
        Command::Explain(explain) => explain::explain(&explain),
        Command::Policy(command) => policy::run(&command),
        Command::Log(change) => log::log(&change.admin_socket, change.level.as_deref()),
        Command::Intercept(command) => intercept::run(&command),
        Command::Route(command) => route::run(&command),
        Command::Version => {
            writeln!(io::stdout(), "outrider {}", env!("CARGO_PKG_VERSION"))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn carry(run: &Run) -> anyhow::Result<ExitCode> {
    let format = match run.log_format {
        LogFormat::Text => telemetry::log::Format::Text,
        LogFormat::Json => telemetry::log::Format::Json,
    };
    let control = telemetry::log::init(&run.log_level, format)?;
    process::run(&run.file.config, control)?;
    Ok(ExitCode::SUCCESS)
}

/// Says on stderr what went wrong, cause by cause.
pub(crate) fn complain(error: &anyhow::Error) {
    // Nobody is left to tell if stderr is gone.
    drop(writeln!(io::stderr(), "outrider: {error:#}"));
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_makes_sense() {
        super::Cli::command().debug_assert();
    }
}
