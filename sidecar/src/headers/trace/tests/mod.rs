//! Trace fields as others send them, and as we do.

mod b3;
mod validation;

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::headers::fixture::headers;

const W3C: Propagate = Propagate { w3c: true, b3: false, b3_multi: false };
const B3_ONE: Propagate = Propagate { w3c: false, b3: true, b3_multi: false };
const B3_MANY: Propagate = Propagate { w3c: false, b3: false, b3_multi: true };
const ALL: Propagate = Propagate { w3c: true, b3: true, b3_multi: true };

fn trace(number: u128) -> TraceId {
    TraceId(number.try_into().unwrap())
}

fn span(number: u64) -> SpanId {
    SpanId(number.try_into().unwrap())
}

/// What the fields say, with trace and span as text.
fn told(fields: &[(&str, &str)]) -> (Option<(String, String)>, Option<bool>) {
    let told = extract(&headers(fields));
    (told.context.map(|(trace, span)| (trace.to_string(), span.to_string())), told.is_sampled)
}

/// What is left of a request's fields after what it said has been taken off and this is said instead.
fn resent(fields: &[(&str, &str)], more: Propagate) -> HeaderMap {
    let mut headers = headers(fields);
    let told = extract(&headers);
    strip(&mut headers, told.formats);
    let Propagate { w3c, b3, b3_multi } = told.formats;
    let formats = Propagate { w3c: w3c || more.w3c, b3: b3 || more.b3, b3_multi: b3_multi || more.b3_multi };
    let sent = Sent {
        trace: told.context.map_or(trace(7), |(trace, _span)| trace),
        span: span(9),
        is_sampled: told.is_sampled.unwrap_or(false),
        state: told.state.as_ref(),
        formats,
    };
    inject(&mut headers, &sent);
    headers
}

const PARENT: (&str, &str) = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");

