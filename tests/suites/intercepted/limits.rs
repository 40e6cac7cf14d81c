//! Rate limits of intercepted ports.

use http::{StatusCode, Version};

use super::{PERMISSIVE, Pod, port, ports};
use crate::harness::{Client, HttpApp, body};

/// Requests that are let through of so many.
async fn passed(client: &mut Client, path: &str, count: usize) -> usize {
    let mut passed = 0;
    for _ in 0..count {
        let response = client.get(path).await.unwrap();
        passed += usize::from(response.status() == StatusCode::OK);
        drop(body::text(response.into_body()).await);
    }
    passed
}

#[tokio::test]
async fn each_port_has_its_own_limits_for_each_caller() {
    let (first, second) = (HttpApp::echo().await, HttpApp::echo().await);
    let limits = "rate_limits: [{by: caller, requests: 2, per: 1h}]";
    let yaml = ports(&[port(first.address(), limits), port(second.address(), limits)]);
    let pod = Pod::with(&yaml).await;
    for (service, app) in [("web", &first), ("shop", &first), ("web", &second)] {
        let mut client = pod.peer(app.address(), service).await.unwrap();
        assert_eq!(passed(&mut client, "/", 5).await, 2, "{service}");
        let mut again = pod.peer(app.address(), service).await.unwrap();
        assert_eq!(passed(&mut again, "/", 5).await, 0, "another connection is the same caller");
    }
    assert_eq!((first.count(), second.count()), (4, 2));
}

#[tokio::test]
async fn those_who_proved_nothing_are_told_apart_by_address_and_probes_pass() {
    let app = HttpApp::echo().await;
    let keys =
        format!("{PERMISSIVE}, probes: [/healthz], rate_limits: [{{by: caller, requests: 2, per: 1h}}]");
    let pod = Pod::new(app.address(), &keys).await;
    let mut plain = pod.client(app.address(), Version::HTTP_11).await;
    assert_eq!(passed(&mut plain, "/", 5).await, 2);
    let mut proven = pod.peer(app.address(), "web").await.unwrap();
    assert_eq!(passed(&mut proven, "/", 5).await, 2);
    assert_eq!(passed(&mut plain, "/healthz", 20).await, 20, "the host asks how the app is");
    assert_eq!(passed(&mut proven, "/healthz", 5).await, 0, "a peer is no host");
}
