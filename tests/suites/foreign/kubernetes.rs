//! Manifests before those who know: Helm's own engine, and the schemas of Kubernetes.

use std::path::Path;

use outrider_injector::install::{self, Settings};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::{
    claim,
    programs::{Call, text},
};

const HELM: &[&str] = &["python3", "python:helm_python", "python:yaml"];
const SCHEMAS: &[&str] = &["python3", "python:kubernetes_validate", "python:yaml"];
/// The oldest and the newest that is supported.
const VERSIONS: [&str; 2] = ["1.29", "1.37"];

fn chart() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/outrider").to_string_lossy().into_owned()
}

/// What `outrider-injector install` prints, as objects.
fn installed(namespace: &str, values: &Value) -> Vec<Value> {
    let settings =
        Settings { namespace: namespace.to_owned(), values: Some(values.to_string()), set: Vec::new() };
    outrider_injector::documents::read(&install::manifests(&settings).unwrap()).unwrap().0
}

/// In one order, whoever made them.
fn sorted(mut objects: Vec<Value>) -> Vec<Value> {
    let key = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]);
    objects.sort_by_key(key);
    objects
}

#[test]
fn helm_makes_the_same_of_the_chart_as_install() {
    claim(HELM, async || {
        for (namespace, values) in [
            ("outrider", json!({"namespace": {"create": true}})),
            (
                "mesh-2",
                json!({"namespace": {"create": false}, "replicas": 1, "podDisruptionBudgets": false, "networkPolicies": false}),
            ),
            (
                "outrider",
                json!({
                    "namespace": {"create": true}, "trustDomain": "prod.example", "logLevel": "debug",
                    "clusterDomain": "example.internal", "clusterCidrs": "10.244.0.0/16,10.96.0.0/12",
                    "image": {
                        "registry": "localhost:5000/mesh", "tag": "1e3", "pullPolicy": "Always",
                        "pullSecrets": [{"name": "regcred"}],
                    },
                    "sidecar": {
                        "tracesEndpoint": "http://[fd00::1]:4317", "traceSamplePercent": 12.5,
                        "forbiddenAnnotations": "inbound-except-ports,uid",
                    },
                    "priorityClassName": "system-cluster-critical",
                    "resources": {"ca": {"limits": {"memory": "1Gi"}}},
                    "nodeSelector": {"disk": "ssd", "n": "1", "kubernetes.io/os": null},
                    "tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 7}],
                }),
            ),
        ] {
            let rendered = text("kubernetes.py", &["helm", &chart(), namespace, &values.to_string()]).await;
            let helms: Vec<Value> = serde_json::from_str(&rendered).unwrap();
            let ours = sorted(installed(namespace, &values));
            for (ours, helms) in ours.iter().zip(&sorted(helms.clone())) {
                assert_eq!(ours, helms, "{values}");
            }
            assert_eq!(ours.len(), helms.len(), "{values}");
        }
    });
}

#[test]
fn helm_has_nothing_against_the_chart_and_refuses_what_install_refuses() {
    claim(HELM, async || {
        let lint: Value = serde_json::from_str(&text("kubernetes.py", &["lint", &chart()]).await).unwrap();
        assert_eq!(lint["errors"], json!([]));
        assert!(lint["messages"].as_array().unwrap().iter().all(|told| told["severity"] == 1), "{lint}");
        for values in [
            json!({"repliccas": 2}),
            json!({"replicas": "many"}),
            json!({"replicas": 0}),
            json!({"image": {"tga": "1"}}),
            json!({"trustDomain": "Not A Domain"}),
            json!({"image": {"tag": "a b"}}),
            json!({"image": {"pullSecrets": "regcred"}}),
            json!({"logLevel": false}),
        ] {
            let told = text("kubernetes.py", &["helm-refuses", &chart(), &values.to_string()]).await;
            assert!(!told.trim().is_empty(), "{values}");
            let settings = Settings {
                namespace: "outrider".to_owned(),
                values: Some(values.to_string()),
                set: Vec::new(),
            };
            install::manifests(&settings).unwrap_err();
        }
    });
}

#[test]
fn the_control_planes_manifests_are_what_kubernetes_takes() {
    claim(SCHEMAS, async || {
        let objects = installed("outrider", &json!({}));
        assert_eq!(invalid(&objects).await, "");
        // It is these schemas that speak.
        let mut wrong = objects;
        wrong[0]["metadata"]["lables"] = json!({});
        assert!(invalid(&wrong).await.contains("lables"));
    });
}

/// What the schemas say of these objects.
async fn invalid(objects: &[Value]) -> String {
    let arguments = ["validate"].into_iter().chain(VERSIONS);
    let mut command = Call::new("kubernetes.py", arguments).command();
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(Value::from(objects.to_vec()).to_string().as_bytes()).await.unwrap();
    drop(input);
    let output = crate::harness::soon("the validator", child.wait_with_output()).await.unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}
