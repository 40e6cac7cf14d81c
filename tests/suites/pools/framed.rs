//! Kept connections that carry opaque streams in frames.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use outrider::model::pool_counts::Closed;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::{closed, opened};
use crate::harness::{
    TcpApp, TestMesh, eventually,
    peer::{ALPN_TCP, TlsPeer, server_config},
    soon,
};

const ACCEPTED: [u8; 3] = [2, 0, 0];
const FIN: [u8; 3] = [4, 0, 0];

/// Reads a frame; its type. `None` at the end.
async fn frame(stream: &mut TlsStream<TcpStream>) -> Option<u8> {
    let mut header = [0; 3];
    stream.read_exact(&mut header).await.ok()?;
    let [kind, high, low] = header;
    stream.read_exact(&mut vec![0; usize::from(u16::from_be_bytes([high, low]))]).await.ok()?;
    Some(kind)
}

/// Plays a sidecar whose app closes each stream when the caller does.
async fn one_stream(stream: &mut TlsStream<TcpStream>) -> Option<()> {
    assert_eq!(frame(stream).await?, 1, "a stream begins with OPEN");
    stream.write_all(&ACCEPTED).await.ok()?;
    while frame(stream).await? != FIN[0] {}
    stream.write_all(&FIN).await.ok()
}

/// An opaque stream without bytes; whether it ended as it should.
async fn stream(address: SocketAddr) -> std::io::Result<usize> {
    let mut client = TcpStream::connect(address).await?;
    client.shutdown().await?;
    soon("the stream ends", client.read_to_end(&mut Vec::new())).await
}

#[tokio::test]
async fn a_kept_connection_that_the_peer_closed_costs_nothing() {
    let mesh = TestMesh::new();
    let config = server_config(&mesh.ca, &mesh.ca.leaf("orders"), &[ALPN_TCP]);
    let peer = TlsPeer::start(config, async |mut stream| {
        one_stream(&mut stream).await;
        drop(stream.shutdown().await);
    })
    .await;
    let web = mesh.tcp_caller(&[peer.address()], "retry: {max_retries: 0}").await;
    for turn in 0..50 {
        stream(web.address()).await.unwrap_or_else(|error| panic!("{turn}: {error}"));
    }
    assert_eq!(peer.connections(), 50);
    assert_eq!(web.retries(), 0);
}

#[tokio::test]
async fn a_kept_connection_that_is_closed_at_open_is_replaced() {
    let mesh = TestMesh::new();
    let config = server_config(&mesh.ca, &mesh.ca.leaf("orders"), &[ALPN_TCP]);
    let peer = TlsPeer::start(config, async |mut stream| {
        one_stream(&mut stream).await;
        // The race that no check can win: it closes when the next stream is on its way.
        let _open = frame(&mut stream).await;
    })
    .await;
    let web = mesh.tcp_caller(&[peer.address()], "retry: {max_retries: 0}").await;
    for turn in 0..20 {
        stream(web.address()).await.unwrap_or_else(|error| panic!("{turn}: {error}"));
    }
    assert_eq!((peer.connections(), web.retries()), (20, 0));
}

#[tokio::test]
async fn a_dead_kept_connection_is_found_within_the_connect_timeout_and_the_others_go_with_it() {
    const KEPT: usize = 3;
    let mesh = TestMesh::new();
    let config = server_config(&mesh.ca, &mesh.ca.leaf("orders"), &[ALPN_TCP]);
    let begun: Arc<AtomicUsize> = Arc::default();
    let count = Arc::clone(&begun);
    let peer = TlsPeer::start(config, move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            assert_eq!(frame(&mut stream).await, Some(1));
            stream.write_all(&ACCEPTED).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            while frame(&mut stream).await != Some(FIN[0]) {}
            stream.write_all(&FIN).await.unwrap();
            // From here on as if the way were cut: no end, no answer.
            std::future::pending::<()>().await;
        }
    })
    .await;
    let keys = "connect_timeout: 500ms, retry: {max_retries: 0}";
    let web = mesh.tcp_caller(&[peer.address()], keys).await;
    let mut clients = Vec::new();
    for _ in 0..KEPT {
        clients.push(TcpStream::connect(web.address()).await.unwrap());
    }
    eventually("all streams are open", || begun.load(Ordering::Relaxed) == KEPT).await;
    for mut client in clients {
        client.shutdown().await.unwrap();
        soon("it ends", client.read_to_end(&mut Vec::new())).await.unwrap();
    }
    // One stream finds out.
    stream(web.address()).await.unwrap_err();
    eventually("the others are closed", || {
        closed(&web, "orders", Closed::Distrusted) == u64::try_from(KEPT).unwrap() - 1
    })
    .await;
    assert_eq!(opened(&web, "orders"), u64::try_from(KEPT).unwrap());
}

#[tokio::test]
async fn a_stream_whose_app_is_not_to_be_had_leaves_the_connection_for_the_next() {
    let (mesh, nobody) = (TestMesh::new(), crate::harness::app::nobody());
    let orders = mesh.callee("orders", nobody, "protocol: tcp").await;
    let web = mesh.tcp_caller(&[orders.address()], "retry: {max_retries: 0}").await;
    for _ in 0..5 {
        stream(web.address()).await.unwrap_err();
        // The two agree on where the next stream begins.
        eventually("it is free again", || web.app().drains.in_flight() == 0).await;
    }
    assert_eq!(opened(&web, "orders"), 1);
}

#[tokio::test]
async fn an_old_connection_is_replaced_between_two_streams() {
    let (mesh, app) =
        (TestMesh::new(), TcpApp::start(async |mut stream| drop(stream.shutdown().await)).await);
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let web = mesh.tcp_caller(&[orders.address()], "max_connection_age: 1s").await;
    let is_renewed = async {
        while opened(&web, "orders") < 3 {
            stream(web.address()).await.unwrap();
        }
    };
    soon("two connections have grown old", is_renewed).await;
    assert_eq!(closed(&web, "orders", Closed::Age), 2);
}
