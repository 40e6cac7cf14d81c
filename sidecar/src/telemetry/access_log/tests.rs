//! Records of trails made by hand.

use std::{
    fs,
    net::IpAddr,
    num::{NonZeroU64, NonZeroU128},
    path::Path,
    sync::atomic::Ordering,
    time::Instant,
};

use http::{HeaderName, HeaderValue, Method, Version, uri::PathAndQuery};
use outrider_certs::SpiffeId;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    model::{
        ClusterName,
        edge::Direction,
        flag::ResponseFlag,
        retries::RetryReason,
        telemetry::Logged,
        trace::{Origin, SpanId, TraceId, TracePlace},
    },
    telemetry::{
        observer::Wanted,
        trail::{Asked, Attempt, Caller, Reuse, Traffic},
    },
};

const USER_AGENT: HeaderName = http::header::USER_AGENT;

fn settings(path: Option<&Path>, format: LogFormat) -> Arc<AccessLogSettings> {
    Arc::new(AccessLogSettings {
        of: Logged::All,
        sampled_of_million: 1_000_000,
        path: path.map(Path::to_owned),
        format,
        request_headers: vec![USER_AGENT, http::header::AUTHORIZATION, http::header::ACCEPT],
        response_headers: vec![http::header::SERVER],
    })
}

fn attempt(endpoint: &str, status: Option<u16>) -> Attempt {
    Attempt {
        endpoint: endpoint.parse().unwrap(),
        peer: Some(SpiffeId::parse("spiffe://test.outrider/orders").unwrap()),
        span: NonZeroU64::new(0xab).map(SpanId),
        is_hedge: false,
        is_probe: false,
        begun: Duration::from_micros(100),
        connected: Some((Duration::from_micros(350), Reuse::Fresh)),
        answered: status.map(|_| Duration::from_millis(2)),
        ended: Some(Duration::from_millis(3)),
        status,
        failure: None,
        flag: None,
        error: None,
    }
}

/// A request that failed at its first endpoint and was answered by the second.
fn trail() -> Trail {
    let mut trail =
        Trail::new(Traffic::Http, Direction::Outbound, Arc::from("out"), Caller::App, Instant::now());
    trail.client = Some(IpAddr::from([127, 0, 0, 1]));
    trail.generation = 3;
    trail.asked = Some(Asked {
        method: Method::GET,
        target: Some(PathAndQuery::from_static("/orders/7?token=secret")),
        authority: "orders".into(),
        version: Version::HTTP_11,
    });
    trail.request_id = Some(HeaderValue::from_static("r-1"));
    trail.trace = Some(TracePlace {
        trace: TraceId(NonZeroU128::new(0xcd).unwrap()),
        parent: None,
        own: None,
        is_sampled: true,
        state: None,
        origin: Origin::Here,
    });
    trail.cluster = Some(ClusterName::new("orders"));
    trail.route = Some(Arc::from("read"));
    let failed = Attempt {
        failure: Some(RetryReason::Connect),
        error: Some("connection refused".into()),
        connected: None,
        peer: None,
        ..attempt("10.0.0.1:4343", None)
    };
    trail.attempts = [failed, attempt("10.0.0.2:4343", Some(200))].into_iter().collect();
    trail.status = Some(200);
    trail.answered = Some(Duration::from_micros(2500));
    trail.ended = Duration::from_micros(4001);
    trail.response_bytes = 12;
    let field = |name: HeaderName, value| (name, HeaderValue::from_static(value));
    trail.fields =
        vec![field(USER_AGENT, "curl/8 (\"x\")"), field(http::header::AUTHORIZATION, "Bearer hunter2")];
    trail.answer_fields = vec![field(http::header::SERVER, "a"), field(http::header::SERVER, "b")];
    trail
}

fn told(trail: Trail) -> Told {
    Told { trail: Box::new(trail), wanted: Wanted { is_logged: true, ..Wanted::default() } }
}

fn json(trail: &Trail) -> String {
    let mut line = Vec::new();
    record::json(&mut line, trail, OffsetDateTime::UNIX_EPOCH, &settings(None, LogFormat::Json));
    String::from_utf8(line).unwrap()
}

fn filled(template: &str, trail: &Trail) -> String {
    let mut line = Vec::new();
    record::template(&mut line, &Template::parse(template).unwrap(), trail, OffsetDateTime::UNIX_EPOCH);
    String::from_utf8(line).unwrap()
}

