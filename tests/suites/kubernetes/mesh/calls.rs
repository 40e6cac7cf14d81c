//! Calls by name, while pods, programs and routes change.

use http::StatusCode;

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

#[test]
fn an_address_that_another_workload_got_has_none_of_the_calls_to_who_had_it() {
    run(async {
        let scene = Scene::new().await;
        let mut one = scene.pod("orders", "orders-a", 4).await;
        scene.service("orders", "10.96.0.1");
        scene.slice("orders", &[&one]);
        scene.until_known("orders").await;
        kill(one.process()).await;
        // Nobody has said yet that it is gone.
        let other = scene.pod("other", "other-a", 4).await;
        for _ in 0..10 {
            assert_ne!(scene.call("orders").await.0, StatusCode::OK);
        }
        // Its Pod is gone, and its Service has not heard.
        scene.cluster.api.remove("pods", "shop", "orders-a");
        for _ in 0..10 {
            assert_ne!(scene.call("orders").await.0, StatusCode::OK);
        }
        assert_eq!(other.count(), 0);
        scene.service("other", "10.96.0.2");
        scene.slice("other", &[&other]);
        scene.until_known("other").await;
        assert_ne!(scene.call("orders").await.0, StatusCode::OK);
    });
}

#[test]
fn a_service_that_is_another_name_of_one_is_that_one() {
    run(async {
        let scene = Scene::new().await;
        let one = scene.pod("orders", "orders-a", 4).await;
        scene.service("orders", "10.96.0.1");
        scene.slice("orders", &[&one]);
        scene.external_name("till", "orders.shop.svc.cluster.local");
        scene.until_known("till").await;
        scene.until_from("till.shop.svc.cluster.local", "orders-a").await;
    });
}
