//! What is told of which trail.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::{HeaderValue, Method, uri::PathAndQuery};
use opentelemetry::Value;
use outrider_certs::SpiffeId;

use super::*;
use crate::{
    clock::Clock,
    model::{
        flag::ResponseFlag,
        retries::RetryReason,
        trace::{Origin, TraceId},
    },
    telemetry::{
        fixture::{attempt, peer, trail},
        trail::Caller,
    },
};

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn place(own: Option<u64>, parent: Option<u64>) -> TracePlace {
    let span = |id: u64| SpanId(id.try_into().unwrap());
    TracePlace {
        trace: TraceId(7.try_into().unwrap()),
        parent: parent.map(span),
        own: own.map(span),
        is_sampled: true,
        state: Some(HeaderValue::from_static("a=b")),
        origin: Origin::Told,
    }
}

fn made(trail: &Trail) -> Vec<SpanData> {
    let anchor = Anchor::now(&Clock::system());
    let spans = Maker::default().of(trail, &anchor, &mut fastrand::Rng::with_seed(1));
    for span in &spans {
        let mut names = HashSet::new();
        let twice = span.attributes.iter().find(|pair| !names.insert(pair.key.as_str()));
        assert!(twice.is_none(), "{twice:?} stands twice: {span:#?}");
        let is_error = matches!(span.status, Status::Error { .. });
        assert_eq!(names.contains("error.type"), is_error, "{span:#?} of {trail:#?}");
    }
    spans
}

#[test]
fn a_copy_is_marked_as_one() {
    for is_mirror in [false, true] {
        let copied = Trail { is_mirror, trace: Some(place(None, Some(1))), ..trail() };
        let [span] = &made(&copied)[..] else { panic!("one span") };
        assert_eq!(attribute(span, "outrider.is_mirror").is_some(), is_mirror);
        assert_eq!(span.span_kind, SpanKind::Client);
    }
}

fn attribute<'a>(span: &'a SpanData, name: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|pair| pair.key.as_str() == name).map(|pair| &pair.value)
}

fn text(span: &SpanData, name: &str) -> String {
    attribute(span, name).map(ToString::to_string).unwrap_or_default()
}

fn id(span: &SpanData) -> u64 {
    u64::from_be_bytes(span.span_context.span_id().to_bytes())
}

fn parent(span: &SpanData) -> u64 {
    u64::from_be_bytes(span.parent_span_id.to_bytes())
}

/// An outbound call with a failed attempt and a good one.
fn repeated() -> Trail {
    let mut trail = trail();
    trail.status = Some(200);
    (trail.flag, trail.reason, trail.error) = (None, None, None);
    trail.ended = millis(50);
    let mut first = attempt(1, 2);
    first.span = Some(SpanId(11.try_into().unwrap()));
    (first.ended, first.failure, first.status) = (Some(millis(10)), Some(RetryReason::Status), Some(503));
    let mut second = attempt(2, 20);
    second.span = Some(SpanId(12.try_into().unwrap()));
    second.connected = Some((millis(21), Reuse::Fresh));
    (second.answered, second.status) = (Some(millis(30)), Some(200));
    trail.attempts.extend([first, second]);
    trail
}

#[test]
fn without_a_place_in_a_trace_there_are_no_spans() {
    assert!(made(&trail()).is_empty());
}

#[test]
fn an_inbound_request_is_one_server_span_whose_parent_is_what_was_told() {
    let mut trail = trail();
    (trail.direction, trail.caller) = (Direction::Inbound, peer("web"));
    trail.trace = Some(place(Some(5), Some(4)));
    let spans = made(&trail);
    let [span] = &*spans else { panic!("{spans:#?}") };
    assert_eq!((span.span_kind.clone(), id(span), parent(span)), (SpanKind::Server, 5, 4));
    assert!(span.parent_span_is_remote);
    assert_eq!(span.name, "GET reads");
    assert_eq!(text(span, "outrider.peer.spiffe_id"), "spiffe://demo.outrider/web");
    assert_eq!(text(span, "client.address"), "127.0.0.1");
    assert_eq!(text(span, "http.response.status_code"), "503");
    assert_eq!(text(span, "outrider.response_flag"), "UH");
    assert_eq!(text(span, "error.type"), "UH");
    assert!(matches!(span.status, Status::Error { .. }));
    assert_eq!(span.span_context.trace_state().header(), "a=b");
}

