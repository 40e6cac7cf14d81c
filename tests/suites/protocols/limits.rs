//! Many at once, more than allowed, given up half-way, or answered with nonsense: each is answered, and nothing stays
//! behind.

use std::sync::atomic::Ordering;

use http::{Method, Response, StatusCode, Version};
use tokio::{io::AsyncWriteExt, task::JoinSet};

use super::{PAIRS, Pair};
use crate::harness::{
    Client, HttpApp, Sidecar, TcpApp, TestMesh, body,
    client::{call, field, read_head, request},
    eventually, soon,
};

fn in_flight(sidecar: &Sidecar, cluster: &str) -> u32 {
    sidecar.cluster(cluster).runtime.in_flight.load(Ordering::Relaxed)
}

/// An app that answers nobody until told to.
async fn gated() -> (tokio::sync::watch::Sender<bool>, HttpApp) {
    let (go, gate) = tokio::sync::watch::channel(false);
    let app = HttpApp::start(move |_request| {
        let mut gate = gate.clone();
        async move {
            gate.wait_for(|is_open| *is_open).await?;
            Ok(Response::new(body::full("at last")))
        }
    })
    .await;
    (go, app)
}

#[tokio::test]
async fn more_requests_at_once_than_streams_of_a_connection_are_all_answered() {
    // A connection between sidecars carries 256 streams.
    const REQUESTS: usize = 600;
    let (go, app) = gated().await;
    let pair = Pair::of(app).await;
    let mut callers = JoinSet::new();
    for i in 0..REQUESTS {
        let address = pair.web.address();
        let version = if i % 2 == 0 { Version::HTTP_11 } else { Version::HTTP_2 };
        callers.spawn(async move {
            let response = Client::connect(address, version).await.post("/", "x").await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(body::text(response.into_body()).await, "at last");
        });
    }
    eventually("all are at the app", || pair.app.count() == REQUESTS).await;
    go.send(true).unwrap();
    while let Some(done) = soon("all are answered", callers.join_next()).await {
        done.unwrap();
    }
    let connections = pair.orders.listener("in").accepted.load(Ordering::Relaxed);
    assert!((3..=8).contains(&connections), "{connections} connections for {REQUESTS} streams");
    eventually("nothing is left", || {
        in_flight(&pair.web, "orders") + in_flight(&pair.orders, "inbound/in") == 0
    })
    .await;
}

#[tokio::test]
async fn a_request_over_the_cap_is_answered_at_once_and_the_others_go_on() {
    let (go, app) = gated().await;
    let pair = Pair::with(app, "", "max_requests: 2").await;
    let mut callers = JoinSet::new();
    for _ in 0..2 {
        let address = pair.web.address();
        callers.spawn(async move { call(address, Method::GET).await.0 });
    }
    eventually("two are at the app", || pair.app.count() == 2).await;
    let response = soon("the third is answered", async {
        Client::http1(pair.web.address()).await.get("/").await.unwrap()
    })
    .await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&response, "x-outrider-reason"), Some("max_requests"));
    go.send(true).unwrap();
    while let Some(status) = soon("the others are answered", callers.join_next()).await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    assert_eq!(call(pair.web.address(), Method::GET).await.0, StatusCode::OK);
    assert_eq!(pair.app.count(), 3);
}

