//! Attempts: each has its own span and its own entry, and what came of it is noted where it happened.

use std::{sync::Arc, time::Duration};

use http::{Method, Response, StatusCode};
use outrider::{
    model::retries::RetryReason,
    telemetry::trail::{NotRepeated, Reuse, Step, Trail},
};
use tokio::sync::Semaphore;

use super::{Pair, TRACED, Trails, callee, caller, nobody_ready, place, span, text};
use crate::harness::{
    Client, HttpApp, Sidecar, TestMesh,
    app::nobody,
    body,
    client::{call, request},
    eventually, soon,
};

/// Retries at once, in turns.
const RETRIES: &str =
    "balance: round_robin, retry: {budget_min_per_second: 1000, backoff_base: 1ms, statuses: [500]}";

/// An app that fails.
async fn failing() -> HttpApp {
    HttpApp::start(async |_request| Ok(Response::builder().status(500).body(body::full("no")).unwrap())).await
}

/// `web` with two replicas of `orders`.
struct Two {
    _mesh: TestMesh,
    apps: [HttpApp; 2],
    sidecars: [Sidecar; 2],
    web: Sidecar,
}

impl Two {
    async fn of(apps: [HttpApp; 2], keys: &str) -> Self {
        let mesh = TestMesh::new();
        let sidecars = [
            mesh.start("orders", &callee(apps[0].address(), TRACED)).await,
            mesh.start("orders", &callee(apps[1].address(), TRACED)).await,
        ];
        let endpoints = [sidecars[0].address(), sidecars[1].address()];
        let web = mesh.start("web", &caller(&endpoints, TRACED, keys)).await;
        Self { _mesh: mesh, apps, sidecars, web }
    }
}

fn steps(trail: &Trail) -> Vec<Step> {
    trail.steps.iter().map(|(_, step)| step.clone()).collect()
}

#[tokio::test]
async fn each_attempt_sends_a_span_of_its_own_and_the_trail_has_them_in_order() {
    let two = Two::of([failing().await, HttpApp::named("good").await], RETRIES).await;
    let mut outbound = Trails::of(&two.web);
    let mut inbound = [Trails::of(&two.sidecars[0]), Trails::of(&two.sidecars[1])];
    let trail = loop {
        assert_eq!(call(two.web.address(), Method::GET).await.0, StatusCode::OK);
        let trail = outbound.next().await;
        if trail.attempts.len() == 2 {
            break trail;
        }
        // Its turn was the good one's.
        inbound[1].next().await;
    };
    let [first, second] = &trail.attempts[..] else { panic!("{trail:?}") };
    assert_ne!(first.span, second.span);
    let (bad, good) = (inbound[0].next().await, inbound[1].next().await);
    assert_eq!(text(place(&bad).parent), Some(span(&trail, 0)));
    assert_eq!(text(place(&good).parent), Some(span(&trail, 1)));
    for (seen, trail) in [(two.apps[0].seen().pop(), bad), (two.apps[1].seen().pop(), good)] {
        let told = super::parts(seen.unwrap().header("traceparent").unwrap());
        assert_eq!(Some(told.1), text(place(&trail).own));
    }
    assert_eq!((first.status, first.failure), (Some(500), Some(RetryReason::Status)));
    assert_eq!((second.status, second.failure), (Some(200), None));
    assert!(first.ended.unwrap() <= second.begun && second.ended.unwrap() <= trail.ended);
    assert!(
        first.begun <= first.connected.unwrap().0 && first.connected.unwrap().0 <= first.answered.unwrap()
    );
    assert!(matches!(steps(&trail)[..], [Step::Repeated(RetryReason::Status, _)]), "{trail:?}");
    assert_eq!((trail.status, trail.flag), (Some(200), None));
    assert_eq!(trail.delivered, Some(1));
}

