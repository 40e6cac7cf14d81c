//! HTTP/2 that no library would send: each way to make a server work or remember for little ends in GOAWAY.

use std::{sync::atomic::Ordering, time::Duration};

use h2::Reason;
use http::{Method, Response, StatusCode};
use outrider::model::closed::Misuse;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, tcp::OwnedReadHalf},
};

use super::{misused, others_are_served};
use crate::harness::{
    Client, HttpApp, Sidecar, TestMesh, body, ca, client, eventually,
    raw_h2::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GET_ORDERS, GOAWAY, HEADERS, PING, PREFACE, SETTINGS,
        WINDOW_UPDATE, frame, read_frame, reset,
    },
    soon,
};

/// `web` with these limits in front of `orders`.
struct Pair {
    mesh: TestMesh,
    app: HttpApp,
    orders: Sidecar,
    web: Sidecar,
}

impl Pair {
    async fn with(app: HttpApp, limits: &str) -> Self {
        let mesh = TestMesh::new();
        let orders = mesh.callee("orders", app.address(), "").await;
        let yaml = format!(
            "limits: {{{limits}}}\noutbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
             clusters: [{{name: orders, spiffe_ids: ['{}'], endpoints: [{{address: '{}'}}]}}]",
            ca::id("orders"),
            orders.address(),
        );
        let web = mesh.start("web", &yaml).await;
        Self { mesh, app, orders, web }
    }
}

/// Streams of a client, in order.
fn streams() -> impl Iterator<Item = u32> {
    (0..).map(|number| 2 * number + 1)
}

/// What the other side said last before it closed: the reason of its GOAWAY.
async fn goaway_of(mut reader: OwnedReadHalf) -> Option<Reason> {
    let mut last = None;
    while let Some((kind, _stream, payload)) = read_frame(&mut reader).await {
        if kind == GOAWAY {
            last = Some(Reason::from(u32::from_be_bytes(payload[4..8].try_into().unwrap())));
        }
    }
    last
}

