//! Connections to apps that speak HTTP/1, which often have their own mind about when to close.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use outrider::model::pool_counts::Closed;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use super::{closed, opened, post};
use crate::harness::{Sidecar, TcpApp, TestMesh, client::read_head, eventually, soon};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";

/// Reads a whole `POST` of [`post`]; false if the connection ended instead.
async fn read_request(stream: &mut TcpStream) -> bool {
    let (_head, is_whole) = read_head(stream).await;
    is_whole && stream.read_exact(&mut [0; 4]).await.is_ok()
}

/// A sidecar before `app`, and one that calls it.
async fn pair(app: &TcpApp) -> (TestMesh, Sidecar, Sidecar) {
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "app_protocol: http1").await;
    let web = mesh.caller(&[orders.address()], "retry: {max_retries: 0}").await;
    (mesh, orders, web)
}

#[tokio::test]
async fn an_app_that_closes_without_a_word_after_each_answer_costs_no_request() {
    let app = TcpApp::start(async |mut stream| {
        if read_request(&mut stream).await {
            drop(stream.write_all(OK.as_bytes()).await);
        }
    })
    .await;
    let (_mesh, orders, web) = pair(&app).await;
    for turn in 0..100 {
        assert_eq!(post(web.address()).await, "good", "{turn}");
        // The end of the connection is there before the next request, but not necessarily known to the sidecar.
        tokio::task::yield_now().await;
    }
    assert_eq!(app.connections(), 100);
    eventually("all are closed by the app", || closed(&orders, "inbound/in", Closed::Peer) == 100).await;
}

#[tokio::test]
async fn what_an_app_says_unasked_reaches_nobody_and_ends_the_connection() {
    let speak = Arc::new(Notify::new());
    let told = Arc::clone(&speak);
    let app = TcpApp::start(move |mut stream| {
        let told = Arc::clone(&told);
        async move {
            while read_request(&mut stream).await {
                stream.write_all(OK.as_bytes()).await.unwrap();
                told.notified().await;
                drop(stream.write_all(OK.replace("good", "evil").as_bytes()).await);
            }
        }
    })
    .await;
    let (_mesh, orders, web) = pair(&app).await;
    for turn in 1..=20 {
        assert_eq!(post(web.address()).await, "good");
        speak.notify_one();
        eventually("the connection is closed", || {
            closed(&orders, "inbound/in", Closed::UnexpectedBytes) == turn
        })
        .await;
    }
    assert_eq!(app.connections(), 20);
}

#[tokio::test]
async fn an_answer_before_the_requests_end_leaves_no_connection_to_use_again() {
    // Answers at the head, and counts what else it takes for a request on the same connection.
    let confused: Arc<AtomicUsize> = Arc::default();
    let count = Arc::clone(&confused);
    let app = TcpApp::start(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            let (_head, _is_whole) = read_head(&mut stream).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
            let mut rest = String::new();
            drop(stream.read_to_string(&mut rest).await);
            count.fetch_add(rest.matches("HTTP/1.1").count(), Ordering::Relaxed);
        }
    })
    .await;
    let (_mesh, orders, web) = pair(&app).await;
    for _ in 0..10 {
        let mut client = TcpStream::connect(web.address()).await.unwrap();
        let head = b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 1000000\r\n\r\nnot all of it";
        client.write_all(head).await.unwrap();
        let (answer, _) = soon("the early answer", read_head(&mut client)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(post(web.address()).await, "good");
    assert_eq!(app.connections(), 11);
    eventually("they are closed", || opened(&orders, "inbound/in") == 11).await;
    assert_eq!(confused.load(Ordering::Relaxed), 0, "one request was taken for the rest of another");
}

#[tokio::test]
async fn an_unused_connection_is_closed_before_an_impatient_app_would() {
    let app = TcpApp::start(async |mut stream| {
        let answer = OK.replace("\r\n\r\n", "\r\nKeep-Alive: timeout=1\r\n\r\n");
        while read_request(&mut stream).await {
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let mesh = TestMesh::new();
    let keys = "app_protocol: http1, pool_idle_timeout: 1h";
    let orders = mesh.callee("orders", app.address(), keys).await;
    let web = mesh.caller(&[orders.address()], "").await;
    assert_eq!(post(web.address()).await, "good");
    let since = Instant::now();
    eventually("it is closed", || closed(&orders, "inbound/in", Closed::Idle) == 1).await;
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}
