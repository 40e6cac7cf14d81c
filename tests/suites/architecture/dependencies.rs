//! Dependencies: each has its reason, its user, and nothing that `deny.toml` bans.
//!
//! `cargo deny` checks more (licences, the graph of features) and is not everywhere at hand; what must hold on every
//! run is read here from the same file.

use std::{fs, process::Command};

use super::{assert_none, root};

/// Programs that would be a second of their kind if they were there twice, in different versions.
const SINGLE: [&str; 9] =
    ["rustls", "rustls-webpki", "tokio-rustls", "aws-lc-rs", "hyper", "h2", "http", "tokio", "tonic"];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The lines of `[workspace.dependencies]` that name a crate from a registry: its name and the line.
fn declared(manifest: &str) -> Vec<(String, String)> {
    manifest
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| line.contains(" = ") && !line.starts_with('#') && !line.contains("path = "))
        .filter_map(|line| Some((line.split_once(" = ")?.0.to_owned(), line.to_owned())))
        .collect()
}

/// Name and version of every package that is compiled here.
fn linked() -> Vec<(String, String)> {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let arguments = ["tree", "--workspace", "--prefix", "none", "--locked", "--offline"];
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut packages: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(" v")?;
            Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
        })
        .collect();
    packages.sort();
    packages.dedup();
    packages
}

/// Bans of `deny.toml`: a name, and below which version; `None` bans all.
fn bans(deny: &str) -> Vec<(String, Option<String>)> {
    deny.lines()
        .filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next())
        .map(|ban| match ban.split_once(":<") {
            Some((name, below)) => (name.to_owned(), Some(below.to_owned())),
            None => (ban.to_owned(), None),
        })
        .collect()
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let manifest = read("Cargo.toml");
    let declared = declared(&manifest);
    assert!(declared.len() > 20, "the manifest was not understood");
    let silent: Vec<_> = declared
        .into_iter()
        .filter(|(_, line)| line.rsplit_once(" # ").is_none_or(|(_, reason)| reason.trim().is_empty()))
        .map(|(_, line)| line)
        .collect();
    assert_none("Dependencies without a reason behind them:", &silent);
}

#[test]
fn every_dependency_has_a_user() {
    let manifests: Vec<_> = ["sidecar", "certs", "injector", "examples", "tests"]
        .map(|name| read(&format!("{name}/Cargo.toml")))
        .into();
    let unused: Vec<_> = declared(&read("Cargo.toml"))
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| {
            let uses = |line: &str| {
                line.starts_with(&format!("{name}.workspace"))
                    || line.starts_with(&format!("{name} = {{ workspace"))
            };
            !manifests.iter().any(|manifest| manifest.lines().any(uses))
        })
        .collect();
    assert_none("Dependencies that no member uses:", &unused);
}

#[test]
fn nothing_banned_is_linked_and_nothing_that_must_be_single_is_double() {
    let packages = linked();
    let bans = bans(&read("deny.toml"));
    assert!(packages.len() > 100 && bans.len() > 10, "packages: {}, bans: {}", packages.len(), bans.len());
    let mut faults = Vec::new();
    for (name, version) in &packages {
        let is_banned = bans.iter().any(|(banned, below)| {
            banned == name && below.as_ref().is_none_or(|below| numbers(version) < numbers(below))
        });
        if is_banned {
            faults.push(format!("{name} {version} is banned by deny.toml"));
        }
    }
    for single in SINGLE {
        let versions: Vec<_> =
            packages.iter().filter(|(name, _)| name == single).map(|(_, v)| v.as_str()).collect();
        if versions.len() != 1 {
            faults.push(format!("{single} is there in {} versions: {}", versions.len(), versions.join(", ")));
        }
    }
    assert_none("Dependencies:", &faults);
}

#[test]
fn every_package_comes_from_crates_io() {
    let from = "registry+https://github.com/rust-lang/crates.io-index";
    let foreign: Vec<_> = read("Cargo.lock")
        .lines()
        .filter(|line| line.starts_with("source = ") && !line.contains(from))
        .map(str::to_owned)
        .collect();
    assert_none("Packages from elsewhere:", &foreign);
}
