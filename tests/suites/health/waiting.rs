//! The short wait for an endpoint that may be asked.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use http::{Method, StatusCode};
use outrider::model::{flag::ResponseFlag, health::Checked};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use super::{OFTEN, Told, becomes, item, list, watching};
use crate::harness::{
    Client, HttpApp, Sidecar, TcpApp, TestMesh, body,
    ca::id,
    client::{call, exchange, field},
    eventually,
    mesh::reset_by,
    soon,
};

fn waiting(web: &Sidecar) -> u32 {
    web.cluster("orders").runtime.pending.load(Ordering::Relaxed)
}

fn found(web: &Sidecar) -> u64 {
    web.cluster("orders").runtime.starvation.found.load(Ordering::Relaxed)
}

fn callers(web: &Sidecar, count: usize) -> JoinSet<(StatusCode, String)> {
    let mut callers = JoinSet::new();
    for turn in 0..count {
        let (address, method) = (web.address(), if turn % 2 == 0 { Method::GET } else { Method::POST });
        callers.spawn(async move { call(address, method).await });
    }
    callers
}

#[tokio::test]
async fn requests_wait_for_an_endpoint_that_appears_and_none_fails() {
    let (mesh, app) = (TestMesh::new(), HttpApp::named("orders").await);
    let orders = mesh.callee("orders", app.address(), "").await;
    list(&mesh, &[]);
    let web = watching(&mesh, "queue_timeout: 15s").await;
    let callers = callers(&web, 20);
    eventually("all wait", || waiting(&web) == 20).await;
    list(&mesh, &[item(orders.address())]);
    for (status, text) in soon("all are answered", callers.join_all()).await {
        assert_eq!((status, text.as_str()), (StatusCode::OK, "orders"));
    }
    assert_eq!((waiting(&web), found(&web), web.flagged(ResponseFlag::UH)), (0, 20, 0));
}

#[tokio::test]
async fn requests_wait_for_an_endpoint_that_gets_well_and_none_fails() {
    let (mesh, told) = (TestMesh::new(), Told::start().await);
    let orders = mesh.callee("orders", told.app.address(), "").await;
    told.tell(500);
    let keys = format!("panic_percent: 0, queue_timeout: 15s, health_check: {{{OFTEN}}}");
    let web = mesh.caller(&[orders.address()], &keys).await;
    becomes(&web, orders.address(), Checked::Unhealthy).await;
    let callers = callers(&web, 20);
    eventually("all wait", || waiting(&web) == 20).await;
    told.tell(200);
    for (status, text) in soon("all are answered", callers.join_all()).await {
        assert_eq!((status, text.as_str()), (StatusCode::OK, "as told"));
    }
}

