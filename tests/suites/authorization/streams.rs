//! Opaque streams, and connections to ports that carry nothing else.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use outrider::model::{flag::ResponseFlag, runtime::Refusal};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::verdicts;
use crate::{
    frames::{Frame, OPAQUE, expect, next, send},
    harness::{
        TcpApp, TestMesh,
        ca::id,
        eventually,
        mesh::reset_by,
        peer::{self, ALPN_TCP, TlsPeer},
        soon,
    },
};

fn callee(app: SocketAddr, callers: &[&str]) -> String {
    let rules: Vec<String> =
        callers.iter().map(|caller| format!("{{name: {caller}, from: ['{}']}}", id(caller))).collect();
    format!(
        "inbound: [{{name: in, listen: '127.0.0.1:0', app: '{app}', protocol: tcp}}]\n\
         authorization: {{rules: [{}]}}",
        rules.join(", "),
    )
}

#[tokio::test]
async fn a_peer_that_no_rule_fits_has_no_connection_to_a_tcp_port() {
    let (mesh, app) = (TestMesh::new(), TcpApp::echo().await);
    let mut orders = mesh.start("orders", &callee(app.address(), &["other"])).await;
    let web = mesh.tcp_caller(&[orders.address()], "retry: {max_retries: 0}, queue_timeout: 0s").await;
    reset_by(web.address()).await;
    assert_eq!((orders.refused(Refusal::NotAllowed), app.connections()), (1, 0));
    assert_eq!(verdicts(&orders, "in"), [0, 1, 0]);

    mesh.reload(&mut orders, "orders", &callee(app.address(), &["other", "web"])).await.unwrap();
    let web = mesh.tcp_caller(&[orders.address()], "").await;
    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    soon("the echo", stream.read_exact(&mut echo)).await.unwrap();
    assert_eq!((&echo, verdicts(&orders, "in")), (b"hello", [1, 1, 0]));
}

#[tokio::test]
async fn a_stream_on_a_connection_from_before_is_judged_by_the_newest_rules() {
    let (mesh, app) = (TestMesh::new(), TcpApp::echo().await);
    let mut orders = mesh.start("orders", &callee(app.address(), &["web"])).await;
    let mut trails = orders.app().observer.subscribe();
    let config = peer::client_config(&mesh.ca, Some(&mesh.ca.leaf("web")), &[ALPN_TCP]);
    let mut web = peer::connect(orders.address(), config).await.unwrap();
    send(&mut web, &[Frame::open(OPAQUE)]).await;
    expect(&mut web, &[Frame::Accepted]).await;
    send(&mut web, &[Frame::Fin]).await;
    expect(&mut web, &[Frame::Fin]).await;
    let trail = soon("a stream is over", trails.recv()).await.unwrap().trail;
    assert_eq!(trail.authorization.as_deref(), Some("web"));

    mesh.reload(&mut orders, "orders", &callee(app.address(), &["other"])).await.unwrap();
    send(&mut web, &[Frame::open(OPAQUE)]).await;
    expect(&mut web, &[Frame::refused("not_authorized")]).await;
    let trail = soon("a stream is over", trails.recv()).await.unwrap().trail;
    assert_eq!(trail.authorization.as_deref(), Some("denied"));
    assert_eq!((trail.flag, trail.reason.as_deref()), (Some(ResponseFlag::RBAC), Some("not_authorized")));
    assert_eq!((app.connections(), verdicts(&orders, "in")), (1, [1, 1, 0]));
}

#[tokio::test]
async fn a_denied_stream_is_opened_nowhere_else_and_speaks_against_nobody() {
    let mesh = TestMesh::new();
    let opened = Arc::new(AtomicUsize::new(0));
    let mut peers = Vec::new();
    for _ in 0..2 {
        let opened = Arc::clone(&opened);
        let config = peer::server_config(&mesh.ca, &mesh.ca.leaf("orders"), &[ALPN_TCP]);
        let denying = TlsPeer::start(config, move |mut stream| {
            let opened = Arc::clone(&opened);
            async move {
                while let Some(Frame::Open(_)) = next(&mut stream).await {
                    opened.fetch_add(1, Ordering::Relaxed);
                    send(&mut stream, &[Frame::refused("not_authorized")]).await;
                }
            }
        });
        peers.push(denying.await);
    }
    let endpoints: Vec<SocketAddr> = peers.iter().map(TlsPeer::address).collect();
    let web = mesh.tcp_caller(&endpoints, "retry: {max_retries: 3}").await;
    for count in 1..=12 {
        reset_by(web.address()).await;
        eventually("it is told", || web.flagged(ResponseFlag::RBAC) == count).await;
    }
    assert_eq!((opened.load(Ordering::Relaxed), web.retries()), (12, 0));
    let cluster = web.cluster("orders");
    let failures: u64 =
        cluster.endpoints.iter().map(|endpoint| endpoint.runtime.failures.load(Ordering::Relaxed)).sum();
    assert_eq!(failures, 0);
}
