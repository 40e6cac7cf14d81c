//! What fuzzing found and kept still breaks no promise: the inputs of `tests/corpus/fuzz`, each through its target. The
//! programs that find more are in `tests/fuzz`; `tests/README.md` says how to run them.

mod targets;

use std::{fs, panic, path::PathBuf};

// The targets are compiled there and here, and find it beside themselves in both.
use crate::differential::decoders;
use targets::TARGETS;

/// All inputs together, in bytes.
const MAX_CORPUS_BYTES: u64 = 1_000_000;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/fuzz"))
}

#[test]
fn every_input_of_the_corpus_keeps_what_its_target_promises() {
    let mut wrong = Vec::new();
    let mut bytes = 0;
    for (name, target) in TARGETS {
        let entries = fs::read_dir(folder().join(name)).unwrap_or_else(|_| panic!("no inputs for {name}"));
        let paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        assert!(paths.len() > 3, "{name}: {} inputs", paths.len());
        for path in paths {
            let data = fs::read(&path).unwrap();
            bytes += data.len() as u64;
            if panic::catch_unwind(|| target(&data)).is_err() {
                wrong.push(path.display().to_string());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(bytes < MAX_CORPUS_BYTES, "{bytes} bytes are too many to keep: minimise (tests/README.md)");
}

#[test]
fn every_input_of_the_corpus_is_of_a_target_and_every_target_has_a_program() {
    let names = |folder: PathBuf| {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<_> =
            entries.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let targets = TARGETS.map(|(name, _)| name.to_owned());
    assert_eq!(names(folder()), targets);
    assert_eq!(names(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/fuzz_targets"))), targets);
}