#[test]
fn a_json_record_has_its_keys_in_order_and_none_without_a_value() {
    let expected = concat!(
        r#"{"time":"1970-01-01T00:00:00.000Z","trace_id":"000000000000000000000000000000cd","#,
        r#""span_id":"00000000000000ab","request_id":"r-1","kind":"http","direction":"outbound","#,
        r#""listener":"out","client":"127.0.0.1","caller":"app","method":"GET","authority":"orders","#,
        r#""path":"/orders/7","version":"HTTP/1.1","route":"read","cluster":"orders","#,
        r#""endpoint":"10.0.0.2:4343","peer":"spiffe://test.outrider/orders","status":200,"#,
        r#""duration_ms":4.001,"head_ms":2.500,"connected_ms":0.350,"reused":false,"#,
        r#""request_bytes":0,"response_bytes":12,"generation":3,"attempts":["#,
        r#"{"endpoint":"10.0.0.1:4343","span_id":"00000000000000ab","begun_ms":0.100,"ended_ms":3.000,"#,
        r#""failure":"connect","error":"connection refused"},"#,
        r#"{"endpoint":"10.0.0.2:4343","peer":"spiffe://test.outrider/orders","span_id":"00000000000000ab","#,
        r#""begun_ms":0.100,"connected_ms":0.350,"reused":false,"head_ms":2.000,"ended_ms":3.000,"status":200}],"#,
        r#""request_headers":{"user-agent":"curl/8 (\"x\")","authorization":"[redacted]"},"#,
        r#""response_headers":{"server":"a, b"}}"#,
        "\n",
    );
    assert_eq!(json(&trail()), expected);
}

#[test]
fn what_nobody_reached_still_has_its_record() {
    let mut trail =
        Trail::new(Traffic::Stream, Direction::Inbound, Arc::from("in"), Caller::Unverified, Instant::now());
    trail.flag = Some(ResponseFlag::DC);
    let record: Value = serde_json::from_str(&json(&trail)).unwrap();
    let keys: Vec<_> = record.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = "time kind direction listener caller flag duration_ms request_bytes response_bytes";
    assert_eq!(keys.join(" "), expected);
    assert_eq!(record["caller"], "unverified");
}

#[test]
fn a_template_has_its_places_filled_and_gives_nothing_away() {
    let common = "{client} - {caller} [{time_clf}] \"{method} {path} {version}\" {status} {response_bytes}";
    assert_eq!(
        filled(common, &trail()),
        "127.0.0.1 - app [01/Jan/1970:00:00:00 +0000] \"GET /orders/7 HTTP/1.1\" 200 12\n"
    );
    let more = "{{{flag}}} {attempts} \"{request_header.user-agent}\" {request_header.user-agent} {response_header.server}|";
    assert_eq!(filled(more, &trail()), "{-} 2 \"curl/8 (\\x22x\\x22)\" curl/8\\x20(\\x22x\\x22) a,\\x20b|\n");
    assert_eq!(filled("{query}", &trail()), "token=secret\n", "who asks for it gets it");
}

#[test]
fn a_record_keeps_its_facts_however_much_a_peer_sends() {
    let mut trail = trail();
    let long = HeaderValue::from_bytes(&[b'"'; 60_000]).unwrap();
    trail.fields = vec![(USER_AGENT, long.clone()); 30];
    trail.request_id = Some(long);
    let line = json(&trail);
    assert!(line.len() < 16 * 1024, "{}", line.len());
    let record: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&record["status"], &record["path"]), (&200.into(), &"/orders/7".into()));
    assert!(record["request_id"].as_str().unwrap().ends_with("\"…"), "{}", record["request_id"]);
}

/// Bytes as they may come, with more of those that mean something.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let meaning = prop::sample::select(b"\n\r\t\0\x1b\"\\{}:, |\x7f\x9b\xc2\xff".to_vec());
    prop::collection::vec(prop_oneof![any::<u8>(), meaning], 0..200)
}

fn value(bytes: &[u8]) -> Option<HeaderValue> {
    // What http lets pass: everything but controls; tab is none of these.
    let passing: Vec<u8> = bytes.iter().copied().filter(|b| *b == b'\t' || (*b >= 32 && *b != 127)).collect();
    HeaderValue::from_bytes(&passing).ok()
}