#[test]
fn traceparent_goes_before_b3_and_b3_before_its_longer_form() {
    let b3 = ("b3", "a000000000000001-b000000000000001-0");
    let multi = [("x-b3-traceid", "a000000000000002"), ("x-b3-spanid", "b000000000000002")];
    let found = |fields: &[(&str, &str)]| told(fields).0.map(|(trace, _span)| trace);
    assert_eq!(found(&[multi[0], multi[1], b3, PARENT]).unwrap(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(found(&[multi[0], multi[1], b3]).unwrap(), "0000000000000000a000000000000001");
    assert_eq!(found(&multi).unwrap(), "0000000000000000a000000000000002");
    let bad = ("traceparent", "01");
    assert_eq!(found(&[multi[0], multi[1], b3, bad]).unwrap(), "0000000000000000a000000000000001");
    let bad_b3 = ("b3", "x");
    assert_eq!(found(&[multi[0], multi[1], bad_b3, bad]).unwrap(), "0000000000000000a000000000000002");
    assert_eq!(told(&[bad, bad_b3]), (None, None));
    assert_eq!(told(&[]), (None, None));
}

#[test]
fn nothing_that_came_in_stays_beside_what_is_said() {
    let sent = resent(
        &[
            PARENT,
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
            ("b3", "a000000000000001-b000000000000001-0"),
            ("x-b3-traceid", "a000000000000002"),
            ("x-b3-parentspanid", "b000000000000009"),
            ("x-b3-flags", "1"),
            ("baggage", "user=1"),
            ("traceparents", "kept"),
        ],
        Propagate::default(),
    );
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let expected = headers(&[
        ("baggage", "user=1"),
        ("traceparents", "kept"),
        ("traceparent", &format!("00-{trace}-0000000000000009-01")),
        ("tracestate", "a=1,b=2"),
        ("b3", &format!("{trace}-0000000000000009-1")),
        ("x-b3-traceid", trace),
        ("x-b3-spanid", "0000000000000009"),
        ("x-b3-sampled", "1"),
    ]);
    assert_eq!(sent, expected);
}

#[test]
fn what_came_in_one_format_goes_on_in_it_and_in_those_that_are_asked_for() {
    let names = |fields: &[(&str, &str)], more| {
        let mut names: Vec<_> = resent(fields, more).keys().map(ToString::to_string).collect();
        names.sort_unstable();
        names.join(" ")
    };
    assert_eq!(names(&[PARENT], Propagate::default()), "traceparent");
    assert_eq!(names(&[("b3", "1")], Propagate::default()), "b3");
    assert_eq!(
        names(&[("x-b3-sampled", "0")], Propagate::default()),
        "x-b3-sampled x-b3-spanid x-b3-traceid"
    );
    assert_eq!(names(&[], W3C), "traceparent");
    assert_eq!(names(&[PARENT], B3_ONE), "b3 traceparent");
    assert_eq!(names(&[], Propagate::default()), "");
    assert_eq!(names(&[("traceparent", "bad")], B3_ONE), "b3 traceparent");
}

#[test]
fn of_a_list_that_is_too_long_the_longest_members_go_first_and_then_the_last() {
    let long = format!("long={}", "x".repeat(200));
    let medium: Vec<_> = (0..6).map(|index| format!("m{index}={}", "y".repeat(90))).collect();
    let line = format!("{},{long},{}", medium[0], medium[1..].join(","));
    let state = resent(&[PARENT, ("tracestate", &line)], W3C)["tracestate"].clone();
    assert_eq!(state, medium[..5].join(","), "six would be over 512 bytes");
    let fits = format!("a=1,{long}");
    assert_eq!(resent(&[PARENT, ("tracestate", &fits)], W3C)["tracestate"], fits);
}

proptest! {
    #[test]
    fn what_is_said_is_read_as_it_was_meant(
        number in 1_u128.., small in 1_u64.., is_small: bool, number_of_span in 1_u64.., is_sampled: bool,
    ) {
        let number = if is_small { u128::from(small) } else { number };
        for formats in [W3C, B3_ONE, B3_MANY, ALL] {
            let (trace, span) = (trace(number), span(number_of_span));
            let mut headers = HeaderMap::new();
            let state = HeaderValue::from_static("a=1");
            inject(&mut headers, &Sent { trace, span, is_sampled, state: Some(&state), formats });
            let told = extract(&headers);
            let state = formats.w3c.then_some(state);
            let context = Some((trace, span));
            prop_assert_eq!(told, Told { context, is_sampled: Some(is_sampled), state, formats });
            strip(&mut headers, formats);
            prop_assert!(headers.is_empty());
        }
    }

    #[test]
    fn whatever_is_sent_nothing_panics_and_what_goes_on_is_well_formed(
        fields in proptest::collection::vec(
            (
                prop_oneof![
                    Just("traceparent"), Just("tracestate"), Just("b3"), Just("x-b3-traceid"),
                    Just("x-b3-spanid"), Just("x-b3-sampled"), Just("x-b3-flags"),
                ],
                prop_oneof![
                    "[0-9a-f]{2}-[0-9a-f]{31,33}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,3})?",
                    "[0-9a-f]{16}(-[0-9a-f]{15,17}){0,1}(-[01d])?(-[0-9a-f]{16})?",
                    "([a-z@0-9]{0,5}=[ -~]{0,5},?){0,40}",
                    "[ -~\u{e9}]{0,60}",
                    "[0-9a-f]{16}|[0-9a-f]{32}|[01]",
                ],
            ),
            0..6,
        ),
    ) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut map = HeaderMap::new();
        for (name, value) in &fields {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                map.append(*name, value);
            }
        }
        let first = extract(&map);
        strip(&mut map, first.formats);
        prop_assert!(map.is_empty(), "all of it is taken off: {map:?}");
        if let Some((trace, span)) = first.context {
            let is_sampled = first.is_sampled.unwrap_or(true);
            inject(&mut map, &Sent { trace, span, is_sampled, state: first.state.as_ref(), formats: ALL });
            let again = extract(&map);
            prop_assert_eq!(again.context, first.context);
            prop_assert_eq!(&again.state, &first.state);
            prop_assert!(again.state.is_none_or(|state| state.len() <= 512));
        }
    }
}
