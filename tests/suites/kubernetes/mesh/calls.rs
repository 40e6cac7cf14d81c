//! Calls by name, while pods, programs and routes change.

use super::scene::{Scene, kill};
use crate::processes::run;

#[test]
fn a_call_by_name_reaches_the_pods_that_there_are_and_none_is_lost() {
    run(async {
        let scene = Scene::new().await;
        let one = scene.pod("orders", "orders-a", 4).await;
        scene.service("orders", "10.96.0.1");
        scene.slice("orders", &[&one]);
        scene.until_known("orders").await;
        scene.until_from("orders", "orders-a").await;
        // Another pod takes its place.
        let two = scene.pod("orders", "orders-b", 5).await;
        scene.slice("orders", &[&one, &two]);
        scene.until_from("orders", "orders-b").await;
        scene.slice("orders", &[&two]);
        scene.until_from("orders.shop.svc.cluster.local", "orders-b").await;
        // To nobody, and back.
        scene.slice("orders", &[]);
        scene.until_refused("orders").await;
        let before = two.count();
        scene.slice("orders", &[&two]);
        scene.until_known("orders").await;
        assert!(two.count() > before);
    });
}

#[test]
fn without_ca_controller_and_api_server_calls_go_on() {
    run(async {
        let mut scene = Scene::new().await;
        let one = scene.pod("orders", "orders-a", 4).await;
        let two = scene.pod("orders", "orders-b", 5).await;
        scene.service("orders", "10.96.0.1");
        scene.slice("orders", &[&one]);
        scene.until_known("orders").await;
        scene.until_from("orders", "orders-a").await;
        scene.cluster.api.stop().await;
        scene.answers("orders", 10).await;
        kill(&mut scene.controller).await;
        kill(&mut scene.ca.process).await;
        scene.answers("orders", 10).await;
        scene.cluster.api.start_again().await;
        scene.ca = scene.cluster.ca(1, &[]).await;
        scene.start_controller_again().await;
        scene.slice("orders", &[&two]);
        scene.until_from("orders", "orders-b").await;
    });
}

#[test]
fn a_canary_by_a_route_gets_its_share_and_then_everything() {
    run(async {
        let scene = Scene::new().await;
        let one = scene.pod("orders", "orders-a", 4).await;
        let two = scene.pod("orders-v2", "orders-v2-a", 5).await;
        scene.service("orders", "10.96.0.1");
        scene.service("orders-v2", "10.96.0.2");
        scene.slice("orders", &[&one]);
        scene.slice("orders-v2", &[&two]);
        scene.split([("orders", 1), ("orders-v2", 0)]);
        scene.until_known("orders").await;
        scene.until_from("orders", "orders-a").await;
        scene.split([("orders", 1), ("orders-v2", 1)]);
        scene.until_from("orders", "orders-v2-a").await;
        let share = scene.answers("orders", 100).await.iter().filter(|pod| *pod == "orders-v2-a").count();
        // Six standard deviations of a binomial distribution.
        assert!((20..=80).contains(&share), "{share} of 100");
        scene.split([("orders", 0), ("orders-v2", 1)]);
        crate::processes::until("the new one has all", async || {
            scene.answers("orders", 20).await.iter().all(|pod| pod == "orders-v2-a")
        })
        .await;
        assert_eq!(scene.answers("orders-v2", 3).await, ["orders-v2-a"; 3]);
    });
}
