//! What the service of a pod is called in metrics, traces and logs.

use serde_json::Value;

use super::Owner;
use crate::json::{items, text};

/// Longest name that the sidecar takes.
const MAX_NAME: usize = 128;
/// Digits that a `CronJob` puts behind its name at least, for the minute.
const MIN_MINUTE_DIGITS: usize = 8;

/// The name of the workload that the pod is of, without hashes; else its label `app.kubernetes.io/name`; else its own.
pub(super) fn name(pod: &Value, owner: Option<&Owner>) -> String {
    let own = || text(pod, "/metadata/name").or(text(pod, "/metadata/generateName"));
    let label = || text(pod, "/metadata/labels/app.kubernetes.io~1name").map(str::to_owned);
    let found = match owner {
        Some(owner) => Some(plain(pod, &owner.kind, &owner.name)),
        None => owner_of(pod),
    };
    let found = found.filter(|name| !name.is_empty()).or_else(label).or_else(|| own().map(str::to_owned));
    let name = found.unwrap_or_default();
    let name: String =
        name.trim_end_matches('-').chars().filter(char::is_ascii_graphic).take(MAX_NAME).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

/// The controller that owns the pod.
fn owner_of(pod: &Value) -> Option<String> {
    let owners = items(pod, "/metadata/ownerReferences");
    let is_controller = |owner: &&Value| owner.get("controller").and_then(Value::as_bool) == Some(true);
    let owner = owners.iter().find(is_controller).or(owners.first())?;
    let (kind, name) = (text(owner, "/kind")?, text(owner, "/name")?);
    // The kubelet's own pods are "owned" by their node.
    (kind != "Node").then(|| plain(pod, kind, name))
}

/// A workload's name without what its own owner put behind it.
fn plain(pod: &Value, kind: &str, name: &str) -> String {
    let hash = text(pod, "/metadata/labels/pod-template-hash").unwrap_or_default();
    let plain = match kind {
        "ReplicaSet" if !hash.is_empty() => name.strip_suffix(hash).and_then(|name| name.strip_suffix('-')),
        "Job" => name.rsplit_once('-').and_then(|(plain, minute)| {
            let is_minute = minute.len() >= MIN_MINUTE_DIGITS && minute.bytes().all(|b| b.is_ascii_digit());
            is_minute.then_some(plain)
        }),
        _ => None,
    };
    plain.filter(|plain| !plain.is_empty()).unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hashes_of_owners_are_no_part_of_the_name() {
        let pod = |labels: Value, kind: &str, owner: &str| {
            json!({"metadata": {"generateName": "x-", "labels": labels,
                "ownerReferences": [{"kind": "Other", "name": "o"}, {"kind": kind, "name": owner, "controller": true}]}})
        };
        let hash = json!({"pod-template-hash": "7d4b9c6f5d", "app.kubernetes.io/name": "label"});
        assert_eq!(name(&pod(hash.clone(), "ReplicaSet", "orders-7d4b9c6f5d"), None), "orders");
        assert_eq!(name(&pod(json!({}), "ReplicaSet", "orders-7d4b9c6f5d"), None), "orders-7d4b9c6f5d");
        assert_eq!(name(&pod(hash, "StatefulSet", "db"), None), "db");
        assert_eq!(name(&pod(json!({}), "Job", "backup-29012345"), None), "backup");
        assert_eq!(name(&pod(json!({}), "Job", "backup-2024"), None), "backup-2024");
    }

    #[test]
    fn without_an_owner_the_label_and_then_the_pod_say_it() {
        let label = json!({"metadata": {"name": "p", "labels": {"app.kubernetes.io/name": "label"}}});
        assert_eq!(name(&label, None), "label");
        let node = json!({"metadata": {"name": "p", "ownerReferences": [{"kind": "Node", "name": "n"}]}});
        assert_eq!(name(&node, None), "p");
        assert_eq!(name(&json!({"metadata": {"generateName": "web-"}}), None), "web");
        assert_eq!(name(&json!({}), None), "unnamed");
        let owner = Owner { kind: "Deployment".to_owned(), name: "orders".to_owned() };
        assert_eq!(name(&label, Some(&owner)), "orders");
    }
}
