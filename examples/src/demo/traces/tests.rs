use super::*;
use crate::otlp::made_up::{call, span};

/// Call number `number`, longer the higher that is.
fn numbered(number: u128) -> Vec<Span> {
    let mut spans = call();
    spans.iter_mut().for_each(|span| {
        span.trace = number;
        span.end += u64::try_from(number).expect("a small one");
    });
    spans
}

fn repeated(number: u128) -> Vec<Span> {
    let mut spans = numbered(number);
    let failed = Span { trace: number, is_error: true, ..span(6, 3, "orders", Kind::Client, 300..600) };
    spans.push(failed);
    spans[1].resend = 1;
    spans
}

fn chosen(calls: impl IntoIterator<Item = Vec<Span>>) -> Calls {
    let mut traces = Traces::default();
    calls.into_iter().flatten().for_each(|span| traces.add(span));
    choose(&traces)
}

#[test]
fn the_calls_shown_are_of_median_duration() {
    let calls = chosen((1..=9).map(numbered).chain((11..=13).map(repeated)));
    assert_eq!((calls.spans, calls.traces, calls.whole), (9 * 5 + 3 * 6, 12, 12));
    let typical = calls.typical.expect("one");
    assert_eq!((typical.trace_id.as_str(), typical.hops.len()), (format!("{:032x}", 5).as_str(), 5));
    assert_eq!(calls.repeated.expect("one").trace_id, format!("{:032x}", 12));
    assert_eq!(typical.duration_us, 2000.005);
    assert!((typical.app_us + typical.proxy_us - typical.duration_us).abs() < 0.001);
    let hops: Vec<_> = typical.hops.iter().map(|hop| (hop.service.as_str(), hop.kind)).collect();
    let expected = [("web", ""), ("web", "out"), ("orders", "in"), ("orders", "out"), ("inventory", "in")];
    assert_eq!(hops, expected);
}

#[test]
fn a_call_with_a_span_missing_is_not_whole() {
    for missing in 0..5 {
        let spans: Vec<_> =
            (0..5).filter(|kept| *kept != missing).map(|kept| numbered(1)[kept].clone()).collect();
        assert_eq!(chosen([spans]).whole, 0, "without {:?}", numbered(1)[missing]);
    }
    let more = [numbered(1), vec![Span { trace: 1, ..span(9, 77, "orders", Kind::Client, 1..2) }]].concat();
    assert_eq!(chosen([more]).whole, 0, "something came from nowhere");
    let mut apps = numbered(1);
    apps[2].is_proxy = false;
    assert_eq!(chosen([apps]).whole, 0, "one is an app's, not a proxy's");
    let mut begun_outside = numbered(1);
    begun_outside[4].parent = Some(77);
    assert_eq!(chosen([begun_outside]).whole, 0);
    assert_eq!(chosen([numbered(1)]).whole, 1);
}

#[tokio::test]
async fn calls_are_awaited() {
    let receiver = Receiver::start("127.0.0.1:0".parse().expect("an address")).expect("it listens");
    let late = async {
        tokio::task::yield_now().await;
        numbered(1).into_iter().for_each(|span| receiver.add(span));
    };
    let (calls, ()) = tokio::join!(collect(&receiver), late);
    assert_eq!((calls.whole, calls.typical.is_some()), (1, true));
}

#[test]
fn a_collector_is_named_by_its_url() {
    let target = |url: &str, protocol| {
        let url = url.parse::<Url>().map_err(anyhow::Error::msg)?;
        Target::named(&url, protocol).map(|target| (target.endpoint, target.protocol))
    };
    for (url, protocol, endpoint, expected) in [
        ("http://localhost:4317", None, "http://localhost:4317", Protocol::Grpc),
        ("https://tempo/", None, "https://tempo", Protocol::Grpc),
        ("http://[::1]:4318/v1/traces", None, "http://[::1]:4318/v1/traces", Protocol::Http),
        ("http://a:1", Some(Protocol::Http), "http://a:1/v1/traces", Protocol::Http),
        ("http://a:1/otlp/v1/traces", None, "http://a:1/otlp/v1/traces", Protocol::Http),
        ("http://a:1/elsewhere", Some(Protocol::Http), "http://a:1/elsewhere", Protocol::Http),
    ] {
        assert_eq!(target(url, protocol).expect("a good one"), (endpoint.to_owned(), expected), "{url}");
    }
    for bad in
        ["localhost:4317", "/v1/traces", "ftp://a", "http://u:p@a", "http://a/?q", "http://a/elsewhere", ""]
    {
        assert!(target(bad, None).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_told_at_once() {
    let receiver = Receiver::start("127.0.0.1:0".parse().expect("an address")).expect("it listens");
    let endpoint = format!("http://{}/v1/traces", receiver.address());
    let target = Target { endpoint, protocol: Protocol::Http };
    target.reach().await.expect("it is there");
    drop(receiver);
    let error = target.reach().await.expect_err("it is gone").to_string();
    assert!(error.contains("nobody is there"), "{error}");
}

#[test]
fn what_a_collector_took_is_read_from_metrics() {
    let metrics = "# TYPE outrider_export_sent counter\n\
                   outrider_export_sent_total{signal=\"metrics\"} 7\n\
                   outrider_export_sent_total{signal=\"spans\"} 12\n";
    assert_eq!(count(metrics), Some(12.0));
    assert_eq!(count("outrider_export_sent_total 12"), None);
}

#[test]
fn where_to_look_names_the_trace() {
    let target = Target { endpoint: "http://[::1]:4317".to_owned(), protocol: Protocol::Grpc };
    let said = where_to_look(&target, Some("abc"));
    assert!(said.contains("http://[::1]:16686/trace/abc") && said.contains("`web`"), "{said}");
}

#[test]
fn a_trace_id_is_the_second_part_of_a_traceparent() {
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert_eq!(trace_id(&format!("00-{id}-00f067aa0ba902b7-01")).expect("good"), id);
    for bad in ["", "00", "00-abc-def-01"] {
        assert!(trace_id(bad).is_err());
    }
}
