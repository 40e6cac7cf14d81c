//! Connections shared by many requests: what a peer allows, says and closes.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use http::{Method, Response, StatusCode};
use outrider::model::pool_counts::Closed;
use tokio::io::AsyncWriteExt;

use super::{closed, opened, post};
use crate::harness::{
    HttpApp, TestMesh, body,
    client::call,
    eventually,
    peer::{ALPN_H2, TlsPeer, server_config},
    raw_h2::{begin, frame, goaway, next_request},
    soon,
};

#[tokio::test]
async fn after_goaway_what_is_under_way_ends_and_what_is_new_goes_over_a_new_connection() {
    let mesh = TestMesh::new();
    let config = server_config(&mesh.ca, &mesh.ca.leaf("orders"), &[ALPN_H2]);
    let (go, gate) = tokio::sync::watch::channel(false);
    let firsts: Arc<AtomicUsize> = Arc::default();
    let count = Arc::clone(&firsts);
    let peer = TlsPeer::start(config, move |mut stream| {
        let (count, mut gate) = (Arc::clone(&count), gate.clone());
        async move {
            begin(&mut stream).await.unwrap();
            let Some(id) = next_request(&mut stream).await else { return };
            // `:status: 200` (RFC 7541, Appendix A: 8), END_STREAM and END_HEADERS.
            let answer = frame(1, 0x5, id, &[0x88]);
            if count.load(Ordering::Relaxed) == 0 {
                stream.write_all(&goaway(id, h2::Reason::NO_ERROR)).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                gate.wait_for(|is_open| *is_open).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            } else {
                stream.write_all(&answer).await.unwrap();
                while let Some(id) = next_request(&mut stream).await {
                    stream.write_all(&frame(1, 0x5, id, &[0x88])).await.unwrap();
                }
            }
        }
    })
    .await;
    let web = mesh.caller(&[peer.address()], "retry: {max_retries: 1, backoff_base: 1ms}").await;
    let address = web.address();
    let first = tokio::spawn(async move { call(address, Method::POST).await.0 });
    eventually("the first is there", || firsts.load(Ordering::Relaxed) == 1).await;
    // This one may cross the GOAWAY, and is repeated as not processed; the others are not even tried there.
    post(web.address()).await;
    let crossed = web.retries();
    for _ in 0..10 {
        post(web.address()).await;
    }
    assert_eq!(web.retries(), crossed);
    assert!(!first.is_finished());
    go.send(true).unwrap();
    assert_eq!(soon("the first is answered", first).await.unwrap(), StatusCode::OK);
    assert_eq!(peer.connections(), 2);
    eventually("the first connection is closed", || closed(&web, "orders", Closed::Peer) == 1).await;
}

#[tokio::test]
async fn no_more_streams_are_opened_than_the_peer_allows() {
    const ALLOWED: u32 = 3;
    const REQUESTS: usize = 10;
    let mesh = TestMesh::new();
    let config = server_config(&mesh.ca, &mesh.ca.leaf("orders"), &[ALPN_H2]);
    let waiting: Arc<Mutex<Vec<usize>>> = Arc::default();
    let (go, gate) = tokio::sync::watch::channel(false);
    let (log, connections) = (Arc::clone(&waiting), Arc::new(AtomicUsize::new(0)));
    let peer = TlsPeer::start(config, move |stream| {
        let (log, gate) = (Arc::clone(&log), gate.clone());
        let number = connections.fetch_add(1, Ordering::Relaxed);
        async move {
            let mut builder = h2::server::Builder::new();
            let mut connection =
                builder.max_concurrent_streams(ALLOWED).handshake::<_, bytes::Bytes>(stream).await.unwrap();
            while let Some(Ok((_request, mut respond))) = connection.accept().await {
                log.lock().unwrap().push(number);
                let mut gate = gate.clone();
                tokio::spawn(async move {
                    gate.wait_for(|is_open| *is_open).await.unwrap();
                    drop(respond.send_response(Response::new(()), true));
                });
            }
        }
    })
    .await;
    let web = mesh.caller(&[peer.address()], "retry: {max_retries: 0}").await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..REQUESTS {
        let address = web.address();
        callers.spawn(async move { call(address, Method::POST).await.0 });
    }
    eventually("all are at the peer", || waiting.lock().unwrap().len() == REQUESTS).await;
    for number in 0..peer.connections() {
        let streams = waiting.lock().unwrap().iter().filter(|other| **other == number).count();
        assert!((1..=ALLOWED as usize).contains(&streams), "{streams} on connection {number}");
    }
    assert_eq!(peer.connections(), REQUESTS.div_ceil(ALLOWED as usize));
    go.send(true).unwrap();
    for status in soon("all are answered", callers.join_all()).await {
        assert_eq!(status, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_old_connection_takes_nothing_new_and_cuts_off_nothing() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let app = HttpApp::start(move |request: http::Request<_>| {
        let mut gate = gate.clone();
        async move {
            if request.uri().path() == "/long" {
                gate.wait_for(|is_open| *is_open).await?;
            }
            Ok(Response::new(body::full("app")))
        }
    })
    .await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "").await;
    let keys = "max_connection_age: 1s, retry: {max_retries: 0}";
    let web = mesh.caller(&[orders.address()], keys).await;
    let address = web.address();
    let long = tokio::spawn(async move {
        let response = crate::harness::Client::http1(address).await.post("/long", "x").await.unwrap();
        body::text(response.into_body()).await
    });
    eventually("the long one is there", || app.count() == 1).await;
    let is_renewed = async {
        while opened(&web, "orders") < 3 {
            assert_eq!(post(web.address()).await, "app");
        }
    };
    soon("two connections have grown old", is_renewed).await;
    assert!(!long.is_finished());
    eventually("one without streams is closed", || closed(&web, "orders", Closed::Age) >= 1).await;
    go.send(true).unwrap();
    assert_eq!(soon("the long one ends", long).await.unwrap(), "app");
    eventually("so is the first", || closed(&web, "orders", Closed::Age) >= 2).await;
}
