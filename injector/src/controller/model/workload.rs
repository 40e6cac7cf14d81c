//! What holds for a pod's own sidecar: what its ports carry, by the Services that have it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::{
    cluster::{Cluster, Occupant},
    objects::{ObjectKey, Protocol},
};

/// Of a pod that no Service has.
pub const NOTHING: &str = r#"{"ports":[]}"#;

/// What is told of a pod's ports with who may call it; `None`: whoever may connect.
#[must_use]
pub fn with_callers(cluster: &Cluster, pod: &ObjectKey, ports: &str) -> String {
    let labels = cluster.pod(pod).map(|found| &*found.labels).unwrap_or_default();
    let said = cluster.policies().book().authorization_of(&pod.namespace, labels);
    match (said, ports.strip_suffix('}')) {
        (Some(said), Some(open)) => format!("{open},\"authorization\":{said}}}"),
        (_, _) => ports.to_owned(),
    }
}

/// The text of `Workload.inbound` for a pod, as far as ports go: entries of `intercept.inbound.ports[]`, as JSON. A port of which two Services
/// say different things is left to be found out. `None`: no Service has the pod.
#[must_use]
pub fn inbound(cluster: &Cluster, pod: &ObjectKey) -> Option<String> {
    let mut said: BTreeMap<u16, BTreeSet<Protocol>> = BTreeMap::new();
    let mut is_listed = false;
    let addresses = cluster.pod(pod).map(|found| found.addresses.as_slice()).unwrap_or_default();
    let mut services: Vec<&ObjectKey> =
        addresses.iter().flat_map(|address| cluster.listed_at(*address)).collect();
    services.sort();
    services.dedup();
    for key in services.into_iter().filter(|key| key.namespace == pod.namespace) {
        let Some(service) = cluster.service(key) else { continue };
        for slice in cluster.slices_of(key) {
            let mut endpoints = slice.endpoints.iter().filter(|endpoint| endpoint.pod.is_some());
            let is_of = endpoints.any(|endpoint| {
                matches!(cluster.occupant(&key.namespace, endpoint), Occupant::Pod(found, _) if found == pod)
            });
            if !is_of {
                continue;
            }
            is_listed = true;
            for at in &slice.ports {
                let Some(port) = service.ports.iter().find(|port| port.name == at.name) else { continue };
                if port.protocol != Protocol::Detect {
                    said.entry(at.port).or_default().insert(port.protocol);
                }
            }
        }
    }
    let entry = |(port, said): (&u16, &BTreeSet<Protocol>)| {
        let protocol = said.first().filter(|_| said.len() == 1)?;
        let mut entry = Map::new();
        entry.insert("port".to_owned(), json!(port));
        entry.insert("protocol".to_owned(), json!(protocol.as_str()));
        if *protocol == Protocol::Http2 {
            entry.insert("app_protocol".to_owned(), json!("http2"));
        }
        Some(Json::Object(entry))
    };
    is_listed.then(|| json!({ "ports": said.iter().filter_map(entry).collect::<Vec<_>>() }).to_string())
}
