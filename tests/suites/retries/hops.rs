//! The inbound hop: what the sidecar beside the app says of a request that got no answer, and what it repeats itself.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode, Version};
use outrider::model::retries::RetryReason;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;

use super::PLENTY;
use crate::harness::{
    Client, HttpApp, Sidecar, TcpApp, TestMesh,
    app::nobody,
    body,
    client::{field, read_head, request},
    eventually,
    peer::{self, ALPN_H2, client_config},
    raw_h2::{begin, goaway, next_request, reset},
    soon,
};

/// What a calling sidecar is told: the status, and whether the app may have seen the request.
async fn told(mesh: &TestMesh, orders: &Sidecar, method: Method) -> (StatusCode, Option<String>, String) {
    let config = client_config(&mesh.ca, Some(&mesh.ca.leaf("web")), &[ALPN_H2]);
    let stream = peer::connect(orders.address(), config).await.unwrap();
    let mut client = Client::over(stream, Version::HTTP_2).await;
    let response = soon("an answer", client.send(request(method, "/", body::full("once")))).await.unwrap();
    let text = |name| field(&response, name).map(str::to_owned);
    (response.status(), text("x-outrider-processed"), text("x-outrider-reason").unwrap_or_default())
}

#[tokio::test]
async fn an_app_that_is_not_there_has_certainly_not_seen_it() {
    let mesh = TestMesh::new();
    for keys in ["app_protocol: http1", "app_protocol: http2"] {
        let orders = mesh.callee("orders", nobody(), keys).await;
        let (status, processed, reason) = told(&mesh, &orders, Method::POST).await;
        assert_eq!((status, reason.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "connect_failed"));
        assert_eq!(processed.as_deref(), Some("no"));
        let retries = &orders.cluster("inbound/in").runtime.retries;
        assert_eq!(retries.load(Ordering::Relaxed), 0, "{keys}: an app that is down is asked once");
    }
}

#[tokio::test]
async fn an_app_that_closes_or_resets_without_an_answer_may_have_seen_it() {
    for resets in [false, true] {
        let app = TcpApp::start(move |mut stream| async move {
            if read_head(&mut stream).await.1 && resets {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
        })
        .await;
        let mesh = TestMesh::new();
        let orders = mesh.callee("orders", app.address(), "app_protocol: http1").await;
        for method in [Method::GET, Method::POST] {
            let (status, processed, reason) = told(&mesh, &orders, method).await;
            assert_eq!((status, reason.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "reset_before_answer"));
            assert_eq!(processed.as_deref(), Some("maybe"), "resets: {resets}");
        }
        assert_eq!(app.connections(), 2, "what the app may have seen is repeated by the caller or by nobody");
    }
}

/// An app on HTTP/2 that does `act` with its first requests on a connection of theirs, and serves the others.
async fn refusing(first: usize, act: fn(u32) -> Vec<u8>) -> (TcpApp, Arc<AtomicUsize>) {
    let refused: Arc<AtomicUsize> = Arc::default();
    let count = Arc::clone(&refused);
    let good = HttpApp::named("good").await;
    let app = TcpApp::start(move |mut stream| {
        let (count, good) = (Arc::clone(&count), good.address());
        async move {
            if count.load(Ordering::Relaxed) < first {
                if begin(&mut stream).await.is_some()
                    && let Some(id) = next_request(&mut stream).await
                {
                    count.fetch_add(1, Ordering::Relaxed);
                    stream.write_all(&act(id)).await.unwrap();
                    // What is written is read before the end.
                    drop(stream.shutdown().await);
                    drop(tokio::io::copy(&mut stream, &mut tokio::io::sink()).await);
                }
            } else {
                let mut app = tokio::net::TcpStream::connect(good).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut stream, &mut app).await);
            }
        }
    })
    .await;
    (app, refused)
}

/// With the word that the connection takes no others: what is sent once more must not meet its end.
fn refused_stream(id: u32) -> Vec<u8> {
    [reset(id, h2::Reason::REFUSED_STREAM), goaway(id, h2::Reason::NO_ERROR)].concat()
}

fn gone_before(id: u32) -> Vec<u8> {
    goaway(id.saturating_sub(2), h2::Reason::NO_ERROR)
}

#[tokio::test]
async fn what_the_app_refused_unseen_is_sent_to_it_once_more() {
    for (act, what) in [(refused_stream as fn(u32) -> Vec<u8>, "REFUSED_STREAM"), (gone_before, "GOAWAY")] {
        let (app, refused) = refusing(1, act).await;
        let mesh = TestMesh::new();
        let orders = mesh.callee("orders", app.address(), "app_protocol: http2").await;
        let (status, processed, _reason) = told_without_body(&mesh, &orders).await;
        assert_eq!((status, processed), (StatusCode::OK, None), "{what}");
        assert_eq!(refused.load(Ordering::Relaxed), 1, "{what}");
        let repeats = &orders.cluster("inbound/in").runtime.repeats;
        assert_eq!(
            repeats.by_reason[RetryReason::NotProcessed as usize].load(Ordering::Relaxed),
            1,
            "{what}"
        );
    }
}

/// As [`told`], of a POST without a body.
async fn told_without_body(mesh: &TestMesh, orders: &Sidecar) -> (StatusCode, Option<String>, String) {
    let config = client_config(&mesh.ca, Some(&mesh.ca.leaf("web")), &[ALPN_H2]);
    let stream = peer::connect(orders.address(), config).await.unwrap();
    let mut client = Client::over(stream, Version::HTTP_2).await;
    let response = soon("an answer", client.send(request(Method::POST, "/", body::empty()))).await.unwrap();
    let text = |name| field(&response, name).map(str::to_owned);
    (response.status(), text("x-outrider-processed"), text("x-outrider-reason").unwrap_or_default())
}

#[tokio::test]
async fn an_app_that_refuses_again_and_again_is_told_of_as_not_processed() {
    let (app, refused) = refusing(usize::MAX, refused_stream).await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "app_protocol: http2").await;
    let (status, processed, reason) = told_without_body(&mesh, &orders).await;
    assert_eq!((status, reason.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "not_processed"));
    assert_eq!(processed.as_deref(), Some("no"));
    assert_eq!(refused.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_kept_connection_that_the_app_closes_costs_no_request_whatever_the_method() {
    // It answers one request and closes, without saying so before.
    let closed: Arc<AtomicUsize> = Arc::default();
    let count = Arc::clone(&closed);
    let app = TcpApp::start(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            if read_head(&mut stream).await.1 {
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood").await);
            }
            drop(stream);
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "app_protocol: http1").await;
    let web = web(&mesh, orders.address()).await;
    for round in 1..=50 {
        let mut client = Client::http1(web.address()).await;
        let response = client.send(request(Method::POST, "/", body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(body::text(response.into_body()).await, "good");
        eventually("it is closed", || closed.load(Ordering::Relaxed) == round).await;
    }
}

async fn web(mesh: &TestMesh, orders: SocketAddr) -> Sidecar {
    mesh.caller(&[orders], PLENTY).await
}