proptest! {
    #[test]
    fn a_record_is_one_line_and_sound_whatever_came(
        id in hostile(), field in hostile(), authority in hostile(), error in hostile(), path in hostile(),
    ) {
        let mut trail = trail();
        trail.request_id = value(&id);
        trail.fields = value(&field).map(|value| (USER_AGENT, value)).into_iter().collect();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        trail.error = Some(text(&error).into());
        let asked = trail.asked.as_mut().unwrap();
        asked.authority = text(&authority).into();
        asked.target = PathAndQuery::try_from([b"/", &*path].concat()).ok();

        let line = json(&trail);
        prop_assert_eq!(line.find(|c: char| c.is_control()), Some(line.len() - 1), "{:?}", line);
        let record: Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(&record["status"], 200);
        prop_assert_eq!(&record["attempts"][1]["status"], 200);
        prop_assert_eq!(record["authority"].as_str().unwrap_or_default(), text(&authority));

        let line = filled("<{authority}> \"{request_header.user-agent}\" {request_id} {error} {status}", &trail);
        prop_assert_eq!(line.find(|c: char| c.is_control()), Some(line.len() - 1), "{:?}", line);
        prop_assert_eq!(line.matches('"').count(), 2);
        prop_assert_eq!(line.rsplit(' ').count() - 5, line.matches('"').nth(1).map_or(0, |_| {
            line.split('"').nth(1).unwrap().matches(' ').count()
        }) , "{:?}", line);
        prop_assert!(line.ends_with(" 200\n"));
    }
}

/// Waits until the file holds so many lines.
async fn lines(path: &Path, count: usize) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        if lines.len() >= count && text.ends_with('\n') {
            return lines;
        }
        assert!(Instant::now() < deadline, "{} of {count} lines", lines.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn log(path: &Path) -> AccessLog {
    let mut log = AccessLog::new(&Clock::system(), &Arc::default());
    log.set(Some(&settings(Some(path), LogFormat::Template("{status} {attempts}".to_owned()))));
    log
}

#[tokio::test]
async fn only_what_is_wanted_is_written_and_all_of_it_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut log = log(&path);
    let on_error = Wanted { is_logged_on_error: true, ..Wanted::default() };
    let failed = || Trail { status: Some(503), ..trail() };
    log.take(&Told { wanted: Wanted::default(), ..told(failed()) });
    log.take(&Told { wanted: on_error, ..told(trail()) });
    log.take(&Told { wanted: on_error, ..told(failed()) });
    log.take(&told(trail()));
    let counts = Arc::clone(&log.counts);
    log.finish(Duration::from_secs(20)).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), "503 2\n200 2\n");
    assert_eq!(counts.written.load(Ordering::Relaxed), 2);
    log.take(&told(trail()));
    assert_eq!(counts.written.load(Ordering::Relaxed), 2, "it has ended");
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let mut log = log(&path);
    log.take(&told(trail()));
    lines(&path, 1).await;
    fs::rename(&path, &old).unwrap();
    // A reload has it looked for at once; without one, once a second.
    log.set(Some(&settings(Some(&path), LogFormat::Template("{status} again".to_owned()))));
    log.take(&told(trail()));
    assert_eq!(lines(&path, 1).await, ["200 again"]);
    assert_eq!(lines(&old, 1).await, ["200 2"]);
}

#[tokio::test]
async fn a_full_disk_costs_records_and_nothing_else() {
    let mut log = log(Path::new("/dev/full"));
    let counts = Arc::clone(&log.counts);
    for _ in 0..300_000 {
        log.take(&told(trail()));
    }
    assert!(counts.dropped.load(Ordering::Relaxed) > 0, "the buffer has a bound");
    log.finish(Duration::from_secs(20)).await;
    let dropped = counts.dropped.load(Ordering::Relaxed);
    assert_eq!((counts.written.load(Ordering::Relaxed), dropped), (0, 300_000));
}

#[tokio::test]
async fn a_place_that_comes_later_gets_what_waited_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logs/access.log");
    let mut log = log(&path);
    log.take(&told(trail()));
    fs::create_dir(path.parent().unwrap()).unwrap();
    log.take(&told(trail()));
    assert_eq!(lines(&path, 2).await, ["200 2", "200 2"]);
}

#[test]
fn a_good_template_is_told_from_a_bad_one() {
    assert_eq!(check_template("{method} {path}"), Ok(()));
    assert!(check_template("{methud}").unwrap_err().contains("`{method}`"));
}

#[test]
fn outbound_the_span_and_the_endpoint_are_those_of_the_attempt_that_was_delivered() {
    let span = |id| NonZeroU64::new(id).map(SpanId);
    let mut trail = trail();
    trail.trace.as_mut().unwrap().own = span(9);
    (trail.attempts[0].span, trail.attempts[1].span) = (span(1), span(2));
    let shown = |trail: &Trail| filled("{span_id} {endpoint}", trail);
    assert_eq!(shown(&trail), "0000000000000002 10.0.0.2:4343\n");
    trail.delivered = Some(0);
    assert_eq!(shown(&trail), "0000000000000001 10.0.0.1:4343\n");
    trail.direction = Direction::Inbound;
    assert_eq!(shown(&trail), "0000000000000009 10.0.0.1:4343\n");
    trail.direction = Direction::Outbound;
    trail.attempts.clear();
    assert!(
        shown(&trail).starts_with("0000000000000009 "),
        "of the request as a whole, where nobody was asked"
    );
}
