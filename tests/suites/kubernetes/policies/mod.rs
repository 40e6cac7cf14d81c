//! Policies as objects of the cluster, and what becomes of them at sidecars.

mod allowed;
mod statuses;
mod told;

use serde_json::{Value, json};

use super::controller::cluster::Cluster;
use crate::harness::api_server::ApiServer;

const TRAFFIC: &str = "outrider.io/trafficpolicies";
pub(super) const AUTHORIZATION: &str = "outrider.io/authorizationpolicies";

/// Defines both kinds, as the chart does.
pub(super) fn install(cluster: &Cluster) {
    define(&cluster.server);
}

/// The same at an API server.
pub(super) fn define(api: &ApiServer) {
    let is_definition = |object: &Value| object["kind"] == "CustomResourceDefinition";
    let definitions: Vec<Value> = super::manifests().into_iter().filter(is_definition).collect();
    assert_eq!(definitions.len(), 2);
    definitions.into_iter().for_each(|definition| drop(api.put(definition)));
}

/// A cluster with `orders` in `shop`.
async fn cluster() -> Cluster {
    Cluster::with_orders().await
}

/// A TrafficPolicy for `orders` of that namespace.
fn traffic(cluster: &Cluster, namespace: &str, name: &str, settings: &Value) {
    let mut spec = json!({"targetRefs": [{"group": "", "kind": "Service", "name": "orders"}]});
    spec.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    put(cluster, "TrafficPolicy", (namespace, name), &spec);
}

/// A policy, as the API server would store it: whatever has no status keeps that.
fn put(cluster: &Cluster, kind: &str, (namespace, name): (&str, &str), spec: &Value) {
    let resource = if kind == "TrafficPolicy" { TRAFFIC } else { AUTHORIZATION };
    let before = cluster.server.object(resource, namespace, name).unwrap_or_default();
    let mut policy = json!({
        "apiVersion": "outrider.io/v1alpha1", "kind": kind,
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    });
    if before["status"].is_object() {
        policy["status"] = before["status"].clone();
    }
    cluster.server.put(policy);
}