#[test]
fn each_attempt_is_a_client_span_beside_the_others() {
    let mut trail = repeated();
    trail.trace = Some(place(None, Some(4)));
    let spans = made(&trail);
    let [first, second] = &*spans else { panic!("{spans:#?}") };
    assert_eq!([id(first), parent(first), id(second), parent(second)], [11, 4, 12, 4]);
    assert!(spans.iter().all(|span| span.span_kind == SpanKind::Client && span.parent_span_is_remote));
    assert_eq!(text(first, "url.full"), "http://orders/items/7", "without the query");
    assert_eq!(text(first, "server.port"), "80", "where the authority says none");
    assert_eq!(first.start_time.duration_since(second.start_time).unwrap_err().duration(), millis(20));
    assert_eq!(
        (text(first, "http.request.resend_count"), text(second, "http.request.resend_count")),
        (String::new(), "1".into())
    );
    assert_eq!(
        (text(first, "error.type"), text(first, "http.response.status_code")),
        ("503".into(), "503".into())
    );
    assert!(matches!(first.status, Status::Error { .. }) && second.status == Status::Unset);
    for span in &spans {
        for (name, expected) in [
            ("outrider.cluster", "orders"),
            ("outrider.route", "reads"),
            ("outrider.direction", "outbound"),
            ("outrider.request_id", "request-7"),
        ] {
            assert_eq!(text(span, name), expected, "{name} of {span:#?}");
        }
    }
    let names: Vec<_> = second.events.iter().map(|event| event.name.to_string()).collect();
    assert_eq!(names, ["queued", "connection", "first_byte", "last_byte"]);
    assert_eq!(second.events[1].attributes, [KeyValue::new("reused", false)]);
}

#[test]
fn where_the_trace_begins_the_attempts_are_children_of_the_request() {
    let mut trail = repeated();
    trail.trace = Some(place(Some(9), None));
    let spans = made(&trail);
    assert_eq!(spans.len(), 3);
    assert_eq!((spans[0].span_kind.clone(), id(&spans[0]), parent(&spans[0])), (SpanKind::Internal, 9, 0));
    for child in &spans[1..] {
        assert_eq!((parent(child), child.parent_span_is_remote), (9, false));
        assert!(child.start_time >= spans[0].start_time && child.end_time <= spans[0].end_time);
    }
}

#[test]
fn a_request_that_nobody_got_has_a_client_span_all_the_same() {
    let mut trail = trail();
    trail.trace = Some(place(None, Some(4)));
    let spans = made(&trail);
    assert_eq!(spans.len(), 1);
    assert_eq!((spans[0].span_kind.clone(), parent(&spans[0])), (SpanKind::Client, 4));
    assert_ne!(id(&spans[0]), 0);
    assert_eq!(text(&spans[0], "http.response.status_code"), "503");
    assert!(matches!(spans[0].status, Status::Error { .. }));
}

#[test]
fn times_nest_whatever_a_trail_says() {
    let mut trail = repeated();
    trail.trace = Some(place(Some(9), None));
    trail.attempts[0].ended = Some(millis(900));
    trail.attempts[1].begun = millis(800);
    trail.attempts[1].connected = Some((millis(1), Reuse::Reused));
    for span in made(&trail) {
        let whole = trail.ended;
        assert!(span.end_time >= span.start_time, "{span:#?}");
        assert!(span.end_time.duration_since(span.start_time).unwrap() <= whole);
        for event in span.events.iter() {
            assert!(event.timestamp >= span.start_time && event.timestamp <= span.end_time, "{span:#?}");
        }
    }
}

#[test]
fn a_query_is_nowhere_and_texts_are_cut() {
    let mut trail = repeated();
    trail.trace = Some(place(Some(9), None));
    let long = format!("/items/{}?card=4711", "ä".repeat(400).replace('ä', "%C3%A4"));
    let asked = trail.asked.as_mut().unwrap();
    asked.target = Some(PathAndQuery::try_from(long).unwrap());
    asked.method = Method::from_bytes(b"BREW").unwrap();
    trail.request_id = Some(HeaderValue::from_bytes(&[0xe4; 1000]).unwrap());
    trail.error = Some("x\u{e4}".repeat(300).into());
    trail.flag = Some(ResponseFlag::UF);
    let spans = made(&trail);
    assert!(!format!("{spans:?}").contains("4711"));
    for span in &spans {
        assert!(span.name.len() <= 256);
        assert_eq!(span.name, "HTTP reads");
        assert_eq!(text(span, "http.request.method"), "_OTHER");
        for pair in &span.attributes {
            assert!(pair.value.to_string().len() <= 256, "{pair:?}");
        }
        if let Status::Error { description } = &span.status {
            assert!(description.len() <= 256);
        }
    }
}

