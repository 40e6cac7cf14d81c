//! The frames under opaque streams: one connection carries many streams, and none gets another's bytes.

use std::{sync::atomic::Ordering, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    TcpApp, TestMesh,
    peer::{self, ALPN_TCP},
    soon,
};

const OPEN: &[u8] = b"\x01\0\x0bkind=opaque";

/// The first byte says what the app does: echo to the end, close at once, or reset at once.
async fn moody() -> TcpApp {
    TcpApp::start(async |mut stream| match stream.read_u8().await {
        Ok(b'c') => drop(stream.shutdown().await),
        Ok(b'r') => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
        Ok(_echo) => {
            let (mut read, mut write) = stream.split();
            drop(tokio::io::copy(&mut read, &mut write).await);
            drop(write.shutdown().await);
        }
        Err(_gone) => {}
    })
    .await
}

/// One stream: what it asks the app for, and how the client ends it.
async fn one(address: std::net::SocketAddr, turn: usize) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = format!("stream {turn} ").repeat(1 + turn * 37 % 5000);
    match turn % 5 {
        0 | 1 => {
            // Whole: exactly its own bytes come back.
            let (mut read, mut write) = stream.split();
            let sending = async {
                write.write_all(b"e").await.unwrap();
                write.write_all(text.as_bytes()).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut back = String::new();
            let (_sent, received) =
                soon("the echo", async { tokio::join!(sending, read.read_to_string(&mut back)) }).await;
            received.unwrap();
            assert!(back == text, "stream {turn} got {} bytes for {}", back.len(), text.len());
        }
        2 => {
            // Reset in the midst.
            drop(stream.write_all(format!("e{text}").as_bytes()).await);
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        mood => {
            let first = if mood == 3 { "c" } else { "r" };
            drop(stream.write_all(format!("{first}{text}").as_bytes()).await);
            let mut back = Vec::new();
            drop(soon("the end", stream.read_to_end(&mut back)).await);
            assert!(back.is_empty(), "stream {turn} got bytes of another");
        }
    }
}

#[tokio::test]
async fn streams_that_end_in_every_way_never_get_each_others_bytes() {
    let (mesh, app) = (TestMesh::new(), moody().await);
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let web = mesh.tcp_caller(&[orders.address()], "").await;
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..5 {
        let address = web.address();
        callers.spawn(async move {
            for turn in 0..60 {
                one(address, caller + turn).await;
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    let in_flight = || orders.cluster("inbound/in").runtime.in_flight.load(Ordering::Relaxed);
    crate::harness::eventually("nothing is left", || in_flight() == 0).await;
}

#[tokio::test]
async fn frames_out_of_turn_end_the_connection_and_reach_no_app() {
    let unknown: &[u8] = &[99, 0, 0];
    let data_first = &[3, 0, 2, b'h', b'i'];
    let oversized = &[1, 0xff, 0xff];
    let accepted_by_the_caller = &[2, 0, 0];
    for frame in [unknown, data_first, oversized, accepted_by_the_caller] {
        let (mesh, app) = (TestMesh::new(), moody().await);
        let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
        let config = peer::client_config(&mesh.ca, Some(&mesh.ca.leaf("web")), &[ALPN_TCP]);
        let mut stream = peer::connect(orders.address(), config).await.unwrap();
        stream.write_all(frame).await.unwrap();
        let mut heard = Vec::new();
        drop(soon("the close", stream.read_to_end(&mut heard)).await);
        assert!(heard.is_empty(), "{frame:?}: {heard:?}");
        assert_eq!(app.connections(), 0);
    }
}

#[tokio::test]
async fn a_second_open_on_a_stream_under_way_aborts_it() {
    let (mesh, app) = (TestMesh::new(), moody().await);
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let config = peer::client_config(&mesh.ca, Some(&mesh.ca.leaf("web")), &[ALPN_TCP]);
    let mut stream = peer::connect(orders.address(), config).await.unwrap();
    stream.write_all(OPEN).await.unwrap();
    let mut accepted = [0; 3];
    soon("the stream is accepted", stream.read_exact(&mut accepted)).await.unwrap();
    assert_eq!(accepted, [2, 0, 0]);
    stream.write_all(OPEN).await.unwrap();
    soon("the close", async { drop(stream.read_to_end(&mut Vec::new()).await) }).await;
    assert_eq!(app.connections(), 1);
}