#[tokio::test]
async fn the_first_connection_is_fresh_the_next_one_reused_and_both_tell_who_is_there() {
    let app = HttpApp::named("orders").await;
    let mut pair = Pair::new(app.address(), TRACED).await;
    let mut client = Client::http1(pair.web.address()).await;
    for reuse in [Reuse::Fresh, Reuse::Reused] {
        body::text(client.get("/").await.unwrap().into_body()).await;
        let (outbound, inbound) = (pair.outbound.next().await, pair.inbound.next().await);
        let [attempt] = &outbound.attempts[..] else { panic!("{outbound:?}") };
        assert_eq!(attempt.connected.unwrap().1, reuse);
        assert_eq!(text(attempt.peer.clone()).as_deref(), Some("spiffe://test.outrider/orders"));
        let [attempt] = &inbound.attempts[..] else { panic!("{inbound:?}") };
        assert_eq!((attempt.connected.unwrap().1, attempt.peer.clone()), (reuse, None));
    }
}

#[tokio::test]
async fn the_loser_of_a_hedge_is_over_when_it_lost() {
    let gate = Arc::new(Semaphore::new(0));
    let slow = HttpApp::gated(&gate).await;
    let keys = "balance: round_robin, retry: {budget_min_per_second: 1000, hedge: 20ms}";
    let two = Two::of([slow, HttpApp::named("good").await], keys).await;
    let mut outbound = Trails::of(&two.web);
    let trail = loop {
        assert_eq!(call(two.web.address(), Method::GET).await.1, "good");
        let trail = outbound.next().await;
        // Where the good one is asked first and takes long, the slow one is the hedge.
        if trail.attempts.len() == 2 && trail.attempts[0].endpoint == two.sidecars[0].address() {
            break trail;
        }
    };
    let [first, second] = &trail.attempts[..] else { panic!("{trail:?}") };
    assert_eq!((first.is_hedge, second.is_hedge), (false, true));
    assert_eq!((first.status, first.answered, second.status), (None, None, Some(200)));
    assert!(first.ended.unwrap() < second.ended.unwrap(), "it did not go on while the answer came");
    assert!(second.begun >= Duration::from_millis(20));
    assert_ne!(first.span, second.span);
    assert_eq!(steps(&trail), [Step::Hedged]);
    assert_eq!(trail.delivered, Some(1));
}

#[tokio::test]
async fn whoever_answers_of_a_hedge_is_the_one_that_was_delivered() {
    let keys = "balance: round_robin, retry: {budget_min_per_second: 1000, hedge: 20ms}";
    let mut seen = [false; 2];
    // Who is asked first is not ours to say.
    for winner in [0, 1].repeat(10) {
        let gates = [Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0))];
        let two = Two::of([HttpApp::gated(&gates[0]).await, HttpApp::gated(&gates[1]).await], keys).await;
        let mut outbound = Trails::of(&two.web);
        let opened = async {
            eventually("both are asked", || two.apps.iter().all(|app| app.seen().len() == 1)).await;
            gates[winner].add_permits(1);
        };
        let ((status, _), ()) = tokio::join!(call(two.web.address(), Method::GET), opened);
        assert_eq!(status, StatusCode::OK);
        let trail = outbound.next().await;
        let index = usize::from(trail.delivered.unwrap());
        assert_eq!(trail.attempts[index].endpoint, two.sidecars[winner].address());
        assert_eq!((trail.attempts[index].status, trail.attempts[1 - index].status), (Some(200), None));
        seen[index] = true;
        if seen == [true; 2] {
            return;
        }
    }
    panic!("the first and the second never won both: {seen:?}");
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_an_attempt_with_its_error() {
    let mesh = TestMesh::new();
    let web = mesh.start("web", &caller(&[nobody()], TRACED, "retry: {max_retries: 0}")).await;
    let mut trails = Trails::of(&web);
    assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let trail = trails.next().await;
    let [attempt] = &trail.attempts[..] else { panic!("{trail:?}") };
    assert_eq!((attempt.connected, attempt.status), (None, None));
    assert_eq!(attempt.failure, Some(RetryReason::Connect));
    assert!(attempt.error.as_deref().unwrap().contains("connecting to 127.0.0.1"), "{attempt:?}");
    assert!(attempt.ended.is_some());
    assert_eq!(steps(&trail), [Step::NotRepeated(NotRepeated::AttemptsUsedUp)]);
    assert_eq!(trail.flag.unwrap().letters(), "UF");
    assert_eq!(attempt.flag, trail.flag);
    assert_eq!(trail.reason.as_deref(), Some("connect_failed"));
    assert_eq!(trail.error, attempt.error);
    assert!(trail.is_failed());
}