#[test]
fn grpc_streams_and_tunnels_have_their_own_names() {
    let mut trail = trail();
    trail.trace = Some(place(None, Some(4)));
    trail.kind = Traffic::Grpc;
    (trail.flag, trail.status, trail.grpc_status) = (None, Some(200), Some(5));
    trail.asked.as_mut().unwrap().target = Some(PathAndQuery::from_static("/shop.Orders/Get"));
    let span = made(&trail).remove(0);
    assert_eq!(span.name, "shop.Orders/Get");
    assert_eq!(
        (text(&span, "rpc.service"), text(&span, "rpc.response.status_code")),
        ("shop.Orders".into(), "NOT_FOUND".into())
    );
    assert!(matches!(span.status, Status::Error { .. }), "of a client, as the conventions have it");
    (trail.direction, trail.trace) = (Direction::Inbound, Some(place(Some(5), Some(4))));
    assert_eq!(made(&trail).remove(0).status, Status::Unset, "of a server it is none of its failures");
    trail.kind = Traffic::Tunnel;
    assert_eq!(made(&trail).remove(0).name, "CONNECT");
    (trail.kind, trail.asked) = (Traffic::Stream, None);
    let span = made(&trail).remove(0);
    assert_eq!((&*span.name, text(&span, "network.transport")), ("tcp", "tcp".into()));
}

/// A slow attempt that was answered, and the one beside it that nobody waited for any more.
fn hedged() -> Trail {
    let mut trail = repeated();
    let [first, second] = &mut trail.attempts[..] else { panic!() };
    (first.ended, first.failure, first.status) = (None, None, Some(200));
    first.answered = Some(millis(40));
    second.is_hedge = true;
    (second.ended, second.answered, second.status) = (Some(millis(40)), None, None);
    trail.delivered = Some(0);
    trail.trace = Some(place(None, Some(4)));
    trail
}

#[test]
fn of_a_race_the_winner_tells_what_became_of_the_request() {
    let mut trail = hedged();
    trail.response_bytes = 12;
    let spans = made(&trail);
    assert_eq!(text(&spans[0], "outrider.response_bytes"), "12");
    assert_eq!(text(&spans[1], "outrider.response_bytes"), "");
    let status = |span| text(span, "http.response.status_code");
    assert_eq!((status(&spans[0]), status(&spans[1])), ("200".into(), String::new()));
    assert_eq!((&spans[0].status, &spans[1].status), (&Status::Unset, &Status::Unset));
    trail.flag = Some(ResponseFlag::UC);
    let spans = made(&trail);
    assert_eq!((text(&spans[0], "error.type"), &spans[1].status), ("UC".into(), &Status::Unset));
    trail.delivered = Some(9);
    let spans = made(&trail);
    assert_eq!((&spans[0].status, text(&spans[1], "error.type")), (&Status::Unset, "UC".into()));
}

#[test]
fn an_attempt_without_an_answer_has_no_status_of_ours() {
    let mut trail = trail();
    trail.trace = Some(place(None, Some(4)));
    (trail.kind, trail.grpc_status) = (Traffic::Grpc, Some(14));
    trail.flag = Some(ResponseFlag::UF);
    let mut failed = attempt(1, 2);
    (failed.failure, failed.error) = (Some(RetryReason::Connect), Some("refused".into()));
    trail.attempts.push(failed);
    let span = made(&trail).remove(0);
    for name in ["http.response.status_code", "rpc.response.status_code", "rpc.grpc.status_code"] {
        assert_eq!(attribute(&span, name), None, "{name}");
    }
    assert_eq!(
        (text(&span, "error.type"), text(&span, "outrider.response_flag")),
        ("UF".into(), "UF".into())
    );
}

#[test]
fn the_type_of_an_error_is_what_tells_most() {
    use ResponseFlag as F;
    for (flag, grpc, status, failure, expected) in [
        (Some(F::UT), Some(4), Some(504), Some(RetryReason::PerTryTimeout), "UT"),
        (None, Some(14), Some(200), Some(RetryReason::GrpcStatus), "UNAVAILABLE"),
        (None, Some(77), Some(200), None, "77"),
        (Some(F::DI), None, Some(503), Some(RetryReason::Status), "503"),
        (Some(F::DC), None, Some(404), None, "404"),
        (None, None, None, Some(RetryReason::Reset), "reset"),
        (None, Some(0), Some(200), None, ""),
        (Some(F::DC), None, Some(200), None, ""),
        (Some(F::DC), None, None, None, ""),
    ] {
        let mut trail = repeated();
        trail.trace = Some(place(None, Some(4)));
        (trail.flag, trail.grpc_status, trail.status) = (flag, grpc, status);
        (trail.attempts[1].status, trail.attempts[1].failure) = (status, failure);
        assert_eq!(text(&made(&trail)[1], "error.type"), expected, "{trail:#?}");
    }
}

