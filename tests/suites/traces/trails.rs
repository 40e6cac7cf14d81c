//! What a trail says of a request as a whole.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use outrider::{
    model::edge::Direction,
    telemetry::trail::{Caller, Step, Traffic},
};
use tokio::sync::Semaphore;

use super::{Pair, TRACED, Trails, nobody_ready, text};
use crate::harness::{
    Client, HttpApp, TestMesh, body,
    client::{call, request},
    eventually, soon,
};

#[tokio::test]
async fn a_trail_says_who_asked_for_what_of_whom() {
    let app = HttpApp::named("orders").await;
    let routes = "routes: [{name: reports, path_prefix: /reports}]";
    let mut pair = Pair::with(app.address(), TRACED, routes).await;
    pair.ask(&[("host", "ORDERS"), ("x-request-id", "abc-1")]).await;
    let (outbound, inbound) = (pair.outbound.next().await, pair.inbound.next().await);
    for trail in [&outbound, &inbound] {
        let asked = trail.asked.as_ref().unwrap();
        assert_eq!((&asked.method, &*asked.authority), (&Method::GET, "orders"));
        assert_eq!(asked.target.as_ref().unwrap(), "/reports/7?secret=1");
        assert_eq!(trail.request_id.as_ref().unwrap(), "abc-1");
        assert_eq!((trail.kind, trail.generation), (Traffic::Http, 1));
        assert_eq!((trail.status, trail.flag, trail.is_failed()), (Some(200), None, false));
        assert_eq!(text(trail.client).as_deref(), Some("127.0.0.1"));
        assert!(trail.answered.unwrap() <= trail.ended && trail.reason.is_none());
        assert_eq!((trail.request_bytes, trail.response_bytes), (0, 6));
    }
    assert_eq!((outbound.direction, inbound.direction), (Direction::Outbound, Direction::Inbound));
    assert_eq!((&*outbound.listener, &*inbound.listener), ("out", "in"));
    assert_eq!(outbound.asked.unwrap().version, Version::HTTP_11);
    assert_eq!(inbound.asked.unwrap().version, Version::HTTP_2);
    assert_eq!(outbound.caller, Caller::App);
    assert_eq!(inbound.caller, Caller::Peer(crate::harness::ca::id("web")));
    assert_eq!(text(outbound.cluster).as_deref(), Some("orders"));
    assert_eq!(text(inbound.cluster).as_deref(), Some("inbound/in"));
    assert_eq!((outbound.route.as_deref(), inbound.route.as_deref()), (Some("reports"), None));
    let edges = |sidecar: &crate::harness::Sidecar| -> Vec<_> {
        let edges = sidecar.app().observer.edges.read();
        edges
            .into_iter()
            .map(|(key, counts)| {
                let named =
                    format!("{} {} {} {}", key.direction.label(), key.source, key.destination, key.route);
                (named, counts.ended())
            })
            .collect()
    };
    assert_eq!(edges(&pair.web), [("outbound web orders reports".to_owned(), 1)]);
    assert_eq!(edges(&pair.orders), [("inbound spiffe://test.outrider/web inbound/in ".to_owned(), 1)]);
}

#[tokio::test]
async fn a_request_without_an_id_is_known_by_the_one_that_it_goes_on_with() {
    let app = HttpApp::named("orders").await;
    let mut pair = Pair::new(app.address(), "").await;
    pair.ask(&[]).await;
    let (outbound, inbound) = (pair.outbound.next().await, pair.inbound.next().await);
    assert!(outbound.request_id.is_some() && outbound.request_id == inbound.request_id);
    assert_eq!(app.only().header("x-request-id"), inbound.request_id.unwrap().to_str().ok());
}

