//! Who may import whom in `sidecar/src`, module by module.
//!
//! Bytes and facts each go one way, and so do imports: a module sees those of a lower rank, and the data side never
//! sees the control side. An exception stands in the table with its reason, never in the code.

use std::collections::BTreeSet;

use super::{
    assert_none,
    source::{RustFile, line_of, production},
};

/// Which side of the design a module is on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Seen by both.
    Shared,
    /// Never sees the control side.
    Data,
    /// Never sees the data side.
    Control,
    /// Sees everything below it.
    Top,
}

use Side::{Control, Data, Shared, Top};

/// Every module of the sidecar, with its rank: it may import lower ranks only.
const RANKS: &[(&str, u8, Side)] = &[
    // Nouns and seams.
    ("model", 0, Shared),
    ("canonical", 0, Shared),
    ("clock", 0, Shared),
    ("net", 0, Shared),
    // Decisions: pure, `now` and `rng` are arguments.
    ("authz", 1, Shared),
    ("route", 1, Shared),
    ("balance", 1, Shared),
    ("resilience", 1, Shared),
    ("headers", 1, Shared),
    ("detect", 1, Shared),
    ("proxy_protocol", 1, Shared),
    // Operations that both sides use.
    ("buffer", 2, Shared),
    ("drain", 2, Shared),
    ("explain", 2, Shared),
    ("readiness", 2, Shared),
    ("telemetry", 2, Shared),
    // Stages of the pipeline: effects.
    ("accept", 3, Data),
    ("tls", 3, Data),
    ("connect", 3, Data),
    ("relay", 3, Data),
    // Sources of facts.
    ("config", 3, Control),
    ("discovery", 3, Control),
    ("identity", 3, Control),
    ("intercept", 3, Control),
    ("memory", 3, Control),
    // Where each side is joined.
    ("pipeline", 4, Data),
    ("health", 4, Data),
    ("publish", 4, Control),
    // Operators' door; reads what ranks 0 to 2 hold, by `CEILINGS`.
    ("admin", 5, Shared),
    // Composition.
    ("app", 6, Top),
    ("process", 7, Top),
    ("cli", 8, Top),
    ("allocator", 8, Top),
    ("main", 9, Top),
];

/// Modules that may see less than their rank allows: none above this one.
const CEILINGS: &[(&str, u8)] = &[("admin", 2)];

/// What the table forbids and is right nevertheless.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("authz", "headers", "rules and what reads heads take the same names, and the same types, for one"),
    ("connect", "tls", "a connection to a peer is made by its handshake"),
    ("connect", "relay", "hyper's client is generic over the body it sends: relay's, that can be sent again"),
    ("model", "canonical", "how carefully a path is to be spelled is said by the rules about it"),
    ("route", "headers", "a cookie is read by one reader, whoever asks for it"),
    ("telemetry", "readiness", "what is waited for is a metric"),
    ("telemetry", "drain", "what is in flight is a metric"),
];

/// Crates that do I/O or start tasks: a decision never needs them.
const EFFECT_CRATES: [&str; 6] = ["tokio", "hyper", "hyper_util", "tokio_rustls", "socket2", "axum"];

/// Effect crates in ranks 0 and 1 that are right nevertheless.
const PURITY_EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "sidecar/src/model/snapshot.rs",
        "tokio",
        "`watch` announces a version to the control side; nothing is polled",
    ),
    (
        "sidecar/src/model/outlier.rs",
        "tokio",
        "`Notify` wakes who waits for an endpoint that fell silent; nothing is polled",
    ),
    (
        "sidecar/src/model/wanted.rs",
        "tokio",
        "`Notify` wakes who asks for what the data side wants; nothing is polled",
    ),
    ("sidecar/src/clock.rs", "tokio", "its interval clock can be paused, which simulations do"),
    ("sidecar/src/net/", "tokio", "the seam is what does I/O"),
    ("sidecar/src/net/", "socket2", "the seam is what does I/O"),
];

fn rank(module: &str) -> Option<(u8, Side)> {
    RANKS.iter().find(|(name, ..)| *name == module).map(|(_, rank, side)| (*rank, *side))
}

fn may_import(importer: &str, imported: &str) -> bool {
    let (Some((above, side)), Some((below, below_side))) = (rank(importer), rank(imported)) else {
        return false;
    };
    let is_across = matches!((side, below_side), (Data, Control) | (Control, Data));
    let is_under_ceiling =
        CEILINGS.iter().find(|(name, _)| *name == importer).is_none_or(|(_, ceiling)| below <= *ceiling);
    importer == imported
        || (below < above && !is_across && is_under_ceiling)
        || EXCEPTIONS.iter().any(|(from, to, _)| (*from, *to) == (importer, imported))
}

