//! Checks by the gRPC health protocol.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use outrider::model::{health::Checked, health_check::CheckOutcome};

use super::{OFTEN, becomes, found};
use crate::harness::{HttpApp, TestMesh, body, soon};

/// A server whose service `shop.Orders` has the status it is told, and which knows no other.
async fn server(status: &Arc<AtomicU8>) -> HttpApp {
    let status = Arc::clone(status);
    HttpApp::start(move |request: Request<Incoming>| {
        let status = status.load(Ordering::Relaxed);
        async move {
            assert_eq!((request.method(), request.version()), (&Method::POST, Version::HTTP_2));
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(
                (&request.headers()["te"], &request.headers()["content-type"]),
                (&"trailers".parse::<HeaderValue>()?, &"application/grpc".parse()?)
            );
            let asked = request.into_body().collect().await?.to_bytes();
            let response = Response::builder().header("content-type", "application/grpc");
            if asked != Bytes::from_static(b"\0\0\0\0\x0d\x0a\x0bshop.Orders") {
                return Ok(response
                    .header("grpc-status", "5")
                    .header("grpc-message", "unknown service")
                    .body(body::empty())?);
            }
            let (down, out) = body::channel();
            let message = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]);
            let trailers =
                HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
            tokio::spawn(async move {
                down.send(Ok(Frame::data(message))).await.unwrap();
                down.send(Ok(Frame::trailers(trailers))).await.unwrap();
            });
            Ok(response.body(out)?)
        }
    })
    .await
}

#[tokio::test]
async fn serving_is_well_and_nothing_else() {
    let (mesh, status) = (TestMesh::new(), Arc::new(AtomicU8::new(1)));
    let app = server(&status).await;
    let orders = mesh.callee("orders", app.address(), "").await;
    for protocol in ["http2", "http1"] {
        status.store(1, Ordering::Relaxed);
        let keys = format!(
            "mesh_protocol: {protocol}, health_check: {{protocol: grpc, service: shop.Orders, {OFTEN}}}"
        );
        let web = mesh.caller(&[orders.address()], &keys).await;
        becomes(&web, orders.address(), Checked::Healthy).await;
        status.store(2, Ordering::Relaxed);
        becomes(&web, orders.address(), Checked::Unhealthy).await;
        assert_eq!(found(&web, orders.address()).await, (CheckOutcome::NotServing, "NOT_SERVING".to_owned()));
        status.store(1, Ordering::Relaxed);
        becomes(&web, orders.address(), Checked::Healthy).await;
    }
}

#[tokio::test]
async fn a_service_that_nobody_knows_is_not_well() {
    let (mesh, status) = (TestMesh::new(), Arc::new(AtomicU8::new(1)));
    let app = server(&status).await;
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[orders.address()], "health_check: {protocol: grpc, service: shop.Stock}").await;
    let (outcome, text) = found(&web, orders.address()).await;
    assert_eq!((outcome, text.as_str()), (CheckOutcome::NotServing, "no such service (5): unknown service"));
}

#[tokio::test]
async fn what_is_no_grpc_is_not_well() {
    let mesh = TestMesh::new();
    let without = HttpApp::named("a page").await;
    let missing = HttpApp::start(async |_request| {
        Ok(Response::builder().status(404).body(body::full("no such page"))?)
    })
    .await;
    let first = mesh.callee("orders", without.address(), "").await;
    let second = mesh.callee("orders", missing.address(), "").await;
    let web = mesh.caller(&[first.address(), second.address()], "health_check: {protocol: grpc}").await;
    let found =
        soon("both", async { (found(&web, first.address()).await, found(&web, second.address()).await) })
            .await;
    assert_eq!(found.0, (CheckOutcome::Protocol, "an answer without grpc-status".to_owned()));
    assert_eq!(found.1, (CheckOutcome::Status, "status 404".to_owned()));
}
