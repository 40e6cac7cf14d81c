//! The command line of `outrider-injector` from outside.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::{fs, path::Path};

use assert_cmd::Command;
use outrider_injector::documents;
use serde_json::json;

const POD: &str =
    "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: app, image: 'app:1'}]}\n";

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn injector(arguments: &[&str], stdin: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrider-injector"));
    let output = command.args(arguments).write_stdin(stdin).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn a_stream_of_documents_goes_in_and_comes_out_again() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: None, ports: [{port: 80}]}\n";
    let stream = format!("# a comment\n---\n{service}---\n{POD}---\n---\n{POD}");
    let ran = injector(&["inject"], &stream);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let (before, _) = documents::read(&stream).unwrap();
    let (after, _) = documents::read(&ran.stdout).unwrap();
    assert_eq!((after.len(), &after[0]), (3, &before[0]), "what is none of ours passes as it is");
    assert_eq!(after[1]["spec"]["initContainers"][1]["name"], "outrider");

    let back = injector(&["uninject"], &ran.stdout);
    assert_eq!(back.code, Some(0), "{}", back.stderr);
    assert_eq!(documents::read(&back.stdout).unwrap().0, before);
}

#[test]
fn files_are_read_one_after_the_other_and_json_stays_json() {
    let folder = tempfile::tempdir().unwrap();
    let (yaml, json) = (folder.path().join("a.yaml"), folder.path().join("b.json"));
    fs::write(&yaml, POD).unwrap();
    fs::write(&json, json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []}}).to_string())
        .unwrap();
    let (yaml, json) = (yaml.to_str().unwrap(), json.to_str().unwrap());
    let ran = injector(&["inject", "-f", json], "");
    assert!(ran.stdout.starts_with("{\n"), "{}", ran.stdout);
    let ran = injector(&["inject", "-f", yaml, "-f", json], "");
    assert_eq!(documents::read(&ran.stdout).unwrap().0.len(), 2, "{}", ran.stderr);
    let ran = injector(&["inject", "-f", yaml, "--output", "json"], "");
    assert!(ran.stdout.starts_with("{\n"), "{}", ran.stdout);
    let ran = injector(&["inject", "-f", "/no/such/file"], "");
    assert!(ran.code == Some(1) && ran.stderr.contains("/no/such/file cannot be read"), "{}", ran.stderr);
}

#[test]
fn if_one_pod_is_refused_every_reason_is_told_and_nothing_is_written() {
    let bad = POD.replace("spec: {", "spec: {hostNetwork: true, ").replace(
        "metadata: {name: web}",
        "metadata: {name: bad, namespace: shop, annotations: {outrider.io/drain-time: soon}}",
    );
    let worse = POD.replace("name: web", "name: worse, labels: {outrider.io/inject: 'yes'}");
    let ran = injector(&["inject"], &format!("{POD}---\n{bad}---\n{worse}"));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    for words in [
        "Pod shop/bad: ",
        "outrider.io/drain-time",
        "Pod worse: label outrider.io/inject",
        "nothing was written",
    ] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
}

#[test]
fn what_is_left_alone_is_said() {
    let out = POD.replace("name: web", "name: web, labels: {outrider.io/inject: disabled}");
    let ran = injector(&["inject"], &out);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stderr.contains("Pod web: left as it is: its label says so"), "{}", ran.stderr);
    assert_eq!(documents::read(&ran.stdout).unwrap(), documents::read(&out).unwrap());
    let ran = injector(&["inject"], "kind: ConfigMap\n");
    assert!(ran.code == Some(0) && ran.stderr.contains("no pod"), "{}", ran.stderr);
}

