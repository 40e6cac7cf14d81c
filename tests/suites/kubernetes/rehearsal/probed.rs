//! Probes as they were written, and as injection has them performed.

use std::future::pending;

use rustix::process::Signal;
use serde_json::Value;

use super::{calls::service, fields::list, mesh::Mesh, pod::Pod, rehearse};
use crate::{kubernetes::probes::App, processes::until};

/// Whether the Service's only endpoint is told as ready.
fn is_served(mesh: &Mesh, service: &str) -> bool {
    let slice = mesh.cluster.api.object("discovery.k8s.io/endpointslices", "shop", &format!("{service}-1"));
    slice.is_some_and(|slice| slice["endpoints"][0]["conditions"]["ready"] == true)
}

/// The service with these probes in place of its own.
fn probed(name: &str, probes: &str) -> String {
    let own = "          readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}\n";
    let manifest = service(name, 1);
    assert!(manifest.contains(own), "{manifest}");
    manifest.replace(own, probes)
}

fn handlers(pod: &Pod) -> Vec<&Value> {
    let app = list(&pod.object, "/spec/containers").first().expect("an app");
    ["startupProbe", "readinessProbe", "livenessProbe"].into_iter().filter_map(|kind| app.get(kind)).collect()
}

#[test]
fn a_failing_app_is_seen_by_http_and_by_grpc() {
    rehearse(async || {
        let mesh = Mesh::start().await;
        let by_grpc = "          readinessProbe: {grpc: {port: 9000, service: a}, periodSeconds: 1}\n";
        let by_http = "          readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1, failureThreshold: 1}\n";
        let pods = mesh.apply(&(probed("orders", by_http) + "---\n" + &probed("health", by_grpc))).await;
        let [orders, health] = &pods[..] else { panic!("two pods") };
        for pod in [orders, health] {
            assert!(
                handlers(pod).iter().all(|probe| probe["httpGet"]["port"] == 4391),
                "{:?}",
                handlers(pod)
            );
        }
        orders.ready().await;
        until("it is served", async || is_served(&mesh, "orders")).await;
        orders.signal("app", Signal::USR1);
        until("it is not ready", async || !orders.is_ready() && !is_served(&mesh, "orders")).await;
        orders.signal("app", Signal::USR2);
        orders.ready().await;

        until("the app runs", async || health.status("app").is_started).await;
        assert!(!health.is_ready());
        let address = health.at(9000);
        let _server = health.host.begin(move || async move {
            let _app = App::at(address, None).await;
            pending::<()>().await;
        });
        health.ready().await;
    });
}

#[test]
fn an_app_that_fails_by_tcp_or_exec_is_started_anew() {
    rehearse(async || {
        let mesh = Mesh::start().await;
        let by_tcp =
            "          livenessProbe: {tcpSocket: {port: 9000}, periodSeconds: 1, failureThreshold: 2}\n";
        let by_exec = "          livenessProbe: {exec: {command: [test, '!', -e, /tmp/ill]}, periodSeconds: 1, failureThreshold: 1}\n";
        let pods = mesh.apply(&(probed("orders", by_tcp) + "---\n" + &probed("web", by_exec))).await;
        let [orders, web] = &pods[..] else { panic!("two pods") };
        until("nobody listens there", async || orders.status("app").restarts > 0).await;
        assert!(
            orders.events().contains(&"app failed its livenessProbe".to_owned()),
            "{:?}",
            orders.events()
        );
        web.ready().await;
        assert_eq!(web.status("app").restarts, 0);
        web.text("app", &["touch", "/tmp/ill"]).await;
        until("it is ill", async || web.status("app").restarts == 1).await;
        web.ready().await;
        assert!([orders, web].iter().all(|pod| pod.status("outrider").restarts == 0));
    });
}