/// Sends what `frames` gives, with the preface before it, until the other side closes. How much that was, and the reason
/// of the GOAWAY.
async fn send_until_closed(web: &Sidecar, frames: impl Iterator<Item = Vec<u8>>) -> (usize, Option<Reason>) {
    let stream = TcpStream::connect(web.address()).await.unwrap();
    let (reader, mut writer) = stream.into_split();
    let said = tokio::spawn(goaway_of(reader));
    let mut sent = 0;
    soon("the other side closes", async {
        drop(writer.write_all(PREFACE).await);
        for bytes in frames {
            sent += bytes.len();
            if said.is_finished() || writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
        while !said.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    (sent, said.await.unwrap())
}

fn headers(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, block)
}

#[tokio::test]
async fn streams_opened_and_reset_at_once_end_the_connection() {
    let pair = Pair::with(HttpApp::echo().await, "").await;
    let opened = |stream| {
        let mut bytes = headers(END_HEADERS | END_STREAM, stream, GET_ORDERS);
        bytes.extend(reset(stream, Reason::CANCEL));
        bytes
    };
    let (_, reason) = send_until_closed(&pair.web, streams().map(opened).take(1_000_000)).await;
    let ended = misused(&pair.web, "out", Misuse::Flood) + misused(&pair.web, "out", Misuse::Resets);
    assert!(ended == 1, "{reason:?}, counted {ended}");
    assert!(pair.app.count() < 5_000, "{} requests reached the app", pair.app.count());
    others_are_served(&pair.web, "after a flood of resets").await;
}

#[tokio::test]
async fn streams_reset_one_by_one_are_told_to_stop_and_then_cut() {
    let app = HttpApp::start(async |_request| std::future::pending().await).await;
    let pair = Pair::with(app, "max_resets: 10").await;
    let (mut reader, mut writer) = TcpStream::connect(pair.web.address()).await.unwrap().into_split();
    writer.write_all(PREFACE).await.unwrap();
    let is_closed = || pair.web.listener("out").active.load(Ordering::Relaxed) == 0;
    eventually("it is let in", || !is_closed()).await;
    let mut told = None;
    // Each is at the app before it is reset, so none is caught in the queue of those not yet looked at.
    for stream in streams() {
        let before = pair.app.count();
        if writer.write_all(&headers(END_HEADERS | END_STREAM, stream, GET_ORDERS)).await.is_err() {
            break;
        }
        eventually("it is at the app", || pair.app.count() > before || is_closed()).await;
        if writer.write_all(&reset(stream, Reason::CANCEL)).await.is_err() || is_closed() {
            break;
        }
        if misused(&pair.web, "out", Misuse::Resets) == 1 {
            told.get_or_insert(stream);
        }
        assert!(stream < 1001, "nothing happens");
    }
    let mut said_goaway = false;
    assert!(told.is_some(), "GOAWAY comes before the cut");
    while let Some((kind, ..)) = soon("the end", read_frame(&mut reader)).await {
        said_goaway |= kind == GOAWAY;
    }
    assert!(said_goaway);
    assert_eq!(misused(&pair.web, "out", Misuse::Resets), 1, "counted once");
}

#[tokio::test]
async fn few_resets_among_many_answers_end_nothing() {
    let pair = Pair::with(HttpApp::echo().await, "max_resets: 10").await;
    let mut client = Client::http2(pair.web.address()).await;
    for _ in 0..3 {
        for _ in 0..2 {
            let (_sender, endless) = body::channel();
            let request = client::request(Method::POST, "/", endless);
            drop(tokio::time::timeout(Duration::from_millis(20), client.send(request)).await);
        }
        for _ in 0..10 {
            assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK);
        }
    }
    assert_eq!(misused(&pair.web, "out", Misuse::Resets), 0);
}

#[tokio::test]
async fn streams_that_break_the_rules_and_are_reset_by_us_end_the_connection() {
    // CVE-2025-8671: a window beyond 2^31-1 is an error of the stream (RFC 9113 §6.9.1), and its request is under way.
    let app = HttpApp::start(async |_request| std::future::pending().await).await;
    let pair = Pair::with(app, "").await;
    let opened = |stream| {
        let mut bytes = headers(END_HEADERS | END_STREAM, stream, GET_ORDERS);
        bytes.extend(frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff]));
        bytes
    };
    let (_, reason) = send_until_closed(&pair.web, streams().map(opened).take(100_000)).await;
    assert_eq!(reason, Some(Reason::ENHANCE_YOUR_CALM));
    assert_eq!(misused(&pair.web, "out", Misuse::Flood), 1);
}

#[tokio::test]
async fn header_blocks_without_end_are_cut_off_early() {
    let pair = Pair::with(HttpApp::echo().await, "").await;
    let start = headers(END_STREAM, 1, GET_ORDERS);
    // A field without end: only more of it can tell what it is.
    let endless = [&b"\x00\x01a\x7f\x80\x80\x80\x01"[..], &vec![b'a'; 16 << 10]].concat();
    let more = [
        ("empty", frame(CONTINUATION, 0, 1, &[])),
        ("whole", frame(CONTINUATION, 0, 1, &b"\x00\x01a\x01b".repeat(3000))),
        ("a part", frame(CONTINUATION, 0, 1, &endless[..16 << 10])),
    ];
    for (number, (what, more)) in (1..).zip(more) {
        let frames = [start.clone()].into_iter().chain(std::iter::repeat_n(more, 100_000));
        let (_, reason) = send_until_closed(&pair.web, frames).await;
        assert!(reason.is_some_and(|reason| reason != Reason::NO_ERROR), "{what}: {reason:?}");
        let ended = || misused(&pair.web, "out", Misuse::Flood) + misused(&pair.web, "out", Misuse::Http2);
        eventually(&format!("{what} is counted"), || ended() == number).await;
        others_are_served(&pair.web, what).await;
    }
    assert_eq!(pair.app.seen().iter().filter(|seen| seen.uri.path() != "/good").count(), 0);
}

