//! What sidecars are told of policies.

use serde_json::{Value, json};

use super::{AUTHORIZATION, TRAFFIC, cluster, install, put, traffic};
use crate::kubernetes::controller::{cluster::Cluster, replica::Replica, sidecar::Sidecar};

const KEY: &str = "orders.shop:80";

/// What is said of who may call the sidecar's own pod.
fn callers(sidecar: &Sidecar) -> Option<Value> {
    let inbound: Value = serde_json::from_str(sidecar.inbound.as_deref()?).unwrap();
    inbound.get("authorization").cloned()
}

/// Listens until that is said of who may call.
async fn until_callers_are(sidecar: &mut Sidecar, expected: Option<Value>) {
    let claim = format!("who may call is {expected:?}");
    sidecar.until(&claim, |sidecar| sidecar.inbound.is_some() && callers(sidecar) == expected).await;
}

async fn until_it_has(sidecar: &mut Sidecar, key: &str, value: Value) {
    let claim = format!("{key} is {value}");
    let pointer = format!("/{key}");
    sidecar
        .until(&claim, |sidecar| {
            let found = sidecar.held(KEY).and_then(|held| held.cluster.pointer(&pointer));
            found.unwrap_or(&Value::Null) == &value
        })
        .await;
}

#[tokio::test]
async fn a_traffic_policy_comes_changes_and_goes_within_the_stream_and_another_namespaces_does_nothing() {
    let cluster = cluster().await;
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    let mut far = Sidecar::connect_as(&cluster, replica.address, "far", "").await;
    let before = sidecar.ask(KEY).await.unwrap().cluster;
    far.ask(KEY).await.unwrap();
    traffic(&cluster, "far", "theirs", &json!({"max_requests": 1}));
    traffic(&cluster, "shop", "ours", &json!({"max_requests": 7, "retry": {"max_retries": 0}}));
    for each in [&mut sidecar, &mut far] {
        until_it_has(each, "max_requests", json!(7)).await;
        until_it_has(each, "retry/max_retries", json!(0)).await;
    }
    let held = sidecar.held(KEY).unwrap();
    assert_eq!((&held.cluster["tls"], held.endpoints.len()), (&json!("mesh"), 2), "the rest is as it was");
    traffic(&cluster, "shop", "ours", &json!({"max_requests": 8}));
    until_it_has(&mut sidecar, "max_requests", json!(8)).await;
    until_it_has(&mut sidecar, "retry", Value::Null).await;
    // One that cannot be used is as if it were not there.
    traffic(&cluster, "shop", "ours", &json!({"max_requests": 8, "tls": "none"}));
    until_it_has(&mut sidecar, "max_requests", Value::Null).await;
    assert_eq!(sidecar.held(KEY).unwrap().cluster, before);
    traffic(&cluster, "shop", "ours", &json!({"balance": "round_robin"}));
    until_it_has(&mut sidecar, "balance", json!("round_robin")).await;
    cluster.server.remove(TRAFFIC, "shop", "ours");
    until_it_has(&mut sidecar, "balance", Value::Null).await;
    assert_eq!(sidecar.held(KEY).unwrap().cluster, before);
}

/// `orders-a` gets labels that a policy can select it by.
fn label(cluster: &Cluster, app: &str) {
    let mut pod = cluster.server.object("pods", "shop", "orders-a").unwrap();
    pod["metadata"]["labels"] = json!({"outrider.io/injected": "true", "app": app});
    cluster.server.put(pod);
}

#[tokio::test]
async fn who_may_call_a_pod_say_the_policies_that_select_it_and_no_others() {
    let cluster = cluster().await;
    label(&cluster, "orders");
    let rule = |name: &str| json!({"name": name, "from_namespaces": ["web"]});
    let spec = |rules: Value| json!({"selector": {"matchLabels": {"app": "orders"}}, "rules": rules});
    put(&cluster, "AuthorizationPolicy", ("shop", "web"), &spec(json!([rule("read")])));
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect_as(&cluster, replica.address, "shop", "orders-a").await;
    let said = |names: &[&str]| {
        let rules: Vec<Value> = names.iter().map(|name| rule(name)).collect();
        Some(json!({"mode": "enforce", "rules": rules}))
    };
    // From the first word on.
    until_callers_are(&mut sidecar, said(&["web/read"])).await;
    let mut other = Sidecar::connect_as(&cluster, replica.address, "shop", "orders-b").await;
    until_callers_are(&mut other, None).await;
    put(&cluster, "AuthorizationPolicy", ("far", "theirs"), &json!({"rules": [rule("x")]}));
    put(&cluster, "AuthorizationPolicy", ("shop", "write"), &json!({"rules": [rule("more")]}));
    until_callers_are(&mut other, said(&["write/more"])).await;
    until_callers_are(&mut sidecar, said(&["web/read", "write/more"])).await;
    // It is another app's pod from now on.
    label(&cluster, "billing");
    until_callers_are(&mut sidecar, said(&["write/more"])).await;
    cluster.server.remove(AUTHORIZATION, "shop", "write");
    until_callers_are(&mut sidecar, None).await;
}

#[tokio::test]
async fn an_authorization_policy_that_cannot_be_used_closes_the_pods_that_it_selects() {
    let cluster = cluster().await;
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect_as(&cluster, replica.address, "shop", "orders-a").await;
    until_callers_are(&mut sidecar, None).await;
    put(
        &cluster,
        "AuthorizationPolicy",
        ("shop", "odd"),
        &json!({"rules": [{"name": "a", "from": ["web"]}]}),
    );
    until_callers_are(&mut sidecar, Some(json!({"mode": "enforce", "rules": []}))).await;
    let reason = |policy: &Value| policy["status"]["conditions"][0]["reason"] == "Invalid";
    let odd = (AUTHORIZATION, "shop", "odd");
    crate::kubernetes::controller::replica::stored(&cluster, "its status says why", odd, reason).await;
    let rules = json!([{"name": "a", "from": ["spiffe://cluster.local/ns/web/sa/web"]}]);
    put(&cluster, "AuthorizationPolicy", ("shop", "odd"), &json!({"rules": rules}));
    sidecar
        .until("it is corrected", |sidecar| {
            callers(sidecar).is_some_and(|said| said["rules"][0]["name"] == "odd/a")
        })
        .await;
}

#[tokio::test]
async fn where_the_kinds_are_defined_later_policies_hold_from_then_on() {
    let cluster = Cluster::bare().await.and_orders();
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    sidecar.ask(KEY).await.unwrap();
    install(&cluster);
    traffic(&cluster, "shop", "ours", &json!({"max_requests": 7}));
    until_it_has(&mut sidecar, "max_requests", json!(7)).await;
}
