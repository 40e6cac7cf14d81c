//! Routes of the Gateway API between an API server and sidecars: what is told of them, and what is written to them.

mod routes;
mod statuses;

use serde_json::{Value, json};

use super::controller::cluster::{Cluster, meshed};
use crate::harness::api_server::{ApiServer, Kind};

/// As the API server of the tests calls it.
pub(super) const RESOURCE: &str = "gateway.networking.k8s.io/httproutes";

/// Defines the kinds of the Gateway API.
pub(super) fn install(api: &ApiServer) {
    for (version, plural, kind) in [
        ("v1", "httproutes", "HTTPRoute"),
        ("v1", "grpcroutes", "GRPCRoute"),
        ("v1beta1", "referencegrants", "ReferenceGrant"),
    ] {
        api.define(Kind::custom(&format!("gateway.networking.k8s.io/{version}"), plural, kind));
    }
}

/// A cluster with the Gateway API, `orders` and `orders-v2` in `shop`, and `far` in `far`.
async fn canary() -> Cluster {
    let cluster = Cluster::with_orders().await;
    install(&cluster.server);
    cluster.service("shop", "orders-v2", "10.96.0.2");
    let pods = [meshed("orders-v2-a", "10.1.0.3")];
    cluster.pods("shop", &pods);
    cluster.slice("shop", "orders-v2", &pods);
    cluster.service("far", "far", "10.96.0.3");
    cluster
}

/// An HTTPRoute for `orders` in `shop` with one rule to these: namespace, name and weight.
fn split(cluster: &Cluster, namespace: &str, name: &str, backends: &[(&str, &str, u32)]) {
    let backends: Vec<Value> = backends
        .iter()
        .map(|(namespace, name, weight)| {
            json!({"namespace": namespace, "name": name, "port": 80, "weight": weight})
        })
        .collect();
    http_route(cluster, namespace, name, json!([{"backendRefs": backends}]));
}

/// An HTTPRoute for `orders` in `shop` with these rules.
fn http_route(cluster: &Cluster, namespace: &str, name: &str, rules: Value) {
    cluster.server.put(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "namespace": "shop", "name": "orders"}],
            "rules": rules,
        },
    }));
}