#[tokio::test]
async fn one_byte_that_means_many_is_counted_as_many() {
    let pair = Pair::with(HttpApp::echo().await, "").await;
    // A field of 3,000 bytes goes into the table and is then asked for again and again, one byte each (RFC 7541 §6.1).
    let mut block = GET_ORDERS.to_vec();
    block.extend(b"\x40\x01a\x7f\xb9\x16");
    block.extend(vec![b'v'; 3000]);
    block.extend(vec![0xbe; 8000]);
    let (_, reason) =
        send_until_closed(&pair.web, [headers(END_HEADERS | END_STREAM, 1, &block)].into_iter()).await;
    assert_eq!(reason, Some(Reason::ENHANCE_YOUR_CALM));
    assert_eq!((pair.app.count(), misused(&pair.web, "out", Misuse::Flood)), (0, 1));
}

#[tokio::test]
async fn a_header_block_over_the_limit_is_answered_by_us_with_its_reason() {
    let pair = Pair::with(HttpApp::echo().await, "header_bytes: 8KiB, header_count: 20").await;
    let mut client = Client::http2(pair.web.address()).await;
    let cases = [("large", 3, 4000, 431), ("many", 21, 1, 431), ("crumbs", 19, 1, 200)];
    for (what, count, size, status) in cases {
        let mut request = client::request(Method::GET, "/", body::empty());
        let name = if what == "crumbs" { "cookie" } else { "x-large" };
        for _ in 0..count {
            request.headers_mut().append(name, "a".repeat(size).parse().unwrap());
        }
        let response = soon(what, client.send(request)).await.unwrap();
        assert_eq!(response.status(), status, "{what}");
        let reason = (status == 431).then_some("headers_too_large");
        assert_eq!(client::field(&response, "x-outrider-reason"), reason, "{what}");
    }
    assert_eq!(pair.app.count(), 1);
}

#[tokio::test]
async fn an_answers_header_block_over_the_limit_is_answered_for_with_its_reason() {
    for app_protocol in ["http1", "http2"] {
        let app = HttpApp::start(async |request: http::Request<_>| {
            let mut response = Response::new(body::full("x"));
            let (count, size) = match request.uri().path() {
                "/large" => (3, 4000),
                "/many" => (21, 1),
                _ => (1, 1),
            };
            for _ in 0..count {
                response.headers_mut().append("x-large", "a".repeat(size).parse()?);
            }
            Ok(response)
        })
        .await;
        let mesh = TestMesh::new();
        let yaml = format!(
            "limits: {{header_bytes: 8KiB, header_count: 20}}\n\
             inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}', app_protocol: {app_protocol}}}]",
            app.address(),
        );
        let orders = mesh.start("orders", &yaml).await;
        let web = mesh.caller(&[orders.address()], "").await;
        let mut client = Client::http2(web.address()).await;
        for path in ["/large", "/many"] {
            let request = client::request(Method::POST, path, body::full("x"));
            let response = soon(path, client.send(request)).await.unwrap();
            assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "{app_protocol} {path}");
            let reason = client::field(&response, "x-outrider-reason");
            assert_eq!(reason, Some("response_headers_too_large"), "{app_protocol} {path}");
        }
        assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn data_frames_that_carry_nothing_end_the_connection() {
    for size in [0, 1] {
        let app = HttpApp::start(async |_request| std::future::pending().await).await;
        let pair = Pair::with(app, "").await;
        let post = [&GET_ORDERS[1..], b"\x83"].concat();
        let first = headers(END_HEADERS, 1, &post);
        let crumb = frame(DATA, 0, 1, &vec![b'x'; size]);
        let frames = [first].into_iter().chain(std::iter::repeat_n(crumb, 3_000_000));
        let (sent, reason) = send_until_closed(&pair.web, frames).await;
        assert!(matches!(reason, Some(Reason::ENHANCE_YOUR_CALM | Reason::FLOW_CONTROL_ERROR)), "{reason:?}");
        assert!(sent < 20 << 20, "{sent} bytes of them were taken");
        let ended = || misused(&pair.web, "out", Misuse::Flood) + misused(&pair.web, "out", Misuse::Http2);
        eventually("it is counted", || ended() == 1).await;
    }
}

#[tokio::test]
async fn who_asks_and_does_not_read_the_answers_is_not_read_any_more() {
    const MOST: usize = 64 << 20;
    for (what, question) in
        [("PING", frame(PING, 0, 0, &[7; 8])), ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 1, 0]))]
    {
        let pair = Pair::with(HttpApp::echo().await, "").await;
        let mut stream = TcpStream::connect(pair.web.address()).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        let (mut sent, batch) = (0, question.repeat(1000));
        // What is taken at last is what the kernel's buffers hold in both directions.
        while let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&batch)).await {
            sent += batch.len();
            assert!(sent < MOST, "{what}: {sent} bytes of questions were taken");
            others_are_served(&pair.web, what).await;
        }
    }
}

