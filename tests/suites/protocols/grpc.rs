//! gRPC: messages and trailers as they are, and our own answers in its terms.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};

use super::Pair;
use crate::harness::{
    Client, HttpApp, TestMesh,
    app::nobody,
    body::{self, Body},
    client::{field, request},
    soon,
};

/// gRPC over HTTP/2, "Requests".
fn rpc(path: &str, body: Body) -> Request<Body> {
    let mut request = request(Method::POST, path, body);
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc+proto"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    request
}

/// A length-prefixed message.
fn message(text: &str) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.into()
}

fn status(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([
        ("grpc-status".parse().unwrap(), HeaderValue::from_static(code)),
        ("grpc-message".parse().unwrap(), HeaderValue::from_static("as said")),
    ])
}

/// A service that sends every message back and ends with status 0; `/refuse` answers with trailers only.
async fn service() -> HttpApp {
    HttpApp::start(async |request: Request<Incoming>| {
        assert_eq!(request.headers()["te"], "trailers");
        let response = Response::builder().header("content-type", "application/grpc");
        if request.uri().path() == "/refuse" {
            return Ok(response
                .header("grpc-status", "7")
                .header("grpc-message", "no")
                .body(body::empty())?);
        }
        let (down, out) = body::channel();
        let mut up = request.into_body();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = up.frame().await {
                if let Ok(data) = frame.into_data() {
                    down.send(Ok(Frame::data(data))).await.unwrap();
                }
            }
            down.send(Ok(Frame::trailers(status("0")))).await.unwrap();
        });
        Ok(response.body(out)?)
    })
    .await
}

#[tokio::test]
async fn a_unary_call_keeps_its_message_and_its_trailers() {
    let pair = Pair::of(service().await).await;
    let mut client = Client::http2(pair.web.address()).await;
    let response = client.send(rpc("/shop.Orders/Get", body::full(message("one")))).await.unwrap();
    assert_eq!(field(&response, "content-type"), Some("application/grpc"));
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers(), Some(&status("0")));
    assert_eq!(collected.to_bytes(), message("one"));
    let seen = pair.app.only();
    assert_eq!(seen.header("content-type"), Some("application/grpc+proto"));
    assert_eq!(seen.version, http::Version::HTTP_2);
}

#[tokio::test]
async fn a_stream_of_messages_goes_both_ways_at_once() {
    let pair = Pair::of(service().await).await;
    let mut client = Client::http2(pair.web.address()).await;
    let (up, body) = body::channel();
    let response = soon("the head", client.send(rpc("/shop.Orders/Watch", body))).await.unwrap();
    let mut down = response.into_body();
    for i in 0..200 {
        let sent = message(&format!("message {i}"));
        up.send(Ok(Frame::data(sent.clone()))).await.unwrap();
        let mut echoed = Vec::new();
        while echoed.len() < sent.len() {
            let frame = soon("the echo", down.frame()).await.unwrap().unwrap();
            echoed.extend_from_slice(&frame.into_data().unwrap());
        }
        assert_eq!(echoed, sent);
    }
    drop(up);
    assert_eq!(soon("the end", down.collect()).await.unwrap().trailers(), Some(&status("0")));
}

#[tokio::test]
async fn an_answer_of_trailers_only_stays_one() {
    let pair = Pair::of(service().await).await;
    let mut client = Client::http2(pair.web.address()).await;
    let response = client.send(rpc("/refuse", body::full(message("x")))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!((field(&response, "grpc-status"), field(&response, "grpc-message")), (Some("7"), Some("no")));
    assert!(hyper::body::Body::is_end_stream(response.body()), "the answer ends with its head");
}

#[tokio::test]
async fn a_dead_cluster_is_unavailable_in_grpcs_own_terms() {
    let mesh = TestMesh::new();
    let web = mesh.caller(&[nobody()], "retry: {backoff_base: 1ms}").await;
    let mut client = Client::http2(web.address()).await;
    let response =
        soon("the answer", client.send(rpc("/shop.Orders/Get", body::full(message("x"))))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(field(&response, "content-type"), Some("application/grpc"));
    assert_eq!(field(&response, "grpc-status"), Some("14"));
    assert_eq!(field(&response, "x-outrider-reason"), Some("connect_failed"));
    assert!(hyper::body::Body::is_end_stream(response.body()));
}

#[tokio::test]
async fn a_dead_app_is_unavailable_in_grpcs_own_terms() {
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", nobody(), "").await;
    let web = mesh.caller(&[orders.address()], "retry: {backoff_base: 1ms}").await;
    let mut client = Client::http2(web.address()).await;
    let response =
        soon("the answer", client.send(rpc("/shop.Orders/Get", body::full(message("x"))))).await.unwrap();
    assert_eq!((response.status(), field(&response, "grpc-status")), (StatusCode::OK, Some("14")));
    assert_eq!(field(&response, "x-outrider-processed"), None, "that is between the sidecars");
}

#[tokio::test]
async fn an_app_lost_in_the_middle_of_an_answer_is_unavailable_in_grpcs_own_terms() {
    let mut pair = Pair::of(service().await).await;
    let mut client = Client::http2(pair.web.address()).await;
    let (up, body) = body::channel();
    let response = soon("the head", client.send(rpc("/shop.Orders/Watch", body))).await.unwrap();
    let mut down = response.into_body();
    up.send(Ok(Frame::data(message("one")))).await.unwrap();
    let frame = soon("the echo", down.frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), message("one"));
    drop(std::mem::replace(&mut pair.app, HttpApp::named("another").await));
    let rest = soon("the end", down.collect()).await.expect("no reset");
    assert_eq!(rest.trailers().and_then(|trailers| trailers.get("grpc-status")).unwrap(), "14");
}
