//! Checks by HTTP.

use std::sync::{Arc, atomic::Ordering};

use http::{Method, StatusCode, Version};
use outrider::model::{health::Checked, health_check::CheckOutcome};
use tokio::io::AsyncWriteExt as _;

use super::{OFTEN, Told, becomes, checked, counted, found, state};
use crate::harness::{
    HttpApp, TcpApp, TestMesh,
    app::nobody,
    client::call,
    eventually,
    peer::{ALPN_H2, TlsPeer, server_config},
};

#[tokio::test]
async fn an_app_that_fails_is_unhealthy_by_the_threshold_and_healthy_again_after() {
    let (mesh, told) = (TestMesh::new(), Told::start().await);
    let orders = mesh.callee("orders", told.app.address(), "").await;
    let keys = format!("health_check: {{path: '/ready?full=1', host: 'orders.test', {OFTEN}}}");
    let web = mesh.caller(&[orders.address()], &keys).await;
    becomes(&web, orders.address(), Checked::Healthy).await;
    let standings = web.cluster("orders").runtime.standings.load(Ordering::Relaxed);
    let seen = told.app.only();
    assert_eq!((seen.method.clone(), seen.uri.to_string()), (Method::GET, "/ready?full=1".to_owned()));
    assert_eq!((seen.version, seen.authority()), (Version::HTTP_11, "orders.test"));
    assert_eq!(seen.header("user-agent"), Some("outrider-health-check"));
    assert!(seen.headers.keys().all(|name| !name.as_str().starts_with("x-outrider-")), "{:?}", seen.headers);

    told.tell(500);
    becomes(&web, orders.address(), Checked::Unhealthy).await;
    assert_eq!(counted(&web, CheckOutcome::Status), 3, "by the threshold");
    assert_eq!(&*state(&web, orders.address()).last.unwrap().text, "status 500");
    assert!(web.cluster("orders").runtime.standings.load(Ordering::Relaxed) > standings);
    let well = counted(&web, CheckOutcome::Well);
    told.tell(204);
    becomes(&web, orders.address(), Checked::Healthy).await;
    assert_eq!(counted(&web, CheckOutcome::Well), well + 2);
    let counts = &web.cluster("orders").runtime;
    let requests: u64 = counts.counts.by_class.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    assert_eq!((requests, counts.in_flight.load(Ordering::Relaxed)), (0, 0), "a check is no request here");
    let there = orders.cluster("inbound/in").runtime.counts.by_class[2].load(Ordering::Relaxed);
    assert!(there > 0, "and it is one there");
    assert_eq!(told.app.connections(), 1, "checks do not use up connections");
}

