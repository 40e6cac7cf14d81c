//! What bounds a stream that has left HTTP: silence, the drain's deadline, caps, and whoever does not read.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use http::{StatusCode, Version};
use outrider::{drain::Phase, model::flag::ResponseFlag};

use super::{super::PAIRS, Line, app, call, echo, handed_over};
use crate::harness::{eventually, soon, within};

#[tokio::test]
async fn silence_ends_it_and_movement_either_way_does_not() {
    for (calling, called) in PAIRS {
        let (serve, mut sides) = handed_over();
        let line = Line::with(app(called, serve).await, called, "stream_idle_timeout: 1s").await;
        let mut near = line.open(calling).await;
        let (_asked, mut far) = soon("the app is asked", sides.recv()).await.unwrap();
        for _ in 0..4 {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            far.write(b"x").await.unwrap();
            soon("a byte", near.read_exact(1)).await.unwrap();
        }
        let begin = std::time::Instant::now();
        drop(soon("the end", near.read_to_end()).await);
        let lasted = begin.elapsed().as_millis();
        assert!((700..4000).contains(&lasted), "{lasted} ms");
        eventually("it is counted", || line.web.flagged(ResponseFlag::SI) == 1).await;
        drop(soon("the end", far.read_to_end()).await);
        eventually("nothing is left", || line.active() == (0, 0) && line.in_flight() == (0, 0)).await;
    }
}

#[tokio::test]
async fn a_drain_lets_it_go_on_until_its_deadline() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let line = Line::to(echo(Version::HTTP_11).await, Version::HTTP_11).await;
        let mut side = line.open(version).await;
        for phase in [Phase::Draining, Phase::Closing] {
            line.web.app().drains.advance(phase);
            line.orders.app().drains.advance(phase);
            side.says_back(b"still here").await;
        }
        assert!(line.web.app().drains.in_flight() > 0, "the drain waits for it");
        line.web.app().drains.advance(Phase::Forced);
        drop(soon("the end", side.read_to_end()).await);
        eventually("nothing is left", || line.active() == (0, 0) && line.in_flight() == (0, 0)).await;
        eventually("it is counted", || line.web.flagged(ResponseFlag::DR) == 1).await;
    }
}

#[tokio::test]
async fn it_holds_its_place_under_the_caps_and_its_endpoints_load() {
    let line = Line::with(echo(Version::HTTP_11).await, Version::HTTP_11, "max_requests: 1").await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut side = line.open(version).await;
        let load =
            |line: &Line| line.web.cluster("orders").endpoints[0].runtime.in_flight.load(Ordering::Relaxed);
        assert_eq!((load(&line), line.in_flight()), (1, (1, 1)));
        assert_eq!(
            line.web.listener("out").active.load(Ordering::Relaxed),
            1,
            "its connection counts as open"
        );
        let (told, _refused) = call(line.web.address(), version).await;
        assert_eq!(told.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(told.header("x-outrider-reason"), Some("max_requests"));
        side.finish().await;
        soon("the end", side.read_to_end()).await.unwrap();
        drop(side);
        eventually("the place is free", || line.in_flight() == (0, 0) && load(&line) == 0).await;
        drop(_refused);
        let out = line.web.listener("out");
        eventually("the connections are over", || out.active.load(Ordering::Relaxed) == 0).await;
    }
}

#[tokio::test]
async fn whoever_does_not_read_stops_the_other_side() {
    for (calling, called) in PAIRS {
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let app = app(called, move |_asked, mut side| {
            let count = Arc::clone(&count);
            async move {
                let bytes = crate::harness::body::pattern(64 * 1024);
                while side.write(&bytes).await.is_ok() {
                    count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                }
            }
        })
        .await;
        let line = Line::to(app, called).await;
        let mut near = line.open(calling).await;
        // Whatever sockets and windows hold; then it stands.
        let mut before = u64::MAX;
        while before != sent.load(Ordering::Relaxed) {
            before = sent.load(Ordering::Relaxed);
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        assert!((1..40_000_000).contains(&before), "{before} bytes wait");
        let received = &line.web.cluster("orders").runtime.upgrades.received_bytes;
        let taken = received.load(Ordering::Relaxed);
        assert!(taken < before, "{taken} of {before} bytes passed the first sidecar");
        // And goes on when it is read.
        soon("the bytes", near.read_exact(20_000_000)).await.unwrap();
        assert!(within(crate::harness::SOON, || sent.load(Ordering::Relaxed) > before).await);
    }
}