#[tokio::test]
async fn frames_that_are_no_frames_end_their_own_connection() {
    let cases: [(&str, Vec<u8>); 10] = [
        ("a frame that is too long", frame(DATA, 0, 1, &vec![0; 20_000])),
        ("data of an idle stream", frame(DATA, 0, 5, b"x")),
        ("headers of stream 0", headers(END_HEADERS, 0, GET_ORDERS)),
        ("headers of an even stream", headers(END_HEADERS, 2, GET_ORDERS)),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, GET_ORDERS)),
        ("an unknown pseudo field", headers(END_HEADERS, 1, b"\x82\x86\x84\x01\x06orders\x00\x02:x\x01y")),
        ("an upper-case name", headers(END_HEADERS, 1, b"\x82\x86\x84\x01\x06orders\x00\x01X\x01y")),
        ("a window that grows by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("HPACK that is none", headers(END_HEADERS | END_STREAM, 1, &[0xff; 40])),
        ("a window that overflows", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
    ];
    let pair = Pair::with(HttpApp::echo().await, "").await;
    for (number, (what, bytes)) in (1..).zip(cases) {
        let (_, reason) = send_until_closed(&pair.web, [bytes].into_iter()).await;
        assert!(reason.is_some_and(|reason| reason != Reason::NO_ERROR), "{what}: {reason:?}");
        eventually(what, || misused(&pair.web, "out", Misuse::Http2) == number).await;
        others_are_served(&pair.web, what).await;
    }
    assert_eq!(pair.orders.listener("in").accepted.load(Ordering::Relaxed), 1, "the mesh noticed nothing");
    drop(pair.mesh);
}

#[tokio::test]
async fn heads_that_are_none_are_reset_and_the_connection_lives() {
    // RFC 9113 §8.1.1: a malformed message is an error of its stream.
    let cases: [(&str, &[u8]); 6] = [
        ("no path", b"\x82\x86\x01\x06orders"),
        ("no method", b"\x86\x84\x01\x06orders"),
        ("two methods", b"\x82\x83\x86\x84\x01\x06orders"),
        ("a pseudo field after others", b"\x82\x86\x84\x00\x01x\x01y\x01\x06orders"),
        ("connection", b"\x82\x86\x84\x01\x06orders\x00\x0aconnection\x05close"),
        ("transfer-encoding", b"\x82\x86\x84\x01\x06orders\x00\x11transfer-encoding\x07chunked"),
    ];
    let pair = Pair::with(HttpApp::echo().await, "").await;
    let mut stream = TcpStream::connect(pair.web.address()).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    for ((what, block), id) in cases.into_iter().zip(streams()) {
        stream.write_all(&headers(END_HEADERS | END_STREAM, id, block)).await.unwrap();
        loop {
            let (kind, of, payload) = soon(what, read_frame(&mut stream)).await.unwrap();
            assert!(kind != GOAWAY, "{what}: {payload:?}");
            // Reset, or answered with 400 (its first byte is `:status 400` of the static table).
            if of == id && (kind == 3 || kind == HEADERS) {
                assert!(kind == 3 || payload[0] == 0x8c, "{what}: {payload:?}");
                break;
            }
        }
    }
    stream.write_all(&headers(END_HEADERS | END_STREAM, 101, GET_ORDERS)).await.unwrap();
    let mut answer = None;
    while answer.is_none() {
        let (kind, of, payload) = soon("the good one is answered", read_frame(&mut stream)).await.unwrap();
        answer = (kind == HEADERS && of == 101).then_some(payload[0]);
    }
    assert_eq!(answer, Some(0x88), "`:status 200`");
    assert_eq!(pair.app.count(), 1);
}
