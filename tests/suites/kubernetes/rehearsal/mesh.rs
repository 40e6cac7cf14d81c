//! The control plane, as the chart has it, in pods of its own.

use std::sync::Arc;

use outrider_injector::{
    documents,
    install::{Settings, manifests},
};
use serde_json::Value;

use super::{cluster::Cluster, pod::Pod};
use crate::processes::until;

/// The parts of the control plane.
pub(super) const PARTS: [&str; 3] = ["outrider-ca", "outrider-controller", "outrider-injector"];
/// Where the webhook's Service leads.
const WEBHOOK: u16 = 4380;

/// Its manifests, with so many replicas of each part.
fn control_plane(replicas: u8) -> String {
    let set = vec![format!("replicas={replicas}")];
    manifests(&Settings { namespace: "outrider".to_owned(), set, ..Settings::default() }).expect("manifests")
}

/// A cluster with the mesh, and the namespace `shop`, whose pods get sidecars.
pub(super) struct Mesh {
    pub(super) cluster: Arc<Cluster>,
    /// The control plane, in the order of [`PARTS`]; replicas beside each other.
    pub(super) parts: Vec<Arc<Pod>>,
}

impl Mesh {
    /// With one replica of each part.
    pub(super) async fn start() -> Self {
        Self::of_replicas(1).await
    }

    pub(super) async fn of_replicas(count: u8) -> Self {
        let cluster = Cluster::start().await;
        let pods = cluster.apply(&control_plane(count)).await;
        let find = |name: &&str| pods.iter().filter(|pod| pod.name.starts_with(*name)).cloned().collect();
        let parts: Vec<Vec<_>> = PARTS.iter().map(find).collect();
        assert!(parts.iter().all(|replicas| replicas.len() == usize::from(count)));
        let mesh = Self { parts: parts.concat(), cluster };
        mesh.is_up(&mesh.parts).await;
        mesh.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {outrider.io/inject: enabled}}}")
            .await;
        mesh
    }

    /// Waits for parts of the control plane; of the injector's replicas the API server calls the last.
    async fn is_up(&self, parts: &[Arc<Pod>]) {
        for part in parts {
            if part.name.starts_with("outrider-injector") {
                self.cluster.api.route_service("outrider", "outrider-injector", part.at(WEBHOOK));
            }
            part.ready().await;
        }
        until("the webhook has its roots", async || {
            let configurations = "admissionregistration.k8s.io/mutatingwebhookconfigurations";
            let found = self.cluster.api.object(configurations, "", "outrider-injector");
            found.is_some_and(|found| found["webhooks"][0]["clientConfig"]["caBundle"].is_string())
        })
        .await;
    }

    /// Deletes a part of the control plane.
    pub(super) async fn stop(&self, name: &str) {
        let part = self.parts.iter().find(|pod| pod.name.starts_with(name));
        part.expect("it is one of the parts").delete().await;
    }

    /// Starts parts in place of those that were deleted.
    pub(super) async fn start_again(&self, names: &[&str]) {
        let all = documents::read(&control_plane(1)).expect("manifests").0;
        let is_one = |object: &&Value| {
            object["kind"] == "Deployment" && names.iter().any(|name| object["metadata"]["name"] == **name)
        };
        let mut started = Vec::new();
        for deployment in all.iter().filter(is_one) {
            started.extend(self.apply(&deployment.to_string()).await);
        }
        assert_eq!(started.len(), names.len());
        self.is_up(&started).await;
    }

    /// Applies manifests; returns the pods that come of them.
    pub(super) async fn apply(&self, manifests: &str) -> Vec<Arc<Pod>> {
        self.cluster.apply(manifests).await
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.cluster.show_logs();
        }
    }
}
