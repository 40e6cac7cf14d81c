//! `docs/commands.md` has every command and flag of the control plane's programs, as they say it themselves.
//!
//! `UPDATE_DOCS=1 cargo test --workspace --test commands` writes it.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{env, fs, path::Path};

use clap::{Arg, ArgAction, Command, CommandFactory as _};

const INTRODUCTION: &str = "# Commands of the control plane

Every command and flag of `outrider-ca`, `outrider-injector` and `outrider-controller`, as `--help` has them; a test keeps this page so. The chart
sets those that a cluster needs ([values.yaml](../deploy/helm/outrider/values.yaml)). Commands of the sidecar: [admin.md](admin.md#ask-a-sidecar) and `outrider --help`.
";

/// On one line, as a cell of a table.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn flag(arg: &Arg) -> String {
    let names: Vec<_> = arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).collect();
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let values = if takes_value { format!(" <{}>", names.join("> <")) } else { String::new() };
    let values = match arg.get_possible_values().as_slice() {
        [] => values,
        possible if takes_value => {
            let names: Vec<_> = possible.iter().map(|value| value.get_name()).collect();
            format!(" {}", names.join("\\|"))
        }
        _ => values,
    };
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    match arg.get_long() {
        Some(long) => format!("`{short}--{long}{values}`"),
        None => format!("`{}`", values.trim()),
    }
}

fn row(arg: &Arg) -> String {
    let quoted = |text: String| if text.is_empty() { text } else { format!("`{text}`") };
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = if takes_value { quoted(defaults.join(", ")) } else { String::new() };
    let default = if arg.is_required_set() { "required".to_owned() } else { default };
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    assert!(!help.is_empty(), "{} says nothing of itself", flag(arg));
    let help = line(&help);
    let is_said =
        arg.get_long().is_none() || help.contains("several times") || help.contains("more than once");
    let is_repeated = matches!(arg.get_action(), ArgAction::Append);
    let often = if is_repeated && !is_said { " May be given several times." } else { "" };
    let end = if help.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("| {} | {default} | {} | {help}{end}{often} |\n", flag(arg), quoted(variable))
}

fn describe(name: &str, command: &Command, out: &mut String) {
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let about = about.split("First steps:").next().unwrap_or_default();
    let depth = if name.contains(' ') { "###" } else { "##" };
    out.push_str(&format!("\n{depth} {name}\n\n{}\n", about.trim()));
    let own = |arg: &&Arg| !matches!(arg.get_id().as_str(), "help" | "version") && !arg.is_hide_set();
    let rows: String = command.get_arguments().filter(own).map(row).collect();
    if !rows.is_empty() {
        out.push_str(&format!("\n| flag | default | variable | meaning |\n|---|---|---|---|\n{rows}"));
    }
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        describe(&format!("{name} {}", sub.get_name()), sub, out);
    }
}

#[test]
fn every_command_and_flag_is_on_the_page() {
    let mut expected = INTRODUCTION.to_owned();
    for mut program in [
        outrider_certs::cli::Cli::command(),
        outrider_injector::cli::Cli::command(),
        outrider_injector::controller::cli::Cli::command(),
    ] {
        program.build();
        describe(program.get_name(), &program, &mut expected);
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &expected).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == expected, "docs/commands.md is not as the programs are: UPDATE_DOCS=1 writes it");
}
