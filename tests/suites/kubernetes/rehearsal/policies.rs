//! Policies decide who may call a pod, and how it is called.

use super::{calls::orders_and_web, mesh::Mesh, pod::Pod, rehearse};
use crate::processes::until;

/// The status that an app gets for a `GET` of that path of `orders`; 0: none.
async fn get(from: &Pod, path: &str) -> u16 {
    let url = format!("http://orders{path}");
    let call = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10", &url];
    let ran = from.exec("app", &call).await;
    String::from_utf8_lossy(&ran.stdout).trim().parse().unwrap_or_default()
}

async fn until_it_is(from: &Pod, path: &str, status: u16) {
    until(&format!("{path} is answered {status}"), async || get(from, path).await == status).await;
}

const WHO: &str = "
apiVersion: outrider.io/v1alpha1
kind: AuthorizationPolicy
metadata: {namespace: shop, name: orders}
spec:
  selector: {matchLabels: {app: orders}}
  rules: [{name: web-items, from: ['spiffe://cluster.local/ns/shop/sa/web'], path_prefixes: [/items]}]
";
const HOW: &str = "
apiVersion: outrider.io/v1alpha1
kind: TrafficPolicy
metadata: {namespace: shop, name: orders}
spec:
  targetRefs: [{group: '', kind: Service, name: orders}]
  rate_limits: [{requests: 1, per: 1h}]
";

#[test]
fn policies_hold_for_pods_that_run_and_nothing_is_started_anew() {
    rehearse(async || {
        let mesh = Mesh::start().await;
        let [orders, web] = &orders_and_web(&mesh).await;
        until_it_is(web, "/", 200).await;
        let before = [orders.events(), web.events()];

        mesh.apply(WHO).await;
        until_it_is(web, "/", 403).await;
        assert_eq!(get(web, "/items/7").await, 200);
        // Written by hand into the store, past every schema: nobody may call.
        mesh.apply(&WHO.replace("path_prefixes", "path_prefix")).await;
        until_it_is(web, "/items/7", 403).await;
        let status = || mesh.cluster.api.object("outrider.io/authorizationpolicies", "shop", "orders");
        until("its status says why", async || {
            let told = status().unwrap_or_default()["status"]["conditions"][0]["message"].clone();
            told.as_str().is_some_and(|told| told.contains("path_prefix"))
        })
        .await;
        mesh.cluster.api.remove("outrider.io/authorizationpolicies", "shop", "orders");
        until_it_is(web, "/", 200).await;

        mesh.apply(HOW).await;
        until_it_is(web, "/", 429).await;
        mesh.cluster.api.remove("outrider.io/trafficpolicies", "shop", "orders");
        until_it_is(web, "/", 200).await;
        assert_eq!([orders.events(), web.events()], before, "all without a restart");
    });
}
