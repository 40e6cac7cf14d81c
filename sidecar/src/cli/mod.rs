//! The command line.

mod check;
mod drain;
mod intercept;
mod reload;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use outrider::{config, process, telemetry::log};

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
    /// Bring the connections of this network namespace to the sidecar, by the kernel
    #[command(subcommand)]
    Intercept(intercept::Intercept),
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
        Command::Intercept(command) => intercept::run(&command),
        Command::Version => {
            writeln!(io::stdout(), "outrider {}", env!("CARGO_PKG_VERSION"))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn carry(run: &Run) -> anyhow::Result<ExitCode> {
    let format = match run.log_format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    let control = log::init(&run.log_level, format)?;
    process::run(&run.file.config, control)?;
    Ok(ExitCode::SUCCESS)
}

/// Says on stderr what went wrong, cause by cause.
pub(crate) fn complain(error: &anyhow::Error) {
    // Nobody is left to tell if stderr is gone.
    drop(writeln!(io::stderr(), "outrider: {error:#}"));
}