/// The top-level module of a file.
fn module_of(path: &str) -> &str {
    let path = path.trim_start_matches("sidecar/src/");
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

/// What a file imports from its own crate: module and place, by `crate::` paths and by `super::` paths that leave the
/// file's own module.
fn imports(file: &RustFile) -> Vec<(String, usize)> {
    let path = file.path.trim_start_matches("sidecar/src/").trim_end_matches(".rs");
    let depth = path.split('/').filter(|part| *part != "mod").count();
    // The program's own files see the library by its name.
    let mut found = targets(&file.code, "crate::");
    found.extend(targets(&file.code, "outrider::"));
    if depth > 0 {
        found.extend(targets(&file.code, &"super::".repeat(depth)));
    }
    found
}

/// The first names behind `prefix`, be it one (`crate::model::…`) or a group (`crate::{model::…, net}`).
fn targets(code: &str, prefix: &str) -> Vec<(String, usize)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let word = |text: &str| text.trim_start().chars().take_while(|c| is_word(*c)).collect::<String>();
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code.get(..at).unwrap();
        if before.ends_with(is_word) || before.ends_with(':') {
            continue;
        }
        let start = at + prefix.len();
        let rest = code.get(start..).unwrap();
        if !rest.starts_with('{') {
            found.push((word(rest), at));
            continue;
        }
        let mut depth = 0;
        for (offset, c) in rest.char_indices() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if depth == 0 {
                break;
            }
            if depth == 1 && matches!(c, '{' | ',') {
                let item = rest.get(offset + 1..).unwrap();
                let spaces = item.len() - item.trim_start().len();
                found.push((word(item), start + offset + 1 + spaces));
            }
        }
    }
    found.retain(|(name, _)| !name.is_empty() && name != "super");
    found
}

fn fault(file: &RustFile, at: usize, what: &str) -> String {
    let number = line_of(&file.code, at);
    let line = file.code.lines().nth(number - 1).unwrap_or_default().trim();
    format!("{}:{number}: {what}: {line}", file.path)
}

#[test]
fn imports_go_one_way() {
    let mut faults = Vec::new();
    for file in production(&["sidecar"]) {
        let importer = module_of(&file.path);
        for (imported, at) in imports(&file) {
            // What has no rank is an item and not a module: every module has one.
            let is_module = rank(&imported).is_some();
            if importer != "lib" && is_module && !may_import(importer, &imported) {
                faults.push(fault(&file, at, &format!("`{importer}` may not import `{imported}`")));
            }
        }
    }
    assert_none("The table in tests/suites/architecture/imports.rs forbids:", &faults);
}

#[test]
fn every_module_has_a_rank_and_every_rank_a_module() {
    let files = production(&["sidecar"]);
    let there: BTreeSet<_> = files.iter().map(|file| module_of(&file.path)).filter(|m| *m != "lib").collect();
    let ranked: BTreeSet<_> = RANKS.iter().map(|(name, ..)| *name).collect();
    let odd: Vec<_> = there.symmetric_difference(&ranked).map(|name| (*name).to_owned()).collect();
    assert_none("Either not in the table of ranks, or no longer in sidecar/src:", &odd);
}

#[test]
fn every_exception_is_needed() {
    let files = production(&["sidecar"]);
    let mut faults = Vec::new();
    for (from, to, reason) in EXCEPTIONS {
        let is_used = files.iter().any(|file| {
            module_of(&file.path) == *from && imports(file).iter().any(|(imported, _)| imported == to)
        });
        if !is_used || reason.is_empty() {
            faults.push(format!("{from} → {to}"));
        }
    }
    assert_none("Exceptions that nothing needs any more:", &faults);
}

#[test]
fn nouns_and_decisions_do_no_io() {
    let mut faults = Vec::new();
    for file in production(&["sidecar"]) {
        if rank(module_of(&file.path)).is_none_or(|(rank, _)| rank > 1) {
            continue;
        }
        for name in EFFECT_CRATES {
            let is_excepted =
                |(path, allowed, _): &(&str, &str, &str)| file.path.starts_with(path) && *allowed == name;
            if PURITY_EXCEPTIONS.iter().any(is_excepted) {
                continue;
            }
            let prefix = format!("{name}::");
            let used = file.code.match_indices(&prefix).find(|(at, _)| {
                !file.code.get(..*at).unwrap().ends_with(|c: char| c.is_alphanumeric() || c == '_')
            });
            if let Some((at, _)) = used {
                faults.push(fault(&file, at, &format!("no `{name}` where nothing does I/O")));
            }
        }
    }
    assert_none("Ranks 0 and 1 decide; effects are elsewhere:", &faults);
}

#[test]
fn groups_and_paths_are_read() {
    let code = "use crate::{model::{a, b}, net,\n  drain::Phase};\nlet x = crate::route::find(mycrate::y); super::super::tls";
    let found: Vec<_> = targets(code, "crate::").into_iter().map(|(name, _)| name).collect();
    assert_eq!(found, ["model", "net", "drain", "route"]);
    let above: Vec<_> = targets(code, "super::super::").into_iter().map(|(name, _)| name).collect();
    assert_eq!(above, ["tls"]);
    assert!(may_import("pipeline", "connect") && !may_import("connect", "pipeline"));
    assert!(
        !may_import("publish", "tls") && !may_import("tls", "accept") && !may_import("admin", "identity")
    );
}
