//! The manifests of `examples/kubernetes`: what a new user applies first has to be taken, by all who look at it.

use std::{collections::BTreeSet, fs, path::PathBuf};

use outrider::config;
use outrider_injector::{
    documents,
    installation::{Installation, NAMESPACE, TRUST_DOMAIN},
    names,
    pod::{self, Context, Existing, Outcome},
    workload,
};
use serde_json::{Value, json};

use super::{
    controller::{
        cluster::Cluster,
        replica::{Replica, stored},
    },
    gateway, policies,
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/kubernetes")
}

/// The manifests, by file.
fn files() -> Vec<(String, Vec<Value>)> {
    let names =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".yaml")).collect();
    names.sort();
    let read = |name: String| {
        let text = file(&name);
        (name, documents::read(&text).unwrap().0)
    };
    names.into_iter().map(read).collect()
}

/// One of the files.
pub(super) fn file(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

/// All objects of the manifests.
pub(super) fn objects() -> Vec<Value> {
    files().into_iter().flat_map(|(_, objects)| objects).collect()
}

#[test]
fn every_pod_of_theirs_is_injected_with_no_word_but_of_exceptions_and_its_sidecar_takes_the_configuration() {
    let installation = Installation::new(NAMESPACE, TRUST_DOMAIN.parse().unwrap(), "registry.example/mesh");
    let mut injected = 0;
    for (name, objects) in files() {
        for mut object in objects {
            workload::each(&mut object, &mut |found| {
                let context =
                    Context { owner: found.owner, existing: Existing::Replace, installation: &installation };
                let Outcome::Injected { pod, warnings } = pod::inject(found.pod, &context).unwrap() else {
                    panic!("{name}: {} is left", found.place)
                };
                // Exceptions are told of, as the page does.
                let is_told = |warning: &String| warning.starts_with("outrider.io/inbound-except-ports: ");
                assert!(warnings.iter().all(is_told), "{name}: {warnings:?}");
                let text = pod.pointer("/metadata/annotations/outrider.io~1config").unwrap();
                config::parse(text.as_str().unwrap(), std::path::Path::new(names::CONFIG_FOLDER)).unwrap();
                injected += 1;
            });
        }
    }
    assert_eq!(injected, 5);
}

#[test]
fn the_page_names_every_file_and_no_other_and_the_dockerfile_makes_every_image() {
    let page = file("README.md");
    let named: BTreeSet<&str> =
        page.split(['(', ')', ' ', '\n']).filter(|word| word.ends_with(".yaml")).collect();
    let named: BTreeSet<&str> =
        named.into_iter().map(|word| word.rsplit_once('/').map_or(word, |(_, name)| name)).collect();
    let files = files();
    assert_eq!(named, files.iter().map(|(name, _)| name.as_str()).collect());
    let dockerfile =
        fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/docker/Dockerfile"))
            .unwrap();
    for (name, objects) in files {
        let text = Value::from(objects).to_string();
        for image in text.split(r#""image":""#).skip(1) {
            let image = image.split(['"', ':']).next().unwrap().rsplit('/').next().unwrap();
            assert!(dockerfile.contains(&format!("AS {image}\n")), "{name}: {image}");
            assert!(page.contains(image), "{name}: {image}");
        }
    }
}

#[tokio::test]
async fn the_mesh_goes_by_every_route_and_policy_of_theirs() {
    let cluster = Cluster::new().await;
    gateway::install(&cluster.server);
    let mut waited_for = Vec::new();
    for (number, mut object) in objects().into_iter().enumerate() {
        let (kind, name) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        match kind {
            // As the API server would.
            "Service" => object["spec"]["clusterIPs"] = json!([format!("10.96.0.{number}")]),
            "HTTPRoute" => waited_for.push((gateway::RESOURCE, name.to_owned())),
            "AuthorizationPolicy" => waited_for.push((policies::AUTHORIZATION, name.to_owned())),
            "PodMonitor" => continue,
            _ => {}
        }
        cluster.server.put(object);
    }
    assert_eq!(waited_for.len(), 5);
    let _replica = Replica::start(&cluster, "one").await;
    for (resource, name) in waited_for {
        let is_good = |object: &Value| {
            let status = &object["status"];
            let conditions = status.pointer("/parents/0/conditions").unwrap_or(&status["conditions"]);
            let all = conditions.as_array().is_some_and(|all| all.iter().all(|one| one["status"] == "True"));
            all && conditions[0]["type"].is_string()
        };
        stored(&cluster, &format!("{name} is accepted"), (resource, "shop", &name), is_good).await;
    }
}
