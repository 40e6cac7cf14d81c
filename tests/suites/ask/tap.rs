//! Live requests: those that match, escaped, bounded, and at nobody's cost.

use std::io::Write as _;

use http::StatusCode;
use hyper::Method;
use outrider::admin::Lines;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Asked, PLAIN, orders};
use crate::{
    harness::{Client, TestMesh, client::call, soon},
    processes::until,
};

/// The next line of a tap.
async fn next(lines: &mut Lines) -> Option<Value> {
    let line = soon("a line", lines.next()).await.unwrap()?;
    Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
}

async fn open(web: &Asked, query: &str) -> Lines {
    let lines = Lines::open(&web.socket, &format!("/tap?{query}")).await.unwrap();
    assert_eq!(lines.status(), 200);
    lines
}

#[tokio::test]
async fn a_tap_shows_requests_that_match_and_no_others() {
    let mesh = TestMesh::new();
    let (sidecar, _app) = orders(&mesh).await;
    let web = Asked::web(&mesh, &[sidecar.address()], PLAIN).await;
    let mut items = open(&web, "path=/items&method=GET&cluster=orders&source=app&status=2xx").await;
    let mut failed = open(&web, "failed=true").await;
    let mut client = Client::http1(web.address).await;
    for path in ["/other", "/items/1?card=secret", "/stock", "/items/2"] {
        client.get(path).await.unwrap();
    }
    client.post("/items/3", "x").await.unwrap();
    for path in ["/items/1", "/items/2"] {
        let line = next(&mut items).await.unwrap();
        assert_eq!(line["path"], path, "{line}");
        assert_eq!((&line["status"], &line["cluster"]), (&200.into(), &"orders".into()));
        assert!(!line.to_string().contains("secret"), "{line}");
        assert!(line["peer"].as_str().unwrap().starts_with("spiffe://"), "{line}");
    }
    let mut lost = Client::http1(web.address).await;
    let unknown =
        http::Request::get("/x").header("host", "nobody").body(crate::harness::body::empty()).unwrap();
    assert_eq!(lost.send(unknown).await.unwrap().status(), StatusCode::NOT_FOUND);
    let line = next(&mut failed).await.unwrap();
    assert_eq!((&line["flag"], &line["reason"]), (&"NR".into(), &"no_route".into()), "{line}");
}

#[tokio::test]
async fn a_tap_ends_after_its_limit_and_tells_what_it_left_out() {
    let mesh = TestMesh::new();
    let web = Asked::web(&mesh, &[], PLAIN).await;
    let mut lines = open(&web, "limit=2").await;
    let mut slow = open(&web, "per_second=1&seconds=4").await;
    for _ in 0..5 {
        call(web.address, Method::GET).await;
    }
    assert!(next(&mut lines).await.unwrap()["flag"] == "UH" && next(&mut lines).await.is_some());
    assert_eq!(next(&mut lines).await.unwrap()["end"]["because"], "limit");
    assert_eq!(next(&mut lines).await, None);
    let mut shown = 0;
    let end = loop {
        let line = next(&mut slow).await.unwrap();
        match line.get("end") {
            Some(end) => break end.clone(),
            None => shown += 1,
        }
    };
    assert_eq!(end["because"], "time");
    let left_out = end["left_out"]["over_per_second"].as_u64().unwrap();
    assert!(shown >= 1 && left_out >= 1 && shown + left_out == 5, "{shown} {end}");
}

#[tokio::test]
async fn what_a_peer_writes_cannot_act_on_a_terminal() {
    let mesh = TestMesh::new();
    let web = Asked::web(&mesh, &[], PLAIN).await;
    let mut command = web.command(&["tap", "--limit", "1"]).spawn().unwrap();
    // Bytes that HTTP lets pass in a path and in a field's value.
    let hostile =
        b"GET /a\xc2\x9b31mb HTTP/1.1\r\nhost: orders\r\nx-request-id: i\xc2\x9b2Jd\r\nconnection: close\r\n\r\n";
    // It ends with the first request that it sees, which is one of these as soon as it watches.
    let status = soon("the tap ends", async {
        loop {
            let mut stream = tokio::net::TcpStream::connect(web.address).await.unwrap();
            stream.write_all(hostile).await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
            if let Some(status) = command.try_wait().unwrap() {
                break status;
            }
        }
    })
    .await;
    assert!(status.success());
    let mut text = Vec::new();
    command.stdout.take().unwrap().read_to_end(&mut text).await.unwrap();
    assert!(text.iter().all(|byte| *byte == b'\n' || (b' '..=b'~').contains(byte)), "{text:?}");
    let text = String::from_utf8_lossy(&text);
    assert!(text.lines().count() == 1 && text.contains("31mb"), "{text}");
}

/// Taps that may still begin.
async fn open_slots(web: &Asked) -> usize {
    let mut opened = Vec::new();
    loop {
        let lines = Lines::open(&web.socket, "/tap").await.unwrap();
        if lines.status() != 200 {
            return opened.len();
        }
        opened.push(lines);
    }
}

#[tokio::test]
async fn taps_are_few_and_keep_no_operator_out() {
    let mesh = TestMesh::new();
    let web = Asked::web(&mesh, &[], PLAIN).await;
    let mut taps = Vec::new();
    for _ in 0..4 {
        taps.push(open(&web, "").await);
    }
    let said = web.says(&["tap"]).await;
    assert!(!said.is_good && said.err.contains("watch already"), "{}", said.err);
    for _ in 0..8 {
        assert_eq!(web.get("/status").await.0, 200);
    }
    drop(taps);
    until("there is room again", async || open_slots(&web).await == 4).await;
}

#[tokio::test]
async fn a_reader_who_stops_reading_costs_requests_nothing() {
    let mesh = TestMesh::new();
    let (sidecar, _app) = orders(&mesh).await;
    let web = Asked::web(&mesh, &[sidecar.address()], PLAIN).await;
    // A bare socket that asks and never reads.
    let mut deaf = std::os::unix::net::UnixStream::connect(&web.socket).unwrap();
    deaf.write_all(b"GET /tap?per_second=1000 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    // It watches once it has its answer's first line.
    let watching = tokio::task::spawn_blocking(move || {
        std::io::Read::read_exact(&mut deaf, &mut [0; b"HTTP/1.1 200".len()]).map(|()| deaf)
    });
    let deaf = soon("it watches", watching).await.unwrap().unwrap();
    let mut client = Client::http1(web.address).await;
    for number in 0..2000 {
        let path = format!("/{number}/{}", "x".repeat(400));
        assert_eq!(soon("an answer", client.get(&path)).await.unwrap().status(), StatusCode::OK);
    }
    let mut lines = open(&web, "limit=1&path=/after").await;
    client.get("/after").await.unwrap();
    assert_eq!(next(&mut lines).await.unwrap()["path"], "/after", "others are told as before");
    drop(deaf);
}

#[tokio::test]
async fn a_wish_that_makes_no_sense_is_refused_in_words() {
    let mesh = TestMesh::new();
    let web = Asked::web(&mesh, &[], PLAIN).await;
    for (query, word) in [
        ("status=9xx", "no status"),
        ("flag=XX", "UH"),
        ("direction=up", "inbound"),
        ("per_second=0", "1000"),
        ("min_duration=long", "min_duration"),
        ("seconds=4000", "3600"),
        ("limit=0", "limit"),
    ] {
        let (status, body) = web.get(&format!("/tap?{query}")).await;
        let problem = body["error"].as_str().unwrap_or_default();
        assert!(status == 400 && problem.contains(word), "{query}: {status} {body}");
    }
}
