//! What becomes of pods while the control plane is away.

use http::Method;
use rustix::process::Signal;

use super::{
    calls::{called, orders_and_web},
    load::Load,
    mesh::{Mesh, PARTS},
    rehearse,
};
use crate::processes::until;

#[test]
fn calls_go_on_while_the_control_plane_is_away_and_no_pod_is_made_without_it() {
    rehearse(async || {
        let mesh = Mesh::start().await;
        let [orders, web] = &orders_and_web(&mesh).await;
        let load = Load::begin(web, mesh.cluster.service("orders"), Method::GET);
        load.goes_on(100).await;
        for part in PARTS {
            mesh.stop(part).await;
        }
        load.goes_on(200).await;
        // Not even one that would be outside of the mesh.
        let refused = mesh.cluster.try_replica("orders").await.err().expect("a refusal");
        assert!(refused.contains("failed calling webhook"), "{refused}");
        mesh.start_again(&PARTS).await;

        let new = mesh.cluster.replica("orders").await;
        new.ready().await;
        // Who calls has found the new controller, and heard of the new pod from it.
        until("the new pod is called", async || called(web, "http://orders/").await["replica"] == *new.name)
            .await;
        orders.delete().await;
        load.goes_on(100).await;
        assert_eq!(load.end().await, Vec::<String>::new(), "{:?}", orders.events());
        assert_eq!(called(web, "http://orders/").await["replica"], *new.name);
    });
}

#[test]
fn of_two_replicas_of_each_part_one_is_enough() {
    rehearse(async || {
        let mesh = Mesh::of_replicas(2).await;
        let [_orders, web] = &orders_and_web(&mesh).await;
        let load = Load::begin(web, mesh.cluster.service("orders"), Method::GET);
        load.goes_on(100).await;
        // Those that sidecars are connected to, and that has the Lease.
        for (part, container) in PARTS.iter().zip(["ca", "controller", "injector"]) {
            let first = mesh.parts.iter().find(|pod| pod.name.starts_with(part)).expect("it runs");
            first.signal(container, Signal::KILL);
            first.delete().await;
        }

        let new = mesh.cluster.replica("orders").await;
        new.ready().await;
        until("the new pod is called", async || called(web, "http://orders/").await["replica"] == *new.name)
            .await;
        load.goes_on(100).await;
        assert_eq!(load.end().await, Vec::<String>::new());
    });
}
