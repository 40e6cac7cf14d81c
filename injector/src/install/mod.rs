//! The manifests of the control plane: the Helm chart of `deploy/helm/outrider`, rendered without Helm.
//!
//! There is one source: what `outrider-injector install` prints and what `helm install` sends are the same templates with
//! the same values.

mod template;
mod values;

use outrider_certs::spiffe_id::TrustDomain;
use serde_json::{Value, json};

use crate::names::is_label;

const DEFAULTS: &str = include_str!("../../../deploy/helm/outrider/values.yaml");

/// In the order in which they are applied.
const TEMPLATES: [(&str, &str); 6] = [
    ("namespace.yaml", include_str!("../../../deploy/helm/outrider/templates/namespace.yaml")),
    ("crds.yaml", include_str!("../../../deploy/helm/outrider/templates/crds.yaml")),
    ("ca.yaml", include_str!("../../../deploy/helm/outrider/templates/ca.yaml")),
    ("controller.yaml", include_str!("../../../deploy/helm/outrider/templates/controller.yaml")),
    ("injector.yaml", include_str!("../../../deploy/helm/outrider/templates/injector.yaml")),
    ("webhook.yaml", include_str!("../../../deploy/helm/outrider/templates/webhook.yaml")),
];

/// What is set of an installation.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The namespace of the control plane.
    pub namespace: String,
    /// A file of values, as Helm takes it.
    pub values: Option<String>,
    /// Single values, each as `key=value`, over those of the file.
    pub set: Vec<String>,
}

/// The manifests, as documents of YAML in the order in which they are applied.
///
/// # Errors
/// What is wrong with a value, with its key.
pub fn manifests(settings: &Settings) -> Result<String, String> {
    let mut values: Value = serde_saphyr::from_str(DEFAULTS).map_err(|error| error.to_string())?;
    // Helm makes the namespace itself; nobody does here.
    values::lay(&mut values, json!({"namespace": {"create": true}}), "")?;
    if let Some(file) = &settings.values {
        let file = serde_saphyr::from_str(file).map_err(|error| error.to_string())?;
        values::lay(&mut values, file, "")?;
    }
    for single in &settings.set {
        let over = values::single(single, &values)?;
        values::lay(&mut values, over, "")?;
    }
    check(&settings.namespace, &values)?;
    let scope = json!({"Values": values, "Release": {"Namespace": settings.namespace}});
    let rendered = TEMPLATES.iter().map(|(name, text)| template::render(name, text, &scope));
    let rendered = rendered.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let documents = rendered.iter().filter(|text| !text.trim().is_empty()).map(|text| text.trim_end());
    Ok(format!("---\n{}\n", documents.collect::<Vec<_>>().join("\n---\n")))
}

