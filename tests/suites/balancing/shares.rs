//! Weights and zones, as a file says them, through the whole mesh.

use std::{fs, sync::atomic::Ordering};

use super::{Replicas, config, who};
use crate::harness::{Sidecar, ca::id, eventually};

/// By how many requests each replica was reached, of so many.
async fn spread(replicas: &Replicas, web: &Sidecar, requests: usize) -> Vec<usize> {
    let before = replicas.counts();
    for _ in 0..requests {
        who(web.address(), &[]).await;
    }
    replicas.counts().iter().zip(before).map(|(after, before)| after - before).collect()
}

#[tokio::test]
async fn a_heavier_endpoint_gets_more_requests() {
    let replicas = Replicas::start(3).await;
    let keys = ["weight: 1", "weight: 3", "weight: 6"];
    let endpoints = replicas.addresses().into_iter().zip(keys);
    let web = replicas.mesh.start("web", &config("", endpoints, "balance: round_robin")).await;
    let counts = spread(&replicas, &web, 100).await;
    for (count, expected) in counts.iter().zip([10_usize, 30, 60]) {
        assert!(count.abs_diff(expected) <= 3, "{counts:?}");
    }
}

#[tokio::test]
async fn every_way_to_balance_reaches_every_endpoint() {
    let replicas = Replicas::start(3).await;
    for balance in ["peak_ewma", "least_request", "round_robin", "random"] {
        let web = replicas.caller("", &format!("balance: {balance}")).await;
        let counts = spread(&replicas, &web, 90).await;
        // Latencies may differ much here: the first answer of each has its handshake in it.
        assert!(counts.iter().all(|count| *count > 0), "{balance}: {counts:?}");
    }
}

#[tokio::test]
async fn the_own_zone_comes_first_until_too_little_of_it_is_ready() {
    let replicas = Replicas::start(4).await;
    let list = |ready: [bool; 4]| {
        let zones = ["here", "here", "there", "there"];
        let items: Vec<_> = (0..4)
            .map(|at| {
                let (address, zone) = (replicas.addresses()[at], zones[at]);
                format!("{{address: '{address}', zone: {zone}, ready: {}}}", ready[at])
            })
            .collect();
        let new = replicas.mesh.dir().join("endpoints.new");
        fs::write(&new, format!("endpoints: [{}]", items.join(", "))).unwrap();
        fs::rename(new, replicas.mesh.dir().join("endpoints.yaml")).unwrap();
    };
    list([true; 4]);
    let yaml = format!(
        "zone: here\noutbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, spiffe_ids: ['{}'], endpoints_file: endpoints.yaml, balance: round_robin}}]",
        id("orders"),
    );
    let web = replicas.mesh.start("web", &yaml).await;
    let ready = || {
        let cluster = web.cluster("orders");
        cluster.endpoints.iter().filter(|endpoint| endpoint.settings.is_ready).count()
    };
    eventually("the list is in use", || ready() == 4).await;
    assert_eq!(spread(&replicas, &web, 40).await[2..], [0, 0], "all at home");
    list([false, true, true, true]);
    eventually("one is not ready", || ready() == 3).await;
    // Half of the zone is ready: it takes 70 %.
    let counts = spread(&replicas, &web, 100).await;
    assert_eq!(counts[0], 0);
    assert!(counts[1].abs_diff(70) <= 4, "{counts:?}");
    list([false, false, true, true]);
    eventually("nothing at home is ready", || ready() == 2).await;
    assert_eq!(spread(&replicas, &web, 40).await, [0, 0, 20, 20]);
    let picks = &web.cluster("orders").runtime.picks.by_zone;
    let [own, other] = [0, 1].map(|zone: usize| picks[zone].load(Ordering::Relaxed));
    assert_eq!(own + other, 180);
    assert!(other.abs_diff(70) <= 4, "{own} and {other}");
}
