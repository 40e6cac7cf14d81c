//! The mesh in Kubernetes: pods that get a sidecar, who gets which identity, what sidecars are told of services.

mod check;
mod controller;
mod discovery;
mod examples;
mod gateway;
mod identity;
mod inject;
mod install;
mod mesh;
mod policies;
mod probes;
mod rehearsal;
mod webhook;

use outrider_injector::{
    documents,
    install::{Settings, manifests as print},
};
use serde_json::Value;

use crate::harness::api_server::ApiServer;

/// The manifests of the control plane, as they are printed.
fn manifests() -> Vec<Value> {
    let settings = Settings { namespace: "outrider".to_owned(), ..Settings::default() };
    documents::read(&print(&settings).unwrap()).unwrap().0
}

/// Gives each part of the control plane what the manifests give it, and nothing else.
fn grant(api: &ApiServer) {
    let is_rbac = |object: &Value| object["apiVersion"] == "rbac.authorization.k8s.io/v1";
    for object in manifests().into_iter().filter(is_rbac) {
        api.put(object);
    }
}
