//! An API server with bad days: what is known stays, and what is missed is learnt.

use std::time::Duration;

use serde_json::json;
use tonic::Code;

use super::{
    cluster::{Cluster, meshed},
    replica::Replica,
    sidecar::Sidecar,
};
use crate::harness::{eventually, soon};

const RESOURCES: [&str; 4] = ["namespaces", "services", "discovery.k8s.io/endpointslices", "pods"];

async fn until_orders_are_at(sidecar: &mut Sidecar, addresses: &[&str]) {
    let claim = format!("orders are at {addresses:?}");
    sidecar.until(&claim, |sidecar| sidecar.addresses("orders:80") == addresses).await;
}

#[tokio::test]
async fn watches_that_are_dropped_or_fall_silent_lose_nothing() {
    let cluster = Cluster::with_orders().await;
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    sidecar.ask("orders:80").await.unwrap();

    cluster.server.drop_watches();
    cluster.slice("shop", "orders", &[meshed("orders-b", "10.1.0.2")]);
    until_orders_are_at(&mut sidecar, &["10.1.0.2:8080"]).await;

    // Nothing is said, and nothing ends: what changes meanwhile is learnt when the watch is begun anew.
    cluster.server.stall_watches(true);
    let begun = cluster.server.count("watch", "discovery.k8s.io/endpointslices");
    cluster.slice("shop", "orders", &[meshed("orders-a", "10.1.0.1")]);
    let again = || cluster.server.count("watch", "discovery.k8s.io/endpointslices") > begun + 1;
    eventually("it is begun anew", again).await;
    cluster.server.stall_watches(false);
    until_orders_are_at(&mut sidecar, &["10.1.0.1:8080"]).await;
}

#[tokio::test]
async fn after_410_everything_is_listed_again_and_what_is_gone_is_noticed() {
    let cluster = Cluster::with_orders().await;
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    sidecar.ask("orders:80").await.unwrap();
    cluster.service("shop", "stock", "10.96.0.2");
    sidecar.ask("stock:80").await;
    sidecar.until("the service is known", |sidecar| !sidecar.keys["stock:80"].is_empty()).await;
    for resource in RESOURCES {
        cluster.server.watched(resource, 1).await;
    }
    let lists = cluster.server.count("list", "services");

    cluster.server.stop().await;
    cluster.server.remove("services", "shop", "stock");
    cluster.slice("shop", "orders", &[meshed("orders-b", "10.1.0.2")]);
    cluster.server.forget_history();
    cluster.server.start_again().await;
    until_orders_are_at(&mut sidecar, &["10.1.0.2:8080"]).await;
    sidecar.until("the service is gone", |sidecar| sidecar.keys["stock:80"].is_empty()).await;
    assert!(cluster.server.count("list", "services") > lists);
}

#[tokio::test]
async fn a_watch_that_is_refused_with_410_is_no_dead_end() {
    let cluster = Cluster::with_orders().await;
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    sidecar.ask("orders:80").await.unwrap();
    let lists = cluster.server.count("list", "discovery.k8s.io/endpointslices");
    let is_watch = |call: &crate::harness::api_server::Call| {
        (call.verb == "watch" && call.resource.ends_with("endpointslices")).then_some(410)
    };
    cluster.server.refuse_if(is_watch);
    cluster.server.drop_watches();
    let again = || cluster.server.count("list", "discovery.k8s.io/endpointslices") > lists;
    eventually("it lists again", again).await;
    cluster.server.refuse(None);
    cluster.slice("shop", "orders", &[meshed("orders-b", "10.1.0.2")]);
    until_orders_are_at(&mut sidecar, &["10.1.0.2:8080"]).await;
}

