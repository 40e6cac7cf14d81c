//! The control plane, as the chart has it, in pods of its own.

use std::sync::Arc;

use outrider_injector::{
    documents,
    install::{Settings, manifests},
};
use serde_json::Value;

use super::{cluster::Cluster, pod::Pod};
use crate::processes::until;

/// Where the webhook's Service leads.
const WEBHOOK: u16 = 4380;

/// Its manifests, with one replica of each part.
fn control_plane() -> String {
    let settings = Settings {
        namespace: "outrider".to_owned(),
        set: vec!["replicas=1".to_owned()],
        ..Settings::default()
    };
    manifests(&settings).expect("manifests")
}

/// A cluster with the mesh, and the namespace `shop`, whose pods get sidecars.
pub(super) struct Mesh {
    pub(super) cluster: Arc<Cluster>,
    pub(super) controller: Arc<Pod>,
}

impl Mesh {
    pub(super) async fn start() -> Self {
        let cluster = Cluster::start().await;
        let settings = Settings {
            namespace: "outrider".to_owned(),
            set: vec!["replicas=1".to_owned()],
            ..Settings::default()
        };
        let pods = cluster.apply(&manifests(&settings).expect("manifests")).await;
        let find = |name: &str| {
            let found = pods.iter().find(|pod| pod.name.starts_with(name));
            Arc::clone(found.unwrap_or_else(|| panic!("no {name}")))
        };
        let injector = find("outrider-injector");
        cluster.api.route_service("outrider", "outrider-injector", injector.at(WEBHOOK));
        for pod in &pods {
            pod.ready().await;
        }
        until("the webhook has its roots", async || {
            let found = cluster.api.object(
                "admissionregistration.k8s.io/mutatingwebhookconfigurations",
                "",
                "outrider-injector",
            );
            found.is_some_and(|found| found["webhooks"][0]["clientConfig"]["caBundle"].is_string())
        })
        .await;
        let mesh = Self { controller: find("outrider-controller"), cluster };
        mesh.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {outrider.io/inject: enabled}}}")
            .await;
        mesh
    }

    /// A controller in place of one that was deleted.
    pub(super) async fn start_controller(&self) {
        let all = documents::read(&control_plane()).expect("manifests").0;
        let is_it = |object: &&Value| {
            object["kind"] == "Deployment" && object["metadata"]["name"] == "outrider-controller"
        };
        let deployment = all.iter().find(is_it).expect("it is there");
        for pod in self.apply(&deployment.to_string()).await {
            pod.ready().await;
        }
    }

    /// Applies manifests; returns the pods that come of them.
    pub(super) async fn apply(&self, manifests: &str) -> Vec<Arc<Pod>> {
        self.cluster.apply(manifests).await
    }
}
