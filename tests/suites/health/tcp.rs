//! Checks by streams.

use outrider::model::{health::Checked, health_check::CheckOutcome};

use super::{OFTEN, becomes, checked, counted, found};
use crate::harness::{TcpApp, TestMesh, app::nobody, eventually};

#[tokio::test]
async fn an_app_that_takes_connections_is_well_and_hears_nothing() {
    let mesh = TestMesh::new();
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let hears = std::sync::Arc::clone(&heard);
    let app = TcpApp::start(move |mut stream| {
        let heard = std::sync::Arc::clone(&hears);
        async move {
            let mut bytes = Vec::new();
            drop(tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes).await);
            heard.lock().unwrap().extend(bytes);
        }
    })
    .await;
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let web =
        mesh.tcp_caller(&[orders.address()], &format!("health_check: {{protocol: tcp, {OFTEN}}}")).await;
    becomes(&web, orders.address(), Checked::Healthy).await;
    eventually("it is checked again and again", || counted(&web, CheckOutcome::Well) >= 5).await;
    assert_eq!(app.connections() as u64, counted(&web, CheckOutcome::Well));
    assert_eq!(
        orders.listener("in").accepted.load(std::sync::atomic::Ordering::Relaxed),
        1,
        "one connection for all"
    );
    assert!(heard.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_app_that_refuses_is_not_well() {
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", nobody(), "protocol: tcp").await;
    let http_only = mesh.callee("orders", nobody(), "").await;
    let addresses = [orders.address(), http_only.address(), nobody()];
    let web = mesh.tcp_caller(&addresses, "health_check: {protocol: tcp, interval: 1h}").await;
    let (outcome, text) = found(&web, orders.address()).await;
    assert_eq!(
        (outcome, text.as_str()),
        (CheckOutcome::NotServing, "not accepted, its sidecar says connect_failed")
    );
    for address in addresses {
        let (outcome, text) = found(&web, address).await;
        assert_eq!(checked(&web, address), Checked::Unhealthy, "{outcome:?}: {text}");
    }
}

#[tokio::test]
async fn a_standard_peer_and_a_server_in_the_clear_are_well_when_they_are_there() {
    let mesh = TestMesh::new();
    let app = TcpApp::echo().await;
    let orders = mesh.callee("orders", app.address(), "protocol: tcp, peer: standard").await;
    let keys = "peer: standard, health_check: {protocol: tcp, interval: 1h}";
    let web = mesh.tcp_caller(&[orders.address(), nobody()], keys).await;
    assert_eq!(found(&web, orders.address()).await, (CheckOutcome::Well, "connected".to_owned()));
    becomes(&web, orders.address(), Checked::Healthy).await;
    assert!(web.cluster("orders").endpoints.len() == 2);
}
