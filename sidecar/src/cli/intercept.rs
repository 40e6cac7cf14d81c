//! `outrider intercept`: the kernel's rules, applied, shown, checked, removed.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use outrider::{
    config,
    intercept::{self, Loaded, Plan, Removed},
    model::intercept::{Mode, Own},
};
use serde_json::json;

use super::ConfigFile;

#[derive(Debug, Subcommand)]
pub(super) enum Intercept {
    /// Load the rules, whatever is loaded, in one transaction
    Apply(ConfigFile),
    /// Print the rules that `apply` loads, whether they are loaded, and the bytes that passed each exception
    Show(Show),
    /// Prove that they are loaded and hold, by real connections within the namespace; fails otherwise, so that it can be a
    /// gate before an app starts
    Check(ConfigFile),
    /// Remove everything that `apply` ever added
    Remove,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    file: ConfigFile,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Intercept) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Intercept::Apply(file) => apply(&plan(&file.config)?).await,
            Intercept::Show(show) => self::show(&plan(&show.file.config)?, show.json).await,
            Intercept::Check(file) => check(&plan(&file.config)?).await,
            Intercept::Remove => remove().await,
        }
    })
}

fn plan(path: &Path) -> anyhow::Result<Plan> {
    let settings = config::load(path)?;
    Plan::of(&settings).with_context(|| format!("{} has no section `intercept`", path.display()))
}

async fn apply(plan: &Plan) -> anyhow::Result<ExitCode> {
    plan.apply().await.context("interception is as it was before")?;
    writeln!(io::stdout(), "applied: {}", summary(plan))?;
    Ok(ExitCode::SUCCESS)
}

/// What the rules do, in one line.
fn summary(plan: &Plan) -> String {
    let settings = plan.settings();
    let own = match settings.own {
        Own::Uid(uid) => format!("user {uid}"),
        Own::Mark(mark) => format!("mark {mark}"),
    };
    let inbound = match settings.mode {
        Mode::Redirect => "redirected",
        Mode::Tproxy => "proxied transparently",
    };
    format!(
        "outbound TCP is redirected to port {}, inbound TCP is {inbound} to port {}, but for {own} and {} exception(s)",
        settings.outbound.port,
        settings.inbound.port,
        plan.exceptions().len()
    )
}

async fn remove() -> anyhow::Result<ExitCode> {
    let done = match intercept::remove().await.context("interception is as it was before")? {
        Removed::Removed => "removed: connections go their own ways",
        Removed::WasAbsent => "nothing to remove",
    };
    writeln!(io::stdout(), "{done}")?;
    Ok(ExitCode::SUCCESS)
}

async fn check(plan: &Plan) -> anyhow::Result<ExitCode> {
    let findings = plan.check().await;
    let mut text = String::new();
    for note in &findings.notes {
        text.push_str(&format!("{note}\n"));
    }
    if findings.faults.is_empty() {
        let proved = findings.proved.join(" and ");
        text.push_str(&format!(
            "interception works: the rules are loaded, and connections by {proved} keep to them\n"
        ));
        io::stdout().write_all(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    for fault in &findings.faults {
        text.push_str(&format!("{fault}\n"));
    }
    text.push_str("interception does NOT work as configured\n");
    io::stderr().write_all(text.as_bytes())?;
    Ok(ExitCode::FAILURE)
}

async fn show(plan: &Plan, as_json: bool) -> anyhow::Result<ExitCode> {
    let loaded = plan.loaded().await;
    // Whoever may not look at the kernel's tables can still see what would be loaded.
    let passed = if loaded.is_ok() { plan.passed().await? } else { Vec::new() };
    let bytes =
        |name: &str| passed.iter().find(|(known, _)| known.to_string() == name).map(|(_, bytes)| *bytes);
    let (state, details) = match loaded {
        Ok(Loaded::Absent) => ("absent", Vec::new()),
        Ok(Loaded::Same) => ("same", Vec::new()),
        Ok(Loaded::Different(differences)) => ("different", differences),
        Err(error) => ("unknown", vec![format!("{:#}", anyhow::Error::new(error))]),
    };
    let names: Vec<_> = plan.exceptions().iter().map(ToString::to_string).collect();
    let text = if as_json {
        let exceptions = names.iter().map(|name| json!({ "rule": name, "bytes": bytes(name) }));
        let all = json!({
            "rules": plan.rules(),
            "routing": plan.routing().lines().collect::<Vec<_>>(),
            "loaded": state,
            "details": details,
            "exceptions": exceptions.collect::<Vec<_>>(),
        });
        format!("{all:#}\n")
    } else {
        let mut text = format!("# nft -f -\n{}", plan.rules());
        for command in plan.routing().lines() {
            text.push_str(&format!("# {command}\n"));
        }
        text.push_str(&format!("\n# loaded: {state}\n"));
        for detail in &details {
            text.push_str(&format!("#   {detail}\n"));
        }
        for name in &names {
            let count =
                bytes(name).map_or_else(|| "not counted".to_owned(), |bytes| format!("{bytes} bytes"));
            text.push_str(&format!("# exception {name}: {count}\n"));
        }
        text
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
