//! Pods that have a sidecar, or should; and labels that say what nobody goes by.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    PodFact,
    gather::{array, text},
};
use crate::{
    denial::quoted,
    names::{CONFIG, INJECT, INJECTED, KUBERNETES_NAMESPACE},
};

/// What was seen of namespaces and then of pods.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// The control plane's namespace.
    own: String,
    /// Namespaces whose pods get a sidecar.
    enabled: BTreeSet<String>,
    pub(super) pods: Vec<PodFact>,
    pub(super) odd: Vec<String>,
    pub(super) unheard: Vec<String>,
}

impl Census {
    /// Of a cluster with the control plane in the namespace `own`.
    pub(super) fn new(own: &str) -> Self {
        Self { own: own.to_owned(), ..Self::default() }
    }

    /// Looks at a namespace.
    pub(super) fn namespace(&mut self, namespace: &Value) {
        let name = text(namespace, "/metadata/name");
        if self.asks(namespace, name, &format!("namespace {name}")) == Some(true) {
            self.enabled.insert(name.to_owned());
        }
    }

    /// Looks at a pod; at namespaces first.
    pub(super) fn pod(&mut self, pod: &Value) {
        let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
        let name = format!("{namespace}/{name}");
        if entry(pod, "labels", INJECTED) == Some("true") {
            let mark = entry(pod, "annotations", INJECTED).unwrap_or_default();
            let mark: Value = serde_json::from_str(mark).unwrap_or_default();
            let version = Some(text(&mark, "/version").to_owned());
            return self.pods.push(PodFact { name, version, has_exceptions: has_exceptions(pod) });
        }
        if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
            return;
        }
        let asks = self.asks(pod, namespace, &format!("pod {name}"));
        if asks.unwrap_or_else(|| self.enabled.contains(namespace)) {
            self.pods.push(PodFact { name, version: None, has_exceptions: false });
        }
    }

    /// Whether something's label asks for a sidecar, or against one, if it says anything that counts.
    fn asks(&mut self, object: &Value, namespace: &str, what: &str) -> Option<bool> {
        match entry(object, "labels", INJECT)? {
            "disabled" => Some(false),
            "enabled" if namespace == self.own || namespace == KUBERNETES_NAMESPACE => {
                self.unheard.push(what.to_owned());
                None
            }
            "enabled" => Some(true),
            other => {
                self.odd.push(format!("{what} ({})", quoted(other)));
                None
            }
        }
    }
}

/// Whether the sidecar's configuration lets callers pass it by.
fn has_exceptions(pod: &Value) -> bool {
    let config = entry(pod, "annotations", CONFIG).unwrap_or_default();
    // Most have none.
    if !config.contains("except_") {
        return false;
    }
    let config: Value = serde_saphyr::from_str(config).unwrap_or_default();
    let keys = ["/intercept/inbound/except_ports", "/intercept/inbound/except_cidrs"];
    keys.iter().any(|key| !array(&config, key).is_empty())
}

/// A label or an annotation.
fn entry<'a>(object: &'a Value, map: &str, name: &str) -> Option<&'a str> {
    object.get("metadata")?.get(map)?.get(name)?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::names::CONTROL_PLANE;

    /// Of `shop` and `kube-system`, which ask for sidecars, and `bank`, which says what nobody goes by.
    fn census() -> Census {
        let mut census = Census::new("outrider");
        for (name, value) in [("shop", "enabled"), ("bank", "true"), ("kube-system", "enabled")] {
            census.namespace(&json!({"metadata": {"name": name, "labels": {INJECT: value}}}));
        }
        census
    }

    fn pod(namespace: &str, labels: &Value, phase: &str) -> Census {
        let annotations = json!({
            INJECTED: json!({"version": "0.0.9"}).to_string(),
            CONFIG: "intercept:\n  outbound: {except_ports: [1]}\n  inbound: {port: 4343}\n",
        });
        let mut census = census();
        census.pod(&json!({
            "metadata": {"namespace": namespace, "name": "p", "labels": labels, "annotations": annotations},
            "status": {"phase": phase},
        }));
        census
    }

    #[test]
    fn pods_that_should_be_in_the_mesh_are_told_from_others() {
        let outside = |namespace: &str| {
            vec![PodFact { name: format!("{namespace}/p"), version: None, has_exceptions: false }]
        };
        for (namespace, labels, phase, expected) in [
            ("shop", json!({}), "Running", outside("shop")),
            ("bank", json!({}), "Running", vec![]),
            ("bank", json!({INJECT: "enabled"}), "Running", outside("bank")),
            ("shop", json!({INJECT: "disabled"}), "Running", vec![]),
            ("shop", json!({}), "Succeeded", vec![]),
            ("shop", json!({CONTROL_PLANE: "ca"}), "Running", outside("shop")),
            ("outrider", json!({CONTROL_PLANE: "ca", INJECT: "disabled"}), "Running", vec![]),
            ("kube-system", json!({}), "Running", vec![]),
        ] {
            assert_eq!(pod(namespace, &labels, phase).pods, expected, "{namespace} {labels}");
        }
        let injected = pod("bank", &json!({INJECTED: "true"}), "Running").pods;
        assert_eq!(injected[0].version.as_deref(), Some("0.0.9"));
    }

    #[test]
    fn labels_that_nobody_goes_by_are_told() {
        let census = pod("bank", &json!({INJECT: "yes"}), "Running");
        assert_eq!(census.odd, ["namespace bank (\"true\")", "pod bank/p (\"yes\")"]);
        assert_eq!(census.unheard, ["namespace kube-system"]);
        let census = pod("outrider", &json!({INJECT: "enabled"}), "Running");
        assert_eq!(census.unheard, ["namespace kube-system", "pod outrider/p"]);
    }

    #[test]
    fn whom_a_sidecar_lets_by_is_seen_in_its_configuration() {
        let with = |config: &str| has_exceptions(&json!({"metadata": {"annotations": {CONFIG: config}}}));
        assert!(with("intercept: {inbound: {except_ports: [9100]}}"));
        assert!(with("intercept: {inbound: {except_cidrs: [10.0.0.0/8]}}"));
        assert!(!with("intercept: {outbound: {except_ports: [3306]}, inbound: {except_ports: []}}"));
        assert!(!with("except_: [") && !with(""));
    }
}
