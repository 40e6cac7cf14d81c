//! An app that asks for it is told who calls.

use std::net::SocketAddr;

use http::{StatusCode, Version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{CLIENT, Kind, ToldApp, begin, link, peer_behind, speaks_for};
use crate::harness::{Client, TcpApp, TestMesh, body, ca, soon};

/// `PP2_TYPE_SSL` of a verified caller: TLS with a certificate on this connection, which was verified; and the version.
const SSL: &[u8] = b"\x07\0\0\0\0\x21\0\x07TLSv1.3";

async fn echo(address: SocketAddr, text: &[u8]) {
    let mut stream = begin(address, text).await;
    let mut heard = vec![0; text.len()];
    soon("the echo", stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, text);
    stream.shutdown().await.unwrap();
    assert_eq!(soon("the end", stream.read(&mut [0; 1])).await.unwrap(), 0);
}

#[tokio::test]
async fn each_stream_begins_with_who_calls_and_goes_on_with_its_own_bytes() {
    let (mesh, app) = (TestMesh::new(), ToldApp::start(Kind::Bytes).await);
    for (asked, is_v1) in [("v1", true), ("v2", false)] {
        let before = app.heard().len();
        let orders =
            mesh.callee("orders", app.address, &format!("protocol: tcp, app_proxy_protocol: {asked}")).await;
        let web = mesh.tcp_caller(&[orders.address()], "").await;
        // Another header of the app's own is what it is: bytes.
        for text in [&b"hello"[..], b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nhello"] {
            echo(web.address(), text).await;
        }
        let heard = app.heard().split_off(before);
        assert_eq!(heard.len(), 2, "one connection each");
        for heard in heard {
            assert_eq!((heard.link.source.ip(), heard.is_v1), ([127, 0, 0, 1].into(), is_v1));
            assert_ne!(heard.link.source.port(), 0);
            assert_eq!(heard.link.destination, orders.address());
            assert_eq!(heard.id(), (!is_v1).then_some(ca::id("web").as_str()));
            assert_eq!(heard.tlvs.iter().any(|(kind, value)| *kind == 0x20 && value == SSL), !is_v1);
        }
    }
}

#[tokio::test]
async fn an_app_that_did_not_ask_hears_nothing() {
    let (mesh, app) = (TestMesh::new(), TcpApp::echo().await);
    for keys in ["protocol: tcp", "protocol: tcp, app_proxy_protocol: none"] {
        let orders = mesh.callee("orders", app.address(), keys).await;
        let web = mesh.tcp_caller(&[orders.address()], "").await;
        echo(web.address(), b"hello").await;
    }
}

#[tokio::test]
async fn an_app_that_speaks_first_hears_of_its_client_before() {
    let mesh = TestMesh::new();
    let app = TcpApp::start(async |mut stream: TcpStream| {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(&line).await.unwrap();
        drop(stream.read(&mut [0; 1]).await);
    })
    .await;
    let orders = mesh.callee("orders", app.address(), "protocol: tcp, app_proxy_protocol: v1").await;
    let web = mesh.tcp_caller(&[orders.address()], "").await;
    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    let mut greeting = [0; 25];
    soon("the greeting", stream.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"PROXY TCP4 127.0.0.1 127.");
}

/// The number of the connection that a request came by.
async fn number(client: &mut Client) -> String {
    let response = soon("an answer", client.get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    body::text(response.into_body()).await
}

#[tokio::test]
async fn requests_of_two_callers_never_share_a_connection_and_those_of_one_do() {
    for app_protocol in ["http1", "http2"] {
        let (mesh, app) = (TestMesh::new(), ToldApp::start(Kind::Http).await);
        let keys = format!("app_proxy_protocol: v2, app_protocol: {app_protocol}, pool_idle_timeout: 1h");
        let orders = mesh.callee("orders", app.address, &keys).await;
        let mut callers = Vec::new();
        for service in ["web", "web", "admin"] {
            let stream = TcpStream::connect(orders.address()).await.unwrap();
            let source = stream.local_addr().unwrap();
            callers.push((service, source, peer_behind(&mesh, stream, service).await.unwrap()));
        }
        let mut numbers = Vec::new();
        for _round in 0..3 {
            for (_, _, client) in &mut callers {
                numbers.push(number(client).await);
            }
        }
        assert_eq!(numbers, ["0", "1", "2", "0", "1", "2", "0", "1", "2"], "{app_protocol}");
        for (heard, (service, source, _)) in app.heard().iter().zip(&callers) {
            assert_eq!(heard.link.source, *source);
            assert_eq!(heard.link.destination, orders.address());
            assert_eq!(heard.id(), Some(ca::id(service).as_str()));
        }
    }
}

#[tokio::test]
async fn an_unused_connection_of_one_caller_makes_room_for_another() {
    let (mesh, app) = (TestMesh::new(), ToldApp::start(Kind::Http).await);
    let keys = "app_proxy_protocol: v1, max_connections: 1, pool_idle_timeout: 1h";
    let orders = mesh.callee("orders", app.address, keys).await;
    for turn in 0..4 {
        let stream = TcpStream::connect(orders.address()).await.unwrap();
        let source = stream.local_addr().unwrap();
        let mut web = peer_behind(&mesh, stream, "web").await.unwrap();
        assert_eq!(number(&mut web).await, turn.to_string());
        assert_eq!(app.heard()[turn].link.source, source);
    }
}

#[tokio::test]
async fn whom_a_proxy_speaks_for_is_told_with_who_that_proved_to_be() {
    let (mesh, app) = (TestMesh::new(), ToldApp::start(Kind::Http).await);
    let keys = "app_proxy_protocol: v2, proxy_protocol: {from: [127.0.0.1]}";
    let orders = mesh.callee("orders", app.address, keys).await;
    let stream = begin(orders.address(), &speaks_for(super::VERSIONS[0], CLIENT)).await;
    let mut web = peer_behind(&mesh, stream, "web").await.unwrap();
    number(&mut web).await;
    assert_eq!((app.only().link, app.only().id()), (link(CLIENT), Some(ca::id("web").as_str())));
}

#[tokio::test]
async fn a_whole_mesh_works_with_an_app_that_wants_headers() {
    let (mesh, app) = (TestMesh::new(), ToldApp::start(Kind::Http).await);
    let orders = mesh.callee("orders", app.address, "app_proxy_protocol: v2").await;
    let web = mesh.caller(&[orders.address()], "").await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = Client::connect(web.address(), version).await;
        for _request in 0..10 {
            number(&mut client).await;
        }
    }
    assert!(app.heard().iter().all(|heard| heard.id() == Some(ca::id("web").as_str())));
}

#[tokio::test]
async fn a_reload_decides_what_the_app_hears_from_then_on() {
    let (mesh, app) = (TestMesh::new(), ToldApp::start(Kind::Http).await);
    let yaml = |version: &str| {
        let keys = format!("app: '{}', app_proxy_protocol: {version}, pool_idle_timeout: 1h", app.address);
        format!("inbound: [{{name: in, listen: '127.0.0.1:0', {keys}}}]")
    };
    let mut orders = mesh.start("orders", &yaml("v1")).await;
    let stream = TcpStream::connect(orders.address()).await.unwrap();
    let mut web = peer_behind(&mesh, stream, "web").await.unwrap();
    assert_eq!(number(&mut web).await, "0");
    mesh.reload(&mut orders, "orders", &yaml("v2")).await.unwrap();
    assert_eq!(number(&mut web).await, "1");
    assert_eq!(number(&mut web).await, "1");
    assert_eq!(app.heard().iter().map(|heard| heard.is_v1).collect::<Vec<_>>(), [true, false]);
}
