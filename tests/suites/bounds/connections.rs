//! Connections: of a listener, of a peer, and those that are only half there.

use std::{io, net::SocketAddr};

use http::{Request, StatusCode};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider::model::{
    closed::{Misuse, Shed},
    runtime::Refusal,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{misused, shed};
use crate::harness::{
    BoxError, Client, HttpApp, Sidecar, TestLeaf, TestMesh, body, eventually,
    peer::{self, ALPN_H2},
    soon,
};

/// `orders` behind its sidecar with these limits.
async fn orders(mesh: &TestMesh, app: &HttpApp, limits: &str, keys: &str) -> Sidecar {
    let yaml = format!(
        "limits: {{{limits}}}\ninbound: [{{name: in, listen: '127.0.0.1:0', app: '{}', {keys}}}]",
        app.address(),
    );
    mesh.start("orders", &yaml).await
}

/// A peer's connection, as a sidecar of ours makes it, that has carried a request.
async fn peer_of(
    mesh: &TestMesh,
    leaf: &TestLeaf,
    address: SocketAddr,
) -> Result<http2::SendRequest<body::Body>, BoxError> {
    let config = peer::client_config(&mesh.ca, Some(leaf), &[ALPN_H2]);
    let stream = peer::connect(address, config).await?;
    let (mut sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    let request = Request::post("https://orders/").body(body::full("hello"))?;
    assert_eq!(sender.send_request(request).await?.status(), StatusCode::OK);
    Ok(sender)
}

/// A connection from a chosen address.
async fn connect_from(from: [u8; 4], to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// Waits until the other side closes or resets.
async fn is_closed(stream: &mut TcpStream) {
    soon("the connection is closed", async { drop(stream.read_to_end(&mut Vec::new()).await) }).await;
}

#[tokio::test]
async fn a_full_listener_closes_newcomers_and_serves_those_who_are_in() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let yaml = format!(
        "limits: {{max_connections: 2}}\noutbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, spiffe_ids: ['{}'], endpoints: [{{address: '{}'}}]}}]",
        crate::harness::ca::id("orders"),
        mesh.callee("orders", app.address(), "").await.address(),
    );
    let web = mesh.start("web", &yaml).await;
    let (mut first, second) = (Client::http1(web.address()).await, Client::http1(web.address()).await);
    eventually("both are in", || web.listener("out").active.load(std::sync::atomic::Ordering::Relaxed) == 2)
        .await;
    is_closed(&mut TcpStream::connect(web.address()).await.unwrap()).await;
    assert_eq!(shed(&web, "out", Shed::Listener), 1);
    drop(first.get("/").await.unwrap());
    drop(second);
    eventually("there is room", || {
        web.listener("out").active.load(std::sync::atomic::Ordering::Relaxed) == 1
    })
    .await;
    drop(Client::http1(web.address()).await.get("/").await.unwrap());
}

#[tokio::test]
async fn a_peer_with_too_many_connections_keeps_nobody_else_out() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let orders = orders(&mesh, &app, "max_connections_per_peer: 2", "").await;
    let (web, shop) = (mesh.ca.leaf("web"), mesh.ca.leaf("shop"));
    let held = [
        peer_of(&mesh, &web, orders.address()).await.unwrap(),
        peer_of(&mesh, &web, orders.address()).await.unwrap(),
    ];
    drop(soon("an outcome", peer_of(&mesh, &web, orders.address())).await.unwrap_err());
    eventually("it is counted", || shed(&orders, "in", Shed::Peer) == 1).await;
    let _other = peer_of(&mesh, &shop, orders.address()).await.unwrap();
    drop(held);
    eventually("its places are free", || {
        orders.listener("in").active.load(std::sync::atomic::Ordering::Relaxed) == 1
    })
    .await;
    peer_of(&mesh, &web, orders.address()).await.unwrap();
    assert_eq!(shed(&orders, "in", Shed::Peer), 1);
}

#[tokio::test]
async fn half_open_handshakes_starve_no_peer() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let orders = orders(&mesh, &app, "max_handshakes: 8, handshake_timeout: 5m", "").await;
    let web = mesh.ca.leaf("web");
    // Three addresses that open everything they may, six of eight places, and more.
    let mut half_open = Vec::new();
    for from in [[127, 0, 0, 7], [127, 0, 0, 8], [127, 0, 0, 9]] {
        for _ in 0..20 {
            let mut stream = connect_from(from, orders.address()).await.unwrap();
            drop(stream.write_all(&[0x16, 0x03, 0x01, 0x02]).await);
            half_open.push(stream);
        }
    }
    eventually("the others are shed", || shed(&orders, "in", Shed::Handshakes) == 54).await;
    soon("a peer is let in", peer_of(&mesh, &web, orders.address())).await.unwrap();
    // A peer at one of those addresses gets in as well, as soon as theirs have lasted longer than handshakes do.
    let config = peer::client_config(&mesh.ca, Some(&web), &[ALPN_H2]);
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    soon("their own neighbour is let in", async {
        loop {
            let stream = connect_from([127, 0, 0, 7], orders.address()).await.unwrap();
            let name = rustls::pki_types::ServerName::IpAddress(orders.address().ip().into());
            if connector.connect(name, stream).await.is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(orders.refused(Refusal::Timeout) == 0, "nobody had to wait for the timeout");
}

#[tokio::test]
async fn a_head_that_never_ends_is_counted() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let orders = orders(&mesh, &app, "header_read_timeout: 1s", "peer: standard").await;
    let config = peer::client_config(&mesh.ca, Some(&mesh.ca.leaf("web")), &[b"http/1.1"]);
    let mut stream = peer::connect(orders.address(), config).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: ord").await.unwrap();
    drop(soon("the close", stream.read_to_end(&mut Vec::new())).await);
    eventually("it is counted", || misused(&orders, "in", Misuse::HeadTimeout) == 1).await;
}

#[tokio::test]
async fn the_own_apps_heads_and_idle_times_have_their_own_bounds() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let callee = mesh.callee("orders", app.address(), "").await;
    let yaml = format!(
        "limits: {{header_read_timeout: 1s, idle_timeout: 2s}}\noutbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, spiffe_ids: ['{}'], endpoints: [{{address: '{}'}}]}}]",
        crate::harness::ca::id("orders"),
        callee.address(),
    );
    let web = mesh.start("web", &yaml).await;
    // A head, and an HTTP/2 preface, that never end.
    for (number, bytes) in (1..).zip([&b"GET / HTTP/1.1\r\nHost: ord"[..], b"PRI * HTTP/2.0\r\n\r\nSM"]) {
        let mut slow = TcpStream::connect(web.address()).await.unwrap();
        slow.write_all(bytes).await.unwrap();
        is_closed(&mut slow).await;
        eventually("it is counted", || misused(&web, "out", Misuse::HeadTimeout) == number).await;
    }
    // Nothing at all, and nothing after an answer.
    is_closed(&mut TcpStream::connect(web.address()).await.unwrap()).await;
    let mut used = TcpStream::connect(web.address()).await.unwrap();
    used.write_all(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n").await.unwrap();
    let (head, is_whole) = crate::harness::client::read_head(&mut used).await;
    assert!(is_whole && head.contains(" 200 "), "{head}");
    is_closed(&mut used).await;
    assert_eq!(misused(&web, "out", Misuse::HeadTimeout), 2, "idle is no misuse");
}
