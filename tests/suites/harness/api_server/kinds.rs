//! The kinds of objects this server knows: those that are built in as far as a mesh needs them, and what a test defines.

use serde_json::{Value, json};

/// One kind of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Empty for the core group.
    pub(crate) group: String,
    pub(crate) version: String,
    /// As in paths: `endpointslices`.
    pub(crate) plural: String,
    pub(crate) kind: String,
    pub(crate) is_namespaced: bool,
    /// Whether `status` is a subresource: a change of the main resource then leaves it alone, and the other way round.
    pub(crate) has_status: bool,
    /// Whether a CustomResourceDefinition made it.
    pub(crate) is_custom: bool,
}

/// Group, version, plural, kind, namespaced, status.
type Row = (&'static str, &'static str, &'static str, &'static str, bool, bool);

const BUILT_IN: &[Row] = &[
    ("", "v1", "namespaces", "Namespace", false, true),
    ("", "v1", "nodes", "Node", false, true),
    ("", "v1", "pods", "Pod", true, true),
    ("", "v1", "services", "Service", true, true),
    ("", "v1", "endpoints", "Endpoints", true, false),
    ("", "v1", "configmaps", "ConfigMap", true, false),
    ("", "v1", "secrets", "Secret", true, false),
    ("", "v1", "serviceaccounts", "ServiceAccount", true, false),
    ("", "v1", "events", "Event", true, false),
    ("events.k8s.io", "v1", "events", "Event", true, false),
    ("apps", "v1", "deployments", "Deployment", true, true),
    ("apps", "v1", "replicasets", "ReplicaSet", true, true),
    ("apps", "v1", "statefulsets", "StatefulSet", true, true),
    ("apps", "v1", "daemonsets", "DaemonSet", true, true),
    ("batch", "v1", "jobs", "Job", true, true),
    ("batch", "v1", "cronjobs", "CronJob", true, true),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true, false),
    ("coordination.k8s.io", "v1", "leases", "Lease", true, false),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true, true),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", true, false),
    ("rbac.authorization.k8s.io", "v1", "roles", "Role", true, false),
    ("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", true, false),
    ("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", false, false),
    ("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", false, false),
    (
        "admissionregistration.k8s.io",
        "v1",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        false,
        false,
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        false,
        false,
    ),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", false, true),
    ("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", false, false),
    ("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", false, false),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", false, false),
];

/// What is built in.
pub(super) fn built_in() -> Vec<Kind> {
    let kind = |&(group, version, plural, kind, is_namespaced, has_status): &Row| Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        kind: kind.to_owned(),
        is_namespaced,
        has_status,
        is_custom: false,
    };
    BUILT_IN.iter().map(kind).collect()
}

impl Kind {
    /// A kind as a CustomResourceDefinition would define it, with `status` as a subresource.
    pub(crate) fn custom(api_version: &str, plural: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').expect("group/version");
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            kind: kind.to_owned(),
            is_namespaced: true,
            has_status: true,
            is_custom: true,
        }
    }

    /// The kinds that a CustomResourceDefinition defines: one for each version that is served.
    pub(super) fn defined_by(definition: &Value) -> Vec<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let spec = &definition["spec"];
        let versions = spec["versions"].as_array().cloned().unwrap_or_default();
        versions
            .iter()
            .filter(|version| version["served"] == true)
            .map(|version| Self {
                group: text(&spec["group"]),
                version: text(&version["name"]),
                plural: text(&spec["names"]["plural"]),
                kind: text(&spec["names"]["kind"]),
                is_namespaced: spec["scope"] == "Namespaced",
                has_status: version.pointer("/subresources/status").is_some(),
                is_custom: true,
            })
            .collect()
    }

    /// `apiVersion` of its objects.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `plural.group`, as messages have it.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `group/plural`, or `plural` in the core group: how tests and the store name it. It has no version, for one object
    /// is seen in all of them.
    pub(crate) fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}/{}", self.group, self.plural) }
    }
}

/// `/version`.
pub(super) fn version(git_version: &str) -> Value {
    let mut numbers = git_version.trim_start_matches('v').split(['.', '-', '+']);
    let (major, minor) = (numbers.next().unwrap_or("1"), numbers.next().unwrap_or("0"));
    json!({
        "major": major, "minor": minor, "gitVersion": git_version, "gitCommit": "0".repeat(40),
        "gitTreeState": "clean", "buildDate": "2026-01-01T00:00:00Z", "goVersion": "go1.24.0", "compiler": "gc",
        "platform": "linux/amd64",
    })
}

/// `/api`, `/apis` and what is under them, or nothing for another path.
pub(super) fn discovery(kinds: &[Kind], segments: &[&str]) -> Option<Value> {
    match segments {
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ["apis"] => {
            let mut names: Vec<_> =
                kinds.iter().map(|kind| &kind.group).filter(|group| !group.is_empty()).collect();
            names.dedup();
            let groups: Vec<_> = names.into_iter().filter_map(|name| group(kinds, name)).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => group(kinds, name),
        ["api", version] => resources(kinds, "", version),
        ["apis", name, version] => resources(kinds, name, version),
        _ => None,
    }
}

fn group(kinds: &[Kind], name: &str) -> Option<Value> {
    let mut versions: Vec<_> =
        kinds.iter().filter(|kind| kind.group == name).map(|kind| &kind.version).collect();
    versions.dedup();
    let version =
        |version: &&String| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<_> = versions.iter().map(version).collect();
    let preferred = versions.first()?.clone();
    Some(json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": versions, "preferredVersion": preferred,
    }))
}

fn resources(kinds: &[Kind], group: &str, version: &str) -> Option<Value> {
    const VERBS: [&str; 8] =
        ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    let found: Vec<_> = kinds.iter().filter(|kind| kind.group == group && kind.version == version).collect();
    let api_version = found.first()?.api_version();
    let one = |kind: &&Kind, suffix: &str, verbs: &[&str]| {
        json!({
            "name": format!("{}{suffix}", kind.plural), "singularName": kind.kind.to_lowercase(),
            "namespaced": kind.is_namespaced, "kind": kind.kind, "verbs": verbs,
        })
    };
    let listed: Vec<_> = found
        .iter()
        .flat_map(|kind| {
            let status = kind.has_status.then(|| one(kind, "/status", &["get", "patch", "update"]));
            [Some(one(kind, "", &VERBS)), status].into_iter().flatten()
        })
        .collect();
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": listed}),
    )
}
