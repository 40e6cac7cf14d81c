//! What sidecars in pods say of calls, by what they were told of routes and policies.

use http::{StatusCode, Version};
use serde_json::json;
use tokio::process::Command;

use super::scene::{Pod, Scene};
use crate::{
    harness::Client,
    kubernetes::policies,
    processes::{process::program, run, until},
};

impl Pod {
    /// What `outrider … explain` says there, and how it ends.
    async fn explains(&self, what: &str, call: &str) -> (Option<i32>, String) {
        let mut command = Command::new(program("outrider"));
        command
            .args([what, "explain", "--running", "--admin-socket"])
            .arg(self.socket())
            .args(call.split(' '));
        let output = command.kill_on_drop(true).output().await.unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (output.status.code(), text)
    }
}

#[test]
fn a_route_of_the_cluster_is_explained_where_it_holds_and_what_was_never_called_as_such() {
    run(async {
        let scene = Scene::new().await;
        let (one, two) =
            (scene.pod("orders", "orders-a", 4).await, scene.pod("orders-v2", "orders-v2-a", 5).await);
        for (name, ip, pod) in [("orders", "10.96.0.1", &one), ("orders-v2", "10.96.0.2", &two)] {
            scene.service(name, ip);
            scene.slice(name, &[pod]);
        }
        scene.split([("orders", 3), ("orders-v2", 1)]);
        let asked = "GET http://orders/items/7 -H x-team:red";
        let (code, text) = scene.web().explains("route", asked).await;
        assert!(code == Some(1) && text.contains("it has said nothing of orders:80"), "{code:?}\n{text}");
        // Nobody but its own user is told.
        let mut client = Client::connect(scene.web().read_only(), Version::HTTP_11).await;
        let answer = client.get("/explain/route?url=http://orders/").await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        scene.until_known("orders").await;
        until("the route is told", async || {
            let (code, text) = scene.web().explains("route", asked).await;
            let lines = [
                "by        the rules of the service",
                "rule      canary.shop/0: ",
                "to        orders.shop.svc:80 (75.0 %)",
                "to        orders-v2.shop.svc:80 (25.0 %)",
            ];
            code == Some(0) && lines.iter().all(|line| text.contains(line))
        })
        .await;
        // There is no such service, and once it was called that is known.
        let (code, text) = scene.web().explains("route", "GET http://ghost/").await;
        assert!(code == Some(1) && text.contains("it has said nothing of ghost:80"), "{text}");
        assert_eq!(scene.call("ghost").await.0, StatusCode::NOT_FOUND);
        let (code, text) = scene.web().explains("route", "GET http://ghost/").await;
        assert!(code == Some(1) && text.contains("404, no_route"), "{text}");
    });
}

#[test]
fn a_policy_of_the_cluster_is_explained_at_the_pod_that_it_closes_and_opens() {
    run(async {
        let scene = Scene::new().await;
        policies::define(&scene.cluster.api);
        let orders = scene.pod("orders", "orders-a", 4).await;
        scene.service("orders", "10.96.0.1");
        scene.slice("orders", &[&orders]);
        scene.until_known("orders").await;
        let asked = "--from spiffe://cluster.local/ns/shop/sa/web --path /";
        let (code, text) = orders.explains("policy", asked).await;
        assert!(code == Some(0) && text.contains("neither the file nor a policy"), "{code:?}\n{text}");
        let put = |prefix: &str| {
            let rule = json!({
                "name": "web-reads", "from": ["spiffe://cluster.local/ns/shop/sa/web"],
                "methods": ["GET"], "path_prefixes": [prefix],
            });
            scene.cluster.api.put(json!({
                "apiVersion": "outrider.io/v1alpha1", "kind": "AuthorizationPolicy",
                "metadata": {"namespace": "shop", "name": "orders"}, "spec": {"rules": [rule]},
            }));
        };
        put("/items");
        scene.until_refused("orders").await;
        let (status, _) = scene.call("orders").await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        let denied = "denied: no rule fits\n  orders/web-reads: is about another path\n";
        assert_eq!(orders.explains("policy", asked).await, (Some(1), denied.to_owned()));
        let other = asked.replace("--path /", "--path /items/7");
        let allowed = (Some(0), "allowed by rule orders/web-reads\n".to_owned());
        assert_eq!(orders.explains("policy", &other).await, allowed);
        put("/");
        scene.until_known("orders").await;
        assert_eq!(orders.explains("policy", asked).await, allowed);
    });
}
