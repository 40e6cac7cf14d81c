//! What the tree may hold: its folders, its words, its links.

use std::{fs, path::Path};

use super::{
    assert_none, root,
    source::{code_only, files, shown},
};

/// What stands at the top, and nothing else.
const TOP: &[&str] = &[
    ".cargo",
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "bench",
    "certs",
    "clippy.toml",
    "deny.toml",
    "deploy", // what others install from: the Helm chart and the images
    "docs",
    "examples",
    "injector",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "sidecar",
    "tests",
];

/// Files that may say `unsafe`, and why.
const UNSAFE: &[(&str, &str)] = &[("sidecar/src/allocator.rs", "options of the allocator are C functions")];

/// Words that are a note to somebody, not a sentence about the code. One with a condition (`(until …)`) may stay.
const NOTES: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Paths of somebody's machine.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

/// Texts of the repository with their lines: everything that is UTF-8, without the lock file and the licence.
fn texts() -> Vec<(String, String)> {
    files(&root())
        .into_iter()
        .filter(|path| !path.ends_with("Cargo.lock") && !path.ends_with("LICENSE"))
        .filter_map(|path| Some((shown(&path), fs::read_to_string(&path).ok()?)))
        .collect()
}

fn is_in_words(line: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (line.get(..at).unwrap(), line.get(at + word.len()..).unwrap());
        !before.ends_with(is_word) && !after.starts_with(is_word)
    })
}

#[test]
fn the_top_of_the_tree_is_as_listed() {
    let ignored = [".git", "target"];
    let mut faults = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if !ignored.contains(&name.as_str()) && !TOP.contains(&name.as_str()) {
            faults.push(name);
        }
    }
    assert_none("Not in the list of what stands at the top:", &faults);
}

#[test]
fn unsafe_code_is_only_where_it_is_listed() {
    let mut faults = Vec::new();
    for (path, text) in texts().iter().filter(|(path, _)| path.ends_with(".rs")) {
        if UNSAFE.iter().any(|(allowed, reason)| allowed == path && !reason.is_empty()) {
            continue;
        }
        for (number, line) in code_only(text).lines().enumerate() {
            if is_in_words(line, "unsafe") {
                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none("Unsafe code outside the list:", &faults);
}

#[test]
fn no_note_without_a_condition_and_no_machine_path() {
    let mut faults = Vec::new();
    for (path, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            let is_note = NOTES.iter().any(|word| is_in_words(line, word) && !line.contains("(until "));
            if is_note || MACHINE_PATHS.iter().any(|word| line.contains(word)) {
                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none("A note to somebody, or a path of somebody's machine:", &faults);
}

/// What `tests/README.md` says of a suite stands in a row that begins with its name.
#[test]
fn every_suite_has_its_row() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let readme = read("tests/README.md");
    let names = |line: &str| line.split('|').nth(1).unwrap().replace(['`', ' '], "");
    let rows: Vec<String> = readme.lines().filter(|line| line.starts_with("| `")).map(names).collect();
    let known: Vec<&str> = rows.iter().flat_map(|row| row.split(',')).collect();
    let main = read("tests/suites/main.rs");
    let suites: Vec<&str> =
        main.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).collect();
    assert!(suites.contains(&"architecture"), "the suites are not found any more: {suites:?}");
    let missing = suites.into_iter().filter(|name| *name != "harness" && !known.contains(name));
    assert_none("Without a row in tests/README.md:", &missing.map(str::to_owned).collect::<Vec<_>>());
}

/// Targets of `[text](target)` in Markdown, code blocks left out.
fn links(text: &str) -> Vec<String> {
    let mut is_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        found.extend(targets.map(str::to_owned));
    }
    found
}

#[test]
fn relative_links_of_the_documents_lead_somewhere() {
    let mut faults = Vec::new();
    for (path, text) in texts().iter().filter(|(path, _)| path.ends_with(".md")) {
        let folder = root().join(Path::new(path).parent().unwrap());
        for link in links(text) {
            let target = link.split('#').next().unwrap_or_default();
            let is_external = link.contains("://") || link.starts_with("mailto:");
            if !is_external && !target.is_empty() && !folder.join(target).exists() {
                faults.push(format!("{path}: {link}"));
            }
        }
    }
    assert_none("Links that lead nowhere:", &faults);
}

/// Paths in the code map of a document: `a/b.rs` or `a/` in backquotes, from the root or from `sidecar/src` and the
/// like, as the heading says.
#[test]
fn the_architecture_names_only_files_that_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let bases = ["", "sidecar/src", "certs/src", "injector/src", "examples/src", "tests", "docs"];
    let is_path = |word: &&str| {
        let is_plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        is_plain
            && word.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c == '.')
            && (word.ends_with(".rs") || word.ends_with(".toml") || (word.ends_with('/') && word.len() > 1))
    };
    let faults: Vec<_> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(is_path)
        .filter(|word| !bases.iter().any(|base| root().join(base).join(word).exists()))
        .map(str::to_owned)
        .collect();
    assert_none("ARCHITECTURE.md names files that are not there:", &faults);
}

#[test]
fn the_architecture_stays_a_page_to_read() {
    let lines = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap().lines().count();
    assert!(lines <= 250, "{lines} lines, at most 250");
}
