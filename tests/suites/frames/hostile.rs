//! Callers that break the rules lose their connection, and nobody else anything.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Frame, OPAQUE, UNDECIDED, connect, expect, next, send};
use crate::harness::{TcpApp, TestMesh, app::nobody};

#[tokio::test]
async fn a_frame_out_of_turn_costs_only_its_connection() {
    let open = |kind| Frame::open(kind);
    let turns: &[(&str, Vec<Frame>)] = &[
        ("CANCEL without a stream", vec![Frame::Cancel]),
        ("DATA without a stream", vec![Frame::data(b"x")]),
        ("CANCEL of an opaque stream", vec![open(OPAQUE), Frame::Cancel]),
        ("CANCEL after DATA", vec![open(UNDECIDED), Frame::data(b"x"), Frame::Cancel]),
        ("CANCEL after empty DATA", vec![open(UNDECIDED), Frame::data(b""), Frame::Cancel]),
        ("DATA after CANCEL", vec![open(UNDECIDED), Frame::Cancel, Frame::data(b"x")]),
        ("CANCEL twice", vec![open(UNDECIDED), Frame::Cancel, Frame::Cancel]),
        ("OPEN within a stream", vec![open(UNDECIDED), open(UNDECIDED)]),
        ("the callee's frame", vec![open(UNDECIDED), Frame::Accepted]),
        ("the callee's other frame", vec![open(UNDECIDED), Frame::refused("x")]),
    ];
    let (mesh, app) = (TestMesh::new(), TcpApp::echo().await);
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let mut other = connect(&mesh, orders.address()).await;
    send(&mut other, &[Frame::open(OPAQUE)]).await;
    expect(&mut other, &[Frame::Accepted]).await;
    for (what, frames) in turns {
        let mut web = connect(&mesh, orders.address()).await;
        send(&mut web, frames).await;
        while let Some(frame) = next(&mut web).await {
            // What was right before it is answered; nothing else.
            assert!(
                matches!(frame, Frame::Accepted | Frame::Fin | Frame::Data(_)),
                "{what} was answered by {frame:?}"
            );
        }
        send(&mut other, &[Frame::data(what.as_bytes())]).await;
        expect(&mut other, &[Frame::data(what.as_bytes())]).await;
    }
}

#[tokio::test]
async fn malformed_frames_cost_only_their_connection() {
    let (mesh, app) = (TestMesh::new(), TcpApp::echo().await);
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    for bytes in
        [&b"\x08\0\0"[..], b"\0\0\0", b"\x07\0\x01x", b"\x04\0\x01x", b"\x01\x01\x01", b"\x03\xff\xff"]
    {
        for is_open in [false, true] {
            let mut web = connect(&mesh, orders.address()).await;
            if is_open {
                send(&mut web, &[Frame::open(UNDECIDED)]).await;
                expect(&mut web, &[Frame::Accepted]).await;
            }
            web.write_all(bytes).await.unwrap();
            assert_eq!(next(&mut web).await, None, "{bytes:?}");
        }
    }
    let mut web = connect(&mesh, orders.address()).await;
    send(&mut web, &[Frame::open(OPAQUE), Frame::data(b"well"), Frame::Fin]).await;
    expect(&mut web, &[Frame::Accepted, Frame::data(b"well"), Frame::Fin]).await;
}

#[tokio::test]
async fn a_refused_stream_does_not_go_on_for_ever() {
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", nobody(), "protocol: tcp").await;
    let mut web = connect(&mesh, orders.address()).await;
    send(&mut web, &[Frame::open(OPAQUE), Frame::data(&[7; 16_000])]).await;
    expect(&mut web, &[Frame::refused("connect_failed")]).await;
    // More than any caller sends early.
    let more = Frame::data(&[7; 16_000]).bytes();
    while web.write_all(&more).await.is_ok() {}
    assert!(web.read_to_end(&mut Vec::new()).await.is_err());
    // And none opens another before that one has an end.
    let mut web = connect(&mesh, orders.address()).await;
    send(&mut web, &[Frame::open(OPAQUE), Frame::data(b"early")]).await;
    expect(&mut web, &[Frame::refused("connect_failed")]).await;
    send(&mut web, &[Frame::open(OPAQUE)]).await;
    assert_eq!(next(&mut web).await, None);
}
