//! What sidecars are told.

use serde_json::{Value, json};

use super::{RESOURCE, canary, http_route, install, split};
use crate::{
    harness::eventually,
    kubernetes::controller::{
        cluster::{Cluster, meshed},
        replica::Replica,
        sidecar::Sidecar,
    },
};

const KEY: &str = "orders.shop:80";

/// Clusters and weights of the first rule that holds for `orders`.
fn shares(sidecar: &Sidecar) -> Vec<(String, u64)> {
    let rule = sidecar.held(KEY).and_then(|held| held.routes.first()).map(|route| &route["rules"][0]);
    let clusters = rule.and_then(|rule| rule["clusters"].as_array()).cloned().unwrap_or_default();
    let share = |it: &Value| (it["name"].as_str().unwrap().to_owned(), it["weight"].as_u64().unwrap());
    clusters.iter().map(share).collect()
}

/// Routes of `shop` may refer to the Service `far` of the namespace `far`.
fn permit(cluster: &Cluster) {
    cluster.server.put(json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
        "metadata": {"namespace": "far", "name": "shop"},
        "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop"}],
            "to": [{"group": "", "kind": "Service", "name": "far"}],
        },
    }));
}

/// They may not any more.
fn forbid(cluster: &Cluster) {
    cluster.server.remove("gateway.networking.k8s.io/referencegrants", "far", "shop");
}

async fn until_shares_are(sidecar: &mut Sidecar, expected: &[(&str, u64)]) {
    let claim = format!("the shares are {expected:?}");
    let expected: Vec<_> = expected.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
    sidecar.until(&claim, |sidecar| shares(sidecar) == expected).await;
}

#[tokio::test]
async fn a_canary_is_told_with_what_it_needs_and_its_weights_move_within_the_stream() {
    let cluster = canary().await;
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    assert!(sidecar.ask(KEY).await.unwrap().routes.is_empty());
    split(&cluster, "shop", "canary", &[("shop", "orders", 90), ("shop", "orders-v2", 10)]);
    until_shares_are(&mut sidecar, &[("orders.shop.svc:80", 90), ("orders-v2.shop.svc:80", 10)]).await;
    let route = sidecar.held(KEY).unwrap().routes[0].clone();
    assert_eq!((&route["name"], &route["services"]), (&json!("canary.shop"), &json!(["orders.shop.svc:80"])));
    let needed = &sidecar.services["orders-v2.shop.svc:80"];
    assert_eq!(needed.endpoints.keys().collect::<Vec<_>>(), ["10.1.0.3:8080"]);
    assert_eq!((&needed.cluster["tls"], &needed.cluster["authorities"]), (&json!("mesh"), &json!([])));

    split(&cluster, "shop", "canary", &[("shop", "orders", 50), ("shop", "orders-v2", 50)]);
    until_shares_are(&mut sidecar, &[("orders.shop.svc:80", 50), ("orders-v2.shop.svc:80", 50)]).await;
    // What the route needs is kept up to date, though nobody asked for it.
    let pods = [meshed("orders-v2-a", "10.1.0.3"), meshed("orders-v2-b", "10.1.0.4")];
    cluster.pods("shop", &pods);
    cluster.slice("shop", "orders-v2", &pods);
    sidecar
        .until("the new pod is told", |sidecar| {
            sidecar.services["orders-v2.shop.svc:80"].endpoints.len() == 2
        })
        .await;
    // Who comes now is told the same.
    let mut late = Sidecar::connect(&cluster, replica.address).await;
    let held = late.ask("10.96.0.1:80").await.unwrap();
    assert_eq!(held.routes, sidecar.held(KEY).unwrap().routes);
    assert_eq!(late.services["orders-v2.shop.svc:80"].endpoints.len(), 2);

    cluster.server.remove(RESOURCE, "shop", "canary");
    until_shares_are(&mut sidecar, &[]).await;
}

#[tokio::test]
async fn a_backends_own_filters_are_told_with_it() {
    let cluster = canary().await;
    let stage = json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "X-Stage", "value": "canary"}]}}]);
    http_route(
        &cluster,
        "shop",
        "canary",
        json!([{"backendRefs": [
            {"name": "orders", "port": 80, "weight": 9}, {"name": "orders-v2", "port": 80, "filters": stage},
        ]}]),
    );
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    sidecar.ask(KEY).await.unwrap();
    until_shares_are(&mut sidecar, &[("orders.shop.svc:80", 9), ("orders-v2.shop.svc:80", 1)]).await;
    let clusters = sidecar.held(KEY).unwrap().routes[0]["rules"][0]["clusters"].clone();
    assert_eq!(clusters[1]["request_headers"], json!({"set": [{"name": "x-stage", "value": "canary"}]}));
    assert_eq!(clusters[0].get("request_headers"), None);
}

