//! What is written to routes.

use serde_json::{Value, json};

use super::{RESOURCE, canary, http_route, split};
use crate::{
    harness::eventually,
    kubernetes::controller::{
        cluster::Cluster,
        replica::{Replica, stored},
    },
};

/// The condition of this type that was written for `orders`: status and reason.
fn condition(route: &Value, kind: &str) -> Option<(String, String)> {
    let entries = route["status"]["parents"].as_array()?;
    let ours = entries.iter().find(|entry| entry["controllerName"] == "outrider.io/controller")?;
    let found = ours["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)?;
    Some((found["status"].as_str()?.to_owned(), found["reason"].as_str()?.to_owned()))
}

async fn until(cluster: &Cluster, name: &str, kind: &str, status: &str, reason: &str) {
    let expected = Some((status.to_owned(), reason.to_owned()));
    let what = format!("{name} is {kind}={status}:{reason}");
    stored(cluster, &what, (RESOURCE, "shop", name), |route| condition(route, kind) == expected).await;
}

/// How often a status was written.
fn writes(cluster: &Cluster) -> usize {
    let is_write = |call: &&crate::harness::api_server::Call| {
        call.verb == "patch" && call.resource.starts_with(RESOURCE)
    };
    cluster.server.calls().iter().filter(is_write).count()
}

#[tokio::test]
async fn one_replica_writes_what_became_of_a_route_and_another_takes_over() {
    let cluster = canary().await;
    split(&cluster, "shop", "good", &[("shop", "orders", 1)]);
    let (one, two) = (Replica::start(&cluster, "one").await, Replica::start(&cluster, "two").await);
    until(&cluster, "good", "Accepted", "True", "Accepted").await;
    until(&cluster, "good", "ResolvedRefs", "True", "ResolvedRefs").await;
    split(&cluster, "shop", "bad", &[("shop", "nobody", 1)]);
    until(&cluster, "bad", "ResolvedRefs", "False", "BackendNotFound").await;
    assert_eq!(writes(&cluster), 2, "one replica writes, and each once");

    let (leader, other) =
        if one.metric("outrider_controller_leader").await >= 1.0 { (one, two) } else { (two, one) };
    leader.stop().await;
    other.leads().await;
    cluster.service("shop", "nobody", "10.96.0.9");
    until(&cluster, "bad", "ResolvedRefs", "True", "ResolvedRefs").await;
    assert_eq!(writes(&cluster), 3, "what says so already is not written again");
}

#[tokio::test]
async fn what_is_wrong_with_a_route_is_said_and_what_others_wrote_stays() {
    let cluster = canary().await;
    let cors = json!([{"type": "CORS", "cors": {}}]);
    let backends = json!([{"name": "orders", "port": 80}]);
    http_route(&cluster, "shop", "bad", json!([{"filters": cors, "backendRefs": backends}]));
    let foreign = json!({
        "parentRef": {"name": "gate"}, "controllerName": "example.com/other",
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    });
    let mut route = cluster.server.object(RESOURCE, "shop", "bad").unwrap();
    route["status"] = json!({"parents": [foreign]});
    cluster.server.put(route.clone());
    let _replica = Replica::start(&cluster, "one").await;
    until(&cluster, "bad", "Accepted", "False", "UnsupportedValue").await;
    let written = cluster.server.object(RESOURCE, "shop", "bad").unwrap();
    assert_eq!(written["status"]["parents"][0], foreign);
    let message = written["status"]["parents"][1]["conditions"][0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("CORS") && message.contains("500"), "{message}");

    route["spec"]["rules"][0] = json!({"backendRefs": backends});
    route["status"] = written["status"].clone();
    cluster.server.put(route.clone());
    until(&cluster, "bad", "Accepted", "True", "Accepted").await;
    // It is for nobody of ours any more: what we said of it goes.
    route["spec"]["parentRefs"] = json!([{"name": "gate"}]);
    route["status"] = cluster.server.object(RESOURCE, "shop", "bad").unwrap()["status"].clone();
    cluster.server.put(route);
    stored(&cluster, "only the other's is left", (RESOURCE, "shop", "bad"), |route| {
        route["status"]["parents"] == json!([foreign])
    })
    .await;
}

#[tokio::test]
async fn a_mirror_that_is_not_there_is_said_until_it_comes() {
    let cluster = canary().await;
    let to = json!({"backendRef": {"name": "nobody", "port": 80}});
    let filters = json!([{"type": "RequestMirror", "requestMirror": to}]);
    let backends = json!([{"name": "orders", "port": 80}]);
    http_route(&cluster, "shop", "copied", json!([{"filters": filters, "backendRefs": backends}]));
    let _replica = Replica::start(&cluster, "one").await;
    until(&cluster, "copied", "ResolvedRefs", "False", "BackendNotFound").await;
    until(&cluster, "copied", "Accepted", "True", "Accepted").await;
    cluster.service("shop", "nobody", "10.96.0.9");
    until(&cluster, "copied", "ResolvedRefs", "True", "ResolvedRefs").await;
}

#[tokio::test]
async fn a_status_that_somebody_else_wrote_meanwhile_is_written_anew() {
    let cluster = canary().await;
    let replica = Replica::start(&cluster, "one").await;
    replica.leads().await;
    let is_write = |call: &crate::harness::api_server::Call| {
        (call.verb == "patch" && call.resource.starts_with(RESOURCE)).then_some(409)
    };
    cluster.server.refuse_if(is_write);
    split(&cluster, "shop", "good", &[("shop", "orders", 1)]);
    eventually("it is tried", || writes(&cluster) >= 2).await;
    cluster.server.refuse(None);
    until(&cluster, "good", "Accepted", "True", "Accepted").await;
    assert!(replica.metric("outrider_controller_status_errors_total").await < 1.0, "that is no error");
}

#[tokio::test]
async fn a_status_that_is_refused_holds_up_no_other() {
    let cluster = canary().await;
    let is_bad =
        |call: &crate::harness::api_server::Call| (call.verb == "patch" && call.name == "bad").then_some(422);
    cluster.server.refuse_if(is_bad);
    for name in ["bad", "good"] {
        split(&cluster, "shop", name, &[("shop", "orders", 1)]);
    }
    let replica = Replica::start(&cluster, "one").await;
    until(&cluster, "good", "Accepted", "True", "Accepted").await;
    assert!(replica.metric("outrider_controller_status_errors_total").await >= 1.0);
    cluster.server.refuse(None);
    until(&cluster, "bad", "Accepted", "True", "Accepted").await;
}

#[tokio::test]
async fn the_rights_that_are_installed_are_enough() {
    let cluster = canary().await;
    crate::kubernetes::grant(&cluster.server);
    let token = cluster.server.service_account_token("outrider", "outrider-controller");
    let replica = Replica::begin_as(&cluster, "one", &token, |_| {}).await;
    replica.until_ready().await;
    split(&cluster, "shop", "good", &[("shop", "orders", 1)]);
    until(&cluster, "good", "Accepted", "True", "Accepted").await;
    cluster.server.put(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute",
        "metadata": {"namespace": "shop", "name": "calls"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "orders"}],
            "rules": [{"backendRefs": [{"name": "orders", "port": 80}]}],
        },
    }));
    until(&cluster, "good", "Accepted", "False", "Conflicted").await;
    let calls = ("gateway.networking.k8s.io/grpcroutes", "shop", "calls");
    let is_accepted =
        |route: &Value| condition(route, "Accepted").is_some_and(|(status, _)| status == "True");
    stored(&cluster, "the GRPCRoute is accepted", calls, is_accepted).await;
}
