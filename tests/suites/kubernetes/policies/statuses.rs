//! What is written to policies, with the rights that the manifests give.

use serde_json::{Value, json};

use super::{AUTHORIZATION, TRAFFIC, cluster, put, traffic};
use crate::kubernetes::{
    controller::{
        cluster::Cluster,
        replica::{Replica, stored},
    },
    grant,
};

/// Status, reason and message that were written.
fn accepted(conditions: &Value) -> Option<(String, String, String)> {
    let found = conditions.as_array()?.iter().find(|condition| condition["type"] == "Accepted")?;
    let text = |key: &str| found[key].as_str().map(str::to_owned);
    Some((text("status")?, text("reason")?, text("message")?))
}

/// Waits until our word on a TrafficPolicy is that; returns the message.
async fn until(cluster: &Cluster, name: &str, status: &str, reason: &str) -> String {
    let ours = |policy: &Value| {
        let ancestors = policy["status"]["ancestors"].as_array()?;
        let ours = ancestors.iter().find(|one| one["controllerName"] == "outrider.io/controller")?;
        accepted(&ours["conditions"])
    };
    let fits = |policy: &Value| ours(policy).is_some_and(|told| (&*told.0, &*told.1) == (status, reason));
    stored(cluster, &format!("{name} is {status}: {reason}"), (TRAFFIC, "shop", name), fits).await;
    ours(&cluster.server.object(TRAFFIC, "shop", name).unwrap()).unwrap().2
}

fn writes(cluster: &Cluster) -> usize {
    let is_write = |call: &&crate::harness::api_server::Call| {
        call.verb == "patch" && call.resource.starts_with("outrider.io/")
    };
    cluster.server.calls().iter().filter(is_write).count()
}

#[tokio::test]
async fn the_leader_writes_what_became_of_a_policy_with_the_rights_of_the_manifests_and_once() {
    let cluster = cluster().await;
    grant(&cluster.server);
    let token = cluster.server.service_account_token("outrider", "outrider-controller");
    traffic(&cluster, "shop", "first", &json!({"max_requests": 7}));
    let replica = Replica::begin_as(&cluster, "one", &token, |_| {}).await;
    replica.until_ready().await;
    until(&cluster, "first", "True", "Accepted").await;
    traffic(&cluster, "shop", "odd", &json!({"retry": {"max_retries": 99}}));
    let message = until(&cluster, "odd", "False", "Invalid").await;
    assert!(message.starts_with("spec.retry.max_retries: 99 is out of range; keep to 0..=10"), "{message}");
    put(&cluster, "AuthorizationPolicy", ("shop", "web"), &json!({"rules": []}));
    let web = (AUTHORIZATION, "shop", "web");
    let fits =
        |policy: &Value| accepted(&policy["status"]["conditions"]).is_some_and(|told| told.1 == "Accepted");
    stored(&cluster, "it is accepted", web, fits).await;
    assert_eq!(writes(&cluster), 3, "each once");
    let first = cluster.server.object(TRAFFIC, "shop", "first").unwrap();
    assert_eq!(first["status"]["ancestors"][0]["ancestorRef"]["name"], "orders");

    // The Service goes, and comes back.
    cluster.server.remove("services", "shop", "orders");
    until(&cluster, "first", "False", "TargetNotFound").await;
    cluster.service("shop", "orders", "10.96.0.1");
    until(&cluster, "first", "True", "Accepted").await;
}

#[tokio::test]
async fn a_second_policy_for_a_service_is_told_that_it_conflicts_until_the_first_goes() {
    let cluster = cluster().await;
    let _replica = Replica::start(&cluster, "one").await;
    traffic(&cluster, "shop", "a", &json!({"max_requests": 7}));
    until(&cluster, "a", "True", "Accepted").await;
    traffic(&cluster, "shop", "b", &json!({"max_requests": 8}));
    let message = until(&cluster, "b", "False", "Conflicted").await;
    assert!(message.contains("TrafficPolicy a is older"), "{message}");
    cluster.server.remove(TRAFFIC, "shop", "a");
    until(&cluster, "b", "True", "Accepted").await;
}
