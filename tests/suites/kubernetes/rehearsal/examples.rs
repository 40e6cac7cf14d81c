//! The manifests of `examples/kubernetes`, as its page applies them.

use super::{
    calls::{called, service},
    mesh::Mesh,
    rehearse,
};
use crate::{
    kubernetes::{examples::file, webhook::caller::get},
    processes::until,
};

/// Calls by which a share of one in ten is seen: all of 300 miss it once in 10^13.
const CALLS: usize = 300;

#[test]
fn a_shop_gets_an_ingress_metrics_a_canary_and_default_deny() {
    rehearse(async || {
        let mesh = Mesh::start().await;
        let shop = mesh.apply(&file("shop.yaml")).await;
        let ask = mesh.apply(&service("ask", 1)).await;
        let gateway = mesh.apply(&file("ingress.yaml")).await;
        for pod in shop.iter().chain(&ask).chain(&gateway) {
            pod.ready().await;
        }
        let (web, outside) = (&shop[0], gateway[0].at(8080));

        // From outside there is one way in, and the metrics.
        until("the gateway answers", async || get(outside, "/items/1").await.0 == 200).await;
        let (_, answer) = get(outside, "/items/1").await;
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let caller =
            answer.pointer("/upstream/caller").and_then(|caller| caller.as_str()).unwrap_or_default();
        assert!(caller.contains("URI=spiffe://cluster.local/ns/ingress/sa/gateway"), "{answer}");
        assert_eq!(answer["upstream"]["upstream"]["upstream"]["service"], "inventory", "{answer}");
        assert_eq!(get(web.at(8080), "/items/1").await.0, 0);
        let (status, metrics) = get(web.at(4391), "/metrics").await;
        assert_eq!(status, 200);
        assert!(metrics.contains("\noutrider_edge_requests_total{"), "{metrics}");

        // From inside of the mesh, too: ports that the kernel does not bring to a sidecar are spoken to in plaintext.
        let metrics = format!("http://{}/metrics", web.at(4391));
        for url in ["http://gateway.ingress/items/1", &metrics] {
            let status = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url];
            assert_eq!(ask[0].text("app", &status).await, "200", "{url}");
        }

        // The new version gets all of the testers' calls, and some of the others'.
        let next = mesh.apply(&file("orders-v2.yaml")).await;
        next[0].ready().await;
        mesh.apply(&file("canary.yaml")).await;
        until("testers get it", async || {
            let answer = called(&ask[0], "-H x-canary:yes http://web/items/1").await;
            answer["upstream"]["replica"].as_str().is_some_and(|replica| replica.starts_with("orders-v2"))
        })
        .await;
        let mut next_answered = 0;
        for _ in 0..CALLS {
            let (status, answer) = get(outside, "/items/1").await;
            assert_eq!(status, 200, "{answer}");
            next_answered += usize::from(answer.contains("\"orders-v2"));
        }
        assert!((1..CALLS / 2).contains(&next_answered), "{next_answered} of {CALLS}");

        // And nobody may call but who is named, whose calls go on meanwhile.
        mesh.apply(&file("default-deny.yaml")).await;
        until("who is not named is denied", async || {
            assert_eq!(get(outside, "/items/1").await.0, 200);
            let status = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://web/items/1"];
            ask[0].text("app", &status).await == "403"
        })
        .await;
        assert_eq!(get(outside, "/items/1").await.0, 200);
    });
}