#[test]
fn a_server_is_to_blame_for_its_own_failures_only() {
    use ResponseFlag as F;
    let blamed = [F::UF, F::UC, F::UT, F::UH, F::UO, F::SI, F::ID, F::UPE, F::OM, F::DE];
    let is_error = |flag, status, grpc| {
        let mut trail = trail();
        (trail.direction, trail.trace) = (Direction::Inbound, Some(place(Some(5), Some(4))));
        (trail.flag, trail.status, trail.grpc_status) = (flag, status, grpc);
        matches!(made(&trail)[0].status, Status::Error { .. })
    };
    for flag in F::ALL {
        assert_eq!(is_error(Some(flag), None, None), blamed.contains(&flag), "{flag:?}");
        assert_eq!(is_error(Some(flag), Some(403), None), blamed.contains(&flag), "{flag:?}");
        assert!(flag == F::DC || is_error(Some(flag), Some(503), None), "{flag:?}");
    }
    for status in 0..=17 {
        let is_blamed = matches!(status, 2 | 4 | 12 | 13 | 14 | 15);
        assert_eq!(is_error(None, Some(200), Some(status)), is_blamed, "{status}");
    }
    assert!(!is_error(Some(F::NR), Some(200), Some(12)), "our own answer to what has no route");
    assert_eq!(
        [200, 404, 499, 500, 503].map(|status| is_error(None, Some(status), None))[2..],
        [false, true, true]
    );
}

#[test]
fn whatever_a_trail_says_no_attribute_stands_twice_and_each_error_has_its_type() {
    let options = |all: &[u16]| [None].into_iter().chain(all.iter().copied().map(Some)).collect::<Vec<_>>();
    let flags: Vec<_> = [None].into_iter().chain(ResponseFlag::ALL.map(Some)).collect();
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let mut trail = if rng.bool() { repeated() } else { hedged() };
        trail.kind = rng.choice([Traffic::Http, Traffic::Grpc, Traffic::Stream, Traffic::Tunnel]).unwrap();
        trail.direction = rng.choice([Direction::Inbound, Direction::Outbound]).unwrap();
        trail.caller = if rng.bool() { peer("web") } else { Caller::App };
        trail.trace = Some(place(rng.bool().then_some(9), rng.bool().then_some(4)));
        trail.flag = rng.choice(flags.iter().copied()).unwrap();
        trail.status = rng.choice(options(&[200, 404, 503])).unwrap();
        trail.grpc_status = rng.choice(options(&[0, 5, 14, 99])).unwrap();
        trail.delivered = rng.choice([None, Some(0), Some(1), Some(7)]).unwrap();
        trail.attempts.truncate(rng.usize(0..=2));
        for attempt in &mut trail.attempts {
            attempt.status = rng.choice(options(&[200, 404, 503])).unwrap();
            attempt.failure =
                rng.choice([None, Some(RetryReason::Connect), Some(RetryReason::Status)]).unwrap();
            attempt.error = rng.bool().then(|| "refused".into());
            attempt.peer = rng.bool().then(|| SpiffeId::parse("spiffe://demo.outrider/orders").unwrap());
        }
        // It asserts both of every span.
        drop(made(&trail));
    }
}

#[test]
fn all_spans_of_a_process_are_on_one_clock() {
    let clock = Clock::system();
    let anchor = Anchor::now(&clock);
    let mut trail = repeated();
    trail.started = Instant::now();
    trail.trace = Some(place(None, Some(4)));
    let span = Maker::default().of(&trail, &anchor, &mut fastrand::Rng::new()).remove(0);
    let apart = SystemTime::now().duration_since(span.start_time).unwrap_or_default();
    assert!(apart < Duration::from_secs(60), "{apart:?}");
    assert_eq!(span.start_time, anchor.wall(trail.started));
    drop(Arc::new(span));
}

#[test]
fn every_attempt_is_found_by_the_request_and_says_why_it_failed_itself() {
    let mut trail = repeated();
    trail.trace = Some(place(Some(9), None));
    trail.attempts[0].flag = Some(ResponseFlag::UF);
    (trail.flag, trail.status) = (Some(ResponseFlag::UT), Some(504));
    let spans = made(&trail);
    let flags: Vec<_> = spans.iter().map(|span| text(span, "outrider.response_flag")).collect();
    assert_eq!(flags, ["UT", "UF", "UT"]);
    for span in &spans {
        let found = ["cluster", "request_id", "route", "direction"]
            .map(|name| text(span, &format!("outrider.{name}")));
        assert_eq!(found, ["orders", "request-7", "reads", "outbound"]);
    }
}
