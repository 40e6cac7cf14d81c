//! Where the pods are in a manifest: in pods, in templates of workloads, in lists of these.
//!
//! Told by group and kind: a `Job` of another group is none of ours, and passes untouched.

use serde_json::Value;

use crate::{json::text, pod::Owner};

/// How deep lists may be in lists.
const MAX_LISTS: usize = 4;

/// Kinds that hold a pod: group, kind, and where the pod is.
const KINDS: [(&str, &str, &str); 9] = [
    ("", "Pod", ""),
    ("", "PodTemplate", "/template"),
    ("", "ReplicationController", "/spec/template"),
    ("apps", "Deployment", "/spec/template"),
    ("apps", "StatefulSet", "/spec/template"),
    ("apps", "DaemonSet", "/spec/template"),
    ("apps", "ReplicaSet", "/spec/template"),
    ("batch", "Job", "/spec/template"),
    ("batch", "CronJob", "/spec/jobTemplate/spec/template"),
];

/// A pod in a manifest.
pub struct Found<'a> {
    /// What it is in, as people name it: `Deployment shop/orders`.
    pub place: String,
    /// What it is a template of; `None` for a pod itself.
    pub owner: Option<Owner>,
    /// The pod, or template.
    pub pod: &'a mut Value,
}

/// Calls `visit` for every pod in a manifest.
pub fn each(manifest: &mut Value, visit: &mut impl FnMut(Found<'_>)) {
    walk(manifest, None, MAX_LISTS, visit);
}

/// `item_of` is what the items of a typed list are, where they do not say it themselves: version and kind.
fn walk(
    manifest: &mut Value,
    item_of: Option<(&str, &str)>,
    lists_left: usize,
    visit: &mut impl FnMut(Found<'_>),
) {
    let own = |key: &str| text(manifest, key).map(str::to_owned);
    let version = own("/apiVersion").or_else(|| item_of.map(|(version, _)| version.to_owned()));
    let kind = own("/kind").or_else(|| item_of.map(|(_, kind)| kind.to_owned()));
    let (Some(version), Some(kind)) = (version, kind) else { return };
    let group = version.split_once('/').map_or("", |(group, _)| group);
    if let Some(item) = kind.strip_suffix("List") {
        let is_ours = item.is_empty() && group.is_empty() || pointer(group, item).is_some();
        let items = manifest.get_mut("items").and_then(Value::as_array_mut);
        if let (true, Some(items), 1..) = (is_ours, items, lists_left) {
            let item_of = (!item.is_empty()).then_some((version.as_str(), item));
            items.iter_mut().for_each(|item| walk(item, item_of, lists_left - 1, visit));
        }
        return;
    }
    let Some(pointer) = pointer(group, &kind) else { return };
    let place = place(manifest, &kind);
    let name = text(manifest, "/metadata/name").or(text(manifest, "/metadata/generateName"));
    let owner =
        (kind != "Pod").then(|| Owner { kind: kind.clone(), name: name.unwrap_or_default().to_owned() });
    if let Some(pod) = manifest.pointer_mut(pointer) {
        visit(Found { place, owner, pod });
    }
}

fn pointer(group: &str, kind: &str) -> Option<&'static str> {
    KINDS.iter().find(|(of, name, _)| *of == group && *name == kind).map(|(_, _, pointer)| *pointer)
}

fn place(manifest: &Value, kind: &str) -> String {
    let name = text(manifest, "/metadata/name").or(text(manifest, "/metadata/generateName"));
    let name = name.unwrap_or("(without a name)");
    match text(manifest, "/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn places(mut manifest: Value) -> Vec<String> {
        let mut found = Vec::new();
        each(&mut manifest, &mut |pod| found.push(pod.place));
        found
    }

    #[test]
    fn every_kind_with_a_pod_is_found_by_its_group() {
        let template = json!({"spec": {}});
        for (version, kind) in [
            ("v1", "ReplicationController"),
            ("apps/v1", "Deployment"),
            ("apps/v1", "StatefulSet"),
            ("apps/v1", "DaemonSet"),
            ("apps/v1", "ReplicaSet"),
            ("batch/v1", "Job"),
        ] {
            let manifest = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a", "namespace": "n"},
                "spec": {"template": template}});
            assert_eq!(places(manifest), [format!("{kind} n/a")]);
            let other = json!({"apiVersion": "batch.volcano.sh/v1alpha1", "kind": kind, "spec": {"template": template}});
            assert!(places(other).is_empty());
        }
        let cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {}}}}});
        assert_eq!(places(cron), ["CronJob (without a name)"]);
        assert_eq!(places(json!({"apiVersion": "v1", "kind": "Pod", "spec": {}})).len(), 1);
        assert!(places(json!({"kind": "Pod"})).is_empty() && places(json!(5)).is_empty());
    }

    #[test]
    fn lists_are_looked_into_also_where_items_do_not_say_what_they_are() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [pod, {"apiVersion": "v1", "kind": "List", "items": [pod]}]});
        assert_eq!(places(list), ["Pod p", "Pod p"]);
        let typed = json!({"apiVersion": "apps/v1", "kind": "DeploymentList",
            "items": [{"metadata": {"name": "d"}, "spec": {"template": {}}}]});
        assert_eq!(places(typed), ["Deployment d"]);
    }
}
