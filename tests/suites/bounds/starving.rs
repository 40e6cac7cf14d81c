//! Streams that nobody reads hold up themselves and nobody else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Response, StatusCode, Version};
use http_body_util::BodyExt;

use crate::harness::{Client, HttpApp, TestMesh, body, soon, within};

/// More than any window, and more slow ones than windows of a connection.
const SLOW: usize = 40;
const LARGE: u64 = 64 << 20;
/// More than is sent with the head.
const SMALL: u64 = 100_000;

#[tokio::test]
async fn answers_that_nobody_reads_hold_up_no_others() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let app = HttpApp::start(move |request: http::Request<_>| {
            let count = Arc::clone(&count);
            async move {
                let is_large = request.uri().path() == "/large";
                let body = body::streamed(if is_large { LARGE } else { SMALL }, None);
                let counted = body.map_frame(move |frame| {
                    count.fetch_add(1, Ordering::Relaxed);
                    frame
                });
                Ok(Response::new(counted.boxed_unsync()))
            }
        })
        .await;
        let mesh = TestMesh::new();
        let orders = mesh.callee("orders", app.address(), "").await;
        let web = mesh.caller(&[orders.address()], "").await;
        let mut held = Vec::new();
        for _ in 0..SLOW {
            let mut client = Client::connect(web.address(), version).await;
            let response = soon("its head", client.get("/large")).await.unwrap();
            held.push((client, response));
        }
        // Until nothing moves any more: all windows are full, whoever holds them.
        let (mut before, mut still) = (0, 0);
        let quiet = within(Duration::from_secs(10), || {
            let now = sent.load(Ordering::Relaxed);
            still = if now == before { still + 1 } else { 0 };
            before = now;
            still > 100
        });
        assert!(quiet.await, "the app can send on and on");
        let mut other = Client::connect(web.address(), version).await;
        for _ in 0..3 {
            let response = soon("another's head", other.get("/small")).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let bytes = soon("another's body", response.into_body().collect()).await.unwrap().to_bytes();
            assert_eq!(bytes.len() as u64, SMALL);
        }
    }
}
