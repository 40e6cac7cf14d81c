//! What is injected is what the API server and the sidecar take.
//!
//! The files in `injector/tests/golden` are those that the injector's own tests hold it to.

use std::{fs, path::PathBuf, process::Command};

use outrider::config;
use outrider_injector::{documents, names, workload};
use serde_json::Value;

/// The files with sidecars.
fn injected() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../injector/tests/golden");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_string_lossy().contains(".injected."));
    paths.sort();
    assert!(paths.len() >= 9, "{paths:?}");
    paths
}

/// The pods of a file.
fn pods(path: &PathBuf) -> Vec<Value> {
    let (mut all, _) = documents::read(&fs::read_to_string(path).unwrap()).unwrap();
    let mut pods = Vec::new();
    for document in &mut all {
        workload::each(document, &mut |found| pods.push(found.pod.clone()));
    }
    pods
}

#[test]
fn the_sidecar_takes_every_configuration_that_is_injected() {
    let mut checked = 0;
    for path in injected() {
        for pod in pods(&path) {
            let Some(text) = pod.pointer("/metadata/annotations/outrider.io~1config") else { continue };
            let text = text.as_str().unwrap();
            let folder = std::path::Path::new(names::CONFIG_FOLDER);
            let settings = config::parse(text, folder);
            settings.unwrap_or_else(|error| panic!("{}: {error}\n{text}", path.display()));
            checked += 1;
        }
    }
    assert!(checked >= 12, "{checked}");
}

/// A Python with `kubernetes-validate`, as `.ci/foreign` installs it; says so if there is none.
fn python() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let python = target.join("foreign/venv/bin/python");
    let run = Command::new(&python).args(["-c", "import kubernetes_validate"]).output();
    if run.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let reason =
        "SKIPPED: no schema was looked at, since kubernetes-validate is not there; .ci/foreign installs it";
    println!("{reason}");
    let is_required = std::env::var("OUTRIDER_REQUIRE_FOREIGN").is_ok_and(|value| value == "1");
    assert!(!is_required, "{reason}, and OUTRIDER_REQUIRE_FOREIGN=1");
    None
}

/// Reads documents as JSON off standard input and prints what the schema of each says, strictly: unknown fields are
/// faults.
const VALIDATE: &str = "
import json, sys, kubernetes_validate
faults = 0
for document in json.load(sys.stdin):
    for version in sys.argv[1:]:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except Exception as error:
            faults += 1
            print(version, document['kind'], document.get('metadata', {}).get('name'), str(error)[:2000])
sys.exit(1 if faults else 0)
";

/// Documents as the schemas know them: lists are their items, and what the tests have put in from the future is not
/// there.
fn known(path: &PathBuf) -> Vec<Value> {
    let (all, _) = documents::read(&fs::read_to_string(path).unwrap()).unwrap();
    let mut flat = Vec::new();
    let mut rest: Vec<(Value, Option<(String, String)>)> = all.into_iter().map(|one| (one, None)).collect();
    while let Some((mut one, of)) = rest.pop() {
        if let Some((version, kind)) = of.filter(|_| one.get("kind").is_none()) {
            one["apiVersion"] = version.into();
            one["kind"] = kind.into();
        }
        let kind = one["kind"].as_str().unwrap().to_owned();
        if let Some(item) = kind.strip_suffix("List") {
            let of =
                (!item.is_empty()).then(|| (one["apiVersion"].as_str().unwrap().to_owned(), item.to_owned()));
            rest.extend(one["items"].as_array().unwrap().iter().map(|item| (item.clone(), of.clone())));
        } else {
            forget_the_future(&mut one);
            flat.push(one);
        }
    }
    flat
}

fn forget_the_future(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|key, value| !key.starts_with("future") && !value.is_null());
            object.values_mut().for_each(forget_the_future);
        }
        Value::Array(list) => list.iter_mut().for_each(forget_the_future),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn schemas_of_the_oldest_and_the_newest_kubernetes_know_every_field_that_is_injected() {
    use std::io::Write as _;
    let Some(python) = python() else { return };
    let mut all: Vec<Value> = injected().iter().flat_map(known).collect();
    // Kinds of others are in the schemas of others.
    let is_known = |object: &Value| {
        let version = object["apiVersion"].as_str().unwrap();
        !version.contains('.') || version.contains(".k8s.io/") && !version.starts_with("gateway.")
    };
    all.extend(super::examples::objects().into_iter().filter(is_known));
    assert!(all.len() >= 30, "{}", all.len());
    let mut child = Command::new(python)
        .args(["-c", VALIDATE, "1.29", "1.37"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(Value::from(all).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
