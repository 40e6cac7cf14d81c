//! What the manifests of the control plane say of its programs.

use std::process::Command;

use serde_json::Value;

use crate::processes::process::program;

/// Each container of the control plane: its Deployment's name and itself.
fn containers() -> Vec<(String, Value)> {
    let deployments = super::manifests().into_iter().filter(|object| object["kind"] == "Deployment");
    let all = deployments.map(|object| {
        let container = object["spec"]["template"]["spec"]["containers"][0].clone();
        (object["metadata"]["name"].as_str().unwrap().to_owned(), container)
    });
    all.collect()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Which program an image runs, as the Dockerfile has it, with the image's arguments.
fn program_of(container: &Value) -> String {
    let path = texts(&container["command"]).first().cloned().unwrap_or_else(|| {
        let image = container["image"].as_str().unwrap();
        image.rsplit('/').next().unwrap().split(':').next().unwrap().to_owned()
    });
    path.rsplit('/').next().unwrap().to_owned()
}

#[test]
fn every_program_takes_the_arguments_that_it_is_given() {
    let containers = containers();
    assert_eq!(containers.len(), 3);
    for (name, container) in containers {
        // Before anything is done, all arguments are read; and without a cluster nothing can be done.
        let output = Command::new(program(&program_of(&container)))
            .args(texts(&container["args"]))
            .env("POD_NAME", "pod-0")
            .env("POD_NAMESPACE", "outrider")
            .env("KUBECONFIG", "/nowhere")
            .env_remove("KUBERNETES_SERVICE_HOST")
            .output()
            .unwrap();
        // 2 is what clap ends with when it does not understand.
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {errors}");
        assert!(!errors.is_empty(), "{name}");
    }
}

#[test]
fn every_part_of_the_control_plane_is_restricted_and_bounded() {
    for (name, container) in containers() {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(context["capabilities"]["drop"][0], "ALL", "{name}");
        for kind in ["requests", "limits"] {
            assert!(container["resources"][kind]["memory"].is_string(), "{name}");
        }
        for probe in ["livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], "http-metrics", "{name}");
        }
    }
}