#[tokio::test]
async fn bytes_of_bodies_are_counted_both_ways_at_both_hops() {
    let app = HttpApp::echo().await;
    let mut pair = Pair::new(app.address(), "").await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = Client::connect(pair.web.address(), version).await;
        let post = request(Method::POST, "/", body::streamed(300_000, None));
        let response = soon("an answer", client.send(post)).await.unwrap();
        assert_eq!(soon("all of it", body::drain(response.into_body())).await.unwrap(), 300_000);
        for trails in [&mut pair.outbound, &mut pair.inbound] {
            let trail = trails.next().await;
            assert_eq!((trail.request_bytes, trail.response_bytes), (300_000, 300_000));
        }
    }
}

#[tokio::test]
async fn a_call_of_grpc_has_the_status_that_it_ended_with() {
    let app = HttpApp::start(async |request: Request<Incoming>| {
        let is_short = request.uri().path() == "/shop.Orders/Short";
        body::drain(request.into_body()).await?;
        let response = Response::builder().header("content-type", "application/grpc");
        if is_short {
            return Ok(response.header("grpc-status", "5").body(body::empty()).unwrap());
        }
        let trailers =
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("13"))]);
        Ok(response.body(body::streamed(5, Some(trailers))).unwrap())
    })
    .await;
    let mut pair = Pair::new(app.address(), "").await;
    let mut client = Client::http2(pair.web.address()).await;
    for (path, status, is_failed) in [("/shop.Orders/Short", 5, false), ("/shop.Orders/Long", 13, true)] {
        let mut call = request(Method::POST, path, body::full(Bytes::from_static(b"\0\0\0\0\0")));
        call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        let response = soon("an answer", client.send(call)).await.unwrap();
        body::drain(response.into_body()).await.unwrap();
        for trails in [&mut pair.outbound, &mut pair.inbound] {
            let trail = trails.next().await;
            assert_eq!((trail.kind, trail.status), (Traffic::Grpc, Some(200)));
            assert_eq!((trail.grpc_status, trail.is_failed()), (Some(status), is_failed), "{path}");
        }
    }
}

#[tokio::test]
async fn our_own_answer_to_a_call_of_grpc_has_a_status_too() {
    let mesh = TestMesh::new();
    let web = mesh.start("web", &nobody_ready("0s")).await;
    let mut trails = Trails::of(&web);
    let mut call = request(Method::POST, "/shop.Orders/Get", body::empty());
    call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    soon("an answer", Client::http2(web.address()).await.send(call)).await.unwrap();
    let trail = trails.next().await;
    assert_eq!((trail.kind, trail.grpc_status), (Traffic::Grpc, Some(14)));
    assert_eq!((trail.status, trail.reason.as_deref()), (Some(200), Some("no_endpoint")));
}

