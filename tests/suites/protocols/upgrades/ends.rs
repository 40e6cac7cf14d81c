//! Half-closes and resets arrive as each form can say them.

use std::{io, time::Duration};

use http::Version;

use super::{super::PAIRS, Line, Side, app, handed_over};
use crate::harness::{body, eventually, soon};

/// A stream that is open: the caller's side and the app's.
async fn opened(calling: Version, called: Version) -> (Line, Side, Side) {
    let (serve, mut sides) = handed_over();
    let line = Line::to(app(called, serve).await, called).await;
    let near = line.open(calling).await;
    let (_asked, far) = soon("the app is asked", sides.recv()).await.unwrap();
    (line, near, far)
}

#[tokio::test]
async fn either_side_may_end_its_half_first() {
    for (calling, called) in PAIRS {
        for is_caller_first in [true, false] {
            let (line, near, far) = opened(calling, called).await;
            let (mut first, mut second) = if is_caller_first { (near, far) } else { (far, near) };
            first.write(b"all there is").await.unwrap();
            first.finish().await;
            assert_eq!(soon("the first half's end", second.read_to_end()).await.unwrap(), b"all there is");
            assert_eq!(line.active(), (1, 1), "the other half is open");
            let sent = body::pattern(100_000);
            let (sending, received) = tokio::join!(
                async {
                    second.write(&sent).await.unwrap();
                    second.finish().await;
                },
                soon("the second half's end", first.read_to_end())
            );
            let () = sending;
            assert!(received.unwrap() == sent, "{calling:?} {called:?} {is_caller_first}");
            eventually("nothing is left", || line.active() == (0, 0) && line.in_flight() == (0, 0)).await;
        }
    }
}

/// Whether a side notices that the other has aborted: by reading, or, where its form cannot say more, by writing after
/// what looked like the end.
async fn notices_abort(side: &mut Side) -> bool {
    match soon("the abort", side.read_to_end()).await {
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
            return true;
        }
        Ok(rest) => assert!(rest.is_empty()),
    }
    for _ in 0..200 {
        if side.write(b"anybody there?").await.is_err() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn an_abort_of_either_side_reaches_the_other_as_an_abort() {
    for (calling, called) in PAIRS {
        for is_caller_first in [true, false] {
            for _ in 0..5 {
                let (line, near, far) = opened(calling, called).await;
                let (mut first, mut second) = if is_caller_first { (near, far) } else { (far, near) };
                first.write(b"some").await.unwrap();
                assert_eq!(soon("the bytes", second.read_exact(4)).await.unwrap(), b"some");
                first.reset();
                assert!(notices_abort(&mut second).await, "{calling:?} {called:?} {is_caller_first}");
                eventually("nothing is left", || line.active() == (0, 0) && line.in_flight() == (0, 0)).await;
            }
        }
    }
}

#[tokio::test]
async fn an_abort_reaches_an_http1_side_as_a_reset() {
    for other in [Version::HTTP_11, Version::HTTP_2] {
        let (_line, mut near, far) = opened(Version::HTTP_11, other).await;
        far.reset();
        let ended = soon("the reset", near.read_to_end()).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "app {other:?}");
        let (_line, near, mut far) = opened(other, Version::HTTP_11).await;
        near.reset();
        let ended = soon("the reset", far.read_to_end()).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "caller {other:?}");
    }
}

#[tokio::test]
async fn a_sidecar_that_dies_takes_its_streams_with_it_as_aborts() {
    let (line, mut near, mut far) = opened(Version::HTTP_11, Version::HTTP_11).await;
    let Line { orders, web, .. } = line;
    drop(orders);
    assert!(soon("the abort", near.read_to_end()).await.is_err());
    assert!(soon("the abort", far.read_to_end()).await.is_err());
    drop(web);
}