/// What the cluster would refuse only later, or not at all.
fn check(namespace: &str, values: &Value) -> Result<(), String> {
    if !is_label(namespace) {
        return Err(format!("{namespace:?} is no name of a namespace: lower-case letters, digits and '-'"));
    }
    let text = |pointer: &str| values.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    text("/trustDomain").parse::<TrustDomain>().map_err(|error| format!("trustDomain: {error}"))?;
    let validity = text("/certificates/validity");
    humantime::parse_duration(validity)
        .map_err(|error| format!("certificates.validity: {validity:?}: {error}"))?;
    if !values
        .pointer("/replicas")
        .and_then(Value::as_u64)
        .is_some_and(|replicas| (1..=16).contains(&replicas))
    {
        return Err("replicas: 1 to 16".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(set: &[&str]) -> Settings {
        let set = set.iter().copied().map(str::to_owned).collect();
        Settings { namespace: "outrider".to_owned(), values: None, set }
    }

    fn kinds(text: &str) -> Vec<String> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
        documents.iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_namespace_comes_first_and_the_webhook_last() {
        let kinds = kinds(&manifests(&settings(&[])).unwrap());
        assert_eq!(kinds.first().unwrap(), "Namespace");
        assert_eq!(kinds.last().unwrap(), "MutatingWebhookConfiguration");
        assert_eq!(kinds.iter().filter(|kind| *kind == "Deployment").count(), 3);
    }

    #[test]
    fn what_is_switched_off_is_not_there() {
        let off = ["podDisruptionBudgets=false", "networkPolicies=false", "namespace.create=false"];
        let kinds = kinds(&manifests(&settings(&off)).unwrap());
        for kind in ["PodDisruptionBudget", "NetworkPolicy", "Namespace"] {
            assert!(!kinds.iter().any(|there| there == kind), "{kind}");
        }
    }

    #[test]
    fn what_is_set_of_the_control_plane_and_of_sidecars_gets_there() {
        let set = [
            "image.pullSecrets=[{name: regcred}]",
            "logLevel=off",
            "clusterDomain=example.internal",
            "clusterCidrs=10.244.0.0/16,fd00::/112",
            "sidecar.tracesEndpoint=http://otel.observability.svc:4317",
            "sidecar.traceSamplePercent=12.5",
            "sidecar.forbiddenAnnotations=inbound-except-ports,uid",
        ];
        let text = manifests(&settings(&set)).unwrap();
        let all: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let deployments: Vec<_> = all.iter().filter(|object| object["kind"] == "Deployment").collect();
        assert_eq!(deployments.len(), 3);
        for deployment in deployments {
            let pod = &deployment["spec"]["template"]["spec"];
            assert_eq!(pod["imagePullSecrets"], json!([{"name": "regcred"}]));
            let arguments = pod["containers"][0]["args"].as_array().unwrap();
            let has = |argument: &str| arguments.iter().any(|there| there == argument);
            assert!(has("--log=off"));
            let name = deployment["metadata"]["name"].as_str().unwrap();
            for argument in ["--cluster-domain=example.internal", "--cluster-cidrs=10.244.0.0/16,fd00::/112"]
            {
                assert_eq!(has(argument), name == "outrider-controller", "{argument}");
            }
            for argument in [
                "--default=traces-endpoint=http://otel.observability.svc:4317",
                "--default=trace-sample-percent=12.5",
                "--default=access-log=none",
                "--forbid-annotation=inbound-except-ports,uid",
            ] {
                assert_eq!(has(argument), name == "outrider-injector", "{argument}");
            }
        }
        let text = manifests(&settings(&[])).unwrap();
        for absent in ["imagePullSecrets", "--forbid-annotation", "--cluster-cidrs"] {
            assert!(!text.contains(absent), "{absent}");
        }
    }

    #[test]
    fn values_that_cannot_be_are_told_with_their_key() {
        for (set, told) in [
            ("trustDomain=Not A Domain", "trustDomain: "),
            ("certificates.validity=soon", "certificates.validity: \"soon\""),
            ("replicas=0", "replicas: 1 to 16"),
            ("image.tag='a b'", "ca.yaml, line "),
            ("image.pullSecrets=regcred", "image.pullSecrets: \"regcred\" does not fit; a list"),
            ("repliccas=2", "repliccas: there is no such key"),
        ] {
            let fault = manifests(&settings(&[set])).unwrap_err();
            assert!(fault.starts_with(told), "{fault}");
        }
        let odd = Settings { namespace: "Out Rider".to_owned(), ..Settings::default() };
        assert!(manifests(&odd).unwrap_err().contains("is no name of a namespace"));
    }

    #[test]
    fn the_charts_version_is_this_programs() {
        let chart = include_str!("../../../deploy/helm/outrider/Chart.yaml");
        let version = env!("CARGO_PKG_VERSION");
        for line in [format!("version: {version}"), format!("appVersion: {version}")] {
            assert!(chart.lines().any(|there| there == line), "{line}");
        }
        assert!(DEFAULTS.contains(&format!("tag: \"{version}\"")));
    }
}
