//! Pods of plain manifests call each other.

use serde_json::Value;

use super::{mesh::Mesh, rehearse};
use crate::{kubernetes::webhook::caller::get, processes::until};

/// A Deployment of the example's service, and its Service. Nothing in it knows of the mesh.
pub(super) fn service(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: shop}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: shop}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      serviceAccountName: {name}
      containers:
        - name: app
          image: registry.example/app:1
          command: [service, --name, {name}, --listen, '0.0.0.0:8080']
          ports: [{{name: http, containerPort: 8080}}]
          readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
"
    )
}

#[test]
fn pods_of_plain_manifests_start_in_order_and_call_each_other_by_mutual_tls() {
    rehearse(async || {
        let mesh = Mesh::start().await;
        let pods = mesh.apply(&(service("orders", 1) + "---\n" + &service("web", 1))).await;
        let [orders, web] = &pods[..] else { panic!("two pods") };
        orders.ready().await;
        web.ready().await;
        for pod in [orders, web] {
            assert_eq!(
                pod.events(),
                ["outrider-init started", "outrider-init ended 0", "outrider started", "app started"]
            );
        }
        let mut answer = Value::Null;
        until("the call succeeds", async || {
            let ran = web.exec("app", &["curl", "-sS", "--max-time", "10", "http://orders/"]).await;
            answer = serde_json::from_slice(&ran.stdout).unwrap_or_default();
            ran.status.success() && answer.is_object()
        })
        .await;
        assert_eq!(answer["service"], "orders");
        let caller = answer["caller"].as_str().unwrap_or_default();
        assert!(caller.contains("URI=spiffe://cluster.local/ns/shop/sa/web"), "{answer}");
        assert!(caller.contains("By=spiffe://cluster.local/ns/shop/sa/orders"), "{answer}");

        // Who has no certificate gets nothing, at the pod or at the Service: from the node, and from a pod without a sidecar.
        assert_eq!(get(orders.at(8080), "/").await.0, 0);
        let stranger = service("stranger", 1)
            .replace("labels: {app: stranger}", "labels: {app: stranger, outrider.io/inject: disabled}");
        let stranger = mesh.apply(&stranger).await;
        stranger[0].ready().await;
        assert_eq!(stranger[0].events(), ["app started"]);
        for address in [orders.at(8080), mesh.cluster.service("orders")] {
            let url = format!("http://{address}/");
            let output = stranger[0].exec("app", &["curl", "-sS", "--max-time", "20", &url]).await;
            // 28 is curl's code for a timeout.
            assert!(!matches!(output.status.code(), Some(0 | 28)), "{output:?}");
            assert!(output.stdout.is_empty(), "{output:?}");
        }
        // And the other way round: who has no sidecar is called in plaintext.
        let answer = web.text("app", &["curl", "-sS", "--max-time", "10", "http://stranger/"]).await;
        assert!(answer.contains("\"service\":\"stranger\""), "{answer}");
    });
}
