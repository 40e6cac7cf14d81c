//! A request's way over two sidecars: what the app at its end is told.

use outrider::model::trace::Origin;

use super::{Pair, SPAN, TRACE, TRACED, UNSAMPLED, parts, place, span, text};
use crate::harness::HttpApp;

#[tokio::test]
async fn the_app_at_the_end_is_in_the_callers_trace_and_each_hop_is_the_parent_of_the_next() {
    let app = HttpApp::named("orders").await;
    // What a hop samples itself has no say in a trace that was begun elsewhere.
    for (telemetry, flags) in [(TRACED, "00"), (TRACED, "01"), (UNSAMPLED, "00"), (UNSAMPLED, "01")] {
        let before = app.count();
        let mut pair = Pair::new(app.address(), telemetry).await;
        let sent = format!("00-{TRACE}-{SPAN}-{flags}");
        pair.ask(&[("traceparent", &sent), ("tracestate", "a=1"), ("tracestate", "b=2")]).await;
        let seen = &app.seen()[before];
        let told = parts(seen.header("traceparent").unwrap());
        assert_eq!((told.0.as_str(), told.2.as_str()), (TRACE, flags));
        assert_eq!(seen.header("tracestate"), Some("a=1,b=2"));

        let (outbound, inbound) = (pair.outbound.told().await, pair.inbound.told().await);
        let is_sampled = flags == "01";
        for (trail, wanted) in [&outbound, &inbound] {
            assert_eq!(place(trail).trace.to_string(), TRACE);
            assert_eq!((place(trail).is_sampled, wanted.is_sampled), (is_sampled, is_sampled));
            assert!(wanted.is_traced_on_error);
            assert_eq!(place(trail).origin, Origin::Told);
        }
        let (outbound, inbound) = (outbound.0, inbound.0);
        assert_eq!(text(place(&outbound).parent).as_deref(), Some(SPAN));
        assert_eq!(place(&outbound).own, None, "its attempts are the caller's children");
        assert_eq!(text(place(&inbound).parent), Some(span(&outbound, 0)));
        assert_eq!(text(place(&inbound).own), Some(told.1), "the app is its child");
        assert_eq!(inbound.attempts[0].span, None, "there is one span on the way to the own app");
    }
}

#[tokio::test]
async fn where_nothing_is_told_a_trace_begins_with_a_span_of_the_request_as_a_whole() {
    let app = HttpApp::named("orders").await;
    for (telemetry, flags) in [(TRACED, "01"), (UNSAMPLED, "00")] {
        let before = app.count();
        let mut pair = Pair::new(app.address(), telemetry).await;
        pair.ask(&[]).await;
        let told = parts(app.seen()[before].header("traceparent").unwrap());
        let (outbound, inbound) = (pair.outbound.next().await, pair.inbound.next().await);
        assert_eq!((place(&outbound).trace.to_string(), flags), (told.0.clone(), told.2.as_str()));
        assert_eq!((place(&outbound).origin, place(&outbound).parent), (Origin::Here, None));
        assert!(place(&outbound).own.is_some());
        assert_eq!(place(&inbound).trace.to_string(), told.0);
        assert_eq!(text(place(&inbound).parent), Some(span(&outbound, 0)));
    }
}

#[tokio::test]
async fn what_is_not_well_formed_begins_a_new_trace_and_goes_no_further() {
    let app = HttpApp::named("orders").await;
    let pair = Pair::new(app.address(), TRACED).await;
    let valid = format!("00-{TRACE}-{SPAN}-01");
    let upper = valid.to_uppercase();
    let bad = [
        vec![("traceparent", upper.as_str()), ("tracestate", "a=1")],
        vec![("traceparent", &valid), ("traceparent", &valid), ("tracestate", "a=1")],
        vec![("traceparent", "00-0-0-00")],
        vec![("tracestate", "a=1")],
    ];
    for fields in bad {
        let before = app.count();
        pair.ask(&fields).await;
        let seen = &app.seen()[before];
        assert_ne!(parts(seen.header("traceparent").unwrap()).0, TRACE, "{fields:?}");
        assert_eq!(seen.header("tracestate"), None, "{fields:?}");
    }
}

