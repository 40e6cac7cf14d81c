//! Who may call is asked anew for every request, also on connections from before.

use std::sync::atomic::Ordering;

use http::{StatusCode, Version};
use outrider::model::flag::ResponseFlag;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Bench;
use crate::harness::{Client, HttpApp, TcpApp, TestMesh, ca::id, client::field, mesh::reset_by, soon};

#[tokio::test]
async fn a_caller_that_is_taken_off_the_list_is_refused_at_its_next_request() {
    let mut bench = Bench::new(HttpApp::named("orders").await).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = Client::connect(bench.web.address(), version).await;
        assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK);
        let before = bench.app.count();
        bench.reload_orders(&format!("allow: ['{}']", id("somebody-else"))).await;
        let refused = client.get("/").await.unwrap();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{version:?}");
        assert_eq!(field(&refused, "x-outrider-reason"), Some("not_allowed"));
        assert_eq!(bench.app.count(), before, "the app has not seen it");
        bench.reload_orders(&format!("allow: ['{}']", id("web"))).await;
        assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK, "{version:?}");
    }
    let unrouted = &bench.orders.listener("in").unrouted[ResponseFlag::RBAC as usize];
    assert_eq!(unrouted.load(Ordering::Relaxed), 2);
    assert_eq!(
        bench.orders.listener("in").accepted.load(Ordering::Relaxed),
        1,
        "one connection all the time"
    );
}

#[tokio::test]
async fn a_caller_that_is_taken_off_the_list_gets_no_new_stream() {
    let app = TcpApp::start(async |mut stream| {
        let (mut read, mut write) = stream.split();
        drop(tokio::io::copy(&mut read, &mut write).await);
    })
    .await;
    let mesh = TestMesh::new();
    let mut orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let web = mesh.tcp_caller(&[orders.address()], "").await;
    let mut running = TcpStream::connect(web.address()).await.unwrap();
    running.write_all(b"before").await.unwrap();
    soon("the echo", running.read_exact(&mut [0; 6])).await.unwrap();
    let mut ended = TcpStream::connect(web.address()).await.unwrap();
    ended.shutdown().await.unwrap();
    soon("its end", ended.read_to_end(&mut Vec::new())).await.unwrap();
    let streams = app.connections();
    let closed = format!("protocol: tcp, allow: ['{}']", id("somebody-else"));
    let yaml = format!("inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}', {closed}}}]", app.address());
    mesh.reload(&mut orders, "orders", &yaml).await.unwrap();
    reset_by(web.address()).await;
    assert_eq!(app.connections(), streams, "the app was not asked");
    let ended = soon("the stream that was open ends", running.read(&mut [0])).await;
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}