#[tokio::test]
async fn whatever_goes_wrong_is_named() {
    let mesh = TestMesh::new();
    let keys = "health_check: {interval: 1h, timeout: 300ms}";
    let app = Told::start().await;
    // The endpoint is somebody else.
    let other = mesh.callee("stock", app.app.address(), "").await;
    // The endpoint's app is down.
    let without_app = mesh.callee("orders", nobody(), "").await;
    // The endpoint's app does not answer, or breaks off.
    let hanging = TcpApp::start(async |stream| {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let hangs = mesh.callee("orders", hanging.address(), "").await;
    let closing = TcpApp::silent().await;
    let closes = mesh.callee("orders", closing.address(), "").await;
    // What answers is no HTTP/2, and no TLS.
    let leaf = mesh.ca.leaf("orders");
    let babble = TlsPeer::start(server_config(&mesh.ca, &leaf, &[ALPN_H2]), async |mut stream| {
        drop(stream.write_all(b"220 ready for whatever you like, but not for this\r\n").await);
        std::future::pending::<()>().await;
    })
    .await;
    let plain = TcpApp::greeter().await;
    let endpoints = [
        (nobody(), CheckOutcome::Connect, "connecting failed"),
        (other.address(), CheckOutcome::Identity, "spiffe://"),
        (without_app.address(), CheckOutcome::Status, "status 503, its sidecar says connect_failed"),
        (hangs.address(), CheckOutcome::Timeout, "no answer within 300ms"),
        (closes.address(), CheckOutcome::Status, "status 503, its sidecar says reset_before_answer"),
        (babble.address(), CheckOutcome::Reset, ""),
        (plain.address(), CheckOutcome::Connect, "no trusted connection"),
    ];
    let addresses: Vec<_> = endpoints.iter().map(|(address, ..)| *address).collect();
    let web = mesh.caller(&addresses, keys).await;
    for (address, outcome, words) in endpoints {
        let (was, text) = found(&web, address).await;
        // What speaks no HTTP/2 may end the connection before or after the check's stream is on it.
        let is_right = was == outcome || (address == babble.address() && was == CheckOutcome::Connect);
        assert!(is_right && text.contains(words), "{outcome:?}: {was:?}: {text}");
        assert_eq!(checked(&web, address), Checked::Unhealthy, "{text}");
    }
}

#[tokio::test]
async fn outside_the_mesh_checks_are_plain_requests_and_bad_answers_are_none() {
    let mesh = TestMesh::new();
    let app = HttpApp::named("plain").await;
    // They answer what was asked: what comes before may end the connection before the request is on it.
    let answering = async |answer: &'static [u8]| {
        TcpApp::start(async move |mut stream| {
            drop(crate::harness::client::read_head(&mut stream).await);
            drop(stream.write_all(answer).await);
        })
        .await
    };
    let garbage = answering(b"220 ready\r\n").await;
    let smuggler = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx").await;
    let long = HttpApp::start(async |_request| {
        Ok(http::Response::new(crate::harness::body::full(vec![7; 1 << 20])))
    })
    .await;
    let addresses = [app.address(), garbage.address(), smuggler.address(), long.address()];
    let endpoints: Vec<_> = addresses.iter().map(|address| format!("{{address: '{address}'}}")).collect();
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, tls: none, endpoints: [{}], health_check: {{interval: 1h}}}}]",
        endpoints.join(", "),
    );
    let web = mesh.start("web", &yaml).await;
    assert_eq!(found(&web, app.address()).await, (CheckOutcome::Well, "status 200".to_owned()));
    let seen = app.only();
    assert_eq!((seen.authority(), seen.header("user-agent")), ("orders", Some("outrider-health-check")));
    assert_eq!(seen.headers.len(), 2, "nothing of the mesh: {:?}", seen.headers);
    assert_eq!(found(&web, garbage.address()).await.0, CheckOutcome::Protocol);
    let (outcome, text) = found(&web, smuggler.address()).await;
    assert_eq!(outcome, CheckOutcome::Protocol, "{text}");
    // It has said enough by its status; the rest is not read.
    assert_eq!(found(&web, long.address()).await, (CheckOutcome::Well, "status 200".to_owned()));
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_and_asks_anew_only_where_it_changed() {
    let (mesh, told) = (TestMesh::new(), Told::start().await);
    let orders = mesh.callee("orders", told.app.address(), "").await;
    told.tell(500);
    let yaml = |path: &str, check: bool| {
        let check =
            if check { format!("health_check: {{path: {path}, interval: 1h}}") } else { String::new() };
        format!(
            "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{}]",
            TestMesh::cluster("orders", &[orders.address()], &check)
        )
    };
    let mut web = mesh.start("web", &yaml("/a", true)).await;
    becomes(&web, orders.address(), Checked::Unhealthy).await;
    let same = format!("{}\nzone: here", yaml("/a", true));
    mesh.reload(&mut web, "web", &same).await.unwrap();
    assert_eq!((checked(&web, orders.address()), told.app.count()), (Checked::Unhealthy, 1));

    told.tell(200);
    mesh.reload(&mut web, "web", &yaml("/b", true)).await.unwrap();
    eventually("it is asked for the other path", || told.app.count() == 2).await;
    assert_eq!(told.app.seen()[1].uri, "/b");
    eventually("it is heard", || counted(&web, CheckOutcome::Well) == 1).await;
    assert_eq!(checked(&web, orders.address()), Checked::Unhealthy, "one success is not two");
    assert_eq!(state(&web, orders.address()).contrary, 1);

    mesh.reload(&mut web, "web", &yaml("", false)).await.unwrap();
    becomes(&web, orders.address(), Checked::Unknown).await;
    assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_sidecar_at_its_cap_is_not_unhealthy() {
    let mesh = TestMesh::new();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let app = HttpApp::gated(&gate).await;
    let orders = mesh.callee("orders", app.address(), "max_requests: 1").await;
    let first = mesh.caller(&[orders.address()], "").await;
    let address = first.address();
    let busy = tokio::spawn(async move { call(address, Method::GET).await.0 });
    eventually("the one place is taken", || app.count() == 1).await;
    let web = mesh.caller(&[orders.address()], &format!("health_check: {{{OFTEN}}}")).await;
    eventually("checks say nothing", || counted(&web, CheckOutcome::Skipped) >= 4).await;
    assert_eq!(checked(&web, orders.address()), Checked::Unknown);
    gate.add_permits(100);
    assert_eq!(busy.await.unwrap(), StatusCode::OK);
    becomes(&web, orders.address(), Checked::Healthy).await;
}
