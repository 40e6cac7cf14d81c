//! One of the replicas writes the trust bundle where pods need it.

use serde_json::{Value, json};

use super::{
    cluster::{Cluster, meshed},
    replica::{Replica, material, stored},
};
use crate::harness::{TestCa, eventually};

fn map(namespace: &str) -> (&'static str, &str, &'static str) {
    ("configmaps", namespace, "outrider-trust-bundle")
}

fn says(bundle: &str) -> impl Fn(&Value) -> bool {
    let bundle = bundle.to_owned();
    move |object| object["data"]["bundle.pem"] == *bundle
}

#[tokio::test]
async fn the_bundle_is_in_every_namespace_with_the_mesh_and_stays_as_it_should_be() {
    let cluster = Cluster::with_orders().await;
    cluster.pods("used", &[meshed("a", "10.1.7.1")]);
    cluster.namespace("plain", &[]);
    let (one, two) = (Replica::start(&cluster, "one").await, Replica::start(&cluster, "two").await);
    let pem = cluster.ca.bundle().to_pem();
    for namespace in ["shop", "used"] {
        stored(&cluster, "the bundle is there", map(namespace), says(&pem)).await;
    }
    assert!(cluster.server.object("configmaps", "plain", "outrider-trust-bundle").is_none());
    let creates = || cluster.server.count("create", "configmaps");
    assert_eq!(creates(), 2, "one replica writes");
    let own = || cluster.server.object("configmaps", "outrider", "outrider-trust-bundle");
    assert!(own().is_none(), "that is the CA's");

    cluster.namespace("plain", &[("outrider.io/inject", "enabled")]);
    stored(&cluster, "a namespace that is labelled gets it", map("plain"), says(&pem)).await;
    cluster.server.put(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "shop", "name": "outrider-trust-bundle"},
        "data": {"bundle.pem": "nonsense", "other": "stays"},
    }));
    stored(&cluster, "what was spoilt is mended", map("shop"), says(&pem)).await;
    stored(&cluster, "and nothing else changed", map("shop"), |object| object["data"]["other"] == "stays")
        .await;
    cluster.server.remove("configmaps", "used", "outrider-trust-bundle");
    stored(&cluster, "what was removed is back", map("used"), says(&pem)).await;

    // A new root, which both replicas hear of.
    let bundle = TestCa::common_bundle(&[&cluster.ca, &TestCa::new()], 2);
    for replica in [&one, &two] {
        replica.identity.replace(material(&cluster, bundle.clone()));
    }
    for namespace in ["shop", "used", "plain"] {
        stored(&cluster, "the new root is told", map(namespace), says(&bundle.to_pem())).await;
    }

    // Who knows of it later than who led before does not go back.
    for replica in [&one, &two] {
        replica.identity.replace(material(&cluster, TestCa::common_bundle(&[&cluster.ca], 1)));
    }
    cluster.namespace("later", &[("outrider.io/inject", "enabled")]);
    stored(&cluster, "where there is none they are written", map("later"), says(&pem)).await;
    for namespace in ["shop", "used", "plain"] {
        let object = cluster.server.object("configmaps", namespace, "outrider-trust-bundle").unwrap();
        assert!(says(&bundle.to_pem())(&object), "{namespace} has the newer ones");
    }
    assert!(own().is_none());
}

#[tokio::test]
async fn when_the_leader_stops_the_other_goes_on() {
    let cluster = Cluster::with_orders().await;
    let one = Replica::start(&cluster, "one").await;
    one.leads().await;
    let two = Replica::start(&cluster, "two").await;
    assert!(two.metric("outrider_controller_leader").await < 1.0);
    let holder = |name: &'static str| move |lease: &Value| lease["spec"]["holderIdentity"] == name;
    let lease = ("coordination.k8s.io/leases", "outrider", "outrider-controller");
    stored(&cluster, "the Lease says who", lease, holder("one")).await;
    one.stop().await;
    // It was given back: nobody waits for it to run out.
    stored(&cluster, "the other takes it", lease, holder("two")).await;
    two.leads().await;
    cluster.namespace("later", &[("outrider.io/inject", "enabled")]);
    let pem = cluster.ca.bundle().to_pem();
    stored(&cluster, "and writes", map("later"), says(&pem)).await;
}

#[tokio::test]
async fn it_needs_no_more_rights_than_its_page_lists() {
    let cluster = Cluster::with_orders().await;
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/controller.md")).unwrap();
    let blocks = page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut roles = 0;
    for object in blocks.filter_map(|text| serde_json::from_str::<Value>(text).ok()) {
        roles += usize::from(object["kind"].as_str().is_some_and(|kind| kind.ends_with("Role")));
        cluster.server.put(object);
    }
    assert_eq!(roles, 2, "a ClusterRole and a Role");
    let token = cluster.server.service_account_token("outrider", "outrider-controller");
    let replica = Replica::begin_as(&cluster, "one", &token, |_| {}).await;
    replica.until_ready().await;
    replica.leads().await;
    let pem = cluster.ca.bundle().to_pem();
    stored(&cluster, "it writes", map("shop"), says(&pem)).await;
    let bundle = TestCa::common_bundle(&[&cluster.ca, &TestCa::new()], 2);
    replica.identity.replace(material(&cluster, bundle.clone()));
    stored(&cluster, "and updates", map("shop"), says(&bundle.to_pem())).await;
    let renewals = cluster.server.count("update", "coordination.k8s.io/leases");
    eventually("it renews", || cluster.server.count("update", "coordination.k8s.io/leases") > renewals).await;
    replica.stop().await;
    let lease = ("coordination.k8s.io/leases", "outrider", "outrider-controller");
    stored(&cluster, "and gives back", lease, |lease| lease["spec"]["holderIdentity"] == "").await;
}
