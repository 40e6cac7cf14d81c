//! Pods of plain manifests call each other.

use std::sync::Arc;

use serde_json::Value;
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use super::{mesh::Mesh, pod::Pod, rehearse};
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
          command: [service, --name, {name}, --replica, $(POD_NAME), --listen, '0.0.0.0:8080']
          env: [{{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]
          ports: [{{name: http, containerPort: 8080}}]
          readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
"
    )
}

/// The same, whose calls take so many milliseconds, so that some are under way whenever something ends.
pub(super) fn slow_service(name: &str, replicas: u32, time: u32) -> String {
    service(name, replicas)
        .replace("--listen", &format!("--work-ms, '{time}', --listen"))
        .replace("periodSeconds: 1}", "periodSeconds: 1, timeoutSeconds: 10}")
}

/// A pod of `orders` and one of `web`, both ready.
pub(super) async fn orders_and_web(mesh: &Mesh) -> [Arc<Pod>; 2] {
    let pods = mesh.apply(&(service("orders", 1) + "---\n" + &service("web", 1))).await;
    let pods = <[_; 2]>::try_from(pods).unwrap_or_else(|pods| panic!("two pods, not {}", pods.len()));
    for pod in &pods {
        pod.ready().await;
    }
    pods
}

#[test]
fn pods_of_plain_manifests_start_in_order_and_call_each_other_by_mutual_tls() {
    rehearse(async || {
        let mesh = Mesh::start().await;
        let [orders, web] = &orders_and_web(&mesh).await;
        for pod in [orders, web] {
            assert_eq!(
                pod.events(),
                ["outrider-init started", "outrider-init ended 0", "outrider started", "app started"]
            );
        }
        let answer = called(web, "http://orders/").await;
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

/// What the service that a pod called with these words for `curl` says.
pub(super) async fn called(pod: &Pod, arguments: &str) -> Value {
    let mut answer = Value::Null;
    let words: Vec<_> = "curl -sS --fail --max-time 10".split(' ').chain(arguments.split(' ')).collect();
    until(&format!("curl {arguments}"), async || {
        let ran = pod.exec("app", &words).await;
        answer = serde_json::from_slice(&ran.stdout).unwrap_or_default();
        ran.status.success() && answer.is_object()
    })
    .await;
    answer
}

#[test]
fn calls_of_every_kind_arrive() {
    rehearse(async || {
        let mesh = Mesh::start().await;
        let pods =
            mesh.apply(&(service("orders", 1) + "---\n" + &service("web", 1) + "---\n" + &greeter())).await;
        let [orders, web, greeter] = &pods[..] else { panic!("three pods") };
        for pod in [orders, web, greeter] {
            pod.ready().await;
        }
        let by_web =
            |answer: &Value| answer["caller"].as_str().unwrap_or_default().contains("/ns/shop/sa/web");
        for arguments in [
            "http://orders.shop.svc.cluster.local/".to_owned(),
            format!("http://{}/", mesh.cluster.service("orders")),
            format!("http://{}/", orders.at(8080)),
            "--http2-prior-knowledge http://orders/".to_owned(),
        ] {
            let answer = called(web, &arguments).await;
            assert!(answer["service"] == "orders" && by_web(&answer), "{arguments}: {answer}");
            let version = if arguments.contains("http2") { "HTTP/2.0" } else { "HTTP/1.1" };
            assert_eq!(answer["version"], version, "{arguments}");
        }
        // A pod that calls itself: by its Service, by its address, and past the network.
        for url in [
            "http://web/".to_owned(),
            format!("http://{}/", web.at(8080)),
            "http://127.0.0.1:8080/".to_owned(),
        ] {
            assert_eq!(called(web, &url).await["service"], "web", "{url}");
        }
        // A server that speaks first, at a port of which nobody said what it carries.
        let to = mesh.cluster.service("greeter");
        let heard = web.host.begin(move || async move {
            let mut greeting = [0; 9];
            TcpStream::connect(to).await?.read_exact(&mut greeting).await?;
            Ok::<_, std::io::Error>(greeting)
        });
        assert_eq!(&heard.await.unwrap().unwrap(), b"220 hello");
        // The API server has no sidecar, and its certificate is for the app to look at.
        let version = "curl -sS --max-time 10 --cacert /var/run/secrets/kubernetes.io/serviceaccount/ca.crt \
             https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/version";
        let version = web.text("app", &["sh", "-c", version]).await;
        assert!(version.contains("gitVersion"), "{version}");
    });
}

/// A server that speaks first.
fn greeter() -> String {
    let own = "command: [service, --name, greeter, --replica, $(POD_NAME), --listen, '0.0.0.0:8080']";
    let manifest = service("greeter", 1);
    let probe = "          readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}\n";
    assert!(manifest.contains(own) && manifest.contains(probe), "{manifest}");
    let command = "command: [greeter, --listen, '0.0.0.0:8080', --greeting, 220 hello]";
    manifest.replace(own, command).replace(probe, "").replace("name: http", "name: greet")
}

#[test]
fn the_sidecar_runs_without_any_right() {
    rehearse(async || {
        let mesh = Mesh::start().await;
        let web = &mesh.apply(&service("web", 1)).await[0];
        web.ready().await;
        let pid = web.status("outrider").pid.expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let none = "0000000000000000";
        for (field, value) in [
            ("Uid:", "4343\t4343\t4343\t4343"),
            ("Gid:", "4343\t4343\t4343\t4343"),
            ("CapEff:", none),
            ("CapPrm:", none),
            ("CapBnd:", none),
            ("CapAmb:", none),
            ("NoNewPrivs:", "1"),
        ] {
            assert!(
                status.lines().any(|line| line.split_once('\t') == Some((field, value))),
                "{field} {status}"
            );
        }
    });
}
