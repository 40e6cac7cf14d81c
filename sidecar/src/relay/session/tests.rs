use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::relay::{
    copy::{self, End, Setup},
    fixture::App,
    frame::MAX_PAYLOAD_BYTES,
};

const ROOM: usize = 1024 * 1024;

fn frames(frames: &[(Kind, &[u8])]) -> Vec<u8> {
    let mut all = Vec::new();
    frames.iter().for_each(|(kind, payload)| put(&mut all, *kind, payload));
    all
}

async fn heard(mut far: DuplexStream) -> Vec<u8> {
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn an_opening_takes_its_first_bytes_and_the_end_along_in_order() {
    let (far, near) = duplex(ROOM);
    let mut session = Session::new(near);
    session.open(StreamKind::Opaque, b"hello", true).await.unwrap();
    session.open(StreamKind::Undecided, b"", false).await.unwrap();
    session.early(&[7; 2 * MAX_EARLY_BYTES], false).await.unwrap();
    drop(session);
    let expected = frames(&[
        (Kind::Open, b"kind=opaque"),
        (Kind::Data, b"hello"),
        (Kind::Fin, b""),
        (Kind::Open, b"kind=undecided"),
        (Kind::Data, &[7; MAX_EARLY_BYTES]),
    ]);
    assert_eq!(heard(far).await, expected);
}

#[tokio::test]
async fn a_cancelled_stream_is_read_to_its_end_and_not_a_byte_further() {
    let said: [&[(Kind, &[u8])]; 3] = [
        &[(Kind::Fin, b"")],
        &[(Kind::Accepted, b""), (Kind::Data, b"220 ready"), (Kind::Data, b""), (Kind::Fin, b"")],
        &[(Kind::NotProcessed, b"connect_failed"), (Kind::Fin, b"")],
    ];
    for said in said {
        let (mut far, near) = duplex(ROOM);
        far.write_all(&frames(said)).await.unwrap();
        far.write_all(&frames(&[(Kind::Accepted, b"")])).await.unwrap();
        let mut session = Session::new(near);
        session.cancel(false).await.unwrap();
        assert_eq!(session.next().await.unwrap(), Some((Kind::Accepted, Vec::new())));
        drop(session);
        assert_eq!(heard(far).await, frames(&[(Kind::Cancel, b"")]));
    }
    let (mut far, near) = duplex(ROOM);
    far.write_all(&frames(&[(Kind::Rst, b"")])).await.unwrap();
    assert_eq!(Session::new(near).cancel(false).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

/// With so much room on the way, the callee is cut off in its header, in its payload, and not at all.
#[tokio::test]
async fn a_cancel_in_the_midst_of_a_frame_is_answered_behind_it() {
    for room in [4, 5, 64, MAX_PAYLOAD_BYTES + 3 + 3, ROOM] {
        let (mut app, plain) = duplex(ROOM);
        let (mut far, near) = duplex(room);
        app.write_all(&[b'x'; 2 * MAX_PAYLOAD_BYTES + 10]).await.unwrap();
        let mut session = Session::new(near);
        let caller = async {
            let mut accepted = [0; HEADER_BYTES];
            far.read_exact(&mut accepted).await.unwrap();
            // The callee fills what room there is.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            far.write_all(&frames(&[(Kind::Cancel, b"")])).await.unwrap();
            let mut far = Session::new(far);
            while let Some((Kind::Data, _)) = far.next().await.unwrap() {
                assert!(far.skip().await.unwrap() > 0);
            }
            far
        };
        let callee = async {
            session.accept(StreamKind::Undecided).await.unwrap();
            copy::framed(&mut App::new(plain), &mut session, Setup::default()).await.0
        };
        let (_far, end) = tokio::join!(caller, callee);
        assert_eq!(end, End::Cancelled { has_spoken: true }, "room for {room}");
        assert!(!session.is_mid_frame());
    }
}

/// The app ends its half, and the caller cancels: before that is said, in the midst of it, and after.
#[tokio::test]
async fn an_end_that_crosses_a_cancel_is_said_once() {
    for room in [1, 2, 3, 4, ROOM] {
        let (mut app, plain) = duplex(ROOM);
        let (mut far, near) = duplex(room);
        app.shutdown().await.unwrap();
        let mut session = Session::new(near);
        let caller = async {
            let mut accepted = [0; HEADER_BYTES];
            far.read_exact(&mut accepted).await.unwrap();
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            far.write_all(&frames(&[(Kind::Cancel, b"")])).await.unwrap();
            heard(far).await
        };
        let callee = async {
            session.accept(StreamKind::Undecided).await.unwrap();
            let end = copy::framed(&mut App::new(plain), &mut session, Setup::default()).await.0;
            assert!(!session.is_mid_frame());
            drop(session);
            end
        };
        let (said, end) = tokio::join!(caller, callee);
        assert_eq!(end, End::Cancelled { has_spoken: true }, "room for {room}");
        assert_eq!(said, frames(&[(Kind::Fin, b"")]), "room for {room}");
    }
}

#[tokio::test]
async fn a_silent_app_is_known_to_have_been_silent() {
    let (_app, plain) = duplex(ROOM);
    let (mut far, near) = duplex(ROOM);
    far.write_all(&frames(&[(Kind::Cancel, b"")])).await.unwrap();
    let mut session = Session::new(near);
    session.accept(StreamKind::Undecided).await.unwrap();
    let (end, _) = copy::framed(&mut App::new(plain), &mut session, Setup::default()).await;
    assert_eq!(end, End::Cancelled { has_spoken: false });
    drop(session);
    assert_eq!(heard(far).await, frames(&[(Kind::Accepted, b""), (Kind::Fin, b"")]));
}

#[tokio::test]
async fn a_stream_can_be_lent_as_a_connection_and_the_session_goes_on_behind_it() {
    let (mut far, near) = duplex(ROOM);
    far.write_all(&frames(&[(Kind::Data, b"GET"), (Kind::Fin, b""), (Kind::Open, b"kind=opaque")]))
        .await
        .unwrap();
    let (mut stream, lent) = Duplex::new(Session::new(near));
    let mut request = Vec::new();
    stream.read_to_end(&mut request).await.unwrap();
    assert_eq!((request.as_slice(), stream.read(&mut [0]).await.unwrap()), (&b"GET"[..], 0));
    stream.write_all(b"200").await.unwrap();
    stream.shutdown().await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    drop(stream);
    let Inner { mut session, has_ended, is_shut, is_aborted } = lent.back().unwrap();
    assert!(has_ended && is_shut && !is_aborted);
    assert_eq!(session.next().await.unwrap(), Some((Kind::Open, b"kind=opaque".to_vec())));
    drop(session);
    assert_eq!(heard(far).await, frames(&[(Kind::Data, b"200"), (Kind::Fin, b"")]));
}

#[tokio::test]
async fn a_frame_may_be_completed_in_pieces() {
    let (far, near) = duplex(6);
    let (mut stream, _lent) = Duplex::new(Session::new(near));
    let writing = async {
        assert_eq!(stream.write(b"0123456789").await.unwrap(), 3);
        for byte in b"3456789" {
            assert_eq!(stream.write(&[*byte]).await.unwrap(), 1);
        }
        stream.shutdown().await.unwrap();
        drop((stream, _lent));
    };
    let ((), all) = tokio::join!(writing, heard(far));
    assert_eq!(all, frames(&[(Kind::Data, b"0123456789"), (Kind::Fin, b"")]));
}
