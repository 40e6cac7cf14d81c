//! By what calls are explained: a configuration file, or a running sidecar.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow, bail};
use clap::{
    ArgMatches, Args, Command, FromArgMatches,
    error::{Error, ErrorKind},
    parser::ValueSource,
};
use outrider::{config, explain::Explained};
use serde_json::Value;

use super::ask::{self, Socket, encoded, safe};

/// Longest question that is asked: a sidecar reads no head of more than 16 KiB.
const MAX_QUESTION_BYTES: usize = 15 * 1024;

#[derive(Debug, Args)]
struct Said {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "OUTRIDER_CONFIG", required_unless_present = "running")]
    config: Option<PathBuf>,
    /// Ask the running sidecar, which decides by all that is in force in it: its file, and what its controller said
    #[arg(long)]
    running: bool,
    /// The admin socket of that sidecar
    #[arg(long, value_name = "PATH", default_value = config::defaults::ADMIN_SOCKET, requires = "running")]
    admin_socket: PathBuf,
}

/// A configuration file, or a running sidecar.
#[derive(Debug)]
pub(super) struct Source(Said);

impl Args for Source {
    fn augment_args(command: Command) -> Command {
        Said::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Said::augment_args_for_update(command)
    }
}

impl FromArgMatches for Source {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let said = Said::from_arg_matches(matches)?;
        // The variable is there for other commands, too: it excludes nothing.
        let is_file_named = matches.value_source("config") == Some(ValueSource::CommandLine);
        if said.running && is_file_named {
            let problem = "--config explains by a file, --running by what is in force: leave out one of them";
            return Err(Error::raw(ErrorKind::ArgumentConflict, problem));
        }
        Ok(Self(said))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Source {
    /// Prints what is said of a call, and whether it passes: by the file, or as the sidecar answers `question`.
    pub(super) fn answer(
        &self,
        question: (&str, Vec<(&str, String)>),
        by_file: impl FnOnce(&Path) -> anyhow::Result<Explained>,
    ) -> anyhow::Result<ExitCode> {
        let Explained { lines, passes } = match (&self.0.config, self.0.running) {
            (_, true) => self.ask(question)?,
            (Some(file), false) => by_file(file)?,
            (None, false) => {
                bail!("name the configuration by --config, or ask the running sidecar by --running")
            }
        };
        let text: String = lines.iter().map(|line| safe(line) + "\n").collect();
        io::stdout().write_all(text.as_bytes())?;
        Ok(if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn ask(&self, (path, pairs): (&str, Vec<(&str, String)>)) -> anyhow::Result<Explained> {
        let pairs: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let target = format!("{path}?{}", pairs.join("&"));
        if target.len() > MAX_QUESTION_BYTES {
            bail!("that is more than a sidecar can be asked: leave out fields that no rule looks at");
        }
        let socket = Socket { admin_socket: self.0.admin_socket.clone() };
        let (_, answer) = ask::run(ask::get(&socket, &target, &[]))?;
        explained(&answer).context("the sidecar's answer is none that this command knows")
    }
}

fn explained(answer: &Value) -> anyhow::Result<Explained> {
    let lines = answer.get("lines").and_then(Value::as_array).ok_or_else(|| anyhow!("no lines"))?;
    let lines = lines.iter().map(|line| line.as_str().unwrap_or_default().to_owned()).collect();
    let passes = answer.get("passes").and_then(Value::as_bool).ok_or_else(|| anyhow!("no verdict"))?;
    Ok(Explained { lines, passes })
}
