//! Opaque streams: one that is over the limit is refused before the app is connected.

use std::net::SocketAddr;

use outrider::model::flag::ResponseFlag;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{THREE, refused};
use crate::harness::{TcpApp, TestMesh, eventually, mesh::reset_by, soon};

/// A stream that is carried: it is heard, and answered.
async fn echoed(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    soon("the echo", stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"hello");
}

#[tokio::test]
async fn a_stream_over_the_limit_never_reaches_the_app_and_is_not_taken_elsewhere() {
    let mesh = TestMesh::new();
    let (app, other) = (TcpApp::echo().await, TcpApp::echo().await);
    let limited = |limit: &str| format!("protocol: tcp, rate_limits: [{{{limit}}}]");
    let first = mesh.callee("orders", app.address(), &limited("requests: 2, per: 1h")).await;
    let second = mesh.callee("orders", other.address(), &limited("requests: 2, per: 1h")).await;
    let keys = "balance: round_robin, retry: {budget_min_per_second: 1000, max_retries: 5}";
    let web = mesh.tcp_caller(&[first.address(), second.address()], keys).await;
    for _ in 0..4 {
        echoed(web.address()).await;
    }
    for turn in 1..=6 {
        reset_by(web.address()).await;
        eventually("the refusal is counted", || web.flagged(ResponseFlag::RL) == turn).await;
    }
    assert_eq!((app.connections(), other.connections()), (2, 2));
    assert_eq!(refused(&first, "inbound/in") + refused(&second, "inbound/in"), 6, "each was asked of one");
    assert_eq!(web.retries(), 0);
}

#[tokio::test]
async fn streams_of_one_caller_do_not_touch_those_of_another() {
    let mesh = TestMesh::new();
    let app = TcpApp::echo().await;
    let keys = format!("protocol: tcp, rate_limits: [{{by: caller, {THREE}}}]");
    let orders = mesh.callee("orders", app.address(), &keys).await;
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0', protocol: tcp, cluster: orders}}]\nclusters: [{}]",
        TestMesh::cluster("orders", &[orders.address()], ""),
    );
    let (web, batch) = (mesh.start("web", &yaml).await, mesh.start("batch", &yaml).await);
    for _ in 0..3 {
        echoed(batch.address()).await;
    }
    reset_by(batch.address()).await;
    for _ in 0..3 {
        echoed(web.address()).await;
    }
}

#[tokio::test]
async fn what_is_over_a_clusters_limit_is_reset_before_anybody_is_asked() {
    let mesh = TestMesh::new();
    let app = TcpApp::echo().await;
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let web = mesh.tcp_caller(&[orders.address()], &format!("rate_limits: [{{{THREE}}}]")).await;
    for _ in 0..3 {
        echoed(web.address()).await;
    }
    for _ in 0..3 {
        reset_by(web.address()).await;
    }
    assert_eq!(app.connections(), 3);
    eventually("refusals are flagged", || web.flagged(ResponseFlag::RL) == 3).await;
}