#[tokio::test]
async fn a_request_that_its_caller_gives_up_is_noted_with_what_was_under_way() {
    let gate = Arc::new(Semaphore::new(0));
    let app = HttpApp::gated(&gate).await;
    let mut pair = Pair::new(app.address(), TRACED).await;
    let mut client = Client::http2(pair.web.address()).await;
    let waiting = tokio::spawn(async move { client.get("/").await.map(drop) });
    eventually("the app has it", || app.count() == 1).await;
    waiting.abort();
    let (outbound, inbound) = (pair.outbound.next().await, pair.inbound.next().await);
    for trail in [&outbound, &inbound] {
        assert_eq!(trail.flag.unwrap().letters(), "DC");
        let [attempt] = &trail.attempts[..] else { panic!("{trail:?}") };
        assert!(attempt.connected.is_some() && attempt.ended.is_some_and(|ended| ended <= trail.ended));
        assert_eq!((attempt.status, attempt.answered, trail.status), (None, None, None));
        assert!(trail.trace.is_some());
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_says_why() {
    let (sender, breaking) = body::channel();
    let breaking = Arc::new(std::sync::Mutex::new(Some(breaking)));
    let app = HttpApp::start(move |_request| {
        let breaking = breaking.lock().unwrap().take();
        async move { Ok(Response::new(breaking.ok_or("once")?)) }
    })
    .await;
    let mut pair = Pair::new(app.address(), "").await;
    let mut client = Client::http1(pair.web.address()).await;
    let response = soon("an answer", client.get("/")).await.unwrap();
    sender.send(Ok(hyper::body::Frame::data(Bytes::from_static(b"half")))).await.unwrap();
    let mut answer = response.into_body();
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    sender.send(Err("broken".into())).await.unwrap();
    body::drain(answer).await.unwrap_err();
    let trail = pair.outbound.next().await;
    assert_eq!((trail.flag.unwrap().letters(), trail.reason.as_deref()), ("UC", Some("reset_in_answer")));
    assert!(trail.error.unwrap().starts_with("the upstream broke off"));
    assert_eq!((trail.status, trail.response_bytes), (Some(200), 4));
}

#[tokio::test]
async fn a_delay_that_was_injected_is_a_step() {
    let app = HttpApp::named("orders").await;
    let fault = "fault: {delay: 30ms, delay_percent: 100}";
    let mut pair = Pair::with(app.address(), TRACED, fault).await;
    pair.ask(&[]).await;
    let trail = pair.outbound.next().await;
    let [(_, Step::Delayed(delay))] = trail.steps[..] else { panic!("{trail:?}") };
    assert_eq!(delay, Duration::from_millis(30));
    assert!(trail.attempts[0].begun >= delay);
}

#[tokio::test]
async fn what_leads_nowhere_has_a_trail_and_a_place_in_its_trace_too() {
    let app = HttpApp::named("orders").await;
    let mut pair = Pair::new(app.address(), TRACED).await;
    let response = pair.ask(&[("host", "nobody")]).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let trail = pair.outbound.next().await;
    assert_eq!((trail.flag.unwrap().letters(), trail.reason.as_deref()), ("NR", Some("no_route")));
    assert_eq!(&*trail.asked.unwrap().authority, "nobody");
    assert!(trail.trace.is_some() && trail.attempts.is_empty() && trail.cluster.is_none());
}

#[tokio::test]
async fn the_access_log_gets_the_fields_that_it_lists_and_no_others() {
    let app = HttpApp::start(async |_request| {
        Ok(Response::builder().header("x-shown", "answer").header("x-own", "no").body(body::empty()).unwrap())
    })
    .await;
    let log = "telemetry: {access_log: {of: OF, path: /dev/null, sample_percent: SHARE, \
               request_headers: [x-shown, x-more], response_headers: [x-shown]}}";
    for (of, share, is_logged) in [("all", "100", true), ("errors", "100", false), ("all", "0", false)] {
        let telemetry = log.replace("OF", of).replace("SHARE", share);
        let mut pair = Pair::new(app.address(), &telemetry).await;
        let long = "x".repeat(300);
        pair.ask(&[("x-shown", &long), ("x-more", "1"), ("x-more", "2"), ("authorization", "secret")]).await;
        let (trail, wanted) = pair.outbound.told().await;
        assert_eq!((wanted.is_logged, wanted.is_logged_on_error), (is_logged, of == "errors"));
        let shown = |fields: &[(http::HeaderName, HeaderValue)]| -> Vec<_> {
            fields.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect()
        };
        if share == "0" {
            assert!(trail.fields.is_empty() && trail.answer_fields.is_empty());
            continue;
        }
        let cut = format!("x-shown={}", "x".repeat(256));
        assert_eq!(shown(&trail.fields), [cut.as_str(), "x-more=1", "x-more=2"]);
        assert_eq!(shown(&trail.answer_fields), ["x-shown=answer"]);
    }
}

#[tokio::test]
async fn what_is_refused_at_the_door_is_told_with_its_reason() {
    let app = HttpApp::named("orders").await;
    let keys = "rate_limits: [{requests: 1, per: 1h}]";
    let mut pair = Pair::with(app.address(), TRACED, keys).await;
    for (status, reason) in [(StatusCode::OK, None), (StatusCode::TOO_MANY_REQUESTS, Some("rate_limited"))] {
        assert_eq!(call(pair.web.address(), Method::GET).await.0, status);
        assert_eq!(pair.outbound.next().await.reason.as_deref(), reason);
    }
}