#[tokio::test]
async fn a_mirror_is_told_with_its_endpoints_and_only_while_a_grant_permits_it() {
    let cluster = canary().await;
    let filter = |namespace: &str, name: &str, percent: u32| {
        let to = json!({"namespace": namespace, "name": name, "port": 80});
        json!({"type": "RequestMirror", "requestMirror": {"backendRef": to, "percent": percent}})
    };
    let filters = json!([filter("shop", "orders-v2", 10), filter("far", "far", 100)]);
    let backends = json!([{"name": "orders", "port": 80}]);
    http_route(&cluster, "shop", "copied", json!([{"filters": filters, "backendRefs": backends}]));
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    sidecar.ask(KEY).await.unwrap();
    let mirrors = |sidecar: &Sidecar| {
        sidecar
            .held(KEY)
            .and_then(|held| held.routes.first())
            .map(|route| route["rules"][0]["mirror"].clone())
    };
    let near = json!({"cluster": "orders-v2.shop.svc:80", "percent": "10.0000"});
    let far = json!({"cluster": "far.far.svc:80", "percent": "100.0000"});
    sidecar.until("one mirror is told", |sidecar| mirrors(sidecar) == Some(json!([near]))).await;
    let needed = &sidecar.services["orders-v2.shop.svc:80"];
    assert_eq!(needed.endpoints.keys().collect::<Vec<_>>(), ["10.1.0.3:8080"]);
    until_shares_are(&mut sidecar, &[("orders.shop.svc:80", 1)]).await;
    permit(&cluster);
    sidecar.until("both are told", |sidecar| mirrors(sidecar) == Some(json!([near, far]))).await;
    forbid(&cluster);
    sidecar.until("one is told again", |sidecar| mirrors(sidecar) == Some(json!([near]))).await;
}

#[tokio::test]
async fn a_consumers_route_is_told_in_its_own_namespace_only() {
    let cluster = canary().await;
    split(&cluster, "shop", "producer", &[("shop", "orders", 1)]);
    split(&cluster, "bob", "consumer", &[("shop", "orders-v2", 1)]);
    let replica = Replica::start(&cluster, "one").await;
    let mut told = Vec::new();
    for namespace in ["bob", "shop", "eve"] {
        let mut sidecar = Sidecar::connect_as(&cluster, replica.address, namespace, "").await;
        let held = sidecar.ask(KEY).await.unwrap();
        told.push((namespace, held.routes[0]["name"].clone(), shares(&sidecar)));
        assert_eq!(held.routes.len(), 1);
    }
    let share = |name: &str| vec![(name.to_owned(), 1)];
    let expected = [
        ("bob", json!("consumer.bob"), share("orders-v2.shop.svc:80")),
        ("shop", json!("producer.shop"), share("orders.shop.svc:80")),
        ("eve", json!("producer.shop"), share("orders.shop.svc:80")),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_grant_that_goes_takes_the_backend_with_it() {
    let cluster = canary().await;
    split(&cluster, "shop", "abroad", &[("far", "far", 1)]);
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    sidecar.ask(KEY).await.unwrap();
    until_shares_are(&mut sidecar, &[("refuses.outrider", 1)]).await;
    let refusal = &sidecar.services["refuses.outrider"];
    assert_eq!((&refusal.cluster["fault"]["abort"], refusal.endpoints.len()), (&json!(500), 0));
    permit(&cluster);
    until_shares_are(&mut sidecar, &[("far.far.svc:80", 1)]).await;
    forbid(&cluster);
    until_shares_are(&mut sidecar, &[("refuses.outrider", 1)]).await;
}

#[tokio::test]
async fn without_the_gateway_api_all_else_goes_on_and_it_is_found_when_it_comes() {
    let cluster = Cluster::with_orders().await;
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    assert!(sidecar.ask(KEY).await.unwrap().routes.is_empty());
    assert!(replica.metric(r#"outrider_controller_watch_errors{kind="httproutes"}"#).await < 1.0);
    install(&cluster.server);
    http_route(&cluster, "shop", "late", json!([{"backendRefs": [{"name": "orders", "port": 80}]}]));
    until_shares_are(&mut sidecar, &[("orders.shop.svc:80", 1)]).await;
}

#[tokio::test]
async fn an_api_server_that_forgets_its_kinds_for_a_moment_takes_no_route_away() {
    let cluster = canary().await;
    split(&cluster, "shop", "canary", &[("shop", "orders-v2", 1)]);
    let replica = Replica::start(&cluster, "one").await;
    let lists = cluster.server.count("list", RESOURCE);
    cluster.server.refuse_if(|call| (call.resource == RESOURCE).then_some(404));
    cluster.server.drop_watches();
    eventually("it is asked twice", || cluster.server.count("list", RESOURCE) >= lists + 2).await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    sidecar.ask(KEY).await.unwrap();
    assert_eq!(shares(&sidecar), [("orders-v2.shop.svc:80".to_owned(), 1)]);
    let is_gone = |sidecar: &Sidecar| shares(sidecar).is_empty();
    sidecar.until("what stays unknown is gone", is_gone).await;
    cluster.server.refuse(None);
    until_shares_are(&mut sidecar, &[("orders-v2.shop.svc:80", 1)]).await;
}
