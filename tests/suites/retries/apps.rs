//! Failures of the called app, behind a sidecar that works; and endpoints that are not there at all.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use hyper::body::Frame;
use outrider::model::flag::ResponseFlag;
use socket2::SockRef;
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::PLENTY;
use crate::harness::{
    Client, HttpApp, Sidecar, TcpApp, TestMesh,
    app::nobody,
    body,
    client::{call, field, read_head, request},
    eventually, soon,
};

/// A good replica and a bad one, each behind its sidecar, asked in turns.
struct Two {
    _mesh: TestMesh,
    _sidecars: [Sidecar; 2],
    good: HttpApp,
    bad: TcpApp,
    web: Sidecar,
}

impl Two {
    async fn with(bad: TcpApp, keys: &str) -> Self {
        let mesh = TestMesh::new();
        let good = HttpApp::named("good").await;
        let sidecars = [
            mesh.callee("orders", bad.address(), "app_protocol: http1").await,
            mesh.callee("orders", good.address(), "app_protocol: http1").await,
        ];
        let web = mesh.caller(&[sidecars[0].address(), sidecars[1].address()], keys).await;
        Self { _mesh: mesh, _sidecars: sidecars, good, bad, web }
    }
}

/// An app that reads the head, `then` something, and resets its connection.
async fn resetting<F>(then: impl Fn(TcpStream) -> F + Clone + Send + Sync + 'static) -> TcpApp
where
    F: Future<Output = TcpStream> + Send + 'static,
{
    TcpApp::start(move |mut stream| {
        let then = then.clone();
        async move {
            if read_head(&mut stream).await.1 {
                let stream = then(stream).await;
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_costs_no_request() {
    for method in [Method::GET, Method::POST] {
        let (mesh, app) = (TestMesh::new(), HttpApp::named("good").await);
        let orders = mesh.callee("orders", app.address(), "").await;
        let web = mesh.caller(&[nobody(), orders.address()], PLENTY).await;
        for _ in 0..20 {
            assert_eq!(call(web.address(), method.clone()).await, (StatusCode::OK, "good".to_owned()));
        }
        assert_eq!(app.count(), 20);
        assert!(web.retries() >= 5, "{} retries", web.retries());
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_costs_no_request_by_default_either() {
    let (mesh, app) = (TestMesh::new(), HttpApp::named("good").await);
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[nobody(), orders.address()], "").await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let address = web.address();
        callers.spawn(async move {
            for _ in 0..25 {
                assert_eq!(call(address, Method::POST).await.0, StatusCode::OK);
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    assert_eq!(app.count(), 200);
}

#[tokio::test]
async fn a_long_body_is_still_whole_after_an_endpoint_that_is_not_there() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[nobody(), orders.address()], PLENTY).await;
    for _ in 0..4 {
        let sent = request(Method::POST, "/", body::streamed(1024 * 1024, None));
        let response = Client::http1(web.address()).await.send(sent).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(body::check(response.into_body()).await.unwrap().0, 1024 * 1024);
    }
    assert!(web.retries() > 0);
}

#[tokio::test]
async fn an_app_that_is_down_costs_no_request_whatever_the_method() {
    for method in [Method::GET, Method::POST] {
        let (mesh, app) = (TestMesh::new(), HttpApp::named("good").await);
        let good = mesh.callee("orders", app.address(), "").await;
        let bad = mesh.callee("orders", nobody(), "").await;
        let web = mesh.caller(&[bad.address(), good.address()], PLENTY).await;
        for _ in 0..20 {
            assert_eq!(call(web.address(), method.clone()).await, (StatusCode::OK, "good".to_owned()));
        }
        assert_eq!(app.count(), 20);
        assert!(web.retries() >= 5, "{} retries", web.retries());
    }
}

#[tokio::test]
async fn an_app_that_closes_before_an_answer_costs_no_idempotent_request() {
    for bad in [TcpApp::silent().await, resetting(async |stream| stream).await] {
        let two = Two::with(bad, PLENTY).await;
        for _ in 0..10 {
            assert_eq!(call(two.web.address(), Method::GET).await, (StatusCode::OK, "good".to_owned()));
        }
        assert!(two.bad.connections() > 0 && two.web.retries() > 0);
        assert_eq!(two.good.count(), 10);
    }
}

#[tokio::test]
async fn an_app_that_closes_before_an_answer_may_have_acted_so_a_post_is_not_repeated() {
    for bad in [TcpApp::silent().await, resetting(async |stream| stream).await] {
        let two = Two::with(bad, PLENTY).await;
        let mut failed = 0;
        for _ in 0..10 {
            let mut client = Client::http1(two.web.address()).await;
            let response = client.post("/", "once").await.unwrap();
            if response.status() == StatusCode::OK {
                continue;
            }
            failed += 1;
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(field(&response, "x-outrider-reason"), Some("reset_before_answer"));
            assert_eq!(field(&response, "x-outrider-processed"), None);
        }
        assert!(failed > 0, "the bad one was never asked");
        assert_eq!((two.bad.connections(), two.good.count()), (failed, 10 - failed));
        assert_eq!(two.web.retries(), 0);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_repeated_and_seen_as_broken() {
    let app = HttpApp::start(async |_request| {
        let (down, body) = body::channel();
        tokio::spawn(async move {
            down.send(Ok(Frame::data(Bytes::from_static(b"a beginning")))).await.unwrap();
            down.send(Ok(Frame::data(Bytes::from_static(b" without")))).await.unwrap();
            drop(down.send(Err("the app crashed".into())).await);
        });
        Ok(Response::new(body))
    })
    .await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[orders.address()], PLENTY).await;
    let ended = match Client::http1(web.address()).await.get("/").await {
        Ok(response) => soon("the body ends", body::drain(response.into_body())).await,
        Err(error) => Err(error),
    };
    assert!(ended.is_err());
    assert_eq!((app.count(), web.retries()), (1, 0));
    eventually("it is flagged", || web.flagged(ResponseFlag::UC) == 1).await;
}

#[tokio::test]
async fn a_body_is_repeated_up_to_the_replay_limit_and_not_beyond() {
    // The bad app reads the whole body before it fails, so that all of it has gone by.
    async fn reading(size: usize) -> TcpApp {
        resetting(move |mut stream| async move {
            stream.read_exact(&mut vec![0; size]).await.unwrap();
            stream
        })
        .await
    }
    let keys = "balance: round_robin, retry: {replay_bytes: 1KiB, backoff_base: 1ms}";
    for (size, is_repeated) in [(1024, true), (1025, false), (300 * 1024, false)] {
        let two = Two::with(reading(size).await, keys).await;
        let mut failed = 0;
        for _ in 0..4 {
            let put = request(Method::PUT, "/", body::sized(size as u64));
            let response = Client::http1(two.web.address()).await.send(put).await.unwrap();
            if response.status() != StatusCode::OK {
                assert_eq!(field(&response, "x-outrider-reason"), Some("reset_before_answer"));
                failed += 1;
            }
        }
        assert!(two.bad.connections() > 0, "the bad one was never asked");
        let expected = if is_repeated { 0 } else { two.bad.connections() };
        assert_eq!(failed, expected, "{size} bytes");
        assert_eq!(two.web.retries() > 0, is_repeated, "{size} bytes");
    }
}

#[tokio::test]
async fn a_failing_answer_of_the_app_itself_is_passed_on_as_it_is() {
    for status in [500, 502, 503, 504] {
        let app = HttpApp::start(move |_request| async move {
            Ok(Response::builder().status(status).body(body::full("the app's own words"))?)
        })
        .await;
        let mesh = TestMesh::new();
        let orders = mesh.callee("orders", app.address(), "").await;
        let web = mesh.caller(&[orders.address()], PLENTY).await;
        let (found, text) = call(web.address(), Method::POST).await;
        assert_eq!((found.as_u16(), text.as_str()), (status, "the app's own words"));
        assert_eq!((app.count(), web.retries()), (1, 0));
    }
}

#[tokio::test]
async fn a_request_over_its_timeout_is_answered_and_ends_at_the_app() {
    let app = HttpApp::start(async |_request| {
        std::future::pending::<()>().await;
        Err("never".into())
    })
    .await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[orders.address()], "request_timeout: 300ms").await;
    for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
        let mut client = Client::connect(web.address(), version).await;
        let response = soon("the answer", client.get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(field(&response, "x-outrider-reason"), Some("request_timeout"));
    }
    assert_eq!((app.count(), web.retries()), (2, 0));
    let in_flight = || {
        let runtime = &orders.cluster("inbound/in").runtime;
        runtime.in_flight.load(std::sync::atomic::Ordering::Relaxed)
    };
    eventually("nothing is in flight", || in_flight() == 0).await;
}