#[tokio::test]
async fn in_vain_they_fail_with_the_reason_and_then_others_at_once() {
    let (mesh, told) = (TestMesh::new(), Told::start().await);
    let orders = mesh.callee("orders", told.app.address(), "").await;
    told.tell(500);
    let queue = Duration::from_millis(600);
    let keys = format!("panic_percent: 0, queue_timeout: 600ms, health_check: {{{OFTEN}}}");
    let web = mesh.caller(&[orders.address()], &keys).await;
    becomes(&web, orders.address(), Checked::Unhealthy).await;

    let began = Instant::now();
    let mut client = Client::http1(web.address()).await;
    let response = client.get("/").await.unwrap();
    assert!(began.elapsed() >= queue, "{:?}", began.elapsed());
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&response, "x-outrider-reason"), Some("no_endpoint"));
    let text = body::text(response.into_body()).await;
    assert!(text.contains("of 1, 0 not ready, 1 unhealthy, 0 ejected"), "{text}");

    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert!(began.elapsed() < queue, "twenty took {:?}", began.elapsed());
    assert_eq!(web.cluster("orders").runtime.starvation.in_vain.load(Ordering::Relaxed), 1);
    assert_eq!(web.flagged(ResponseFlag::UH), 21);

    // That is over as soon as it is well, also where no request finds out; the next time they wait again.
    told.tell(200);
    becomes(&web, orders.address(), Checked::Healthy).await;
    let cluster = web.cluster("orders");
    eventually("it is known", || !cluster.runtime.starvation.is_known()).await;
    told.tell(500);
    becomes(&web, orders.address(), Checked::Unhealthy).await;
    let callers = callers(&web, 1);
    eventually("it waits", || waiting(&web) == 1).await;
    assert_eq!(callers.join_all().await[0].0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn no_more_wait_than_may_and_who_goes_away_makes_room() {
    let mesh = TestMesh::new();
    list(&mesh, &[]);
    let web = watching(&mesh, "queue_timeout: 15s, max_pending: 2").await;
    let mut callers = callers(&web, 2);
    eventually("both wait", || waiting(&web) == 2).await;
    let mut client = Client::http1(web.address()).await;
    let response = client.get("/").await.unwrap();
    assert_eq!(field(&response, "x-outrider-reason"), Some("max_pending"));
    callers.abort_all();
    eventually("nobody waits", || waiting(&web) == 0).await;
    while callers.join_next().await.is_some() {}
}

#[tokio::test]
async fn nobody_waits_where_that_is_not_wanted_or_longer_than_a_request_may_take() {
    let mesh = TestMesh::new();
    list(&mesh, &[]);
    let web = watching(&mesh, "queue_timeout: none").await;
    assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(web.cluster("orders").runtime.starvation.in_vain.load(Ordering::Relaxed), 0);
    drop(web);
    let web = watching(&mesh, "queue_timeout: 15s, request_timeout: 200ms").await;
    let began = Instant::now();
    assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::GATEWAY_TIMEOUT);
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(web.flagged(ResponseFlag::UT), 1);
}

#[tokio::test]
async fn streams_and_tunnels_wait_too() {
    let (mesh, app) = (TestMesh::new(), TcpApp::echo().await);
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    list(&mesh, &[]);
    let yaml = |queue: &str| {
        format!(
            "outbound: [{{name: bytes, listen: '127.0.0.1:0', protocol: tcp, cluster: orders}}, {{name: http, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, spiffe_ids: ['{}'], endpoints_file: endpoints.yaml, queue_timeout: {queue}}}]",
            id("orders"),
        )
    };
    let web = mesh.start("web", &yaml("15s")).await;
    let mut stream = TcpStream::connect(web.address_of("bytes")).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut tunnel = TcpStream::connect(web.address_of("http")).await.unwrap();
    tunnel.write_all(b"CONNECT orders:80 HTTP/1.1\r\nhost: orders:80\r\n\r\n").await.unwrap();
    eventually("both wait", || waiting(&web) == 2).await;
    list(&mesh, &[item(orders.address())]);
    let mut echoed = [0; 5];
    soon("the echo", stream.read_exact(&mut echoed)).await.unwrap();
    assert_eq!(&echoed, b"hello");
    let (head, _) = soon("the tunnel", crate::harness::client::read_head(&mut tunnel)).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    drop(web);
    list(&mesh, &[]);
    let web = mesh.start("web", &yaml("100ms")).await;
    reset_by(web.address_of("bytes")).await;
    let refused =
        exchange(web.address_of("http"), b"CONNECT orders:80 HTTP/1.1\r\nhost: orders:80\r\n\r\n").await;
    assert!(refused.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&refused));
}

#[tokio::test]
async fn a_reload_that_brings_an_endpoint_saves_those_who_wait() {
    let (mesh, app) = (TestMesh::new(), HttpApp::named("orders").await);
    let orders = mesh.callee("orders", app.address(), "").await;
    let yaml = |endpoint: &str| {
        format!(
            "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
             clusters: [{{name: orders, spiffe_ids: ['{}'], {endpoint}, panic_percent: 0, queue_timeout: 15s}}]",
            id("orders")
        )
    };
    let unready = format!("endpoints: [{{address: '{}', ready: false}}]", orders.address());
    let mut web = mesh.start("web", &yaml(&unready)).await;
    let callers = callers(&web, 5);
    eventually("all wait", || waiting(&web) == 5).await;
    mesh.reload(&mut web, "web", &yaml(&format!("endpoints: [{}]", item(orders.address())))).await.unwrap();
    for (status, text) in soon("all are answered", callers.join_all()).await {
        assert_eq!((status, text.as_str()), (StatusCode::OK, "orders"));
    }
}
