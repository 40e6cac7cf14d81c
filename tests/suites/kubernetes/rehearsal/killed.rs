//! A sidecar that dies is started anew; meanwhile nothing goes past it.

use futures_util::future::join_all;
use http::Method;
use rustix::process::Signal;

use super::{
    calls::{orders_and_web, service, slow_service},
    load::{CALLERS, Load},
    mesh::Mesh,
    rehearse,
};
use crate::{kubernetes::webhook::caller::get, processes::until};

#[test]
fn calls_that_are_under_way_in_an_app_that_is_killed_fail_and_no_others() {
    rehearse(async || {
        let mesh = Mesh::start().await;
        let orders = mesh.apply(&slow_service("orders", 2, 1000)).await;
        let web = mesh.apply(&service("web", 1)).await;
        for pod in orders.iter().chain(&web) {
            pod.ready().await;
        }
        let loads = Load::several(&web[0], mesh.cluster.service("orders"), &Method::POST);
        join_all(loads.iter().map(|load| load.goes_on(2))).await;
        // While the sidecar has calls at the app.
        let gauge = r#"outrider_cluster_in_flight{direction="inbound""#;
        until("a call is under way", async || {
            let (_, text) = get(orders[0].at(4391), "/metrics").await;
            text.lines().any(|line| line.starts_with(gauge) && !line.ends_with(" 0"))
        })
        .await;
        orders[0].signal("app", Signal::KILL);
        join_all(loads.iter().map(|load| load.goes_on(3))).await;
        let mut failed = Vec::new();
        for load in loads {
            failed.extend(load.end().await);
        }
        assert!((1..=CALLERS).contains(&failed.len()), "{failed:?}");
    });
}

#[test]
fn a_sidecar_that_is_killed_comes_back_and_calls_work_again() {
    rehearse(async || {
        let mesh = Mesh::start().await;
        let [orders, web] = &orders_and_web(&mesh).await;
        let call = ["curl", "-sS", "--fail", "--max-time", "10", "http://orders/"];
        for victim in [web, orders] {
            until("calls work", async || web.exec("app", &call).await.status.success()).await;
            victim.signal("outrider", Signal::KILL);
            until("it is noticed", async || victim.status("outrider").restarts == 1).await;
            // Whether it is back or not: in plaintext there is nothing.
            assert_eq!(get(orders.at(8080), "/").await.0, 0);
            until("calls work again", async || web.exec("app", &call).await.status.success()).await;
            victim.ready().await;
            assert!(victim.events().contains(&"outrider ended 137".to_owned()), "{:?}", victim.events());
            assert_eq!(victim.status("app").restarts, 0);
        }
    });
}
