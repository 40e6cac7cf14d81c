//! Routes that the controller says of a service.

use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::harness::eventually;

/// What is said of services that no address leads to.
const BEHIND: &str = r#""authorities":[],"tls":"none""#;
/// What is said of the service that is called.
const CALLED: &str = r#""authorities":[],"addresses":["10.96.0.7:80"],"tls":"none""#;

/// A route of `orders` with these weights.
fn split(weights: &[(&str, u32)]) -> [String; 1] {
    let clusters: Vec<String> =
        weights.iter().map(|(name, weight)| format!(r#"{{"name":"{name}","weight":{weight}}}"#)).collect();
    let rule = format!(r#"{{"name":"canary","clusters":[{}]}}"#, clusters.join(","));
    [format!(r#"{{"name":"r.shop","services":["orders"],"rules":[{rule}]}}"#)]
}

/// `orders`, called once, whose routes send everything to `v1`; `v2` is told as well.
async fn canary() -> (Scene, Stream, [HttpApp; 3]) {
    let (scene, mut stream) = Scene::new(PATIENT).await;
    let apps = [HttpApp::named("orders").await, HttpApp::named("v1").await, HttpApp::named("v2").await];
    let telling = async {
        stream.asked().await;
        for (name, app) in ["v1", "v2"].iter().zip(&apps[1..]) {
            stream.service(name, 1, BEHIND).await;
            stream.endpoints(name, 2, &[(app.address(), "")]).await;
        }
        stream.routed("orders", 3, CALLED, &split(&[("v1", 1), ("v2", 0)])).await;
        stream.endpoints("orders", 4, &[(apps[0].address(), "")]).await;
        stream.leads(SERVICE, "orders").await;
    };
    let (answer, ()) = tokio::join!(scene.ask(SERVICE), telling);
    is_from(&answer, "v1");
    (scene, stream, apps)
}

#[tokio::test]
async fn routes_hold_for_a_service_that_is_asked_for_without_its_port() {
    let (scene, mut stream) = Scene::new(PATIENT).await;
    let apps = [HttpApp::named("orders").await, HttpApp::named("v1").await];
    let telling = async {
        assert_eq!(stream.asked().await, "want orders:80 0/0");
        stream.service("v1", 1, BEHIND).await;
        stream.endpoints("v1", 2, &[(apps[1].address(), "")]).await;
        stream.routed("orders", 3, BEHIND, &split(&[("v1", 1)])).await;
        stream.endpoints("orders", 4, &[(apps[0].address(), "")]).await;
        stream.leads("orders:80", "orders").await;
    };
    let (answer, ()) = tokio::join!(scene.name("orders", Version::HTTP_11), telling);
    is_from(&answer, "v1");
    is_from(&scene.name("orders:80", Version::HTTP_11).await, "v1");
}

/// Who answers so many requests.
async fn answers(scene: &Scene, count: usize) -> BTreeMap<String, usize> {
    let mut by = BTreeMap::new();
    for _ in 0..count {
        let answer = scene.ask(SERVICE).await;
        assert_eq!(answer.0, StatusCode::OK, "{answer:?}");
        *by.entry(answer.2).or_default() += 1;
    }
    by
}

/// Asks until that app answers; nothing may fail meanwhile.
async fn until_from(scene: &Scene, app: &str) {
    soon("it answers", async { while !answers(scene, 1).await.contains_key(app) {} }).await;
}

#[tokio::test]
async fn a_share_of_requests_moves_and_none_is_lost() {
    let (scene, stream, _apps) = canary().await;
    assert_eq!(answers(&scene, 20).await, BTreeMap::from([("v1".to_owned(), 20)]));
    stream.routed("orders", 5, CALLED, &split(&[("v1", 1), ("v2", 1)])).await;
    until_from(&scene, "v2").await;
    let by = answers(&scene, 200).await;
    // More than seven standard deviations of a binomial distribution.
    assert!(by.len() == 2 && by.values().all(|count| (50..=150).contains(count)), "{by:?}");
    stream.routed("orders", 6, CALLED, &split(&[("v1", 0), ("v2", 1)])).await;
    let is_all = || {
        let config = Arc::clone(&scene.web.app().snapshots.load().config);
        let rules = config.settings.routes.services.get(&ClusterName::new("orders")).cloned();
        rules.is_some_and(|rules| rules[0].rule.clusters.list()[0].weight == 0)
    };
    eventually("it is in force", is_all).await;
    assert_eq!(answers(&scene, 20).await, BTreeMap::from([("v2".to_owned(), 20)]));
    assert!(scrape(&scene.web).sum("outrider_edge_requests_total", &[("route", "r.shop/canary")]) > 200.0);
}

#[tokio::test]
async fn a_service_without_routes_any_more_is_called_as_it_is() {
    let (scene, stream, _apps) = canary().await;
    stream.service("orders", 5, CALLED).await;
    until_from(&scene, "orders").await;
    assert_eq!(answers(&scene, 20).await, BTreeMap::from([("orders".to_owned(), 20)]));
}

#[tokio::test]
async fn bad_routes_are_refused_and_the_last_good_hold() {
    let (scene, stream, _apps) = canary().await;
    let rejected = || scene.web.app().controller.rejected();
    for (generation, routes, what) in [
        (5, ["{".to_owned()], "routes"),
        (6, split(&[("nobody", 1)]), "nobody"),
        (7, split(&[("v2", 1)]).map(|text| text.replace("[\"orders\"]", "[\"v1\"]")), "services"),
    ] {
        stream.routed("orders", generation, CALLED, &routes).await;
        let is_told = || rejected().first().is_some_and(|it| it.faults[0].to_string().contains(what));
        eventually(what, is_told).await;
        assert_eq!(answers(&scene, 5).await, BTreeMap::from([("v1".to_owned(), 5)]));
    }
    stream.routed("orders", 8, CALLED, &split(&[("v2", 1)])).await;
    until_from(&scene, "v2").await;
    assert!(rejected().is_empty());
}

#[tokio::test]
async fn routes_whose_service_comes_late_hold_from_then_on() {
    let (scene, stream, _apps) = canary().await;
    stream.routed("orders", 5, CALLED, &split(&[("v3", 1)])).await;
    eventually("it waits", || scene.metric("outrider_controller_rejected") == 1.0).await;
    is_from(&scene.ask(SERVICE).await, "v1");
    let late = HttpApp::named("v3").await;
    stream.service("v3", 1, BEHIND).await;
    stream.endpoints("v3", 2, &[(late.address(), "")]).await;
    until_from(&scene, "v3").await;
    assert_eq!(scene.metric("outrider_controller_rejected"), 0.0);
}

#[tokio::test]
async fn endpoints_of_what_routes_need_change_and_an_empty_one_gets_its_share() {
    let (scene, stream, [_orders, v1, _v2]) = canary().await;
    let moved = HttpApp::named("moved").await;
    stream.change("v1", 5, &[(moved.address(), "")], &[v1.address()]).await;
    until_from(&scene, "moved").await;
    stream.change("v1", 6, &[], &[moved.address()]).await;
    eventually("nobody is there", || scene.web.cluster("v1").endpoints.is_empty()).await;
    let answer = scene.ask(SERVICE).await;
    assert_eq!(answer.1.as_deref(), Some("no_endpoint"), "it goes nowhere else");
}
