//! `tls: none`: in the clear, out of the mesh, and counted.

use std::sync::atomic::Ordering;

use http::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::harness::{
    Client, HttpApp, TcpApp,
    client::{field, request},
    soon,
};

#[tokio::test]
async fn requests_go_in_the_clear_as_the_app_speaks_or_the_configuration_says() {
    for (protocol, spoken) in
        [("auto", VERSIONS), ("http1", [Version::HTTP_11; 2]), ("http2", [Version::HTTP_2; 2])]
    {
        let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
        let web = caller(&mesh, &[app.address()], &format!("tls: none, plain_protocol: {protocol}")).await;
        for version in VERSIONS {
            let mut told = request(Method::POST, "/", body::full("hello"));
            told.headers_mut().insert("x-outrider-attempt", "7".parse().unwrap());
            told.headers_mut().insert("x-forwarded-client-cert", "URI=spiffe://me".parse().unwrap());
            let response = Client::connect(web.address(), version).await.send(told).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{protocol}");
            assert_eq!(body::text(response.into_body()).await, "hello");
        }
        for (seen, version) in app.seen().iter().zip(spoken) {
            assert_eq!((seen.version, seen.authority()), (version, "orders"), "{protocol}");
            let fields = names(&seen.headers);
            let fields = fields.trim_start_matches("content-length").trim();
            assert!(fields.is_empty() || fields == "host", "{fields}");
        }
    }
}

#[tokio::test]
async fn every_byte_that_leaves_unencrypted_is_counted() {
    let mesh = TestMesh::new();
    let app = TcpApp::start(async |mut stream| {
        let mut all = Vec::new();
        drop(stream.read_to_end(&mut all).await);
        drop(stream.write_all(&all[..1000]).await);
        drop(stream.shutdown().await);
    })
    .await;
    let web = caller(&mesh, &[app.address()], "tls: none").await;
    for _ in 0..2 {
        let mut stream = TcpStream::connect(web.address_of("tcp")).await.unwrap();
        stream.write_all(&body::pattern(100_000)).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = Vec::new();
        soon("the echo", stream.read_to_end(&mut back)).await.unwrap();
        assert!(back == body::pattern(1000));
    }
    let cluster = web.cluster("orders");
    let counts = &cluster.runtime.unencrypted;
    let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    assert_eq!(read(&counts.connections), 2);
    assert_eq!((read(&counts.sent_bytes), read(&counts.received_bytes)), (200_000, 2000));
}

#[tokio::test]
async fn nothing_of_the_mesh_is_counted_as_unencrypted() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[orders.address()], "").await;
    let response = Client::http1(web.address()).await.post("/", "hello").await.unwrap();
    assert_eq!((response.status(), field(&response, "x-outrider-reason")), (StatusCode::OK, None));
    for cluster in [web.cluster("orders"), orders.cluster("inbound/in")] {
        assert_eq!(cluster.runtime.unencrypted.connections.load(Ordering::Relaxed), 0);
    }
}
