//! Kernel redirection: connections into and out of the network namespace are brought to the sidecar.
//!
//! Used by the program `outrider intercept`, which runs once, before the sidecar, with the right to do so; the sidecar
//! needs none of it. There is one table of nftables (`inet outrider`), loaded as a whole in one transaction: running it
//! again, or after a run that was killed, ends the same, and removing the table removes everything. Tables of others are
//! neither read nor written.
//!
//! ```text
//!   Settings ──Plan──▶ rules (pure text) ──nft──▶ the kernel
//!                                                     │ listed, compared, counters read
//!                                                     ▼
//!                                      proof: real connections that must arrive
//! ```
//! The rules go through the program `nft`: there is no crate that is kept well and speaks to the kernel itself, and what
//! `show` prints is the very text that is loaded. `docs/intercept.md` tells what is redirected and what is not.

mod obstacle;
mod probe;
mod program;
mod proof;
mod routes;
mod rules;
mod watch;

use std::collections::BTreeMap;

use self::program::{Program, run};
pub use self::{
    obstacle::Error,
    program::{Error as ProgramError, Program as SystemProgram},
    proof::Findings,
    watch::watch,
};
use crate::model::{
    Settings,
    exceptions::{Exception, exceptions},
    intercept::{InterceptSettings, Mode},
};

/// What is to be loaded.
#[derive(Clone, Debug)]
pub struct Plan {
    settings: InterceptSettings,
    exceptions: Vec<Exception>,
}

/// How what is loaded compares with a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// Nothing of ours is loaded.
    Absent,
    /// It is what the plan says.
    Same,
    /// It is not: each difference, in words.
    Different(Vec<String>),
}

impl Plan {
    /// The plan of a configuration; `None` if it asks for no interception.
    #[must_use]
    pub fn of(settings: &Settings) -> Option<Self> {
        let intercept = settings.bootstrap.intercept.clone()?;
        let exceptions = exceptions(&intercept, settings);
        Some(Self { settings: intercept, exceptions })
    }

    /// What is left alone.
    #[must_use]
    pub fn exceptions(&self) -> &[Exception] {
        &self.exceptions
    }

    /// What the plan is made from.
    #[must_use]
    pub fn settings(&self) -> &InterceptSettings {
        &self.settings
    }

    /// The rules, as they are loaded.
    #[must_use]
    pub fn rules(&self) -> String {
        rules::transaction(self)
    }

    /// The commands that set up routing, one a line; empty if there are none.
    #[must_use]
    pub fn routing(&self) -> String {
        match self.settings.mode {
            Mode::Redirect => String::new(),
            Mode::Tproxy => routes::commands(),
        }
    }

    /// Loads the rules, whatever was loaded before. Routing comes first, so that no packet is marked for a route that is
    /// not there.
    ///
    /// # Errors
    /// What is missing. The rules are then as they were; routing may have been added.
    pub async fn apply(&self) -> Result<(), Error> {
        match self.settings.mode {
            Mode::Tproxy => explained(routes::add().await).await?,
            Mode::Redirect => {}
        }
        nft(&["-f", "-"], &self.rules()).await?;
        if self.settings.mode == Mode::Redirect {
            remove_routes().await?;
        }
        Ok(())
    }

    /// Compares what is loaded with the plan. For a moment, there is a second table, without effect: so the kernel and
    /// `nft` write both in the same way.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub async fn loaded(&self) -> Result<Loaded, Error> {
        let Some(loaded) = list(rules::TABLE).await? else { return Ok(Loaded::Absent) };
        nft(&["-f", "-"], &rules::wanted(self)).await?;
        let wanted = list(rules::WANTED_TABLE).await;
        nft(&["-f", "-"], &rules::wanted_removal()).await?;
        let mut differences = differences(&wanted?.unwrap_or_default(), &loaded);
        if self.settings.mode == Mode::Tproxy {
            let missing = explained(routes::missing().await).await?;
            differences.extend(missing.into_iter().map(|command| format!("routing lacks: {command}")));
        }
        Ok(if differences.is_empty() { Loaded::Same } else { Loaded::Different(differences) })
    }

    /// Bytes that passed each exception since the rules were applied, both directions together, headers included. Those
    /// that the loaded table does not count are left out.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub async fn passed(&self) -> Result<Vec<(Exception, u64)>, Error> {
        let listed = match run(Program::Nft, &["list", "counters", "table", "inet", rules::TABLE], "").await {
            Ok(listed) => listed,
            Err(error) if is_absence(&error) => return Ok(Vec::new()),
            Err(error) => return Err(obstacle::explain(error).await),
        };
        let counters = counters(&listed);
        let bytes = |exception: &Exception| counters.get(&rules::counter(exception)).copied();
        Ok(self.exceptions.iter().filter_map(|exception| Some((*exception, bytes(exception)?))).collect())
    }
}

/// What removing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Interception is over.
    Removed,
    /// There was none.
    WasAbsent,
}