#[tokio::test]
async fn while_the_api_server_is_away_what_is_known_is_told_and_its_age_shown() {
    let cluster = Cluster::with_orders().await;
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    sidecar.ask("orders:80").await.unwrap();
    cluster.server.stop().await;
    let age = r#"outrider_controller_watch_age_seconds{kind="endpointslices"}"#;
    soon("the age grows beyond that of a healthy watch", async {
        while replica.metric(age).await < 9.0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(replica.get("/ready").await.starts_with("HTTP/1.1 200"), "ready it stays");
    let mut newcomer = Sidecar::connect(&cluster, replica.address).await;
    let held = newcomer.ask("10.96.0.1:80").await.expect("what was known is told");
    assert_eq!(held.endpoints.len(), 2);

    cluster.slice("shop", "orders", &[meshed("orders-b", "10.1.0.2")]);
    cluster.server.start_again().await;
    until_orders_are_at(&mut sidecar, &["10.1.0.2:8080"]).await;
    soon("the age is small again", async {
        while replica.metric(age).await > 8.0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(replica.metric(r#"outrider_controller_watch_errors{kind="endpointslices"}"#).await >= 1.0);
}

#[tokio::test]
async fn nothing_is_told_before_everything_is_known() {
    let cluster = Cluster::with_orders().await;
    cluster.server.refuse_if(|call| (call.verb == "list" && call.resource == "pods").then_some(403));
    let replica = Replica::begin(&cluster, "one", |_| {}).await;
    soon("all but pods is known", async {
        while replica.metric(r#"outrider_controller_watch_lists{kind="endpointslices"}"#).await < 1.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(replica.get("/ready").await.starts_with("HTTP/1.1 503"));
    assert!(replica.get("/live").await.starts_with("HTTP/1.1 200"));
    let mut early = Sidecar::connect(&cluster, replica.address).await;
    assert_eq!(early.ended().await.code(), Code::Unavailable);
    cluster.server.refuse(None);
    replica.until_ready().await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    assert_eq!(sidecar.ask("orders:80").await.unwrap().endpoints.len(), 2);
}

#[tokio::test]
async fn a_list_that_is_never_answered_is_asked_for_again() {
    let cluster = Cluster::with_orders().await;
    cluster.server.delay(Duration::from_secs(3600));
    let replica = Replica::begin(&cluster, "one", |_| {}).await;
    eventually("everything is asked for", || cluster.server.begun() >= 10).await;
    cluster.server.delay(Duration::ZERO);
    replica.until_ready().await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    assert_eq!(sidecar.ask("orders:80").await.unwrap().endpoints.len(), 2);
}

#[tokio::test]
async fn policies_are_believed_to_be_none_only_after_a_while() {
    let cluster = Cluster::with_orders().await;
    let unknown = |call: &crate::harness::api_server::Call| {
        call.resource.ends_with("authorizationpolicies").then_some(404)
    };
    cluster.server.refuse_if(unknown);
    let replica = Replica::begin(&cluster, "one", |_| {}).await;
    let looks = || cluster.server.count("list", "outrider.io/authorizationpolicies");
    eventually("it is asked for again", || looks() >= 2).await;
    assert!(
        replica.get("/ready").await.starts_with("HTTP/1.1 503"),
        "everybody could call until they are known"
    );
    replica.until_ready().await;
    assert!(looks() >= 4);
}

#[tokio::test]
async fn odd_objects_hide_no_others() {
    let cluster = Cluster::with_orders().await;
    let odd = [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "odd"}, "spec": 7}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "odd"},
            "spec": {"clusterIP": "10.96.0.7", "clusterIPs": null, "ports": [{"port": 70000}, {"port": 80}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": "shop", "name": "odd-1", "labels": {"kubernetes.io/service-name": "odd"}},
            "ports": [{"name": "", "port": -1}, {"name": "", "port": 70000}], "endpoints": [{"addresses": ["10.1.0.7"]}]}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "odd"},
            "spec": {"hostNetwork": "perhaps", "serviceAccountName": 7}, "status": {"podIPs": "none", "phase": null}}),
    ];
    odd.iter().for_each(|object| drop(cluster.server.put(object.clone())));
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    assert_eq!(sidecar.ask("orders:80").await.unwrap().endpoints.len(), 2);
    assert!(sidecar.ask("odd:80").await.unwrap().endpoints.is_empty(), "what can be read of it counts");
    odd.iter().for_each(|object| drop(cluster.server.put(object.clone())));
    cluster.slice("shop", "orders", &[meshed("orders-b", "10.1.0.2")]);
    until_orders_are_at(&mut sidecar, &["10.1.0.2:8080"]).await;
}
