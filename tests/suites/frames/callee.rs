//! What a sidecar does with the frames of a caller.

use std::sync::atomic::Ordering;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use super::{Frame, OPAQUE, UNDECIDED, connect, expect, next, send};
use crate::harness::{
    Sidecar, TcpApp, TestMesh,
    app::{GREETING, nobody},
    eventually, soon,
};

async fn callee(mesh: &TestMesh, app: &TcpApp) -> Sidecar {
    mesh.callee("orders", app.address(), "protocol: tcp").await
}

/// Streams counted for the app.
fn counted(orders: &Sidecar) -> u64 {
    let counts = &orders.cluster("inbound/in").runtime.counts;
    counts.by_class.iter().map(|count| count.load(Ordering::Relaxed)).sum()
}

/// One whole opaque stream on a connection: that it can carry one.
async fn one_stream<S>(stream: &mut S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    send(stream, &[Frame::open(OPAQUE), Frame::data(b"once"), Frame::Fin]).await;
    expect(stream, &[Frame::Accepted, Frame::data(b"once"), Frame::Fin]).await;
}

#[tokio::test]
async fn bytes_and_the_end_may_come_with_the_opening() {
    let (mesh, app) = (TestMesh::new(), TcpApp::echo().await);
    let orders = callee(&mesh, &app).await;
    let mut web = connect(&mesh, orders.address()).await;
    for _ in 0..3 {
        one_stream(&mut web).await;
    }
    assert_eq!(app.connections(), 3);
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_on_an_undecided_stream_which_then_goes_on() {
    let (mesh, app) = (TestMesh::new(), TcpApp::greeter().await);
    let orders = callee(&mesh, &app).await;
    let mut web = connect(&mesh, orders.address()).await;
    for _ in 0..2 {
        send(&mut web, &[Frame::open(UNDECIDED)]).await;
        expect(&mut web, &[Frame::Accepted, Frame::data(GREETING)]).await;
        send(&mut web, &[Frame::data(b"EHLO"), Frame::Fin]).await;
        expect(&mut web, &[Frame::data(b"EHLO"), Frame::Fin]).await;
    }
    eventually("both are counted", || counted(&orders) == 2).await;
}

#[tokio::test]
async fn a_cancelled_stream_leaves_the_connection_for_the_next_and_counts_for_nothing() {
    let (tell, mut told) = mpsc::channel(1);
    let app = TcpApp::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut all = Vec::new();
            drop(stream.read_to_end(&mut all).await);
            tell.send(all).await.unwrap();
        }
    })
    .await;
    let (mesh, echo) = (TestMesh::new(), TcpApp::echo().await);
    let silent = callee(&mesh, &app).await;
    let mut web = connect(&mesh, silent.address()).await;
    for _ in 0..3 {
        send(&mut web, &[Frame::open(UNDECIDED)]).await;
        expect(&mut web, &[Frame::Accepted]).await;
        send(&mut web, &[Frame::Cancel]).await;
        expect(&mut web, &[Frame::Fin]).await;
        let heard = soon("the app's connection ends", told.recv()).await;
        assert_eq!(heard, Some(Vec::new()), "it got nothing");
    }
    assert_eq!(counted(&silent), 0);
    let orders = callee(&mesh, &echo).await;
    let mut web = connect(&mesh, orders.address()).await;
    // Without waiting for the answer to OPEN.
    send(&mut web, &[Frame::open(UNDECIDED), Frame::Cancel]).await;
    expect(&mut web, &[Frame::Accepted, Frame::Fin]).await;
    one_stream(&mut web).await;
    eventually("the one is counted", || counted(&orders) == 1).await;
}

#[tokio::test]
async fn what_the_app_says_across_a_cancel_ends_before_the_next_stream() {
    let app =
        TcpApp::start(async |mut stream| while stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}).await;
    let mesh = TestMesh::new();
    let orders = callee(&mesh, &app).await;
    let mut web = connect(&mesh, orders.address()).await;
    for turn in 0..20 {
        send(&mut web, &[Frame::open(UNDECIDED)]).await;
        assert_eq!(next(&mut web).await, Some(Frame::Accepted), "stream {turn}");
        assert!(matches!(next(&mut web).await, Some(Frame::Data(_))), "stream {turn}");
        send(&mut web, &[Frame::Cancel]).await;
        loop {
            match next(&mut web).await {
                Some(Frame::Data(_)) => {}
                Some(Frame::Fin) => break,
                other => panic!("stream {turn}: {other:?}"),
            }
        }
    }
    assert_eq!(app.connections(), 20);
}

#[tokio::test]
async fn an_app_that_has_ended_already_is_not_ended_again_by_a_cancel() {
    let app = TcpApp::start(async |mut stream| {
        stream.shutdown().await.unwrap();
        drop(stream.read(&mut [0]).await);
    })
    .await;
    let mesh = TestMesh::new();
    let orders = callee(&mesh, &app).await;
    let mut web = connect(&mesh, orders.address()).await;
    for _ in 0..3 {
        send(&mut web, &[Frame::open(UNDECIDED)]).await;
        expect(&mut web, &[Frame::Accepted, Frame::Fin]).await;
        send(&mut web, &[Frame::Cancel]).await;
    }
}

#[tokio::test]
async fn a_refused_stream_ends_where_the_caller_says_and_leaves_the_connection_for_the_next() {
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", nobody(), "protocol: tcp").await;
    let mut web = connect(&mesh, orders.address()).await;
    for early in [&[][..], &[Frame::data(b"early")], &[Frame::data(b"early"), Frame::Fin], &[Frame::Fin]] {
        for kind in [OPAQUE, UNDECIDED] {
            send(&mut web, &[&[Frame::open(kind)], early].concat()).await;
            expect(&mut web, &[Frame::refused("connect_failed")]).await;
            if !early.is_empty() {
                send(&mut web, &[Frame::Cancel]).await;
                expect(&mut web, &[Frame::Fin]).await;
            }
        }
    }
    // One that was given up before it was refused.
    send(&mut web, &[Frame::open(UNDECIDED), Frame::Cancel]).await;
    expect(&mut web, &[Frame::refused("connect_failed"), Frame::Fin]).await;
    // What is not known is refused in the same way.
    for (parameters, reason) in [(&b"kind=http"[..], "unknown_kind"), (b"opaque", "malformed_parameters")] {
        send(&mut web, &[Frame::open(parameters), Frame::data(b"early")]).await;
        expect(&mut web, &[Frame::refused(reason)]).await;
        send(&mut web, &[Frame::Cancel]).await;
        expect(&mut web, &[Frame::Fin]).await;
    }
    send(&mut web, &[Frame::open(b"later=1;kind=opaque")]).await;
    expect(&mut web, &[Frame::refused("connect_failed")]).await;
}

#[tokio::test]
async fn a_callee_that_drains_says_that_it_takes_no_more() {
    let (mesh, app) = (TestMesh::new(), TcpApp::echo().await);
    let orders = callee(&mesh, &app).await;
    let mut web = connect(&mesh, orders.address()).await;
    one_stream(&mut web).await;
    orders.app().drains.advance(outrider::drain::Phase::Draining);
    let mut rest = Vec::new();
    // An end without TLS's own would be an error.
    soon("the end", web.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
}