/// Removes everything that [`Plan::apply`] ever adds; no fault if nothing is there.
///
/// # Errors
/// What is missing.
pub async fn remove() -> Result<Removed, Error> {
    let was_loaded = list(rules::TABLE).await?.is_some();
    nft(&["-f", "-"], &rules::removal()).await?;
    let had_routes = remove_routes().await?;
    Ok(if was_loaded || had_routes { Removed::Removed } else { Removed::WasAbsent })
}

/// Routing that is left from transparent proxying. Where there is no `ip`, nobody has added any by us.
async fn remove_routes() -> Result<bool, Error> {
    match routes::remove().await {
        Err(program::Error::Missing(_)) => Ok(false),
        other => explained(other).await,
    }
}

async fn explained<T>(result: Result<T, program::Error>) -> Result<T, Error> {
    match result {
        Ok(value) => Ok(value),
        Err(error) => Err(obstacle::explain(error).await),
    }
}

async fn nft(arguments: &[&str], input: &str) -> Result<String, Error> {
    explained(run(Program::Nft, arguments, input).await).await
}

/// A table as `nft` lists it, without its counts; `None` if there is none.
async fn list(table: &str) -> Result<Option<String>, Error> {
    match run(Program::Nft, &["-s", "list", "table", "inet", table], "").await {
        Ok(listed) => Ok(Some(listed)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(obstacle::explain(error).await),
    }
}

fn is_absence(error: &program::Error) -> bool {
    matches!(error, program::Error::Failed(_, complaint) if complaint.contains("No such file or directory"))
}

/// Lines of a listed table, each with the chain, set or counter that it is in. Its own name, its flags and counts say
/// nothing about the rules.
fn statements(listed: &str) -> Vec<String> {
    let mut within = String::new();
    let mut found = Vec::new();
    for line in listed.lines().skip(1).map(str::trim) {
        let is_count = line.starts_with("packets ") && within.starts_with("counter ");
        if line.is_empty() || line == "flags dormant" || is_count {
            continue;
        }
        if line == "}" {
            within.clear();
        } else if let Some(opened) = line.strip_suffix(" {") {
            within = opened.to_owned();
            found.push(within.clone());
        } else {
            found.push(format!("{within}: {line}"));
        }
    }
    found
}

/// How two listed tables differ, in words; none if they do not.
fn differences(wanted: &str, loaded: &str) -> Vec<String> {
    let (wanted, loaded) = (statements(wanted), statements(loaded));
    let lacking = wanted.iter().filter(|statement| !loaded.contains(statement));
    let added = loaded.iter().filter(|statement| !wanted.contains(statement));
    let mut found: Vec<_> = lacking.map(|statement| format!("the table lacks: {statement}")).collect();
    found.extend(added.map(|statement| format!("the table has besides: {statement}")));
    if found.is_empty() && wanted != loaded {
        found.push("the table has the same rules in another order, or more than once".to_owned());
    }
    found
}

/// Bytes by name of what `nft list counters` says.
fn counters(listed: &str) -> BTreeMap<String, u64> {
    let mut name = "";
    let mut found = BTreeMap::new();
    for line in listed.lines().map(str::trim) {
        if let Some(opened) = line.strip_prefix("counter ") {
            name = opened.trim_end_matches(" {");
        } else if let Some(bytes) = line.strip_prefix("packets ").and_then(|rest| rest.split(' ').nth(2))
            && let Ok(bytes) = bytes.parse()
        {
            found.insert(name.to_owned(), bytes);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "table inet outrider {
\tcounter a/8 {
\t\tpackets 3 bytes 180
\t}

\tchain own {
\t\tip dscp 0x2b accept
\t\tip6 dscp 0x2b accept
\t}
}
";

    #[test]
    fn tables_are_compared_without_their_names_flags_and_counts() {
        let wanted = LISTED
            .replace("outrider {", "outrider_wanted {\n\tflags dormant\n")
            .replace("3 bytes 180", "0 bytes 0");
        assert_eq!(differences(&wanted, LISTED), Vec::<String>::new());
    }

    #[test]
    fn each_difference_is_named_with_its_chain() {
        let lacking = LISTED.replace("\t\tip dscp 0x2b accept\n", "");
        assert_eq!(differences(LISTED, &lacking), ["the table lacks: chain own: ip dscp 0x2b accept"]);
        assert_eq!(differences(&lacking, LISTED), ["the table has besides: chain own: ip dscp 0x2b accept"]);
        let turned = LISTED
            .replace("ip6 dscp", "ip7 dscp")
            .replace("ip dscp", "ip6 dscp")
            .replace("ip7 dscp", "ip dscp");
        assert_eq!(
            differences(LISTED, &turned),
            ["the table has the same rules in another order, or more than once"]
        );
        assert_eq!(
            differences(LISTED, ""),
            [
                "the table lacks: counter a/8",
                "the table lacks: chain own",
                "the table lacks: chain own: ip dscp 0x2b accept",
                "the table lacks: chain own: ip6 dscp 0x2b accept"
            ]
        );
    }

    #[test]
    fn bytes_are_read_by_name() {
        let found = counters(LISTED);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("a/8".to_owned(), 180)]);
        assert!(counters("counter a {\n packets x bytes y\n}\n").is_empty());
    }
}
