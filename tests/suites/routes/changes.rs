//! Routes that change while requests are under way.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use http::{Method, StatusCode, Version};

use super::{Shop, ask, get, of_orders, yaml};
use crate::harness::{Client, eventually, soon};

fn to(cluster: &str) -> String {
    of_orders(&format!("{{name: all, clusters: [{{name: {cluster}}}]}}"))
}

#[tokio::test]
async fn routes_change_under_load_and_no_request_fails() {
    let mut shop = Shop::new(&to("v1")).await;
    let (is_over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let (is_over, answered) = (Arc::clone(&is_over), Arc::clone(&answered));
        let mut client = Client::connect(shop.web.address(), version).await;
        load.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let service = get(&mut client, "/a", &[]).await;
                assert!(["orders", "v1", "v2"].contains(&service.as_str()));
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let more = async |claim: &str| {
        let before = answered.load(Ordering::Relaxed);
        eventually(claim, || answered.load(Ordering::Relaxed) >= before + 40).await;
    };
    let half = of_orders("{name: all, clusters: [{name: v1}, {name: v2}], sticky: {header: x-user}}");
    for routes in [to("v2"), half, "[]".to_owned(), to("v1"), to("v2")] {
        more("it goes on").await;
        shop.reload(&routes).await;
    }
    more("it goes on at the end").await;
    is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = soon("the load ends", load.join_next()).await {
        ended.unwrap();
    }
    assert!(shop.counts().iter().all(|count| *count > 0), "{:?}", shop.counts());
    assert_eq!(get(&mut shop.client(Version::HTTP_2).await, "/", &[]).await, "v2");
}

#[tokio::test]
async fn one_unknown_name_fails_the_whole_file_with_a_hint_and_all_stays_as_it_is() {
    let shop = Shop::new(&to("v1")).await;
    for (routes, path, remedy) in [
        (
            of_orders("{clusters: [{name: v2}, {name: v22}]}"),
            "routes[0].rules[0].clusters[1].name",
            "did you mean v2?",
        ),
        (
            to("v2").replace("services: [orders]", "services: [order]"),
            "routes[0].services[0]",
            "did you mean orders?",
        ),
        (to("elsewhere"), "routes[0].rules[0].clusters[0].name", "name one under clusters"),
    ] {
        let yaml = yaml(&shop.callees, "", &routes);
        let text = crate::harness::TestMesh::config("web", &yaml);
        let outrider::config::Error::Faults(faults) =
            outrider::config::parse(&text, shop.mesh.dir()).unwrap_err()
        else {
            panic!()
        };
        let told: Vec<_> = faults.iter().map(|fault| (fault.path.as_str(), fault.remedy.as_str())).collect();
        assert_eq!(told, [(path, remedy)]);
    }
    assert_eq!(get(&mut shop.client(Version::HTTP_2).await, "/", &[]).await, "v1");
}

/// It waits by one configuration and goes on by the next.
#[tokio::test]
async fn what_waits_for_an_endpoint_goes_on_by_the_rule_of_that_name_in_the_newer_configuration() {
    let shop = Shop::new("[]").await;
    let address = shop.callees[1].address();
    let id = crate::harness::ca::id("v1");
    let file = shop.mesh.dir().join("v1.yaml");
    std::fs::write(&file, "endpoints: []").unwrap();
    let yaml = |timeout: &str| {
        format!(
            "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
             clusters: [{{name: v1, spiffe_ids: ['{id}'], endpoints_file: v1.yaml, queue_timeout: 20s, retry: {{max_retries: 0}}}}]\n\
             routes: [{{name: shop, hosts: [orders], rules: [{{name: all, clusters: [{{name: v1}}], {timeout}}}]}}]"
        )
    };
    let mut web = shop.mesh.start("web", &yaml("fault: {abort: 418, abort_percent: 0}")).await;
    let mut client = Client::http2(web.address()).await;
    let waiting = tokio::spawn(async move { ask(&mut client, Method::GET, "/", &[]).await });
    let pending = web.cluster("v1");
    eventually("it waits", || pending.runtime.pending.load(Ordering::Relaxed) == 1).await;
    shop.mesh.reload(&mut web, "web", &yaml("request_timeout: 15s")).await.unwrap();
    std::fs::write(&file, format!("endpoints: [{{address: '{address}'}}]")).unwrap();
    let (status, text, _) = soon("the answer", waiting).await.unwrap();
    assert_eq!((status, text.as_str()), (StatusCode::OK, "v1"));
}