#[tokio::test]
async fn why_nothing_was_repeated_is_the_true_cause() {
    for (keys, method, expected) in [
        (RETRIES, Method::POST, NotRepeated::NotIdempotent),
        ("retry: {statuses: [500], max_retries: 0}", Method::GET, NotRepeated::AttemptsUsedUp),
        (
            "retry: {statuses: [500], budget_min_per_second: 0, budget_percent: 0}",
            Method::GET,
            NotRepeated::OverBudget,
        ),
        ("retry: {statuses: [500], max_active: 0}", Method::GET, NotRepeated::OverActive),
    ] {
        let app = failing().await;
        let mut pair = Pair::with(app.address(), TRACED, keys).await;
        assert_eq!(call(pair.web.address(), method).await.0, StatusCode::INTERNAL_SERVER_ERROR);
        let trail = pair.outbound.next().await;
        assert_eq!(steps(&trail).last(), Some(&Step::NotRepeated(expected)), "{keys}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_held_any_more_is_why() {
    let app = HttpApp::start(async |request: http::Request<hyper::body::Incoming>| {
        body::drain(request.into_body()).await?;
        Ok(Response::builder().status(500).body(body::full("no")).unwrap())
    })
    .await;
    let mut pair = Pair::with(app.address(), TRACED, "retry: {statuses: [500], replay_bytes: 1KiB}").await;
    let mut client = Client::http1(pair.web.address()).await;
    let put = request(Method::PUT, "/", body::sized(100_000));
    assert_eq!(soon("an answer", client.send(put)).await.unwrap().status(), 500);
    let trail = pair.outbound.next().await;
    assert_eq!(steps(&trail), [Step::NotRepeated(NotRepeated::BodyGone)]);
    assert_eq!(trail.request_bytes, 100_000);
}

#[tokio::test]
async fn what_the_far_sidecar_says_is_in_the_attempt_and_in_the_trail() {
    let mut pair = Pair::with(nobody(), TRACED, "retry: {max_retries: 0}").await;
    assert_eq!(call(pair.web.address(), Method::GET).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let (outbound, inbound) = (pair.outbound.next().await, pair.inbound.next().await);
    assert_eq!(outbound.reason.as_deref(), Some("connect_failed"));
    assert_eq!(outbound.attempts[0].error.as_deref(), Some("connect_failed"));
    assert_eq!((outbound.flag, outbound.status, outbound.attempts[0].status), (None, Some(503), Some(503)));
    assert_eq!(inbound.reason.as_deref(), Some("connect_failed"));
    assert_eq!(inbound.flag.unwrap().letters(), "UF");
    assert_eq!(steps(&inbound), [Step::NotRepeated(NotRepeated::AppDown)]);
}

#[tokio::test]
async fn where_nobody_can_be_asked_it_is_said_how_the_endpoints_stand() {
    let mesh = TestMesh::new();
    let web = mesh.start("web", &nobody_ready("50ms")).await;
    let mut trails = Trails::of(&web);
    assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let trail = trails.next().await;
    let [Step::Waited(waited), Step::NobodyToAsk(standings)] = steps(&trail)[..] else { panic!("{trail:?}") };
    assert!(waited >= Duration::from_millis(50));
    assert_eq!((standings.all, standings.not_ready, standings.tried), (2, 2, 0));
    assert_eq!((trail.attempts.len(), trail.reason.as_deref()), (0, Some("no_endpoint")));
}
