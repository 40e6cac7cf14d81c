//! `docs/kubernetes.md` says what the code does: every annotation with its type, default and range.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::{fs, path::Path};

use outrider_injector::{names, settings::KEYS};

fn doc() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubernetes.md")).unwrap()
}

/// The cells of the rows that begin with an annotation's name, without back-ticks.
fn rows() -> Vec<Vec<String>> {
    let doc = doc();
    let section = doc.split("\n## ").find(|section| section.starts_with("Annotations")).unwrap();
    let is_row = |line: &&str| line.starts_with("| `");
    let cells = |line: &str| {
        line.trim_matches('|').split(" | ").map(|cell| cell.replace('`', "").trim().to_owned()).collect()
    };
    section.lines().filter(is_row).map(cells).collect()
}

#[test]
fn every_annotation_is_documented_as_it_is() {
    let expected: Vec<Vec<String>> = KEYS
        .iter()
        .map(|key| [key.name, key.kind, key.default, key.range].map(|text| text.replace('`', "")).to_vec())
        .collect();
    let found: Vec<Vec<String>> = rows().into_iter().map(|row| row[..4].to_vec()).collect();
    assert_eq!(found, expected);
    assert!(
        rows().iter().all(|row| row.len() == 5 && row[4].len() > 10),
        "every row says what the key means"
    );
}

#[test]
fn labels_ports_and_volumes_are_named() {
    let doc = doc();
    let names = [
        names::INJECT,
        names::INJECTED,
        names::CONTROL_PLANE,
        names::CONFIG,
        names::BUNDLE_CONFIG_MAP,
        names::TOKEN_AUDIENCE,
    ];
    for name in names.into_iter().chain(names::VOLUMES) {
        assert!(doc.contains(&format!("`{name}`")), "{name}");
    }
    for port in names::PORTS {
        assert!(doc.contains(&port.to_string()), "{port}");
    }
}
