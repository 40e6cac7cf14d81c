//! `outrider-injector check` before a cluster.

use std::time::{Duration, SystemTime};

use outrider_injector::check::{self, Facts, Seen, Severity};
use serde_json::{Value, json};

use crate::harness::{TestCa, api_server::ApiServer};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A cluster with an installation, all of whose replicas are there.
async fn installed() -> ApiServer {
    let api = ApiServer::start().await;
    for mut object in super::manifests() {
        if object["kind"] == "Deployment" {
            object["status"] = json!({"availableReplicas": 2});
        }
        if object["kind"] == "MutatingWebhookConfiguration" {
            // Nothing serves it here.
            object["webhooks"] = json!([]);
        }
        api.put(object);
    }
    api
}

async fn facts(api: &ApiServer) -> Facts {
    check::gather(&api.client().await, "outrider", SystemTime::now()).await
}

fn told(facts: &Facts) -> Vec<String> {
    let found = check::findings(facts, VERSION);
    found.iter().filter(|found| found.severity > Severity::Fine).map(|found| found.what.clone()).collect()
}

fn bundle(ca: &TestCa) -> Value {
    let pem = outrider_certs::pem::certificate(&ca.root());
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "outrider", "name": "outrider-trust-bundle"}, "data": {"bundle.pem": pem}})
}

fn pod(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": name, "labels": labels}, "spec": {"containers": []}})
}

#[tokio::test]
async fn a_cluster_without_an_installation_is_told_how_to_get_one() {
    let api = ApiServer::start().await;
    assert_eq!(told(&facts(&api).await), ["nothing is installed in outrider"]);
    api.set_version("v1.28.9");
    assert!(told(&facts(&api).await)[0].contains("1.28 has no native sidecars"));
}

#[tokio::test]
async fn the_roles_of_the_manifests_grant_what_is_asked_for_and_what_is_missing_is_told() {
    let api = installed().await;
    let seen = facts(&api).await;
    assert!(seen.unseen.is_empty(), "{:?}", seen.unseen);
    assert!(seen.rights.len() > 10 && seen.rights.iter().all(|right| right.is_allowed), "{:?}", seen.rights);
    api.remove("rbac.authorization.k8s.io/clusterrolebindings", "", "outrider-ca");
    let told = told(&facts(&api).await);
    assert!(told.iter().any(|told| told == "outrider-ca may not create tokenreviews"), "{told:?}");
}

#[tokio::test]
async fn roots_webhook_and_pods_are_looked_at() {
    let api = installed().await;
    api.put(bundle(&TestCa::new()));
    api.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"outrider.io/inject": "enabled"}}}));
    let mut old = pod("old", &json!({"outrider.io/injected": "true"}));
    old["metadata"]["annotations"] = json!({"outrider.io/injected": json!({"version": "0.0.1"}).to_string()});
    api.put(old);
    api.put(pod("missed", &json!({})));
    api.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bank", "labels": {"outrider.io/inject": "true"}}}));
    api.put(pod("apart", &json!({"outrider.io/inject": "disabled"})));
    // More than one answer of the API server holds.
    for number in 0..1_100 {
        api.put(pod(&format!("over-{number}"), &json!({"outrider.io/inject": "disabled"})));
    }
    let seen = facts(&api).await;
    let Seen::There(roots) = &seen.roots else { panic!("{:?}", seen.roots) };
    let left = roots[0].duration_since(SystemTime::now()).unwrap();
    assert!(left > Duration::from_secs(3600));
    let told = told(&seen);
    for words in [
        "should have a sidecar and have none: shop/missed",
        "1 pod(s) have a sidecar of another version: shop/old",
        "say what nobody goes by: namespace bank (\"true\")",
        "the webhook has no roots",
        "a pod on trial with outrider.io/inject=enabled got no sidecar",
    ] {
        assert!(told.iter().any(|told| told.contains(words)), "{words}: {told:?}");
    }
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_is_told_in_the_api_servers_words() {
    let api = ApiServer::start().await;
    for object in super::manifests() {
        api.put(object);
    }
    let told = told(&facts(&api).await);
    let refused = told.iter().find(|told| told.starts_with("a pod on trial was refused")).unwrap();
    assert!(
        refused.contains("failed calling webhook") && refused.contains("outrider-injector.outrider.svc"),
        "{refused}"
    );
    assert!(told.iter().any(|told| told.contains("has no caBundle")), "{told:?}");
    assert!(told.iter().any(|told| told == "outrider-ca: none of 2 replicas is available"), "{told:?}");
}

#[tokio::test]
async fn what_may_not_be_looked_at_is_told_and_the_rest_is_seen() {
    let api = installed().await;
    let token = api.service_account_token("shop", "reader");
    let seen = check::gather(&api.client_as(&token).await, "outrider", SystemTime::now()).await;
    assert_eq!(seen.version, Some((1, 33)));
    assert!(!seen.unseen.is_empty());
    assert!(seen.unseen.iter().all(|unseen| unseen.contains("forbidden")), "{:?}", seen.unseen);
    let told = told(&seen);
    assert!(told.iter().all(|told| told.starts_with("not seen: ") || told.contains("not known")), "{told:?}");
}
