//! Pods of every shape: what `inject` makes of them is as it is written down in `golden/*.injected.*`, and can be taken
//! back. `UPDATE_GOLDEN=1` writes those files anew; read the difference before you commit it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use outrider_injector::{
    documents::{self, Format},
    installation::{Installation, NAMESPACE, TRUST_DOMAIN},
    patch,
    pod::{self, Context, Existing, Outcome},
    workload,
};
use serde_json::Value;

/// The files, each with its documents and how they are written.
fn cases() -> Vec<(PathBuf, Vec<Value>, Format)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.retain(|path| !path.to_string_lossy().contains(".injected."));
    assert!(paths.len() >= 9, "{paths:?}");
    let read = |path: PathBuf| {
        let (documents, format) = documents::read(&fs::read_to_string(&path).unwrap()).unwrap();
        (path, documents, format)
    };
    paths.into_iter().map(read).collect()
}

/// The same for every version, so that a release changes no file.
fn installation() -> Installation {
    let mut installation =
        Installation::new(NAMESPACE, TRUST_DOMAIN.parse().unwrap(), "registry.example/mesh");
    installation.image = "registry.example/mesh/outrider:1".to_owned();
    installation.init_image = "registry.example/mesh/outrider-init:1".to_owned();
    installation
}

/// What became of the pods of some documents, with all warnings.
fn injected(documents: &[Value], existing: Existing) -> (Vec<Value>, Vec<String>) {
    let installation = installation();
    let (mut all, mut told) = (documents.to_vec(), Vec::new());
    for document in &mut all {
        workload::each(document, &mut |found| {
            let context = Context { owner: found.owner, existing, installation: &installation };
            match pod::inject(found.pod, &context).unwrap() {
                Outcome::Injected { pod, warnings } => {
                    *found.pod = pod;
                    told.extend(warnings);
                }
                Outcome::Left(reason) => told.push(format!("{} left: {reason}", found.place)),
            }
        });
    }
    (all, told)
}

fn uninjected(documents: &[Value]) -> Vec<Value> {
    let mut all = documents.to_vec();
    for document in &mut all {
        workload::each(document, &mut |found| *found.pod = pod::uninject(found.pod).unwrap());
    }
    all
}

#[test]
fn what_is_injected_is_as_it_is_written_down() {
    let update = std::env::vars().any(|(name, value)| name == "UPDATE_GOLDEN" && value == "1");
    for (path, documents, format) in cases() {
        let (all, told) = injected(&documents, Existing::Replace);
        let mut text = documents::write(&all, format);
        if format == Format::Yaml {
            let notes: String = told.iter().map(|line| format!("# {line}\n")).collect();
            text = format!("{notes}{text}");
        }
        let extension = path.extension().unwrap().to_string_lossy().into_owned();
        let golden = path.with_extension(format!("injected.{extension}"));
        // The mark names the version; the files do not change with it.
        let text =
            text.replace(&format!("version\\\":\\\"{}", env!("CARGO_PKG_VERSION")), "version\\\":\\\"0");
        if update {
            fs::write(&golden, &text).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert!(expected == text, "{}: not as written down:\n{text}", golden.display());
    }
}

#[test]
fn what_is_injected_can_be_taken_back() {
    for (path, documents, format) in cases() {
        let (all, _) = injected(&documents, Existing::Replace);
        assert_eq!(uninjected(&all), documents, "{}", path.display());
        // Also off the text, as it comes out of a repository.
        let (read, _) = documents::read(&documents::write(&all, format)).unwrap();
        assert_eq!(uninjected(&read), documents, "{}", path.display());
        assert_eq!(uninjected(&documents), documents, "what has no sidecar stays");
    }
}

#[test]
fn twice_is_the_same_as_once_letter_by_letter() {
    for (path, documents, format) in cases() {
        let (once, _) = injected(&documents, Existing::Replace);
        for existing in [Existing::Replace, Existing::Keep] {
            let (twice, _) = injected(&once, existing);
            let place = format!("{} {existing:?}", path.display());
            assert_eq!(documents::write(&once, format), documents::write(&twice, format), "{place}");
        }
    }
}

#[test]
fn the_patch_makes_the_one_of_the_other() {
    for (_, documents, _) in cases() {
        let (all, _) = injected(&documents, Existing::Replace);
        for (from, to) in documents.iter().zip(&all) {
            let patch = patch::diff(from, to);
            let mut applied = from.clone();
            json_patch::patch(&mut applied, &patch).unwrap();
            assert_eq!(applied, *to);
            // As the API server gets it.
            let text = serde_json::to_string(&patch).unwrap();
            let mut applied = from.clone();
            let read: json_patch::Patch = serde_json::from_str(&text).unwrap();
            json_patch::patch(&mut applied, &read).unwrap();
            assert_eq!(applied, *to);
        }
    }
}