#[tokio::test]
async fn a_full_replica_sends_the_caller_elsewhere_whatever_the_method() {
    let (go, full) = gated().await;
    let free = HttpApp::named("free").await;
    let mesh = TestMesh::new();
    let one = mesh.callee("orders", full.address(), "max_requests: 1").await;
    let two = mesh.callee("orders", free.address(), "").await;
    let holding = mesh.caller(&[one.address()], "").await;
    let address = holding.address();
    let held = tokio::spawn(async move { call(address, Method::GET).await.0 });
    eventually("the one is full", || full.count() == 1).await;
    let web = mesh.caller(&[one.address(), two.address()], "balance: round_robin").await;
    for _ in 0..4 {
        assert_eq!(soon("an answer", call(web.address(), Method::POST)).await.0, StatusCode::OK);
    }
    assert_eq!((full.count(), free.count()), (1, 4));
    go.send(true).unwrap();
    assert_eq!(held.await.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn a_request_given_up_is_given_up_everywhere() {
    for (calling, called) in PAIRS {
        let (_go, app) = gated().await;
        let pair = Pair::speaking(app, called).await;
        let mut client = Client::connect(pair.web.address(), calling).await;
        let waiting = tokio::spawn(async move { client.get("/").await.map(drop) });
        eventually("it is at the app", || pair.app.count() == 1).await;
        waiting.abort();
        let claim = format!("nothing is left, {calling:?} to {called:?}");
        let left = || in_flight(&pair.web, "orders") + in_flight(&pair.orders, "inbound/in");
        eventually(&claim, || left() == 0).await;
        // What else was on the connection between the sidecars goes on.
        assert_eq!(pair.orders.listener("in").accepted.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn an_app_that_does_not_speak_http_is_answered_for() {
    for nonsense in ["SSH-2.0-OpenSSH_9.9\r\n", "\0\x01\x02", "HTTP/1.1 abc\r\n\r\n"] {
        let (mesh, app) = (
            TestMesh::new(),
            TcpApp::start(move |mut stream| async move {
                drop(read_head(&mut stream).await);
                drop(stream.write_all(nonsense.as_bytes()).await);
            })
            .await,
        );
        let orders = mesh.callee("orders", app.address(), "app_protocol: http1").await;
        let web = mesh.caller(&[orders.address()], "").await;
        let (status, text) = soon("an answer", call(web.address(), Method::POST)).await;
        assert!([502, 503].contains(&status.as_u16()), "{nonsense:?}: {status} {text}");
        assert_eq!((app.connections(), web.retries()), (1, 0), "a POST is not repeated");
    }
}

#[tokio::test]
async fn an_answer_with_too_large_a_head_costs_only_itself() {
    for (calling, called) in PAIRS {
        let app = HttpApp::start(async |request: http::Request<_>| {
            let mut response = Response::new(body::full("small"));
            if request.uri().path() == "/large" {
                for i in 0..20 {
                    let name: http::HeaderName = format!("x-large-{i}").parse()?;
                    response.headers_mut().insert(name, "a".repeat(16 * 1024).parse()?);
                }
            }
            Ok(response)
        })
        .await;
        let pair = Pair::speaking(app, called).await;
        let mut other = Client::connect(pair.web.address(), calling).await;
        assert_eq!(other.get("/").await.unwrap().status(), StatusCode::OK);
        let mut client = Client::connect(pair.web.address(), calling).await;
        let large = client.send(request(Method::POST, "/large", body::full("x")));
        let response = soon("an answer", large).await.unwrap();
        let claim = format!("{calling:?} to {called:?}");
        assert!([502, 503].contains(&response.status().as_u16()), "{claim}: {}", response.status());
        let again = soon("another", Client::connect(pair.web.address(), calling).await.get("/")).await;
        assert_eq!(again.unwrap().status(), StatusCode::OK, "{claim}");
        let large = pair.app.seen().iter().filter(|seen| seen.uri.path() == "/large").count();
        assert_eq!(large, 1, "{claim}");
    }
}

#[tokio::test]
async fn several_workers_share_the_ports_and_the_work() {
    let (mesh, app) = (TestMesh::new(), HttpApp::named("app").await);
    let yaml =
        format!("workers: 3\ninbound: [{{name: in, listen: '127.0.0.1:0', app: '{}'}}]", app.address());
    let orders = mesh.start("orders", &yaml).await;
    let yaml = format!(
        "workers: 2\noutbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, spiffe_ids: ['spiffe://test.outrider/orders'], endpoints: [{{address: '{}'}}]}}]",
        orders.address(),
    );
    let web = mesh.start("web", &yaml).await;
    for _ in 0..60 {
        assert_eq!(call(web.address(), Method::POST).await, (StatusCode::OK, "app".to_owned()));
    }
    assert_eq!(web.listener("out").accepted.load(Ordering::Relaxed), 60);
    // Each worker has a connection of its own.
    assert_eq!(orders.listener("in").accepted.load(Ordering::Relaxed), 2);
    assert_eq!(app.count(), 60);
}
