//! Half-closes, aborts, silence, drains, caps: a tunnel ends as every stream that has left HTTP.

use std::{io, time::Duration};

use outrider::{drain::Phase, model::flag::ResponseFlag};
use tokio::sync::mpsc;

use super::*;

type Streams = mpsc::UnboundedReceiver<TcpStream>;

/// An app whose streams the test has.
async fn handed_over() -> (TcpApp, Streams) {
    let (give, streams) = mpsc::unbounded_channel();
    let app = TcpApp::start(move |stream| {
        drop(give.send(stream));
        std::future::ready(())
    });
    (app.await, streams)
}

/// A tunnel: the caller's side and the app's.
async fn opened(version: Version, cluster: &str) -> (Line, Side, Side) {
    let (app, mut streams) = handed_over().await;
    let line = Line::with(app, cluster).await;
    let near = open(&line.web, version).await;
    let far = soon("the app gets it", streams.recv()).await.unwrap();
    (line, near, Side::Http1(far))
}

#[tokio::test]
async fn either_side_may_end_its_half_first() {
    for version in VERSIONS {
        for is_caller_first in [true, false] {
            let (line, near, far) = opened(version, "").await;
            let (mut first, mut second) = if is_caller_first { (near, far) } else { (far, near) };
            first.write(b"all there is").await.unwrap();
            first.finish().await;
            assert_eq!(soon("the first half's end", second.read_to_end()).await.unwrap(), b"all there is");
            assert_eq!(line.under_way(), (1, 1), "the other half is open");
            let sent = body::pattern(100_000);
            let sending = async {
                second.write(&sent).await.unwrap();
                second.finish().await;
            };
            let ((), received) = tokio::join!(sending, soon("the second half's end", first.read_to_end()));
            assert!(received.unwrap() == sent, "{version:?} {is_caller_first}");
            eventually("nothing is left", || line.under_way() == (0, 0)).await;
            assert_eq!(line.web.flagged(ResponseFlag::DC) + line.web.flagged(ResponseFlag::UC), 0);
        }
    }
}

#[tokio::test]
async fn an_abort_by_the_caller_reaches_the_app_as_a_reset() {
    for version in VERSIONS {
        let (line, mut near, mut far) = opened(version, "").await;
        near.write(b"some").await.unwrap();
        assert_eq!(soon("the bytes", far.read_exact(4)).await.unwrap(), b"some");
        near.reset();
        let ended = soon("the abort", far.read_to_end()).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{version:?}");
        eventually("nothing is left", || line.under_way() == (0, 0)).await;
        eventually("it is counted", || line.web.flagged(ResponseFlag::DC) == 1).await;
    }
}

#[tokio::test]
async fn an_abort_by_the_app_reaches_the_caller_as_one() {
    for version in VERSIONS {
        let (line, mut near, far) = opened(version, "").await;
        far.reset();
        let ended = soon("the abort", near.read_to_end()).await;
        if version == Version::HTTP_11 {
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
        eventually("nothing is left", || line.under_way() == (0, 0)).await;
        eventually("it is counted", || line.web.flagged(ResponseFlag::UC) == 1).await;
    }
}

#[tokio::test]
async fn a_sidecar_that_dies_takes_its_tunnels_with_it_as_aborts() {
    let (line, mut near, _far) = opened(Version::HTTP_11, "").await;
    let Line { orders, web, .. } = line;
    drop(orders);
    assert!(soon("the abort", near.read_to_end()).await.is_err());
    eventually("it is counted", || web.flagged(ResponseFlag::UC) == 1).await;
}

#[tokio::test]
async fn silence_ends_a_tunnel_and_movement_either_way_does_not() {
    for version in VERSIONS {
        let (line, mut near, mut far) = opened(version, "stream_idle_timeout: 1s").await;
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            far.write(b"x").await.unwrap();
            soon("a byte", near.read_exact(1)).await.unwrap();
        }
        let begin = std::time::Instant::now();
        drop(soon("the end", near.read_to_end()).await);
        let lasted = begin.elapsed().as_millis();
        assert!((700..4000).contains(&lasted), "{lasted} ms");
        eventually("it is counted", || line.web.flagged(ResponseFlag::SI) == 1).await;
        assert!(soon("the end", far.read_to_end()).await.is_err());
        eventually("nothing is left", || line.under_way() == (0, 0)).await;
    }
}

#[tokio::test]
async fn a_drain_lets_a_tunnel_go_on_until_its_deadline() {
    for version in VERSIONS {
        let line = Line::to(TcpApp::echo().await).await;
        let mut side = open(&line.web, version).await;
        for phase in [Phase::Draining, Phase::Closing] {
            line.web.app().drains.advance(phase);
            side.says_back(b"still here").await;
        }
        assert!(line.web.app().drains.in_flight() > 0, "the drain waits for it");
        line.web.app().drains.advance(Phase::Forced);
        drop(soon("the end", side.read_to_end()).await);
        eventually("nothing is left", || line.under_way() == (0, 0)).await;
        eventually("it is counted", || line.web.flagged(ResponseFlag::DR) == 1).await;
    }
}

#[tokio::test]
async fn a_tunnel_holds_its_place_under_the_caps() {
    let line = Line::with(TcpApp::echo().await, "max_requests: 1").await;
    for version in VERSIONS {
        let mut side = open(&line.web, version).await;
        let (told, _refused) = ask(line.web.address(), version, "orders:1").await;
        assert_eq!(told.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(told.header("x-outrider-reason"), Some("max_requests"));
        side.finish().await;
        soon("the end", side.read_to_end()).await.unwrap();
        eventually("the place is free", || line.under_way() == (0, 0)).await;
    }
}