#[test]
fn a_kubernetes_without_sidecars_is_refused_with_the_reason() {
    let ran = injector(&["inject", "--kubernetes-version", "v1.28.9"], POD);
    assert!(ran.code == Some(1) && ran.stdout.is_empty(), "{}", ran.stdout);
    assert!(ran.stderr.contains("1.28 is too old") && ran.stderr.contains("1.29 or newer"), "{}", ran.stderr);
    assert_eq!(injector(&["inject", "--kubernetes-version", "1.29"], POD).code, Some(0));
    assert_eq!(injector(&["inject", "--kubernetes-version", "new"], POD).code, Some(1));
}

#[test]
fn the_installation_can_be_another() {
    let arguments = [
        "inject",
        "--namespace",
        "mesh",
        "--trust-domain",
        "prod.example",
        "--registry",
        "r.example/o",
        "--default",
        "drain-time=40s",
        "--default",
        "outrider.io/log-level=warn",
    ];
    let ran = injector(&arguments, POD);
    for words in [
        "outrider-ca.mesh.svc:4350",
        "spiffe://prod.example/ns/mesh/sa/outrider-controller",
        concat!("r.example/o/outrider-init:", env!("CARGO_PKG_VERSION")),
        "\"40s\"",
        "- warn\n",
    ] {
        assert!(ran.stdout.contains(words), "{words}: {}{}", ran.stdout, ran.stderr);
    }
    let ran = injector(&["inject", "--default", "drain-time=soon"], POD);
    assert!(
        ran.code == Some(1) && ran.stderr.contains("--default") && ran.stderr.contains("allowed"),
        "{}",
        ran.stderr
    );
    let ran = injector(&["inject", "--namespace", "No"], POD);
    assert!(ran.code == Some(1) && ran.stderr.contains("--namespace"), "{}", ran.stderr);
}

#[test]
fn broken_manifests_are_told_with_their_place() {
    let ran = injector(&["inject"], "a: [1\nb: 2\n");
    assert!(ran.code == Some(1) && ran.stderr.contains("standard input: is no YAML"), "{}", ran.stderr);
    let ran = injector(&["inject"], "{\"a\": ");
    assert!(ran.code == Some(1) && ran.stderr.contains("standard input: is no JSON"), "{}", ran.stderr);
}

#[test]
fn the_control_planes_manifests_are_printed_with_what_is_set() {
    let ran = injector(&["install", "--namespace", "mesh", "--set", "trustDomain=prod.example"], "");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let (objects, _) = documents::read(&ran.stdout).unwrap();
    assert_eq!((&objects[0]["kind"], &objects[0]["metadata"]["name"]), (&json!("Namespace"), &json!("mesh")));
    assert!(ran.stdout.contains("--trust-domain=prod.example"));
    let ran = injector(&["install", "--set", "trustdomain=prod.example"], "");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(ran.stderr.contains("trustdomain: there is no such key; known here: "), "{}", ran.stderr);
    let ran = injector(&["install", "--values", "nowhere.yaml"], "");
    assert!(ran.code == Some(1) && ran.stderr.contains("nowhere.yaml cannot be read"), "{}", ran.stderr);
}

#[test]
fn without_a_way_to_a_cluster_check_says_where_it_looked() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrider-injector"));
    command.arg("check").env("KUBECONFIG", "/nowhere/kubeconfig").env_remove("KUBERNETES_SERVICE_HOST");
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("KUBECONFIG"), "{told}");
}

#[test]
fn help_and_version_are_there() {
    let ran = injector(&["--help"], "");
    assert_eq!(ran.code, Some(0));
    for command in ["inject", "uninject", "install", "check", "docs/kubernetes.md"] {
        assert!(ran.stdout.contains(command), "{}", ran.stdout);
    }
    let ran = injector(&["--version"], "");
    assert_eq!(
        (ran.code, ran.stdout.trim()),
        (Some(0), concat!("outrider-injector ", env!("CARGO_PKG_VERSION")))
    );
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubernetes.md").is_file());
}

#[test]
fn a_wrong_call_is_told_apart() {
    for arguments in [&["inject", "--nonsense"][..], &["fly"], &["inject", "--default", "x"], &[]] {
        let ran = injector(arguments, "");
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
    }
}