#[tokio::test]
async fn a_tracestate_that_is_not_well_formed_is_left_out_and_the_trace_goes_on() {
    let app = HttpApp::named("orders").await;
    let pair = Pair::new(app.address(), TRACED).await;
    let sent = format!("00-{TRACE}-{SPAN}-01");
    pair.ask(&[("traceparent", &sent), ("tracestate", "A=1")]).await;
    let seen = app.only();
    assert_eq!(parts(seen.header("traceparent").unwrap()).0, TRACE);
    assert_eq!(seen.header("tracestate"), None);
}

#[tokio::test]
async fn what_comes_as_b3_goes_on_as_b3_beside_what_is_configured() {
    let app = HttpApp::named("orders").await;
    let only_b3 = "telemetry: {traces: {endpoint: 'http://127.0.0.1:9', propagate: [b3]}}";
    for (telemetry, has_w3c) in [(TRACED, true), (only_b3, false)] {
        let mut pair = Pair::new(app.address(), telemetry).await;
        let before = app.count();
        pair.ask(&[("b3", &format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90"))]).await;
        let seen = &app.seen()[before];
        let own = text(place(&pair.inbound.next().await).own).unwrap();
        assert_eq!(seen.header("b3").unwrap(), format!("{TRACE}-{own}-1"));
        let w3c = format!("00-{TRACE}-{own}-01");
        assert_eq!(seen.header("traceparent"), has_w3c.then_some(w3c.as_str()));

        let before = app.count();
        let multi = [("x-b3-traceid", "64fe8b2a57d3eff7"), ("x-b3-spanid", SPAN), ("x-b3-sampled", "0")];
        pair.ask(&[&multi[..], &[("x-b3-parentspanid", "05e3ac9a4f6e3b90")]].concat()).await;
        let seen = &app.seen()[before];
        let inbound = pair.inbound.next().await;
        assert!(!place(&inbound).is_sampled);
        assert_eq!(seen.header("x-b3-traceid"), Some("64fe8b2a57d3eff7"));
        assert_eq!(seen.header("x-b3-spanid"), text(place(&inbound).own).as_deref());
        assert_eq!(seen.header("x-b3-sampled"), Some("0"));
        assert_eq!(seen.header("x-b3-parentspanid"), None, "that was the caller's");
        assert_eq!(seen.header("traceparent").is_some(), has_w3c);
    }
}

#[tokio::test]
async fn whoever_begins_no_trace_but_says_whether_it_is_wanted_is_heard() {
    let app = HttpApp::named("orders").await;
    for (telemetry, state) in [(TRACED, "0"), (UNSAMPLED, "1"), (UNSAMPLED, "d")] {
        let mut pair = Pair::new(app.address(), telemetry).await;
        pair.ask(&[("b3", state)]).await;
        assert_eq!(place(&pair.outbound.next().await).is_sampled, state != "0");
        assert_eq!(place(&pair.inbound.next().await).is_sampled, state != "0");
    }
}

#[tokio::test]
async fn baggage_passes_as_it_is() {
    let app = HttpApp::named("orders").await;
    let pair = Pair::new(app.address(), TRACED).await;
    pair.ask(&[("baggage", "user=1;x=y , =, junk"), ("baggage", "b=2")]).await;
    let seen = app.only();
    let values: Vec<_> = seen.headers.get_all("baggage").iter().collect();
    assert_eq!(values, ["user=1;x=y , =, junk", "b=2"]);
}

#[tokio::test]
async fn without_traces_every_field_passes_as_it_is_and_none_is_made() {
    let app = HttpApp::named("orders").await;
    for telemetry in ["", "telemetry: {access_log: {of: all, path: /dev/null}}"] {
        let before = app.count();
        let mut pair = Pair::new(app.address(), telemetry).await;
        let sent = [
            ("traceparent", "zz"),
            ("tracestate", "A"),
            ("b3", "0"),
            ("x-b3-traceid", "1"),
            ("x-b3-parentspanid", "x"),
        ];
        pair.ask(&sent).await;
        pair.ask(&[]).await;
        let seen = app.seen();
        for (name, value) in sent {
            assert_eq!(seen[before].header(name), Some(value), "{name}");
            assert_eq!(seen[before + 1].header(name), None, "{name}");
        }
        for trails in [&mut pair.outbound, &mut pair.inbound] {
            assert!(trails.next().await.trace.is_none());
        }
        assert!(pair.web.app().observer.known_stitches().is_none(), "nothing is allocated for it");
    }
}
